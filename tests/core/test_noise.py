from __future__ import annotations

import math

import pytest
import torch

from progressive_upsampling.core.noise import (
    KINDS,
    MAX_SEED,
    LearnableStrength,
    _mix,
    draw,
    generator,
    inject_noise,
    softplus_inverse,
)

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_mean_0_and_variance_1(kind: str) -> None:
    noise = draw((1, 3, 600, 600), seed=3, kind=kind)
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert noise.var().item() == pytest.approx(1.0, abs=0.02)


def test_correlated_noise_has_variance_1_up_to_the_corner() -> None:
    noise = draw((1, 9000, 5, 9), seed=0, kind="correlated")
    torch.testing.assert_close(noise.var(dim=1)[0], torch.ones(5, 9), atol=0.07, rtol=0)


def test_correlated_noise_has_the_correlation_of_its_blur() -> None:
    noise = draw((1, 1, 700, 700), seed=1, kind="correlated")[0, 0]
    for lag in (1, 2, 4):
        # A Gaussian of standard deviation s, correlated with itself, is one of s·√2.
        expected = math.exp(-(lag**2) / (4 * 1.5**2))
        assert (noise[:, lag:] * noise[:, :-lag]).mean().item() == pytest.approx(expected, abs=0.02)
        assert (noise[lag:] * noise[:-lag]).mean().item() == pytest.approx(expected, abs=0.02)


def test_gaussian_and_uniform_noise_are_white() -> None:
    for kind in ("gaussian", "uniform"):
        noise = draw((1, 1, 500, 500), seed=1, kind=kind)[0, 0]
        assert (noise[:, 1:] * noise[:, :-1]).mean().item() == pytest.approx(0.0, abs=0.01)


def test_the_kinds_have_the_tails_of_their_distribution() -> None:
    uniform, gaussian = (draw((1, 1, 400, 400), seed=0, kind=kind) for kind in ("uniform", "gaussian"))
    assert math.sqrt(3) - 1e-3 < uniform.abs().max() <= math.sqrt(3)
    assert (gaussian.abs() > 1.96).float().mean().item() == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_noise_of_an_image_does_not_depend_on_the_batch(kind: str, size: tuple[int, int]) -> None:
    alone = draw((1, 3, *size), seed=7, stage=2, kind=kind)
    assert torch.equal(draw((3, 3, *size), seed=7, stage=2, kind=kind), alone.expand(3, -1, -1, -1))
    mixed = draw((3, 3, *size), seed=[9, 7, 0], stage=2, kind=kind)
    assert torch.equal(mixed[1:2], alone)
    assert not torch.equal(mixed[0], mixed[2])


def test_noise_differs_between_seeds_and_stages() -> None:
    seeds = [0, 1, 2**32, 2**32 + 1, 2**63, MAX_SEED]
    drawn = [draw((1, 1, 4, 4), seed, stage) for seed in seeds for stage in (1, 2, 3)]
    # torch's CPU generator reads 32 bits of the seed only: seeds that share them must still differ.
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == len(drawn)


def test_seed_and_stage_cannot_be_traded() -> None:
    assert not torch.equal(draw((1, 1, 4, 4), seed=1, stage=2), draw((1, 1, 4, 4), seed=2, stage=1))
    assert not torch.equal(draw((1, 1, 4, 4), seed=0, stage=2), draw((1, 1, 4, 4), seed=1, stage=1))


def test_seeds_are_mixed_by_splitmix64() -> None:
    # The first outputs of the published generator at state 1234567.
    state, step = 1234567, 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [_mix(state + i * step) for i in range(3)] == expected


def test_noise_neither_reads_nor_moves_the_global_random_state() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = draw((1, 3, 8, 8), seed=5, kind="correlated")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first, draw((1, 3, 8, 8), seed=5, kind="correlated"))


def test_generator_lives_on_the_cpu() -> None:
    assert generator(0).device.type == "cpu"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_sigma_0_returns_the_same_values(channels: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, channels, *size)
    for sigma in (0, 0.0, torch.tensor(0.0), torch.zeros(2, 1, *size), torch.zeros(1, 1, *size)):
        assert torch.equal(inject_noise(image, sigma), image)


def test_injection_adds_sigma_times_the_noise_of_the_seed() -> None:
    image = torch.rand(2, 3, 33, 47, dtype=torch.float64)
    sigma = torch.rand(2, 1, 33, 47, dtype=torch.float64)
    noise = draw((2, 3, 33, 47), seed=4, stage=3, kind="uniform").double()
    noisy = inject_noise(image, sigma, seed=4, stage=3, kind="uniform")
    torch.testing.assert_close(noisy, image + sigma * noise)


def test_injected_noise_grows_with_sigma_and_is_not_clamped() -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    spread = [(inject_noise(image, sigma) - image).std().item() for sigma in (0.05, 0.1, 0.5)]
    assert spread == pytest.approx([0.05, 0.1, 0.5], rel=0.05)
    assert inject_noise(image, 0.5).min() < 0 and inject_noise(image, 0.5).max() > 1


def test_injection_does_not_change_its_input() -> None:
    image, sigma = torch.rand(1, 4, 9, 7), torch.rand(1, 1, 9, 7)
    copies = image.clone(), sigma.clone()
    result = inject_noise(image, sigma)
    assert torch.equal(image, copies[0]) and torch.equal(sigma, copies[1])
    assert result.data_ptr() != image.data_ptr()


def test_alpha_gets_no_noise_and_does_not_change_that_of_the_colour() -> None:
    image = torch.rand(2, 4, 33, 47)
    noisy = inject_noise(image, 0.1, seed=1)
    assert torch.equal(noisy[:, 3:], image[:, 3:])
    assert torch.equal(noisy[:, :3], inject_noise(image[:, :3], 0.1, seed=1))
    assert (noisy[:, :3] != image[:, :3]).float().mean() > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_injection_keeps_the_dtype(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 5, 6).to(dtype)
    assert inject_noise(image, torch.full((1, 1, 5, 6), 0.1)).dtype == dtype


def test_injection_passes_gradients_to_image_and_sigma() -> None:
    image = torch.rand(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    sigma = torch.rand(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(inject_noise, (image, sigma))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -0.1}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"sigma": torch.tensor(-1.0)}, "sigma"),
        ({"sigma": torch.zeros(1, 1, 4, 4)}, "sigma"),
        ({"sigma": -torch.ones(1, 1, 4, 5)}, "sigma"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": [1, 2]}, r"seed: expected one seed or 1 of them, got 2"),
        ({"stage": 0}, "stage"),
        ({"kind": "pink"}, "kind"),
    ],
)
def test_injection_names_the_wrong_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inject_noise(torch.rand(1, 3, 4, 5), **{"sigma": 0.1, **arguments})


def test_seeds_that_are_no_integers_are_refused() -> None:
    for seed in (1.0, True, "1", [0.5]):
        with pytest.raises((TypeError, ValueError), match="seed"):
            draw((1, 3, 4, 4), seed)


def test_shapes_that_are_no_images_are_refused() -> None:
    for shape in ((3, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="shape"):
            draw(shape, 0)


@pytest.mark.parametrize("initial", [1e-6, 0.04, 1.0, 7.5, 60.0])
def test_learnable_strength_starts_at_its_initial_value(initial: float) -> None:
    assert LearnableStrength(initial)().item() == pytest.approx(initial, rel=2e-6)


def test_learnable_strength_reaches_a_target_and_stays_positive() -> None:
    strength = LearnableStrength(1.0)
    optimizer = torch.optim.Adam(strength.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (strength() / 0.05).log().square().backward()
        optimizer.step()
        assert strength() > 0
    assert strength().item() == pytest.approx(0.05, abs=0.01)


def test_injection_trains_a_learnable_strength() -> None:
    strength = LearnableStrength(0.5)
    inject_noise(torch.rand(1, 3, 8, 8), strength()).square().mean().backward()
    assert strength.theta.grad is not None and strength.theta.grad.abs() > 0


def test_learnable_strength_refuses_0() -> None:
    with pytest.raises(ValueError, match="initial"):
        LearnableStrength(0.0)


def test_softplus_inverse_inverts_softplus() -> None:
    for value in (1e-9, 0.1, 3.0, 100.0):
        theta = torch.tensor(softplus_inverse(value), dtype=torch.float64)
        assert torch.nn.functional.softplus(theta).item() == pytest.approx(value, rel=1e-6)
