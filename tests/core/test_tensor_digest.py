from __future__ import annotations

from pathlib import Path

import torch

from progressive_upsampling.core import checkpoint as ck


def test_the_digest_is_of_the_tensors_alone(tmp_path: Path) -> None:
    tensors, names = {"w": torch.rand(3, 2), "v": torch.rand(4)}, ("a", "b", "c", "d")
    paths = [tmp_path / f"{name}.safetensors" for name in names]
    changed = {"w": tensors["w"].clone(), "v": tensors["v"]}
    changed["w"][2, 1] += 1e-6
    for path, held, told in zip(paths, (tensors, tensors, changed, {"x": tensors["w"]}), "pqrs", strict=True):
        ck.write_checkpoint(path, held, kind="thing", config={}, provenance={"told": told})
    digests = [ck.tensor_digest(path) for path in paths]
    assert digests[0] == digests[1] == ck.read_metadata(paths[0])["sha256"] and len(set(digests)) == 3


def test_equal_bytes_of_another_shape_or_dtype_have_another_digest(tmp_path: Path) -> None:
    shaped = [torch.zeros(size) for size in ((2, 3), (3, 2), (6,))]
    typed = [torch.zeros(12, dtype=torch.float16), torch.zeros(6, dtype=torch.int32)]
    digests = set()
    for i, tensor in enumerate([*shaped, *typed]):
        path = ck.write_checkpoint(tmp_path / f"{i}.safetensors", {"w": tensor}, kind="thing", config={}, provenance={})
        digests.add(ck.tensor_digest(path))
    assert len(digests) == 5
