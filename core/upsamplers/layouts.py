"""State-dict layouts of the upsamplers: how each names its tensors, and what the shapes tell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import CheckpointError
from .edsr import RGB_MEAN, EDSRConfig
from .espcn import ESPCNConfig
from .fsrcnn import FSRCNNConfig

State = Mapping[str, Tensor]

# where trainers keep the weights beside other things, the averaged ones first: BasicSR, and most others
_GROUPS = ("params_ema.", "params.", "state_dict.")
# what wrappers put before every key: DataParallel, torch.compile, a trainer's own module
_PREFIXES = ("module.", "_orig_mod.", "model.")
# the paper takes 0.1 for its wide network alone, and no layout stores it
_WIDE = 256
_WIDE_RES_SCALE = 0.1


@dataclass(frozen=True)
class Layout:
    """One way to name an upsampler's tensors.

    Attributes:
        name: who writes it and what it is, for messages.
        kind: "espcn", "fsrcnn" or "edsr".
        marks: keys that together occur in this layout alone.
        to_own: gives the tensors the names that this package uses.
    """

    name: str
    kind: str
    marks: tuple[str, ...]
    to_own: Callable[[State], dict[str, Tensor]]

    def matches(self, state: State) -> bool:
        """Whether all marks are there."""
        return all(mark in state for mark in self.marks)


def unwrap(state: Mapping[str, object]) -> dict[str, Tensor]:
    """Strip what wrappers put around a state dict; of BasicSR's two sets the averaged one is taken.

    Args:
        state: tensors by key; mappings inside (`params`, `state_dict`) are flattened with dots.

    Returns:
        The tensors under bare keys, floating ones as float32.
    """
    tensors = _flat(state)
    while True:
        prefix = next((p for p in _GROUPS if any(key.startswith(p) for key in tensors)), None) or next(
            (p for p in _PREFIXES if tensors and all(key.startswith(p) for key in tensors)), None
        )
        if prefix is None:
            return tensors
        tensors = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def espcn_config(own: State) -> ESPCNConfig:
    """Read an ESPCN's shape off its tensors, named as this package does."""
    width, channels = _shape(own, "features.0.weight")[:2]
    _one_channel(channels)
    out, width2 = _shape(own, "last.weight")[:2]
    return ESPCNConfig(_root(out), width, width2)


def fsrcnn_config(own: State) -> FSRCNNConfig:
    """Read an FSRCNN's shape off its tensors; the scale is not in them (9×9 at every scale), so it is 2."""
    d, channels = _shape(own, "extract.0.weight")[:2]
    _one_channel(channels)
    s = _shape(own, "shrink.0.weight")[0]
    return FSRCNNConfig(2, d, s, _count(own, r"map\.\d+\.bias"))


def edsr_config(own: State) -> EDSRConfig:
    """Read an EDSR's shape off its tensors; res_scale, which is not in them, is the paper's for the width."""
    width, channels = _shape(own, "head.weight")[:2]
    if channels != 3:
        raise CheckpointError(f"expected an EDSR of 3 input channels (RGB), got {channels}")
    convs = _count(own, r"tail\.\d+\.weight")
    out = _shape(own, "tail.0.weight")[0]
    blocks = _count(own, r"blocks\.\d+\.conv1\.weight")
    res_scale = _WIDE_RES_SCALE if width >= _WIDE else 1.0
    if convs == 1:
        return EDSRConfig(_root(out / 3), width, blocks, res_scale, "direct")
    return EDSRConfig(3 if out == 9 * width else 2 ** (convs - 1), width, blocks, res_scale, "classic")


def _own(state: State) -> dict[str, Tensor]:
    return dict(state)


def _from_edsr_pytorch(state: State) -> dict[str, Tensor]:
    blocks_end = max((int(key.split(".")[1]) for key in state if re.match(r"body\.\d+\.", key)), default=0)
    last = 2 * _count(state, r"tail\.0\.\d+\.weight")
    own = _renamed(
        state,
        (r"head\.0\.", "head."),
        (rf"body\.{blocks_end}\.(?=weight|bias)", "blocks_end."),
        (r"body\.(\d+)\.body\.0\.", r"blocks.\1.conv1."),
        (r"body\.(\d+)\.body\.2\.", r"blocks.\1.conv2."),
        (r"tail\.0\.(\d+)\.", r"tail.\1."),
        (r"tail\.1\.", f"tail.{last}."),
    )
    return _with_range_255(own, f"tail.{last}")


def _with_range_255(own: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """Take out the stored mean shift, and fold another range than 0..255 into the outer convolutions."""
    shift = {name: own.pop(name).cpu() for name in list(own) if name.startswith(("sub_mean.", "add_mean."))}
    if not shift:
        return own
    mean = torch.tensor(RGB_MEAN, dtype=torch.float32, device="cpu")
    try:
        span = float((shift["add_mean.bias"] / mean).mean())
        fits = all(
            torch.allclose(shift[f"{name}.weight"].reshape(3, 3), mean.new_ones(3).diag(), atol=1e-3)
            and torch.allclose(shift[f"{name}.bias"], sign * span * mean, rtol=1e-3)
            for name, sign in (("sub_mean", -1), ("add_mean", 1))
        )
    except (KeyError, RuntimeError):
        span, fits = 0.0, False
    if not fits or span <= 0.0:
        raise CheckpointError(f"EDSR-PyTorch mean shift: expected the mean {RGB_MEAN} and no std")
    if abs(span - 255.0) > 0.5:
        own["head.weight"] = own["head.weight"] * (span / 255.0)
        own[f"{last}.weight"] = own[f"{last}.weight"] * (255.0 / span)
        own[f"{last}.bias"] = own[f"{last}.bias"] * (255.0 / span)
    return own


def _from_basicsr(state: State) -> dict[str, Tensor]:
    last = 2 * _count(state, r"upsample\.\d+\.weight")
    return _renamed(
        state,
        (r"conv_first\.", "head."),
        (r"body\.", "blocks."),
        (r"conv_after_body\.", "blocks_end."),
        (r"upsample\.", "tail."),
        (r"conv_last\.", f"tail.{last}."),
    )


def _from_yjn870_espcn(state: State) -> dict[str, Tensor]:
    return _renamed(state, (r"first_part\.", "features."), (r"last_part\.0\.", "last."))


def _from_lornatang_espcn(state: State) -> dict[str, Tensor]:
    return _renamed(state, (r"feature_maps\.", "features."), (r"sub_pixel\.0\.", "last."))


def _from_yjn870_fsrcnn(state: State) -> dict[str, Tensor]:
    # one Sequential of shrink (0, 1), map (2 …) and expand (the last two)
    expand = max(int(key.split(".")[1]) for key in state if re.match(r"mid_part\.\d+\.", key)) - 1

    def place(match: re.Match[str]) -> str:
        i = int(match[1])
        if i < 2:
            return f"shrink.{i}."
        return f"map.{i - 2}." if i < expand else f"expand.{i - expand}."

    return _renamed(state, (r"first_part\.", "extract."), (r"mid_part\.(\d+)\.", place), (r"last_part\.", "deconv."))


def _from_lornatang_fsrcnn(state: State) -> dict[str, Tensor]:
    return _renamed(state, (r"feature_extraction\.", "extract."))


LAYOUTS = (
    Layout("EDSR of this package", "edsr", ("head.weight", "blocks_end.weight", "tail.0.weight"), _own),
    Layout(
        "EDSR of EDSR-PyTorch",
        "edsr",
        ("head.0.weight", "tail.0.0.weight", "tail.1.weight"),
        _from_edsr_pytorch,
    ),
    Layout(
        "EDSR of BasicSR",
        "edsr",
        ("conv_first.weight", "conv_after_body.weight", "upsample.0.weight", "conv_last.weight"),
        _from_basicsr,
    ),
    Layout("ESPCN of this package", "espcn", ("features.0.weight", "last.weight"), _own),
    Layout("ESPCN of yjn870", "espcn", ("first_part.0.weight", "last_part.0.weight"), _from_yjn870_espcn),
    Layout("ESPCN of Lornatang", "espcn", ("feature_maps.0.weight", "sub_pixel.0.weight"), _from_lornatang_espcn),
    Layout("FSRCNN of this package", "fsrcnn", ("extract.0.weight", "deconv.weight"), _own),
    Layout(
        "FSRCNN of yjn870",
        "fsrcnn",
        ("first_part.0.weight", "mid_part.0.weight", "last_part.weight"),
        _from_yjn870_fsrcnn,
    ),
    Layout(
        "FSRCNN of Lornatang",
        "fsrcnn",
        ("feature_extraction.0.weight", "shrink.0.weight", "deconv.weight"),
        _from_lornatang_fsrcnn,
    ),
)


def _flat(state: Mapping[str, object], prefix: str = "") -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value.float() if value.is_floating_point() else value
        elif isinstance(value, Mapping):
            tensors.update(_flat(value, f"{prefix}{key}."))
    return tensors


def _renamed(state: State, *rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        for pattern, new in rules:
            name, hits = re.subn(rf"\A{pattern}", new, key)
            if hits:
                break
        own[name] = value
    return own


def _shape(own: State, name: str) -> tuple[int, ...]:
    shape = tuple(own[name].shape) if name in own else ()
    if len(shape) != 4:
        raise CheckpointError(f"{name}: expected a convolution's weight, got {list(shape) or 'none'}")
    return shape


def _count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in state)


def _root(value: float) -> int:
    root = round(math.sqrt(value))
    if root * root != value:
        raise CheckpointError(f"expected scale² output channels, got {value:g}")
    return root


def _one_channel(channels: int) -> None:
    if channels != 1:
        raise CheckpointError(f"expected a network of 1 input channel (Y of BT.601), got {channels}")
