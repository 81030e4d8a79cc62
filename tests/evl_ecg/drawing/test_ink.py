"""The ink of a page: what the pen drew of the ECG, nothing else, and it stays with the picture when that is bent."""

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.drawing.artefacts import Augmentation
from hf_evl_ecg.drawing.augment import augment, bend
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.ink import INK_CELLS, ink_map
from hf_evl_ecg.drawing.rendering import render, render_traces
from hf_evl_ecg.signals.ecg import crop
from hf_evl_ecg.signals.simulation import simulate

PAGES = [
    RenderConfig(),
    RenderConfig(width_px=448, height_px=224, grid="none", layout="12x1", overflow="clamp", mode="L"),
]


@pytest.mark.parametrize("config", PAGES)
def test_traces_are_what_an_ecg_adds_to_the_page(config):
    """Two records on one paper: pixels that differ between them are those that the traces of one or the other cover."""
    first, second = (simulate(label, seed=1) for label in ("NORM", "AF"))
    pictures, traces = zip(*(render_traces(ecg, config) for ecg in (first, second)), strict=True)
    for picture, ecg in zip(pictures, (first, second), strict=True):
        assert picture.tobytes() == render(ecg, config).tobytes()
    pixels = [np.asarray(picture).reshape(config.height_px, config.width_px, -1).astype(int) for picture in pictures]
    differ = np.abs(pixels[0] - pixels[1]).max(2) > 0
    traced = [trace > 1 / 512 for trace in traces]
    assert differ.mean() > 0.005
    assert not (differ & ~traced[0] & ~traced[1]).any(), "nothing else differs"
    only_first = (traces[0] > 0.9) & ~traced[1] & (pixels[1].min(2) > 200)
    assert differ[only_first].all(), "what only one record covers is seen"
    assert traces[0].min() == 0
    assert traces[0].max() == pytest.approx(1, abs=1e-5)


def test_what_is_not_recorded_holds_no_ink():
    config = RenderConfig(width_px=660, height_px=510)
    page = config.page()
    strip = next(s for s in page.strips if s.duration_s > 5)
    middle = strip.start_s + (page.width_px / 2 - strip.left_px) / page.scale.px_per_s
    _, traced = render_traces(crop(simulate("NORM", seed=0), 0.0, middle - 0.1), config)
    cells = ink_map(traced)
    assert cells.shape == (INK_CELLS, INK_CELLS)
    assert cells.dtype == np.float32
    assert (cells[:, : INK_CELLS // 2] > 0).mean() > 0.1
    assert cells[:, INK_CELLS // 2 :].max() == 0
    assert cells[: round(INK_CELLS * 0.05)].max() == 0, "nor does the margin"


def test_cells_are_means_of_pixels_by_hand_and_by_a_slow_loop():
    rng = np.random.default_rng(0)
    pixels = rng.random((7, 10)).astype(np.float32)
    cells, fine = ink_map(pixels, cells=4), np.kron(pixels, np.ones((4, 4)))
    slow = fine.reshape(4, 7, 4, 10).mean((1, 3))  # 28 x 40 pixels in 4 x 4 cells
    np.testing.assert_allclose(cells, slow, rtol=1e-5)
    assert cells.mean() == pytest.approx(pixels.mean(), rel=1e-5)
    np.testing.assert_allclose(ink_map(pixels[:4, :4], cells=4), pixels[:4, :4], rtol=1e-6)
    assert np.array_equal(ink_map(np.zeros((5, 5), np.float32)), np.zeros((INK_CELLS, INK_CELLS)))


def test_ink_is_bent_as_the_picture_is():
    """On white paper with black ink the picture itself says where the ink has gone."""
    config = RenderConfig(
        width_px=440,
        height_px=340,
        grid="none",
        palette="grey",
        calibration=False,
        lead_names=False,
        footer=False,
        mode="L",
    )
    picture, traced = render_traces(simulate("LBBB", seed=0), config)
    paper = np.asarray(picture).max()
    bent = Augmentation(
        rotation_deg=7.0, crop=(0.05, 0.0, 0.1, 0.02), corners=((0.03, 0.01),) * 2 + ((-0.02, 0.0),) * 2
    )
    aged = augment(picture, Augmentation(**{**vars(bent), "desk": int(paper)}))
    seen = (paper - np.asarray(aged, dtype=np.float32)) / paper
    expected = np.asarray(bend(Image.fromarray(traced), bent, 0.0))
    assert np.abs(seen - expected).mean() < 0.01
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.corrcoef(seen.ravel(), traced.ravel())[0, 1] < 0.5
    assert bend(picture, Augmentation(blur_px=2.0), 0) is picture
