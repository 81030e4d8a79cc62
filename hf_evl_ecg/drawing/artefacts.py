"""What happens to ECG paper between the cart and the camera, as data: how much may happen, and one draw of it from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_evl_ecg.arguments import check_between, check_choice, plain_fields

from .config import TRACE_RANGE_MM
from .palettes import PALETTES

__all__ = ["AugmentConfig", "Augmentation", "Crease", "sample_augmentation"]


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

    Example:
        >>> AugmentConfig(probability=1.0, blur_px=0.0, palettes=()).creases
        3
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
        plain_fields(self)
        limits = {
            "probability": 1.0, "rotation_deg": 45.0, "crop": 0.3, "perspective": 0.2, "yellowing": 1.0, "blur_px": 20.0,
            "noise": 100.0, "creases": 50, "no_grid": 1.0,
        }  # fmt: skip
        for name, limit in limits.items():
            check_between(name, getattr(self, name), 0, limit)
        object.__setattr__(self, "palettes", tuple(self.palettes))
        for palette in self.palettes:
            check_choice("palettes", palette, PALETTES)
        if self.trace_mm is not None:
            (low, high), (least, most) = self.trace_mm, TRACE_RANGE_MM
            if not least <= low <= high <= most:
                raise ValueError(f"trace_mm={self.trace_mm}: give (thinnest, thickest) within {least:g} to {most:g} mm")
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
