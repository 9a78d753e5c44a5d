"""The one file that touches ComfyUI: memory, progress, preview, cancel, and community models."""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import comfy.model_management as management
import comfy.utils
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_upsampling.nodes import _runtime
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

Picture = Callable[..., Tensor]


@pytest.fixture
def reports() -> Iterator[list[tuple[float, float, Any]]]:
    """What the progress bar's hook hears."""
    heard: list[tuple[float, float, Any]] = []
    before = comfy.utils.PROGRESS_BAR_HOOK

    def hook(value: float, total: float, preview: Any, **_: Any) -> None:
        heard.append((value, total, preview))

    comfy.utils.set_progress_bar_global_hook(hook)
    yield heard
    comfy.utils.set_progress_bar_global_hook(before)


def test_progress_grows_to_its_end_and_previews_are_shown(
    picture: Picture, chain: Any, reports: list[tuple[float, float, Any]]
) -> None:
    call(ProgressiveUpscale, image=picture(40, 50), model=chain, scale=4.0, tile=64, detail=0.5)
    values = [value for value, _, _ in reports]
    assert values == sorted(values)
    assert reports[-1][:2] == (100, 100)
    assert len(reports) > 10
    kind, shown, side = reports[-1][2]
    assert (kind, shown.size, shown.mode) == ("JPEG", (200, 160), "RGB")
    assert side == 200


def test_previews_are_not_sent_more_often_than_useful(reports: list[tuple[float, float, Any]]) -> None:
    report, image = _runtime.Reporter(), torch.rand(1, 3, 8, 8)
    for step in range(50):
        report(step, 50, image)
    assert 1 <= sum(preview is not None for _, _, preview in reports) <= 3
    assert len(reports) == 50


def test_a_preview_is_rounded_to_the_nearest_of_256_values() -> None:
    assert _runtime.to_pil(torch.full((1, 3, 1, 1), 0.999)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("node", [ProgressiveUpscale, Upsample])
def test_cancel_stops_a_node_in_its_middle(picture: Picture, chain: Any, node: Any) -> None:
    steps = 0

    def hook(value: float, *_: Any, **__: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            management.interrupt_current_processing()

    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(management.InterruptProcessingException):
            call(node, image=picture(150, 150), model=chain, scale=2.0, tile=64)
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
        management.interrupt_current_processing(False)
    assert steps <= 3


@pytest.mark.parametrize("part", ["upsampler", "denoiser"])
def test_cancel_stops_a_network_in_the_middle_of_its_only_tile(picture: Picture, chain: Any, part: str) -> None:
    first, *_, last = (m for m in getattr(chain.stages[0], part).modules() if not list(m.children()))
    ran: list[nn.Module] = []
    handles = [first.register_forward_hook(lambda *_: management.interrupt_current_processing())]
    handles.append(last.register_forward_hook(lambda *_: ran.append(last)))
    try:
        with pytest.raises(management.InterruptProcessingException):
            call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0, precision="fp32")
    finally:
        management.interrupt_current_processing(False)
        for handle in handles:
            handle.remove()
    assert not ran
    assert not any(layer._forward_pre_hooks for layer in chain.modules())
    call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)  # usable at once


def test_cancel_stops_the_fusion_in_the_middle_of_its_net(
    picture: Picture, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, ran = chain.stages[0].weights, []
    planes, softmax = weights._planes, torch.softmax

    def cancelled(images: Any) -> Any:
        management.interrupt_current_processing()
        return planes(images)

    def last(*arguments: Any, **options: Any) -> Any:
        ran.append(last)
        return softmax(*arguments, **options)

    monkeypatch.setattr(weights, "_planes", cancelled)
    monkeypatch.setattr(torch, "softmax", last)
    try:
        with pytest.raises(management.InterruptProcessingException):
            call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    finally:
        management.interrupt_current_processing(False)
    assert not ran


def test_cancel_stops_a_community_model_in_its_middle(picture: Picture) -> None:
    model, ran = Community(2), []
    first, last = model.model, nn.Identity()
    model.model = nn.Sequential(first, last)
    first.register_forward_hook(lambda *_: management.interrupt_current_processing())
    last.register_forward_hook(lambda *_: ran.append(last))
    try:
        with pytest.raises(management.InterruptProcessingException):
            call(Upsample, image=picture(), scale=2.0, upscale_model=model)
    finally:
        management.interrupt_current_processing(False)
    assert len(model.seen) == 1
    assert not ran


def test_out_of_memory_is_tried_again_in_smaller_tiles(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[int | None] = []
    emptied: list[None] = []
    monkeypatch.setattr(management, "soft_empty_cache", lambda: emptied.append(None))

    def work(job: _runtime.Job) -> Tensor:
        tiles.append(job.tile)
        if job.tile is None or job.tile > 128:
            raise management.OOM_EXCEPTION("no memory")
        return torch.zeros(1, 3, 4, 4)

    assert _runtime.run(work).shape == (1, 3, 4, 4)
    assert tiles == [None, 512, 256, 128]
    assert caplog.text.count("trying again in tiles of") == len(emptied) == 3


@pytest.mark.parametrize(
    ("first", "expected"),
    [(0, [None, 512, 256, 128]), (4096, [4096, 512, 256, 128]), (192, [192, 128]), (64, [64])],
)
def test_out_of_memory_is_an_error_when_tiles_cannot_get_smaller(first: int, expected: list[int | None]) -> None:
    tiles: list[int | None] = []

    def work(job: _runtime.Job) -> Tensor:
        tiles.append(job.tile)
        raise management.OOM_EXCEPTION("no memory")

    with pytest.raises(management.OOM_EXCEPTION):
        _runtime.run(work, tile=first)
    assert tiles == expected


def test_other_errors_are_not_tried_again() -> None:
    calls = 0

    def work(job: _runtime.Job) -> Tensor:
        nonlocal calls
        calls += 1
        raise ValueError("image: expected something else")

    with pytest.raises(ValueError, match="something else"):
        _runtime.run(work)
    assert calls == 1


def test_a_network_is_known_again_and_freed_with_its_model() -> None:
    network = nn.Linear(2, 2)
    state = set(network.state_dict())
    _runtime.load([network], 0)
    assert _runtime._patcher(network) is _runtime._patcher(network)
    assert set(network.state_dict()) == state
    gone = weakref.ref(network)
    if hasattr(management, "loaded"):
        management.loaded.clear()
    else:
        management.unload_all_models()
    del network
    gc.collect()
    assert gone() is None


def test_a_model_that_has_run_can_be_copied(picture: Picture, chain: Any) -> None:
    call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    twin = copy.deepcopy(chain)
    assert _runtime._patcher(twin) is not _runtime._patcher(chain)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert next(chain.parameters()).any()
    ours, theirs = (call(ProgressiveUpscale, image=picture(), model=m, scale=2.0)[0] for m in (chain, twin))
    assert not torch.equal(ours, theirs)


def test_a_model_with_a_device_of_its_own_can_be_loaded(chain: Any) -> None:
    assert _runtime.load([chain], 0) == chain.device  # `device` is read-only there


class Tiling(Enum):
    """As spandrel's."""

    SUPPORTED = 1
    INTERNAL = 2


class Community:
    """What ComfyUI's upscale model loader gives: nearest, with a network that must be on the device."""

    def __init__(self, scale: int = 2, channels: int = 3, outputs: int = 3, whole: bool = False) -> None:
        self.model = nn.Conv2d(channels, outputs, 1, bias=False)
        nn.init.dirac_(self.model.weight)
        self.scale, self.input_channels, self.output_channels = scale, channels, outputs
        self.tiling = Tiling.INTERNAL if whole else Tiling.SUPPORTED
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, image: Tensor) -> Tensor:
        assert image.shape[1] == self.input_channels
        self.seen.append(tuple(image.shape))
        return F.interpolate(self.model(image), scale_factor=self.scale, mode="nearest")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 4])
def test_upsample_takes_a_community_model(picture: Picture, channels: int, scale: int) -> None:
    image = picture(channels=4)
    (result,) = call(Upsample, image=image, scale=float(scale), upscale_model=Community(scale, channels, channels))
    expected = image[..., :3].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    torch.testing.assert_close(result[..., :3], expected)
    assert result.shape[-1] == 4
    assert not result.requires_grad


@pytest.mark.parametrize("tile", [1, 16, 32, 64])
def test_small_tiles_of_a_community_model_still_move_on(picture: Picture, tile: int) -> None:
    (result,) = call(Upsample, image=picture(90, 70), scale=2.0, tile=tile, upscale_model=Community(2))
    torch.testing.assert_close(result, picture(90, 70).repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_a_community_model_without_weights_is_taken(picture: Picture) -> None:
    model = Community(2)
    model.model = nn.Identity()
    (result,) = call(Upsample, image=picture(), scale=2.0, upscale_model=model)
    torch.testing.assert_close(result, picture().repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_a_community_model_in_half_precision_gets_what_it_can_read(picture: Picture) -> None:
    model = Community(2)
    model.model.half()
    (result,) = call(Upsample, image=picture(), scale=2.0, upscale_model=model)
    expected = picture().repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_a_grey_model_tells_of_each_channel_and_of_its_scale() -> None:
    enlarge = _runtime.community_upsampler(Community(2, 1, 1), None)
    heard: list[float] = []
    enlarge(torch.rand(1, 3, 21, 34), lambda done, total, _: heard.append(done / total))
    assert heard == pytest.approx([1 / 3, 2 / 3, 1])
    assert enlarge.scale == 2  # type: ignore[attr-defined]


def test_a_community_model_runs_as_often_as_needed_and_is_reduced(picture: Picture) -> None:
    model = Community(2)
    (result,) = call(Upsample, image=picture(), width=100, height=70, upscale_model=model)
    assert result.shape == (1, 70, 100, 3)
    assert [shape[2:] for shape in model.seen] == [(21, 34), (42, 68)]


def test_a_community_model_is_tiled_unless_it_asks_not_to_be(picture: Picture) -> None:
    image = picture(100, 140)
    tiled, whole = Community(2), Community(2, whole=True)
    one, other = (call(Upsample, image=image, scale=2.0, tile=96, upscale_model=model)[0] for model in (tiled, whole))
    torch.testing.assert_close(one, other)
    assert len(tiled.seen) > 1
    assert len(whole.seen) == 1


def test_the_chain_takes_a_community_model_as_its_upsampler(picture: Picture, chain: Any) -> None:
    image, model = picture(), Community(2)
    ours, _ = call(ProgressiveUpscale, image=image, model=chain, scale=4.0, upscale_model=model)
    own, _ = call(ProgressiveUpscale, image=image, model=chain, scale=4.0)
    assert len(model.seen) == 2
    assert ours.shape == own.shape
    assert not torch.equal(ours, own)


@pytest.mark.parametrize("model", [Community(1), Community(2, 4, 4), Community(2, 3, 4)])
def test_community_models_that_do_not_fit_are_refused(picture: Picture, model: Community) -> None:
    with pytest.raises(ValueError, match="upscale_model: expected one that enlarges RGB or grey"):
        call(Upsample, image=picture(), upscale_model=model)


def test_what_is_no_community_model_is_refused(picture: Picture) -> None:
    with pytest.raises(TypeError, match="upscale_model: expected an UPSCALE_MODEL, got object"):
        call(Upsample, image=picture(), upscale_model=object())


def test_results_lie_where_comfyui_keeps_them(picture: Picture, chain: Any) -> None:
    result, stages = call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    assert result.device == management.intermediate_device()
    assert all(stage.device == result.device for stage in stages)


class FakeServer:
    """As ComfyUI's, with a node that is running."""

    client_id = "me"

    def __init__(self, node: str | None) -> None:
        self.last_node_id = node
        self.sent: list[tuple[Any, ...]] = []

    def send_progress_text(self, *message: Any) -> None:
        self.sent.append(message)


def test_text_goes_to_the_running_node_of_the_one_who_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server, idle = FakeServer("7"), FakeServer(None)
    for instance in (server, idle):
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
        monkeypatch.setitem(sys.modules, "server", module)
        _runtime.say("step 1 of 2")
    assert server.sent == [("step 1 of 2", "7", "me")]
    assert idle.sent == []


def test_without_a_server_text_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server", raising=False)
    _runtime.say("nobody hears")
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace()))  # not started yet
    _runtime.say("nobody hears")
