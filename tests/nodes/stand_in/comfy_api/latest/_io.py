"""Stand-in for the V3 schema: the types, inputs and outputs that this pack uses.

The constructors take the arguments of ComfyUI 0.3.64 and no others, so that a node that uses a later
one fails here as it would there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar


class NumberDisplay(str, Enum):
    """How a number's widget looks."""

    number = "number"
    slider = "slider"


class _Port:
    io_type: ClassVar[str] = ""


class Input(_Port):
    """An input: a socket, and for plain values a widget."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = extra_dict or {}

    def options_dict(self) -> dict[str, Any]:
        """What the server tells the front end beside the type."""
        values = {"display_name": self.display_name, "tooltip": self.tooltip, "lazy": self.lazy}
        return {name: value for name, value in values.items() if value is not None} | self.extra_dict


class Output(_Port):
    """An output."""

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.tooltip = tooltip
        self.is_output_list = is_output_list


class _Widget(Input):
    kinds: ClassVar[tuple[type, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    always: ClassVar[dict[str, Any]] = {}  # told to the front end even if the node does not say it

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        force_input: bool | None = None,
        **extras: Any,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy)
        unknown = set(extras) - set(self.extras)
        if unknown:
            raise TypeError(f"{type(self).__name__}: unexpected arguments {sorted(unknown)}")
        self.default = default
        self.socketless = socketless
        self.force_input = force_input
        self.extra_values = extras
        for name in self.extras:
            setattr(self, name, extras.get(name))
        self._check_default()

    def _check_default(self) -> None:
        if self.default is None:
            return
        if not isinstance(self.default, self.kinds) or (isinstance(self.default, bool) and bool not in self.kinds):
            raise ValueError(f"{self.id}: default {self.default!r} is not of type {self.io_type}")
        low, high = self.extra_values.get("min"), self.extra_values.get("max")
        if (low is not None and self.default < low) or (high is not None and self.default > high):
            raise ValueError(f"{self.id}: default {self.default!r} is outside {low}..{high}")
        options = self.extra_values.get("options")
        if options is not None and self.default not in options:
            raise ValueError(f"{self.id}: default {self.default!r} is not one of {options}")

    def options_dict(self) -> dict[str, Any]:
        values = {"default": self.default, "socketless": self.socketless, "forceInput": self.force_input}
        renamed = {"display_mode": "display", "dynamic_prompts": "dynamicPrompts"}
        extras = self.always | self.extra_values
        values |= {renamed.get(name, name): value for name, value in extras.items()}
        if isinstance(values.get("display"), Enum):
            values["display"] = values["display"].value
        return super().options_dict() | {name: value for name, value in values.items() if value is not None}


def _type(name: str, kinds: tuple[type, ...] = (), extras: tuple[str, ...] = (), **always: Any) -> type[Any]:
    if kinds:
        members = {"io_type": name, "kinds": kinds, "extras": extras, "always": always}
        input_class = type("Input", (_Widget,), members)
    else:
        input_class = type("Input", (Input,), {"io_type": name})
    output_class = type("Output", (Output,), {"io_type": name})
    return type(name.title(), (), {"io_type": name, "Input": input_class, "Output": output_class})


def Custom(io_type: str) -> type[Any]:
    """A type of the pack's own."""
    return _type(io_type)


Boolean = _type("BOOLEAN", (bool,), ("label_on", "label_off"))
Int = _type("INT", (int,), ("min", "max", "step", "control_after_generate", "display_mode"))
Float = _type("FLOAT", (float, int), ("min", "max", "step", "round", "display_mode"))
String = _type("STRING", (str,), ("multiline", "placeholder", "dynamic_prompts"), multiline=False)
Combo = _type(
    "COMBO",
    (str, int),
    ("options", "control_after_generate", "upload", "image_folder", "remote"),
    multiselect=False,
)
Image = _type("IMAGE")
Mask = _type("MASK")
UpscaleModel = _type("UPSCALE_MODEL")
AnyType = _type("*")


@dataclass
class Schema:
    """What a node is: its id, names, inputs and outputs."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def validate(self) -> None:
        """Check that every id is unique, among inputs and outputs together."""
        ids = [port.id for port in (*self.inputs, *self.outputs)]
        doubled = sorted({str(id_) for id_ in ids if ids.count(id_) > 1})
        if doubled:
            raise ValueError(f"Ids must be unique, but {doubled} are not.")

    def finalize(self) -> None:
        """Give outputs without id one."""
        for index, output in enumerate(self.outputs):
            if output.id is None:
                output.id = f"_{index}_{output.io_type}_"


class NodeOutput:
    """What a node returns: its outputs in order, and what it shows."""

    def __init__(
        self,
        *args: Any,
        ui: Any = None,
        expand: dict[str, Any] | None = None,
        block_execution: str | None = None,
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = expand
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The outputs."""
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class ComfyNode:
    """Base of every V3 node."""

    hidden: Any = None
    RELATIVE_PYTHON_MODULE = "custom_nodes.stand_in"

    @classmethod
    def define_schema(cls) -> Schema:
        """The node's schema."""
        raise NotImplementedError

    @classmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        """Run the node."""
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The schema, finished and checked."""
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node as the server's /object_info describes it."""
        schema = cls.GET_SCHEMA()
        inputs: dict[str, dict[str, Any]] = {"required": {}}
        for port in schema.inputs:
            group = inputs.setdefault("optional" if port.optional else "required", {})
            group[port.id] = (port.io_type, port.options_dict())
        if schema.is_output_node:
            inputs["hidden"] = {"prompt": ("PROMPT",), "extra_pnginfo": ("EXTRA_PNGINFO",)}
        return {
            "input": inputs,
            "input_order": {group: list(ports) for group, ports in inputs.items()},
            "output": [port.io_type for port in schema.outputs],
            "output_is_list": [port.is_output_list for port in schema.outputs],
            "output_name": [port.display_name or port.io_type for port in schema.outputs],
            "output_tooltips": [port.tooltip for port in schema.outputs],
            "name": schema.node_id,
            "display_name": schema.display_name,
            "description": schema.description,
            "python_module": cls.RELATIVE_PYTHON_MODULE,
            "category": schema.category,
            "output_node": schema.is_output_node,
            "deprecated": schema.is_deprecated,
            "experimental": schema.is_experimental,
            "api_node": schema.is_api_node,
        }
