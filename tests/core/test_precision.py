from __future__ import annotations

import pytest
import torch

from progressive_upsampling.core.precision import DTYPES, autocast, resolve_dtype


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [
        (True, True, torch.bfloat16),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ],
)
def test_auto_on_a_cpu_takes_bfloat16_where_it_is_multiplied_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert resolve_dtype("auto", "cpu") is resolve_dtype(device=torch.device("cpu")) is expected


def test_auto_on_a_cpu_of_which_torch_cannot_tell_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert resolve_dtype("auto", "cpu") is torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((8, 6), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_auto_on_cuda_follows_the_capability_of_that_device(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    devices = {"cuda:1": capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: devices[str(device)])
    assert resolve_dtype("auto", "cuda:1") is expected


def test_auto_elsewhere_is_float32() -> None:
    assert resolve_dtype("auto", "mps") is torch.float32


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_named_format_is_taken(name: str) -> None:
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    assert resolve_dtype(name, "cpu") is resolve_dtype(name, "cuda") is expected
    assert resolve_dtype("fp16", "cuda") is torch.float16


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype: expected auto, fp32 or bf16 on a CPU, got 'fp16'"):
        resolve_dtype("fp16", "cpu")


@pytest.mark.parametrize("name", ["float32", "", None, torch.float32])
def test_another_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="dtype: expected one of 'auto', 'fp32', 'bf16', 'fp16', got"):
        resolve_dtype(name)
    assert name not in DTYPES


def test_autocast_makes_matrix_products_run_in_the_format() -> None:
    a = torch.rand(3, 3)
    with autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype is torch.bfloat16
    assert (a @ a).dtype is torch.float32


def test_float32_switches_an_outer_autocast_off() -> None:
    a = torch.rand(3, 3)
    with torch.autocast("cpu", torch.bfloat16), autocast("cpu", torch.float32):
        assert (a @ a).dtype is torch.float32


def test_float32_works_on_devices_without_autocast() -> None:
    with autocast("meta", torch.float32):
        assert torch.rand(2, 2, device="meta").dtype is torch.float32
