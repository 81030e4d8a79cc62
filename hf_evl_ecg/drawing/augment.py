"""Paper that has been through something: `restyle` changes how an ECG is drawn, `augment` what became of the picture.

Artefacts follow one another in the order of nature: the paper yellows and creases, is photographed askew, out of focus, by a
noisy sensor. They are those of ECG-Image-Kit (Shivashankara et al., Physiol. Meas. 45:055019, 2024); the code is our own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.signals.ecg import ECG

from .artefacts import Augmentation, AugmentConfig, Crease, sample_augmentation
from .config import RenderConfig
from .rendering import render

__all__ = ["augment", "bend", "render_augmented", "restyle"]


def restyle(config: RenderConfig, augmentation: Augmentation) -> RenderConfig:
    """The drawing configuration with the augmentation's paper, grid and line width.

    Example:
        >>> restyle(RenderConfig(), Augmentation(grid=False, trace_mm=0.4)).grid
        'none'
    """
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

    Example:
        >>> paper = Image.new("RGB", (64, 32), "white")
        >>> augment(paper, Augmentation(yellowing=1.0)).getpixel((5, 5))[2] < 255
        True
    """
    check_choice("image.mode", image.mode, ("RGB", "L"))
    rng = np.random.default_rng(augmentation.seed)
    image = image.copy()
    if augmentation.yellowing or augmentation.creases:
        paper = np.atleast_3d(np.array(image, dtype=np.float32))
        paper *= _yellow(augmentation.yellowing, image, rng)
        if augmentation.creases:
            paper *= _creases(augmentation.creases, image.size)[..., None]
        image = _image(paper, image.mode)
    image = bend(image, augmentation, (augmentation.desk,) * 3 if image.mode == "RGB" else augmentation.desk)
    if augmentation.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(augmentation.blur_px))
    if augmentation.noise:
        grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * np.float32(augmentation.noise)
        image = _image(np.atleast_3d(np.asarray(image, dtype=np.float32)) + grain, image.mode)
    return image


def bend(image: Image.Image, augmentation: Augmentation, beyond: float | tuple[int, ...]) -> Image.Image:
    """The geometry of `augment` alone: rotation, crop and perspective; also for a map of what lies where on the page.

    Args:
        image: Of any mode.
        augmentation: Whose geometry to apply.
        beyond: What shows beyond the paper's edge.

    Returns:
        An image of the same size; the same one where there is nothing to bend.

    Example:
        >>> bend(Image.new("F", (4, 2), 1.0), Augmentation(crop=(0.0, 0.0, 0.25, 0.25)), 0.0).size
        (4, 2)
    """
    if not (augmentation.rotation_deg or any(augmentation.crop) or any(map(any, augmentation.corners))):
        return image
    view = _view(augmentation, image.size)
    return image.transform(image.size, Image.Transform.PERSPECTIVE, view, Image.Resampling.BILINEAR, fillcolor=beyond)


def render_augmented(
    ecg: ECG, config: RenderConfig, augment_config: AugmentConfig, seed: int | tuple[int, ...]
) -> Image.Image:
    """Draw an ECG and age its picture: `sample_augmentation`, `restyle`, `render` and `augment` in turn.

    Args:
        ecg: The record, in mV.
        config: How it is drawn.
        augment_config: What may happen to the paper.
        seed: As in `sample_augmentation`; the same gives the same picture.

    Example:
        >>> flat = ECG(np.zeros((5000, 12), np.float32), fs_hz=500)
        >>> render_augmented(flat, RenderConfig(width_px=440, height_px=340), AugmentConfig(probability=1.0), seed=7).size
        (440, 340)
    """
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
