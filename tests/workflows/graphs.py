"""Reading workflows: what the nodes are, and the way from the UI format to the API format."""

from __future__ import annotations

from typing import Any

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
CONTROLS = ("fixed", "increment", "decrement", "randomize")
NOTES = ("MarkdownNote", "Note")  # live in the front end alone
OFF = (2, 4)  # modes of nodes that do not run: muted, bypassed
SIDE = {"default": 512, "min": 1, "max": 16384}
PLACE = {"default": 0, "min": 0, "max": 16384}

Info = dict[str, Any]
Flow = dict[str, Any]


def _info(outputs: list[str], **inputs: Any) -> Info:
    """A node as a server tells it; one without outputs is there for what it shows or saves."""
    return {"input": {"required": inputs}, "output": outputs, "output_node": not outputs}


_LEVEL = ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}]
_WAYS = [["multiply", "add", "subtract", "and", "or", "xor"], {}]
_WIDE, _AT = ["INT", SIDE], ["INT", PLACE]

# ComfyUI 0.3.64's own nodes that the workflows use; tests/integration compares this with a real server.
CORE_NODES: dict[str, Info] = {
    "LoadImage": _info(["IMAGE", "MASK"], image=[["example.png"], {"image_upload": True}]),
    "PreviewImage": _info([], images=["IMAGE"]),
    "SaveImage": _info([], images=["IMAGE"], filename_prefix=["STRING", {"default": "ComfyUI"}]),
    "MaskPreview": _info([], mask=["MASK"]),
    "ImageBatch": _info(["IMAGE"], image1=["IMAGE"], image2=["IMAGE"]),
    "ImageCrop": _info(["IMAGE"], image=["IMAGE"], width=_WIDE, height=_WIDE, x=_AT, y=_AT),
    "SolidMask": _info(["MASK"], value=_LEVEL, width=_WIDE, height=_WIDE),
    "FeatherMask": _info(["MASK"], mask=["MASK"], left=_AT, top=_AT, right=_AT, bottom=_AT),
    "MaskComposite": _info(["MASK"], destination=["MASK"], source=["MASK"], x=_AT, y=_AT, operation=_WAYS),
    "UpscaleModelLoader": _info(["UPSCALE_MODEL"], model_name=[[], {}]),  # files that a fresh server does not have
}


def node_infos() -> dict[str, Info]:
    """What every node that a workflow may hold looks like, by its type."""
    from progressive_upsampling.nodes import NODES

    return CORE_NODES | {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in NODES}


def ports(info: Info) -> dict[str, tuple[Any, dict[str, Any]]]:
    """(type, options) of every input, required ones first, as the front end orders them."""
    both = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in both.items()}


def is_widget(kind: Any) -> bool:
    """Whether an input of a type has a widget."""
    return isinstance(kind, list) or kind in WIDGETS


def widget_names(info: Info) -> list[str | None]:
    """What each of a node's widget values is for; None for those that only the front end uses."""
    names: list[str | None] = []
    for name, (kind, options) in ports(info).items():
        if is_widget(kind):
            names.append(name)
            # The front end adds a widget of its own beside a seed and beside an upload.
            if options.get("control_after_generate") or options.get("image_upload"):
                names.append(None)
    return names


def runs(node: dict[str, Any]) -> bool:
    """Whether the server gets to see a node."""
    return node["type"] not in NOTES and node["mode"] not in OFF


def switched_on(flow: Flow) -> Flow:
    """The workflow with every node switched on."""
    return flow | {"nodes": [node | {"mode": 0} for node in flow["nodes"]]}


def to_api(flow: Flow, infos: dict[str, Info]) -> dict[str, Any]:
    """The API format of a UI-format workflow, whose nodes that are off have no inputs to pass on."""
    running = {node["id"] for node in flow["nodes"] if runs(node)}
    sources = {link[0]: [str(link[1]), link[2]] for link in flow["links"] if link[1] in running}
    prompt = {}
    for node in flow["nodes"]:
        if node["id"] not in running:
            continue
        info = infos[node["type"]]
        values = zip(widget_names(info), node.get("widgets_values", []), strict=True)
        inputs = {name: value for name, value in values if name}
        inputs |= {port["name"]: sources[port["link"]] for port in node["inputs"] if port["link"] in sources}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def bypassed(prompt: dict[str, Any], off: list[str], infos: dict[str, Info]) -> dict[str, Any]:
    """A prompt as the front end queues it with some nodes bypassed.

    What is linked to an output of theirs gets what is linked to the input at the same place, if it has the same type,
    or else to the first of that type; nothing where that is free.
    """

    def source(link: list[Any]) -> list[Any] | None:
        id_, slot = link
        if id_ not in off:
            return link
        info = infos[prompt[id_]["class_type"]]
        sockets = [(name, kind) for name, (kind, _) in ports(info).items() if not is_widget(kind)]
        kind = info["output"][slot]
        fitting = [name for place, (name, of) in enumerate(sockets) if of == kind and place == slot]
        fitting += [name for name, of in sockets if of == kind]
        passed = prompt[id_]["inputs"].get(fitting[0]) if fitting else None
        return None if passed is None else source(passed)

    left = {}
    for id_, node in prompt.items():
        if id_ not in off:
            inputs = {name: source(v) if isinstance(v, list) else v for name, v in node["inputs"].items()}
            left[id_] = node | {"inputs": {name: value for name, value in inputs.items() if value is not None}}
    return left


def problems_of_value(name: str, value: Any, kind: Any, options: dict[str, Any]) -> list[str]:
    """What is wrong with a widget's value; model files are looked up when the graph runs."""
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices is not None:
        free = name == "model_name" and not choices
        return [] if free or value in choices else [f"{name}: {value!r} is none of {choices}"]
    types = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "BOOLEAN"):
        return [f"{name}: {value!r} is no {kind}"]
    low, high = options.get("min"), options.get("max")
    if (low is not None and value < low) or (high is not None and value > high):
        return [f"{name}: {value!r} is outside {low}..{high}"]
    return []
