from .artefacts import AugmentConfig
from .augment import render_augmented
from .config import RenderConfig
from .fit import cut_leads, fit_gain
from .image_file import ImageFile, upright_rgb
from .ink import ink_map
from .layouts import LAYOUTS, Layout
from .rendering import render, render_traces

__all__ = [
    "LAYOUTS",
    "AugmentConfig",
    "ImageFile",
    "Layout",
    "RenderConfig",
    "cut_leads",
    "fit_gain",
    "ink_map",
    "render",
    "render_augmented",
    "render_traces",
    "upright_rgb",
]
