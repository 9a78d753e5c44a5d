"""Files of tensors: safetensors is read, pickles are refused, and writing never leaves half a file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import whole_file

SUFFIX = ".safetensors"

_PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".pickle")
# a zip, as torch writes since 1.6, and a bare pickle of protocol 2 and up
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class CheckpointError(ValueError):
    """A checkpoint file cannot be found, read, understood, written, or fitted to its network."""


def read_stored(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file as it is.

    Args:
        path: the file.
        tensors: False reads the metadata alone.

    Returns:
        CPU tensors by name in the dtype they are stored in, and the metadata.

    Raises:
        CheckpointError: missing, a folder, empty, truncated, damaged, or no safetensors; a pickle is refused
            with the way to convert it.
    """
    start = _start(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # copies, so that the mapped file can be replaced or deleted while the tensors live
            names = file.keys() if tensors else ()
            stored = {name: file.get_tensor(name).clone() for name in names}
            return stored, dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        # only now: the length with which a safetensors file starts can look like a pickle
        if start.startswith(_PICKLE_STARTS):
            raise CheckpointError(_how_to_convert(path)) from None
        raise CheckpointError(f"{path}: damaged, truncated or no safetensors file ({error})") from None


def _start(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a {SUFFIX} file, got a folder")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(_how_to_convert(path))
    if not start:
        raise CheckpointError(f"{path}: the file is empty")
    return start


def _how_to_convert(path: Path) -> str:
    code = (
        "import torch, safetensors.torch as st; "
        f"s = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
        "s = s.get('params_ema', s.get('params', s.get('state_dict', s))); "
        "st.save_file({k: v.contiguous().clone() for k, v in s.items() if torch.is_tensor(v)}, "
        f"{str(path.with_suffix(SUFFIX))!r})"
    )
    return (
        f"{path}: a pickle file can run code and is not opened; convert it, "
        f'if you trust its source, with: python -c "{code}"'
    )


def write_whole(path: Path, data: bytes) -> None:
    """`whole_file.write_whole` for files of models and their training.

    Raises:
        CheckpointError: the system refuses; the old file, or none, is left, and nothing else.
    """
    try:
        whole_file.write_whole(path, data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
