from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .controller import best_factor, judge, main


def laplace(scale: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Errors of a known scale, [1, 3, H, W]."""
    uniform = torch.rand(1, 3, *scale.shape[2:], generator=torch.Generator().manual_seed(seed)) - 0.5
    return -scale * uniform.sign() * (1 - 2 * uniform.abs()).clamp_min(1e-9).log()


@pytest.fixture
def scale() -> torch.Tensor:
    """Errors between 0.004 and 0.08, growing to the right: a map in which a block is of about one size."""
    return torch.logspace(-2.4, -1.1, 128).expand(1, 1, 96, 128).contiguous()


def test_the_true_map_is_judged_best(scale):
    error = laplace(scale)
    true, flat = (
        judge(error, scale),
        judge(error, torch.full_like(scale, error.abs().mean().item()) + 1e-6 * scale.flip(3)),
    )
    assert true.blocks > 0.95 and 0.6 < true.pixels < true.blocks
    assert flat.blocks < -0.95 and true.likelihood < flat.likelihood - 0.1


def test_the_likelihood_is_that_of_the_distribution(scale):
    # the mean of |e| / b + ln b is 1 + the mean of ln b
    assert judge(laplace(scale), scale).likelihood == pytest.approx(1 + scale.log().mean().item(), abs=0.02)


def test_a_map_in_the_wrong_unit_is_given_its_factor(scale):
    error = laplace(scale)
    factor = best_factor([error, error], [7 * scale, 7 * scale])
    assert factor == pytest.approx(1 / 7, rel=0.02)
    assert judge(error, factor * 7 * scale).likelihood <= judge(error, scale).likelihood + 1e-6


def test_the_tool_prints_both_maps(weights: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data / "Set5")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["map", "---", "controller", "gradient"]
