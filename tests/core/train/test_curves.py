from __future__ import annotations

import copy
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from progressive_upsampling.core.train import curves
from progressive_upsampling.core.train.canvas import Canvas
from progressive_upsampling.core.train.config import LossConfig
from progressive_upsampling.core.train.curves import LIKELIHOOD, TERMS, loss_curves
from progressive_upsampling.core.train.history import History, read_history

BLACK = (0, 0, 0)


def history(steps: int = 600, phases: int = 3, every: int = 50) -> list[dict[str, float | None]]:
    """Phases that each add a stage, the last adversarial, with validations."""
    random, entries = np.random.default_rng(0), []
    for step in range(steps):
        phase = step * phases // steps
        noise = float(np.exp(random.normal(0, 0.1)))
        fall = math.exp(-3 * step / steps) + 0.1
        entry = {"step": step, "phase": phase, "loss": fall * noise, "output": 0.5 * fall * noise}
        entry |= {"upsampler": 0.6 * fall, "refine": 0.2 * noise, "blind": 0.3, "controller": 2 * fall - 1}
        entry |= {"lr": 1e-4 * fall, "gradient": noise, "seconds": 0.5, "wait": 0.01}
        if phase == phases - 1:
            entry |= {"perceptual": 1.1, "adversarial": 0.7 * noise, "feature_matching": 0.2, "discriminator": 0.6}
            entry |= {"discriminator_right": 0.75, "discriminator_gradient": 2 * noise}
            entry |= {"r1": 0.02} if step % 16 == 0 else {}
        if (step + 1) % every == 0:
            for stage in range(phase + 1):
                name, quality = f"x{2 ** (stage + 1)}", 34 - 3 * stage - fall
                entry |= {name: quality, f"{name}_ssim": quality / 40, f"{name}_pd": 1 / quality}
        entries.append(entry)
    return entries


@pytest.fixture
def shown(monkeypatch):
    """What the sheet is drawn from: panels, span and marks of the last call."""
    found = {}
    draw = curves.draw

    def noted(panels, steps, width, marks):
        found.update(panels=panels, titles=[panel.title for panel in panels], steps=steps, marks=marks)
        return draw(panels, steps, width, marks)

    monkeypatch.setattr(curves, "draw", noted)
    return found


def levels(sheet: torch.Tensor) -> np.ndarray:
    return (sheet[0].permute(1, 2, 0).numpy() * 255).round().astype(int)


def only(entries, *keys):
    return [{key: entry[key] for key in ("step", *keys) if key in entry} for entry in entries]


@pytest.mark.parametrize("width", [480, 641, 1200])
@pytest.mark.parametrize("title", ["", "A run", "Läufe → " * 60])
def test_a_sheet_of_any_width_is_an_image(width, title):
    sheet = loss_curves(history(60, every=10), width=width, title=title)
    assert sheet.dtype == torch.float32 and sheet.shape[:2] == (1, 3) and sheet.shape[3] == width
    assert sheet.min() >= 0 and sheet.max() == 1 and sheet[..., -10:].min() == 1


def test_a_falling_loss_goes_down_on_the_picture():
    entries = [{"step": step, "loss": 2.0 * 0.99**step} for step in range(500)]
    found = (levels(loss_curves(entries)) == np.array(BLACK)).all(-1)
    columns = np.flatnonzero(found.any(0))
    rows = np.array([np.flatnonzero(found[:, x]).mean() for x in columns])
    assert len(columns) > 900 and rows[-1] - rows[0] > 150
    assert (np.diff(rows) >= -1).all()
    # an exponential is straight, because the axis is logarithmic
    straight = np.interp(columns, columns[[20, -20]], rows[[20, -20]])
    assert np.abs(rows - straight)[20:-20].max() < 2


def test_there_is_a_panel_for_what_was_measured_and_none_besides(shown):
    entries = history()
    wanted = {
        "Total loss": ["loss"],
        "Loss terms": ["output", "blind"],
        "Noise controller, negative log-likelihood": ["controller"],
        "Validation PSNR (Y, dB)": ["x2"],
        "Discriminator loss": ["discriminator", "r1"],
        "Discriminator right": ["discriminator_right"],
        "Learning rate": ["lr"],
        "Gradient norm before clipping": ["gradient"],
    }
    for title, keys in wanted.items():
        loss_curves(only(entries, *keys))
        assert shown["titles"] == [title] and len(shown["panels"][0].series) == len(keys)
    loss_curves(only(entries, "x2", "x2_ssim", "x2_pd"))
    assert [title.split()[1] for title in shown["titles"]] == ["PSNR", "SSIM", "PD-squeeze"]
    loss_curves(entries)
    assert set(shown["titles"]) > set(wanted) and len(shown["titles"]) == len(wanted) + 4


def test_every_term_has_a_curve_of_its_own_colour(shown):
    terms = {name for name, value in asdict(LossConfig()).items() if isinstance(value, float)}
    assert terms == set(TERMS) | {LIKELIHOOD}
    loss_curves([{"step": step, **dict.fromkeys(TERMS, 0.5)} for step in range(3)])
    (panel,) = shown["panels"]
    assert [series.label.replace(" ", "_") for series in panel.series] == list(TERMS)
    assert len({series.colour for series in panel.series}) == len(TERMS)


def test_a_term_that_is_not_always_positive_leaves_the_logarithmic_panel(shown):
    entries = history()
    entries[-5]["adversarial"] = -0.2
    loss_curves(only(entries, "output", "blind", "adversarial", "controller"))
    assert shown["titles"] == ["Loss terms", "Loss term adversarial", "Noise controller, negative log-likelihood"]
    assert [panel.log for panel in shown["panels"]] == [True, False, False]
    assert [series.label for series in shown["panels"][0].series] == ["output", "blind"]


def test_each_stage_has_its_best_value_marked(shown):
    entries = history()
    entries[249]["x2"], entries[399]["x4"], entries[449]["x2_pd"] = 40.0, 39.0, 1e-3
    loss_curves(entries)
    best = {
        (panel.title.split()[1], series.label): series.best_point
        for panel in shown["panels"]
        if panel.title.startswith("Validation")
        for series in panel.series
    }
    assert best["PSNR", "x2"] == (250.0, 40.0) and best["PSNR", "x4"] == (400.0, 39.0)  # steps done
    assert best["PD-squeeze", "x2"] == (450.0, 1e-3)
    assert best["SSIM", "x8"][0] == 600.0 and len(best) == 9


def test_phases_begin_where_the_history_says(shown):
    entries = history(600, 3)
    loss_curves(entries)
    assert shown["marks"] == [(0.0, "phase 1"), (200.0, "phase 2"), (400.0, "phase 3")]
    assert shown["steps"] == (0.0, 600.0)
    loss_curves(history(600, 1))
    assert shown["marks"] == []
    loss_curves(only(entries, "loss"))
    assert shown["marks"] == []


def test_phases_are_parted_on_the_picture():
    plain, parted = (levels(loss_curves(only(history(1000, 2), "lr", *more))) for more in ((), ("phase",)))
    upright = [np.flatnonzero((picture == 150).all(-1).sum(0) > 70) for picture in (plain, parted)]
    assert len(upright[0]) == 1 and len(upright[1]) == 2
    axis, line = upright[1]
    curve = np.flatnonzero((parted == np.array(TERMS["output"])).all(-1).any(0))
    assert line - axis == pytest.approx((curve[-1] - axis) / 2, abs=2)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_missing(value):
    entries = history()
    gone = copy.deepcopy(entries)
    for broken, missing in zip(entries[300:310], gone[300:310], strict=True):
        for key in set(broken) - {"step", "phase"}:
            broken[key] = value
            del missing[key]
    assert torch.equal(loss_curves(entries), loss_curves(gone))


def test_missing_values_leave_a_gap():
    entries = only(history(1000, 1), "lr")
    for entry in entries[400:600]:
        entry["lr"] = None
    found = (levels(loss_curves(entries)) == np.array(TERMS["output"])).all(-1).any(0)
    columns = np.flatnonzero(found)
    share = (columns - columns[0]) / (columns[-1] - columns[0])
    assert not ((share > 0.41) & (share < 0.59)).any()
    assert ((share > 0.35) & (share < 0.4)).any() and ((share > 0.6) & (share < 0.65)).any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_steps_are_shown(count):
    entries = history()[:count]
    sheet = loss_curves(entries)
    assert (levels(sheet) == np.array(BLACK)).all(-1).any()
    assert not torch.equal(sheet, loss_curves(history()[: count + 1]))


def test_a_run_without_steps_says_so():
    empty, unmeasured = loss_curves([]), loss_curves([{"step": 0, "loss": None, "phase": 0}])
    assert empty.shape[3] == unmeasured.shape[3] == 1200
    assert empty.min() < 0.3 and unmeasured.min() < 0.3
    assert not torch.equal(empty, unmeasured)


def test_a_history_on_disk_is_shown(tmp_path):
    entries, file = history(120, every=20), History(tmp_path / "history.jsonl", 0)
    entries[7]["loss"] = math.nan
    for entry in entries:
        file.add(**entry, perceptual_trunk="random weights")
    file.close()
    read = read_history(tmp_path / "history.jsonl")
    assert read[7]["loss"] is None and loss_curves(read).shape == loss_curves(entries).shape


def test_the_same_history_gives_the_same_sheet_and_stays_as_it_is():
    entries = history()
    before = copy.deepcopy(entries)
    assert torch.equal(loss_curves(entries), loss_curves(entries))
    assert entries == before


def test_a_long_history_is_drawn_with_few_points(monkeypatch):
    counted = []
    curve = Canvas.curve
    monkeypatch.setattr(Canvas, "curve", lambda self, x, *rest: counted.append(len(x)) or curve(self, x, *rest))
    entries = history(1000)
    loss_curves([{**entry, "step": part * 1000 + i} for part in range(100) for i, entry in enumerate(entries)])
    # at most three points a column and curve, and there are 26 curves
    assert 5000 < sum(counted) < 3 * 26 * 1200


@pytest.mark.parametrize(("width", "error"), [(479, ValueError), (1200.0, TypeError), (True, TypeError)])
def test_a_width_that_cannot_be_is_refused(width, error):
    with pytest.raises(error, match="width: expected"):
        loss_curves([], width=width)
