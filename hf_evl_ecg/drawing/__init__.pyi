from .augment import AugmentConfig, render_augmented
from .config import RenderConfig
from .fit import cut_leads, fit_gain
from .geometry import LAYOUTS, Layout
from .image_file import ImageFile, upright_rgb
from .rendering import render

__all__ = [
    "LAYOUTS",
    "AugmentConfig",
    "ImageFile",
    "Layout",
    "RenderConfig",
    "cut_leads",
    "fit_gain",
    "render",
    "render_augmented",
    "upright_rgb",
]
