"""What happens to ECG paper between the cart and the camera, as data: sampled from a seed, applied deterministically.

`AugmentConfig` says how much may happen, `sample_augmentation` draws one `Augmentation`, `restyle` applies its part that
concerns drawing (colours, grid, line width) to a `RenderConfig`, and `augment` applies the rest to the picture, in the order
of nature: the paper yellows and creases, is photographed askew, out of focus, by a noisy sensor. The artefacts are those of
ECG-Image-Kit (Shivashankara et al., Physiol. Meas. 45:055019, 2024); the code is our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from hf_evl_ecg.signals.ecg import ECG

from .config import RenderConfig
from .palettes import PALETTES
from .rendering import render

__all__ = ["AugmentConfig", "Augmentation", "Crease", "augment", "render_augmented", "restyle", "sample_augmentation"]


@dataclass(frozen=True)
class AugmentConfig:
    """The largest artefacts to draw from; zero turns one off, and ``probability=0`` all of them.

    Args:
        probability: Share of pictures that get any artefact at all.
        rotation_deg: Largest rotation, either way (degrees).
        crop: Largest share of width or height cut off at each side.
        perspective: Largest inward or outward shift of each corner, as a share of width or height.
        yellowing: Largest strength of yellowing, 0 to 1.
        blur_px: Largest standard deviation of the blur (px).
        noise: Largest standard deviation of the noise (grey levels of 255).
        creases: Largest number of creases.
        palettes: Names of papers to choose from; empty keeps the configured one.
        no_grid: Share of the altered pictures that lose their grid.
        trace_mm: Thinnest and thickest trace (mm); ``None`` keeps the configured one.

    Raises:
        ValueError: A value out of range, or an unknown palette.
    """

    probability: float = 0.5
    rotation_deg: float = 2.5
    crop: float = 0.01
    perspective: float = 0.015
    yellowing: float = 0.6
    blur_px: float = 0.8
    noise: float = 8.0
    creases: int = 3
    palettes: tuple[str, ...] = tuple(PALETTES)
    no_grid: float = 0.1
    trace_mm: tuple[float, float] | None = (0.2, 0.45)

    def __post_init__(self) -> None:
        limits = {
            "probability": 1.0, "rotation_deg": 45.0, "crop": 0.3, "perspective": 0.2, "yellowing": 1.0, "blur_px": 20.0,
            "noise": 100.0, "creases": 50, "no_grid": 1.0,
        }  # fmt: skip
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}: give 0 to {limit:g}")
        object.__setattr__(self, "palettes", tuple(self.palettes))
        unknown = sorted(set(self.palettes) - set(PALETTES))
        if unknown:
            raise ValueError(f"palettes={unknown}: known are {sorted(PALETTES)}")
        if self.trace_mm is not None:
            low, high = self.trace_mm
            if not 0.05 <= low <= high <= 3.0:
                raise ValueError(f"trace_mm={self.trace_mm}: give (thinnest, thickest) within 0.05 to 3 mm")
            object.__setattr__(self, "trace_mm", (float(low), float(high)))


@dataclass(frozen=True)
class Crease:
    """A fold: angle of its line (degrees, 0 = horizontal), a point on it (shares of width and height), depth (0 to 1)."""

    angle_deg: float
    through: tuple[float, float]
    depth: float


@dataclass(frozen=True)
class Augmentation:
    """One draw of every artefact; the defaults change nothing.

    Attributes:
        rotation_deg: Counter-clockwise rotation (degrees).
        crop: Shares cut off at the left, top, right and bottom.
        corners: Shift of the left top, right top, right bottom and left bottom corner, as shares of width and height.
        yellowing: Strength, 0 to 1.
        blur_px: Standard deviation of the blur (px).
        noise: Standard deviation of the noise (grey levels).
        creases: The folds.
        palette: Name of the paper, or ``None`` for the configured one.
        grid: Whether the grid is kept.
        trace_mm: Width of the trace (mm), or ``None`` for the configured one.
        desk: Brightness of what shows beyond the paper's edge, 0 to 255.
        seed: Seed of the noise and of the stains.
    """

    rotation_deg: float = 0.0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    corners: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * 4
    yellowing: float = 0.0
    blur_px: float = 0.0
    noise: float = 0.0
    creases: tuple[Crease, ...] = ()
    palette: str | None = None
    grid: bool = True
    trace_mm: float | None = None
    desk: int = 255
    seed: int = 0


def sample_augmentation(config: AugmentConfig, seed: int | tuple[int, ...]) -> Augmentation:
    """Draw the artefacts of one picture.

    Args:
        config: What may be drawn.
        seed: Non-negative; the same seed and configuration give the same draw. A tuple such as (seed, epoch, index) is mixed.

    Example:
        >>> sample_augmentation(AugmentConfig(probability=0.0), 7) == Augmentation()
        True
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= config.probability:
        return Augmentation()
    creases = tuple(
        Crease(
            float(rng.choice([0.0, 90.0]) + rng.normal(0.0, 8.0)),
            (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9))),
            float(rng.uniform(0.3, 1.0)),
        )
        for _ in range(int(rng.integers(0, config.creases + 1)))
    )
    shifts = rng.uniform(-config.perspective, config.perspective, (4, 2))
    left, top, right, bottom = (float(share) for share in rng.uniform(0.0, config.crop, 4))
    return Augmentation(
        rotation_deg=float(rng.uniform(-config.rotation_deg, config.rotation_deg)),
        crop=(left, top, right, bottom),
        corners=tuple((float(x), float(y)) for x, y in shifts),
        yellowing=float(rng.uniform(0.0, config.yellowing)),
        blur_px=float(rng.uniform(0.0, config.blur_px)),
        noise=float(rng.uniform(0.0, config.noise)),
        creases=creases,
        palette=str(rng.choice(config.palettes)) if config.palettes else None,
        grid=bool(rng.random() >= config.no_grid),
        trace_mm=None if config.trace_mm is None else float(rng.uniform(*config.trace_mm)),
        desk=int(rng.integers(90, 246)),
        seed=int(rng.integers(2**31)),
    )


def restyle(config: RenderConfig, augmentation: Augmentation) -> RenderConfig:
    """The drawing configuration with the augmentation's paper, grid and line width."""
    return replace(
        config,
        palette=config.palette if augmentation.palette is None else augmentation.palette,
        grid=config.grid if augmentation.grid else "none",
        trace_mm=config.trace_mm if augmentation.trace_mm is None else augmentation.trace_mm,
    )


def augment(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    """Apply yellowing, creases, geometry, blur and noise to a picture of the same size and mode.

    Args:
        image: An ``"RGB"`` or ``"L"`` image.
        augmentation: What to apply; the default `Augmentation` gives an equal image.

    Raises:
        ValueError: Another image mode.
    """
    if image.mode not in ("RGB", "L"):
        raise ValueError(f"image has mode {image.mode!r}: convert it to 'RGB' or 'L' first")
    rng = np.random.default_rng(augmentation.seed)
    image = image.copy()
    if augmentation.yellowing or augmentation.creases:
        paper = np.atleast_3d(np.array(image, dtype=np.float32))
        paper *= _yellow(augmentation.yellowing, image, rng)
        if augmentation.creases:
            paper *= _creases(augmentation.creases, image.size)[..., None]
        image = _image(paper, image.mode)
    if augmentation.rotation_deg or any(augmentation.crop) or any(map(any, augmentation.corners)):
        desk = (augmentation.desk,) * 3 if image.mode == "RGB" else augmentation.desk
        image = image.transform(
            image.size,
            Image.Transform.PERSPECTIVE,
            _view(augmentation, image.size),
            Image.Resampling.BILINEAR,
            fillcolor=desk,
        )
    if augmentation.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(augmentation.blur_px))
    if augmentation.noise:
        grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * np.float32(augmentation.noise)
        image = _image(np.atleast_3d(np.asarray(image, dtype=np.float32)) + grain, image.mode)
    return image


def render_augmented(
    ecg: ECG, config: RenderConfig, augment_config: AugmentConfig, seed: int | tuple[int, ...]
) -> Image.Image:
    """Draw an ECG and age its picture: `sample_augmentation`, `restyle`, `render` and `augment` in turn."""
    augmentation = sample_augmentation(augment_config, seed)
    return augment(render(ecg, restyle(config, augmentation)), augmentation)


def _image(values: np.ndarray, mode: str) -> Image.Image:
    pixels = (np.clip(values, 0, 255, out=values) + np.float32(0.5)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def _yellow(strength: float, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Factor on each channel: blue fades most, unevenly over the sheet. Shape: (height, width, channels)."""
    stains = Image.fromarray(rng.uniform(0.5, 1.0, (5, 6)).astype(np.float32)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    fade = np.array([0.03, 0.09, 0.34] if image.mode == "RGB" else [0.10], dtype=np.float32)
    return 1.0 - np.asarray(stains)[..., None] * (np.float32(strength) * fade)


def _creases(creases: tuple[Crease, ...], size: tuple[int, int]) -> np.ndarray:
    """Brightness of folded paper: a dark line with a broad shadow on one side and a highlight on the other."""
    width, height = size
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    shade = np.ones((height, width), dtype=np.float32)
    reach = 0.02 * max(size)
    for crease in creases:
        angle = math.radians(crease.angle_deg)
        along_x, along_y = math.sin(angle), math.cos(angle)
        distance = (x - crease.through[0] * width) * along_x - (y - crease.through[1] * height) * along_y
        line = np.exp(-((distance / (0.06 * reach)) ** 2))
        slope = np.sign(distance) * np.exp(-np.abs(distance) / reach)
        shade *= 1.0 - crease.depth * (0.22 * line - 0.06 * slope)
    return shade


def _view(augmentation: Augmentation, size: tuple[int, int]) -> tuple[float, ...]:
    """Coefficients of the homography from output pixels to paper pixels, as PIL's perspective transform takes them."""
    width, height = size
    left, top, right, bottom = augmentation.crop
    paper = np.array([(left, top), (1 - right, top), (1 - right, 1 - bottom), (left, 1 - bottom)])
    paper = (paper + np.array(augmentation.corners)) * size
    angle = math.radians(augmentation.rotation_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array(size) / 2
    paper = (paper - centre) @ turn.T + centre
    picture = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    system, target = np.zeros((8, 8)), paper.reshape(-1)
    for row, ((u, v), (x, y)) in enumerate(zip(picture, paper, strict=True)):
        system[2 * row] = (u, v, 1, 0, 0, 0, -u * x, -v * x)
        system[2 * row + 1] = (0, 0, 0, u, v, 1, -u * y, -v * y)
    return tuple(float(value) for value in np.linalg.solve(system, target))
