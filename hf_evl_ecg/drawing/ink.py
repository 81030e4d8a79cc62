"""Where on a page the ECG is: how much of each part of it is trace, as a small map that travels beside the picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["INK_CELLS", "ink_map"]

INK_CELLS = 128
"""Rows and columns of an ink map: two cells at the least for each visual token of a fine grid; 64 KiB a page."""


def ink_map(traced: np.ndarray, cells: int = INK_CELLS) -> np.ndarray:
    """Mean over each cell of a grid that divides the page evenly; borders within a pixel are shared exactly.

    Args:
        traced: Covered share of each pixel, as `hf_evl_ecg.drawing.rendering.render_traces` gives it. Shape: (height, width).
        cells: Rows and columns of the map.

    Returns:
        Covered share of each cell, 0 to 1, whose mean is that of the page. Shape: (cells, cells), float32.

    Example:
        >>> ink_map(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.5]]), cells=2).round(3).tolist()
        [[0.667, 0.0], [0.667, 0.333]]
    """
    height, width = traced.shape
    return _means(height, cells) @ traced @ _means(width, cells).T


@lru_cache(maxsize=16)
def _means(pixels: int, cells: int) -> np.ndarray:
    """Weights that average pixels into cells. Shape: (cells, pixels), float32, read-only."""
    borders = np.arange(cells + 1)[:, None] * (pixels / cells)
    covered = np.clip(borders - np.arange(pixels), 0.0, 1.0)  # of each pixel, left of each border
    weights = (np.diff(covered, axis=0) * (cells / pixels)).astype(np.float32)
    weights.setflags(write=False)
    return weights
