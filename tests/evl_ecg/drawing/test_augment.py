"""Paper artefacts: nothing when off, the same for a seed, and each does what its name says by a known amount."""

from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.drawing.artefacts import Augmentation, AugmentConfig, Crease, sample_augmentation
from hf_evl_ecg.drawing.augment import augment, render_augmented, restyle
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.palettes import PALETTES
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.simulation import simulate

SMALL = RenderConfig(width_px=660, height_px=510)
OFF = AugmentConfig(
    probability=1.0, rotation_deg=0, crop=0, perspective=0, yellowing=0, blur_px=0, noise=0, creases=0, palettes=(), no_grid=0, trace_mm=None
)  # fmt: skip


@pytest.fixture(scope="module")
def ecg():
    return simulate("NORM", seed=0)


@pytest.fixture(scope="module")
def picture(ecg):
    return render(ecg, SMALL)


def grey(value=200, size=(120, 80)):
    return Image.new("L", size, value)


def test_off_is_the_identity(ecg, picture):
    assert augment(picture, Augmentation()).tobytes() == picture.tobytes()
    assert augment(picture, sample_augmentation(OFF, 3)).tobytes() == picture.tobytes()
    never = AugmentConfig(probability=0.0)
    assert all(sample_augmentation(never, seed) == Augmentation() for seed in range(20))
    assert restyle(SMALL, Augmentation()) == SMALL
    assert render_augmented(ecg, SMALL, never, 1).tobytes() == picture.tobytes()


def test_same_seed_same_bytes_and_other_seed_others(ecg):
    config = AugmentConfig(probability=1.0)
    first, again, other = (render_augmented(ecg, SMALL, config, seed).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sample_augmentation(config, (1, 0)) != sample_augmentation(config, (1, 1))


def test_the_input_is_left_alone(picture):
    before = picture.tobytes()
    augment(picture, sample_augmentation(AugmentConfig(probability=1.0), 4))
    assert picture.tobytes() == before


def test_probability_is_the_share_of_altered_pictures():
    altered = [sample_augmentation(AugmentConfig(probability=0.3), seed) != Augmentation() for seed in range(1000)]
    assert np.mean(altered) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", [field.name for field in fields(AugmentConfig) if field.name != "probability"])
def test_every_field_changes_pictures_within_its_limit(ecg, picture, name):
    default = getattr(AugmentConfig(), name)
    config = replace(OFF, **{name: 1.0 if name == "no_grid" else default})
    draws = [sample_augmentation(config, seed) for seed in range(40)]
    assert any(render_augmented(ecg, SMALL, config, seed).tobytes() != picture.tobytes() for seed in range(8))
    drawn = {
        "rotation_deg": lambda a: abs(a.rotation_deg), "crop": lambda a: max(a.crop), "perspective": lambda a: np.abs(a.corners).max(),
        "yellowing": lambda a: a.yellowing, "blur_px": lambda a: a.blur_px, "noise": lambda a: a.noise,
        "creases": lambda a: len(a.creases),
    }  # fmt: skip
    if name in drawn:
        values = [drawn[name](draw) for draw in draws]
        assert 0.6 * default <= max(values) <= default
    if name == "palettes":
        assert {draw.palette for draw in draws} == set(PALETTES)
    if name == "trace_mm":
        assert all(0.2 <= draw.trace_mm <= 0.45 for draw in draws)


def test_restyle_takes_paper_grid_and_pen():
    styled = restyle(SMALL, Augmentation(palette="blue", grid=False, trace_mm=0.4))
    assert (styled.palette, styled.grid, styled.trace_mm) == (PALETTES["blue"], "none", 0.4)


def test_a_quarter_turn_is_exact():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    turned = np.asarray(augment(image, Augmentation(rotation_deg=90.0)), int)
    assert np.abs(turned - np.rot90(np.asarray(image)).astype(int)).max() <= 1


def test_cropping_enlarges_the_middle():
    image = np.zeros((80, 120), np.uint8)
    image[30:50, 45:75] = 255
    found = np.asarray(augment(Image.fromarray(image), Augmentation(crop=(0.25, 0.25, 0.25, 0.25))))
    rows, columns = np.flatnonzero(found[:, 60] > 127), np.flatnonzero(found[40] > 127)
    assert (rows[0], rows[-1]) == (20, 59)
    assert (columns[0], columns[-1]) == (30, 89)


def test_perspective_moves_corners_where_asked():
    image = np.zeros((100, 200), np.uint8)
    image[20:24, 40:44] = 255  # around (42, 22) = (0.21, 0.22)
    shifted = augment(Image.fromarray(image), Augmentation(corners=((0.1, 0.1),) * 4, desk=0))
    y, x = np.argwhere(np.asarray(shifted) > 127).mean(axis=0) + 0.5
    assert (x, y) == pytest.approx((42 - 20, 22 - 10), abs=0.6)
    one = np.asarray(
        augment(Image.fromarray(image), Augmentation(corners=((0.1, 0.1), (0, 0), (0, 0), (0, 0)), desk=0))
    )
    y, x = np.argwhere(one > 127).mean(axis=0)
    assert x < 42
    assert y < 22


def test_the_desk_shows_beyond_the_paper():
    turned = augment(Image.new("RGB", (100, 100), (250, 240, 240)), Augmentation(rotation_deg=20.0, desk=100))
    assert turned.getpixel((0, 0)) == (100, 100, 100)
    assert turned.getpixel((50, 50)) == (250, 240, 240)


def test_noise_has_the_stated_deviation():
    noisy = np.asarray(augment(grey(128, (400, 300)), Augmentation(noise=6.0, seed=1)), float) - 128
    assert noisy.std() == pytest.approx(6.0, rel=0.03)
    assert abs(noisy.mean()) < 0.1


def test_blur_spreads_by_the_stated_deviation():
    image = np.zeros((61, 61), np.uint8)
    image[:, 30:] = 255
    blurred = np.diff(np.asarray(augment(Image.fromarray(image), Augmentation(blur_px=3.0)), float)[30])
    place = np.arange(60)
    mean = np.average(place, weights=blurred)
    assert np.sqrt(np.average((place - mean) ** 2, weights=blurred)) == pytest.approx(3.0, rel=0.1)


def test_paper_yellows_unevenly():
    aged = np.asarray(
        augment(Image.new("RGB", (200, 150), (250, 250, 250)), Augmentation(yellowing=1.0, seed=2)), float
    )
    red, green, blue = aged.mean(axis=(0, 1))
    assert 250 > red > green > blue
    assert 150 < blue < 220
    assert aged[..., 2].std() > 3
    assert (np.diff(aged[75, :, 2]) ** 2).max() < 25, "stains are smooth"


def test_a_crease_darkens_its_line():
    folded = np.asarray(augment(grey(200, (300, 200)), Augmentation(creases=(Crease(0.0, (0.5, 0.25), 1.0),))), float)
    assert folded.mean(axis=1).argmin() in (49, 50, 51)
    assert folded[50].mean() < 165
    assert folded[190].mean() == pytest.approx(200, abs=1)
    upright = np.asarray(augment(grey(200, (300, 200)), Augmentation(creases=(Crease(90.0, (0.25, 0.5), 1.0),))), float)
    assert upright.mean(axis=0).argmin() in (74, 75, 76)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_and_mode_are_kept(ecg, mode):
    config = replace(SMALL, mode=mode)
    image = render_augmented(ecg, config, AugmentConfig(probability=1.0), 9)
    assert (image.size, image.mode) == ((660, 510), mode)


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="'RGBA'"):
        augment(Image.new("RGBA", (50, 50)), Augmentation())


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": 1.5},
        {"rotation_deg": -1},
        {"crop": 0.6},
        {"noise": float("nan")},
        {"creases": 99},
        {"palettes": ("mauve",)},
        {"trace_mm": (0.5, 0.2)},
    ],
)
def test_bad_configuration_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        AugmentConfig(**changes)
