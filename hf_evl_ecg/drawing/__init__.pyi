from .artefacts import AugmentConfig
from .augment import render_augmented
from .config import RenderConfig
from .fit import cut_leads, fit_gain
from .image_file import ImageFile, upright_rgb
from .layouts import LAYOUTS, Layout
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
