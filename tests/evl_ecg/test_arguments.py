"""Numbers and arrays of numpy serve as settings, and are those of Python afterwards."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy_values import numpy_options

from hf_evl_ecg import EVLECGConfig, RenderConfig
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.layouts import Layout
from hf_evl_ecg.drawing.palettes import PALETTES, Palette
from hf_evl_ecg.signals.simulation import SimulationConfig


@pytest.mark.parametrize(
    "plain",
    [
        RenderConfig(dpi=80),
        AugmentConfig(),
        SimulationConfig(heart_rate_bpm=(60, 90)),
        Layout("limb", (("I", "II"),), 5.0),
        PALETTES["red"],
    ],
    ids=lambda config: type(config).__name__,
)
def test_settings_of_numpy_are_those_of_python(plain):
    options = numpy_options(plain)
    assert options
    own = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    given = type(plain)(**own | options)
    assert (given, hash(given)) == (plain, hash(plain))
    assert json.dumps(asdict(given)) == json.dumps(asdict(plain))


def test_pictures_of_numpy_settings_have_the_same_name():
    assert RenderConfig(width_px=np.int64(640), footer=np.bool_(False)).fingerprint() == RenderConfig(width_px=640, footer=False).fingerprint()  # fmt: skip
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        Palette(np.array([0.5, 1, 2]), (0, 0, 0), (0, 0, 0), (0, 0, 0))


def test_training_arguments_of_numpy_are_those_of_python(tmp_path):
    plain = EVLECGConfig(str(tmp_path), report_to="none", use_cpu=True, uld_top_k=5, max_steps=7)
    options = numpy_options(plain)
    assert {"alpha", "lambda_ot", "ot_max_iter", "max_steps", "learning_rate", "uld_top_k"} <= options.keys()
    given = EVLECGConfig(str(tmp_path), report_to="none", **options)
    assert json.loads(given.to_json_string()) == json.loads(plain.to_json_string())
