"""All stages at once give what one stage after the other does, and no image between them is ever whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from progressive_upsampling.core import chain as chain_module
from progressive_upsampling.core import chain_stream
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.chain_stream import Flow, Merged, Parts, StageStream, run_in_columns, stage_streams
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.preview import preview_of
from progressive_upsampling.core.upsamplers import build_upsampler

from .tiny import UPSAMPLER, largest_difference, lively, picture, randomised, stage_config, unet_config

ROUNDING = 2e-6


def plain_chain(**changes: Any) -> Chain:
    """Two stages of which every part does something, without a regression."""
    config = stage_config(**({"denoiser": DenoiserConfig(unet_config(), regression=False)} | changes))
    chain = randomised(Chain(ChainConfig((config,) * 2)).eval(), 0.04)
    for number in (1, 2):
        lively(chain.stage(number))
    return chain


@pytest.fixture(scope="module")
def chain() -> Chain:
    return plain_chain()


def doubled(image: Tensor, stages: int) -> list[tuple[int, int]]:
    return [(image.shape[2] * 2**k, image.shape[3] * 2**k) for k in range(1, stages + 1)]


def streams(chain: Chain, image: Tensor, stages: int = 2, **settings: Any) -> list[StageStream]:
    chosen = [chain.stage(number) for number in range(1, stages + 1)]
    return stage_streams(chosen, image, doubled(image, stages), **settings)


def in_turn(
    chain: Chain, image: Tensor, stages: int, dtype: str = "fp32", skip: float = 1, fusion: bool = True
) -> Tensor:
    """Stage by stage, each over the whole image."""
    for number in range(1, stages + 1):
        stage, before = chain.stage(number), image
        size = doubled(before, 1)[0]
        image = stage.skip(stage.upsample(before, size, dtype=dtype, tile=1 << 12), before, skip)
        if fusion:
            image = stage.fuse([before, image], dtype=dtype)[0]
    return image


@pytest.fixture(autouse=True)
def no_more_margin_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_stream, "GRID", 1)


@pytest.mark.parametrize("column", [8, 24, 40, 1 << 12])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (61, 3), (33, 47), (70, 30), (3, 501)])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_columns_give_what_stage_after_stage_does(
    chain: Chain, stages: int, size: tuple[int, int], column: int
) -> None:
    image = picture(*size)
    found = run_in_columns(image, streams(chain, image, stages), column=column, tile=16, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, stages)) < ROUNDING


@pytest.mark.parametrize("grid", [4, 16])
def test_columns_that_begin_on_a_grid_give_the_same(chain: Chain, grid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_stream, "GRID", grid)
    image, widths = picture(9, 160), []  # itself a multiple
    push = Merged.push

    def watched(self: Merged, rows: Tensor, last: bool) -> Parts:
        widths.append(rows.shape[3])
        return push(self, rows, last)

    monkeypatch.setattr(Merged, "push", watched)
    found = run_in_columns(image, streams(chain, image, 3), column=64, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 3)) < ROUNDING
    assert widths and not any(width % grid for width in widths)


@pytest.mark.parametrize("width", [160, 153])
def test_every_column_is_read_as_wide_as_the_others(chain: Chain, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, read = picture(9, width), {}
    stages, push = streams(chain, image, 3), Merged.push

    def watched(self: Merged, rows: Tensor, last: bool) -> Parts:
        read.setdefault((self._before.height, self), rows.shape[3])
        return push(self, rows, last)

    monkeypatch.setattr(Merged, "push", watched)
    found = run_in_columns(image, stages, column=200, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 3)) < ROUNDING
    for height in (9, 18, 36):
        widths = [wide for (of, _), wide in read.items() if of == height]
        assert len(widths) > 2
        assert len(set(widths)) == 1
    margins = 2 * stages[2].margin * (len(widths) - 1)
    assert 4 * width + margins <= sum(widths) < 4 * width + margins + 6 * len(widths)  # no margin at the borders


def test_gaps_of_the_heap_are_given_back_before_the_last_rows_of_a_column_are_merged(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(chain_stream, "SHARE", 8)
    monkeypatch.setattr(chain_stream, "give_back_free_memory", lambda: given.append(1))
    image = picture(20, 120)
    with torch.no_grad():
        parts = streams(chain, image, 1)[0].rows(20, 120, 0, 20).push(image, True)
        assert [(part.shape[2], len(given)) for part, _ in parts] == [(8, 0), (8, 0), (8, 0), (8, 0), (8, 1)]
    for column, columns in ((120, 1), (60, 2)):
        given.clear()
        run_in_columns(image, streams(chain, image, 1), column=column, dtype="fp32")
        assert len(given) == columns


@pytest.mark.parametrize("block", [2, 14, 50])
@pytest.mark.parametrize("settings", [{}, {"skip": 0.0}, {"fusion": False}])
def test_blocks_of_columns_are_merged_as_the_whole_is(
    chain: Chain, settings: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_stream, "BLOCK", block)
    image = picture(21, 60)
    found = run_in_columns(image, streams(chain, image, **settings), column=48, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 2, **settings)) < ROUNDING


@pytest.mark.parametrize("settings", [{"skip": 0.0}, {"skip": 0.5}, {"fusion": False}, {"skip": 0.0, "fusion": False}])
def test_skip_and_fusion_can_be_left_out(chain: Chain, settings: dict[str, Any]) -> None:
    image = picture(37, 41)
    found = run_in_columns(image, streams(chain, image, **settings), column=16, tile=16, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 2, **settings)) < ROUNDING
    assert largest_difference(found, in_turn(chain, image, 2)) > 1e-4


@pytest.mark.parametrize("upsampler", [{"blocks": 0}, {"blocks": 5}, {"tail": "classic"}])
def test_margins_are_those_of_the_upsampler(upsampler: dict[str, Any]) -> None:
    chain, image = plain_chain(upsampler=UPSAMPLER | upsampler), picture(30, 90)
    found = run_in_columns(image, streams(chain, image), column=16, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 2)) < ROUNDING


def test_a_margin_is_no_wider_than_twice_what_is_needed(chain: Chain) -> None:
    image, far = picture(8, 160), picture(8, 160)
    stage = streams(chain, image, 1)[0]
    far[..., 80:] = 0
    change = (in_turn(chain, image, 1) - in_turn(chain, far, 1)).abs().amax((0, 1, 2)) > 0
    reached = (160 - int(change.nonzero()[0])) / 2  # pixels before the stage, from the first one that changed
    assert reached <= stage.margin <= 2 * reached


def test_bfloat16_is_that_of_stage_after_stage(chain: Chain) -> None:
    image = picture(40, 50)
    found = run_in_columns(image, streams(chain, image), column=16, dtype="bf16")
    assert largest_difference(found, in_turn(chain, image, 2, "bf16")) < 1e-2
    assert found.dtype is torch.float32


@pytest.mark.parametrize("settings", [{}, {"skip": 0.0, "fusion": False}])
def test_no_stage_gives_more_than_its_share_at_a_time_not_even_the_last_rows(
    chain: Chain, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, list[int]] = {}
    rows_of = StageStream.rows

    def watched(self: StageStream, height: int, *arguments: int) -> Flow:
        flow, counts = rows_of(self, height, *arguments), given.setdefault(height, [])
        push = flow.push

        def counted(rows: Tensor, last: bool) -> Parts:
            for found, end in push(rows, last):
                counts.append(found.shape[2])
                yield found, end

        monkeypatch.setattr(flow, "push", counted)
        return flow

    monkeypatch.setattr(StageStream, "rows", watched)
    monkeypatch.setattr(chain_stream, "SHARE", 8)
    image = picture(61, 16)
    found = run_in_columns(image, streams(chain, image, 3, **settings), tile=8, dtype="fp32")
    assert largest_difference(found, in_turn(chain, image, 3, **settings)) < ROUNDING
    held_back = 2 * chain.stage(1).upsampler.halo
    for height in (61, 122, 244):
        assert sum(given[height]) == 2 * height
        assert max(given[height]) <= (8 if not settings else 2 * 8 + held_back)


def test_every_image_of_a_batch_is_run(chain: Chain) -> None:
    images = picture(20, 24, batch=3)
    found = run_in_columns(images, streams(chain, images), column=16, dtype="fp32")
    assert largest_difference(found, in_turn(chain, images, 2)) < ROUNDING


@pytest.fixture
def no_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "GROUP_PIXELS", 1)
    monkeypatch.setattr(chain_stream, "COLUMN", 16)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, no_small_images: None) -> None:
    def stage_alone(*_: object) -> Tensor:
        raise AssertionError("a stage was run by itself")

    monkeypatch.setattr(Chain, "_run_stage", stage_alone)


@pytest.mark.parametrize("upsampler", [None, "edsr"])
@pytest.mark.parametrize("projected", [False, True])
def test_a_chain_runs_large_images_at_once(
    projected: bool, upsampler: str | None, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    chain = plain_chain()
    chain.config = ChainConfig(chain.config.stages, back_projection=projected)
    network = None if upsampler is None else randomised(build_upsampler(UPSAMPLER), seed=3)
    images = picture(21, 30, batch=2)
    found = chain(images, 4, upsampler=network, dtype="fp32", skip=0.7)
    monkeypatch.undo()
    expected = chain.stages_of(images, 4, upsampler=network, dtype="fp32", skip=0.7)[-1]
    assert largest_difference(found, expected) < ROUNDING


@pytest.mark.parametrize(
    "settings",
    [
        {"detail": 0.5},
        {"scale": 3.0},
        {"size": (40, 60)},
        {"upsampler": "bicubic"},
        {"upsampler": "fsrcnn_x2"},
        {"upsampler": lambda image, on_step: torch.nn.functional.interpolate(image, scale_factor=2.0)},
    ],
)
def test_what_columns_cannot_do_runs_stage_by_stage(
    chain: Chain, settings: dict[str, Any], no_small_images: None
) -> None:
    image = picture(16, 20)
    arguments = {"dtype": "fp32"} | ({} if "size" in settings else {"scale": 4.0}) | settings
    assert torch.equal(chain(image, **arguments), chain.stages_of(image, **arguments)[-1])


def test_an_upsampler_by_4_runs_stage_by_stage(chain: Chain, no_small_images: None) -> None:
    network = randomised(build_upsampler(UPSAMPLER | {"scale": 4}))
    image = picture(16, 20)
    found = chain(image, 4, upsampler=network, dtype="fp32")
    assert torch.equal(found, chain.stages_of(image, 4, upsampler=network, dtype="fp32")[-1])


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha_run_stage_by_stage(chain: Chain, channels: int, no_small_images: None) -> None:
    image = picture(16, 20, channels=channels)
    assert torch.equal(chain(image, 4), chain.stages_of(image, 4)[-1])


def test_a_regression_runs_stage_by_stage(no_small_images: None) -> None:
    chain, image = plain_chain(denoiser=DenoiserConfig(unet_config(), regression=True)), picture(16, 20)
    assert torch.equal(chain(image, 4, dtype="fp32"), chain.stages_of(image, 4, dtype="fp32")[-1])


def test_small_images_of_a_batch_run_together(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "run_in_columns", None)
    assert chain(picture(8, 8, batch=2), 4).shape == (2, 3, 32, 32)


class _Made(TorchDispatchMode):
    """How large the tensors are that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes() // found.itemsize
        return found


def test_no_image_between_is_ever_whole(chain: Chain) -> None:
    image = picture(1000, 24)
    with _Made() as made:
        run_in_columns(image, streams(chain, image), column=16, tile=16, dtype="fp32")
    *others, largest = sorted(made.storages.values())
    assert largest == 3 * 4000 * 96
    assert max(others) < 3 * 2000 * 48 / 2


def test_previews_come_column_by_column(chain: Chain, no_small_images: None) -> None:
    image = picture(16, 40)
    calls: list[tuple[float, float, Tensor | None]] = []
    result = chain(image, 4, on_step=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done) and done[-1] == calls[-1][1]
    previews = [call[2] for call in calls if call[2] is not None]
    assert len(previews) >= 5
    final, first = preview_of(result), previews[0]
    assert first.shape == final.shape
    assert largest_difference(first[..., :32], final[..., :32]) < ROUNDING  # the first column is there
    assert largest_difference(first[..., 32:], final[..., 32:]) > 1e-3  # the others are not yet
    assert largest_difference(previews[-1], final) < ROUNDING


def test_a_run_can_be_cancelled_in_the_middle(chain: Chain, no_small_images: None) -> None:
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain(picture(16, 40), 4, on_step=stop)
    assert calls == 3
