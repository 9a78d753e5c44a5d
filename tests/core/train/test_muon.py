from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from progressive_upsampling.core.train.learner import BETAS, Learner
from progressive_upsampling.core.train.muon import ADAM_SHARE, MOMENTUM, Muon, matrices, orthogonal
from progressive_upsampling.core.train.setup import loss_scaler

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def muon(*parameters: nn.Parameter, matrix: bool = True, lr: float = 0.1) -> Muon:
    return Muon([{"params": list(parameters), "matrices": matrix}], lr=lr, betas=BETAS)


def polar(matrix: np.ndarray) -> np.ndarray:
    """The nearest orthogonal matrix, as the singular value decomposition gives it."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (64, 576), (2, 2)])
def test_an_orthogonal_matrix_is_near_the_nearest_one(shape):
    matrix = random(*shape)
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    kept = torch.linalg.svdvals(matrix) > matrix.norm() * 1e-2
    assert found.shape == shape and values[kept].min() > 0.6 and values.max() < 1.3
    nearest = polar(matrix.double().numpy())
    cosine = (found.double().numpy() * nearest).sum() / (found.norm().item() * np.linalg.norm(nearest))
    assert cosine > 0.97


def test_the_size_of_a_gradient_is_of_no_effect_and_none_stays_none():
    matrix = random(6, 9)
    torch.testing.assert_close(orthogonal(matrix * 1e-6), orthogonal(matrix * 1e3))
    assert not orthogonal(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (12, 2, 1, 1), (7, 5)])
def test_steps_are_those_of_the_reference(shape):
    weight = nn.Parameter(random(*shape))
    expected, momentum = weight.detach().double().numpy(), np.zeros(shape)
    optimizer = muon(weight)
    for step in range(3):
        gradient = random(*shape, seed=step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + gradient.double().numpy()
        x = (gradient.double().numpy() + 0.95 * momentum).reshape(shape[0], -1)
        rows, columns = x.shape
        x /= np.linalg.norm(x)
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        expected = expected - 0.1 * max(1, rows / columns) ** 0.5 * x.reshape(shape)
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=2e-5)


def test_what_is_no_matrix_takes_steps_of_adam():
    ours, theirs = (nn.Parameter(random(5)) for _ in range(2))
    optimizer, adam = muon(ours, matrix=False), torch.optim.Adam([theirs], lr=0.1 * ADAM_SHARE, betas=BETAS)
    for step in range(3):
        ours.grad, theirs.grad = (random(5, seed=step) for _ in range(2))
        optimizer.step()
        adam.step()
    assert torch.equal(ours, theirs) and optimizer.param_groups[0]["lr"] == 0.1


def test_a_closure_is_called_and_its_loss_returned():
    weight = nn.Parameter(random(3, 4))
    optimizer = muon(weight)

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    before = weight.square().sum().item()
    assert optimizer.step(closure) == pytest.approx(before)
    assert weight.square().sum().item() < before


def test_a_matrix_without_a_gradient_stays():
    still, moved = nn.Parameter(random(3, 4)), nn.Parameter(random(3, 4))
    optimizer, before = muon(still, moved), still.detach().clone()
    moved.grad = random(3, 4, seed=1)
    optimizer.step()
    assert torch.equal(still, before) and not torch.equal(moved, before)


def test_weights_of_layers_are_matrices_and_the_rest_is_not():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 1, 9), nn.GroupNorm(2, 4)
    )
    network.append(nn.Linear(5, 1))  # of one row
    assert [weight.shape for weight in matrices(network)] == [(4, 3, 3, 3), (4, 4, 1, 1), (4, 1, 9, 9)]


def test_a_learner_gives_each_parameter_its_own_kind_of_step():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 3))
    learner = Learner("", network, 1.0, loss_scaler(CPU, torch.float32), "muon")
    learner.begin({"0.*": 0.5, "2.bias": 0.0})
    learner.set_rate(0.1)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    before = [parameter.detach().clone() for parameter in network.parameters()]
    learner.step()
    moves = [(now - old).abs().max().item() for now, old in zip(network.parameters(), before, strict=True)]
    first, first_bias, slope, last, frozen = moves
    # Adam's first step is of the rate; that of a matrix of rank one is near rate / sqrt(rows * columns) * scale
    assert first_bias == pytest.approx(0.1 * ADAM_SHARE * 0.5, rel=1e-3)
    assert slope == pytest.approx(0.1 * ADAM_SHARE, rel=1e-3) and frozen == 0
    assert 0.6 < first / (0.05 / (4 * 27) ** 0.5) < 1.3 and 0.6 < last / (0.1 / (4 * 36) ** 0.5) < 1.3


def test_a_badly_scaled_problem_is_learned_faster_than_by_adam():
    scales = torch.logspace(0, -3, 8)
    inputs, wanted = random(200, 8) * scales @ torch.linalg.qr(random(8, 8, seed=1))[0], random(8, 8, seed=2)

    def after(method: str, rate: float) -> float:
        layer = nn.Linear(8, 8, bias=False)
        nn.init.zeros_(layer.weight)
        learner = Learner("", layer, 1e6, loss_scaler(CPU, torch.float32), method)
        for step in range(300):
            learner.set_rate(rate * (1 - step / 300))
            learner.clear()
            learner.backward((layer(inputs) - inputs @ wanted).square().mean())
            learner.step()
        return (layer.weight.T - wanted).square().mean().item()

    assert min(after("muon", rate) for rate in (0.02, 0.05)) < 0.5 * min(after("adam", rate) for rate in (0.005, 0.02))


def test_the_momentum_is_remembered():
    weight = nn.Parameter(random(3, 4))
    optimizer = muon(weight)
    for gradient in (random(3, 4, seed=1), random(3, 4, seed=2)):
        weight.grad = gradient
        optimizer.step()
    expected = MOMENTUM * random(3, 4, seed=1) + random(3, 4, seed=2)
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], expected)
