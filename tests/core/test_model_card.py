from __future__ import annotations

import pytest

from progressive_upsampling.core.model_card import model_card

TRAINED = {
    "description": "edsr trained for 300 steps",
    "data": ["photos"],
    "pictures": 189,
    "folders": {"General100": 100, "T91": 89},
    "validation": {"name": "GB82", "pictures": 25},
    "recipe": "edsr_x2",
    "init": "default",
    "licence": "MIT",
    "data_licence": "none stated",
    "command": "progressive-upsampling train --recipe edsr_x2",
    "steps": 300,
    "seed": 7,
    "hours": 1.5083,
    "date": "2026-01-02",
    "hardware": "NVIDIA H200",
    "dtype": "bfloat16",
    "torch": "2.13.0",
    "validated": {"measure": "Y-PSNR", "score": 37.123, "steps": 200},
    "config": {"phases": [{"steps": 100}, {"steps": 200}], "seed": 7},
}


def test_a_card_tells_what_a_trained_model_must_tell() -> None:
    card, rest = model_card(TRAINED)
    assert dict(card) == {
        "description": "edsr trained for 300 steps",
        "data": "General100 (100 pictures), T91 (89 pictures)",
        "licence of the data": "none stated",
        "validation data": "GB82 (25 pictures)",
        "recipe": "edsr_x2, from default",
        "command": "progressive-upsampling train --recipe edsr_x2",
        "seed": "7",
        "steps": "300 (100 + 200)",
        "time": "1 h 30 min",
        "hardware": "NVIDIA H200",
        "number format": "bfloat16",
        "torch": "2.13.0",
        "date": "2026-01-02",
        "validated": "Y-PSNR 37.12 on the validation pictures after 200 steps",
        "licence": "MIT",
    }
    assert rest == {"config": TRAINED["config"]}


def test_what_is_not_told_has_no_line_and_what_is_not_known_is_left() -> None:
    assert model_card({}) == ([], {})
    card, rest = model_card({"seed": 0, "init": "", "validation": None, "folders": {}, "perceptual_trunk": "random"})
    assert card == [("seed", "0")]
    assert rest == {"init": "", "validation": None, "folders": {}, "perceptual_trunk": "random"}


@pytest.mark.parametrize(
    ("provenance", "label", "text"),
    [
        ({"data": "T91 and others"}, "data", "T91 and others"),
        ({"data": ["photos"], "pictures": 3, "folders": {}}, "data", "photos (3 pictures)"),
        ({"seconds": 4773}, "time", "1 h 20 min"),
        ({"hours": 0.005}, "time", "18 s"),
        ({"hours": 0.5}, "time", "30 min"),
        ({"steps": 300, "config": {"phases": [{"steps": 300}]}}, "steps", "300"),
        ({"steps": 250, "config": {"phases": [{"steps": 100}, {"steps": 200}]}}, "steps", "250"),
        ({"steps": "some"}, "steps", "some"),
        ({"steps": 1000, "training": "on my photographs"}, "steps", "1000"),
        ({"steps": 1000, "config": "edsr.json"}, "steps", "1000"),
        ({"steps": 10, "training": ["adam"]}, "steps", "10"),
        ({"steps": 10, "training": {"phases": 3}}, "steps", "10"),
        ({"steps": 10, "training": {"phases": ["first", "second"]}}, "steps", "10"),
        ({"steps": 10, "training": {"phases": [{"steps": "5"}, {"name": "second"}]}}, "steps", "10"),
        ({"seconds": "an hour"}, "time", "an hour"),
        ({"seconds": float("inf")}, "time", "inf"),
        ({"validated": "30.1 dB"}, "validated", "30.1 dB"),
        ({"validated": {"score": 30.1}}, "validated", "score 30.1"),
        ({"validated": {"score": "30.1 dB"}}, "validated", "score 30.1 dB"),
        ({"validated": {"measure": "PSNR", "score": "30", "steps": 3}}, "validated", "measure PSNR; score 30; steps 3"),
        ({"validation": {"name": "GB82"}}, "validation data", "name GB82"),
        ({"validation": "GB82"}, "validation data", "GB82"),
        ({"limits": ["smooth", "small"]}, "limits", "smooth, small"),
        (
            {"metrics": {"Y-PSNR": {"Set5 x2": "37.2", "Set5 x4": 31.25}}},
            "metrics",
            "Y-PSNR: Set5 x2 37.2; Set5 x4 31.25",
        ),
    ],
)
def test_a_line_of_the_card(provenance: dict, label: str, text: str) -> None:
    assert model_card(provenance)[0] == [(label, text)]
