"""`RenderConfig` is checked, round-trips through json, and is read from what exports of any version store."""

import json
from dataclasses import fields

import numpy as np
import pytest

from hf_evl_ecg.drawing.config import RenderConfig, read_stored_config
from hf_evl_ecg.drawing.layouts import LAYOUTS
from hf_evl_ecg.drawing.palettes import PALETTES
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.ecg import ECG

CHANGES = {
    "width_px": 1000, "height_px": 800, "dpi": 95.0, "layout": "12x1", "speed_mm_s": 50.0, "gain_mm_mv": 20.0, "palette": "blue",
    "grid": "thick", "trace_mm": 0.6, "calibration": False, "lead_names": False, "footer": False, "header": "{record_name}",
    "overflow": "clamp", "mode": "L",
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(RenderConfig)])
def test_every_field_has_an_effect_on_picture_and_fingerprint(name):
    ecg = ECG(np.full((5000, 12), 3.0, np.float32), fs_hz=500, record_name="a")
    plain, changed = RenderConfig(), RenderConfig(**{name: CHANGES[name]})
    assert render(ecg, plain).tobytes() != render(ecg, changed).tobytes()
    assert plain.fingerprint() != changed.fingerprint()
    assert plain != changed


def test_configuration_survives_json():
    for name, value in CHANGES.items():
        config = RenderConfig(**{name: value})
        again = RenderConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert hash(again) == hash(config)
        assert again.fingerprint() == config.fingerprint()


def test_equal_numbers_give_equal_fingerprints():
    assert RenderConfig(gain_mm_mv=10, dpi=100).fingerprint() == RenderConfig(gain_mm_mv=10.0, dpi=100.0).fingerprint()
    assert RenderConfig(layout=LAYOUTS["6x2"]).fingerprint() == RenderConfig(layout="6x2").fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "5x5"}, "allowed are .*3x4"),
        ({"layout": 3}, "or a Layout"),
        ({"palette": "mauve"}, "mauve"),
        ({"palette": {"paper": (0, 0, 0), "thin": (0, 0, 300), "thick": (0, 0, 0), "ink": (0, 0, 0)}}, "0 to 255"),
        ({"palette": {"paper": (0, 0, 0)}}, "missing 3 required"),
        ({"layout": {"name": "x", "lines": ()}}, "unexpected keyword argument 'lines'"),
        ({"header": "a\nb\nc\nd"}, "at most three lines"),
        ({"grid": "dotted"}, "allowed are"),
        ({"mode": "CMYK"}, "allowed are"),
        ({"overflow": "wrap"}, "allowed are"),
        ({"trace_mm": 0.0}, "trace_mm=0.0"),
        ({"trace_mm": float("nan")}, "trace_mm=nan"),
        ({"header": "{record_name"}, "cannot be read"),
        ({"header": "{a.__class__}"}, "plain names"),
        ({"dpi": 300.0}, "lower dpi"),
        ({"width_px": 0}, "width_px=0"),
        ({"header": None}, "'header': None"),
        ({"gain_mm_mv": []}, "must be a string or a real number"),
    ],
)
def test_bad_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RenderConfig.from_dict(changes)


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"field='colour': allowed are .*'width_px'"):
        RenderConfig.from_dict({"colour": "red", "image_width": 600, "width_px": 600})


def test_default_palette_is_red():
    assert RenderConfig().palette == PALETTES["red"]


def test_options_of_the_training_script_in_older_exports_are_understood():
    stored = {
        "image_width": 448, "image_height": 224, "layout": "6x2", "grid": "none", "paper": "blue", "footer": False,
        "overflow": "clamp", "augment": 0.5, "image_seed": 3,
    }  # fmt: skip
    expected = RenderConfig(
        width_px=448, height_px=224, layout="6x2", grid="none", palette="blue", footer=False, overflow="clamp"
    )
    assert read_stored_config(stored) == expected
    assert read_stored_config(json.loads(json.dumps(expected.to_dict()))) == expected
    assert read_stored_config({}) == RenderConfig()
    with pytest.raises(ValueError, match="field='image_depth': allowed are"):
        read_stored_config(stored | {"image_depth": 8})
