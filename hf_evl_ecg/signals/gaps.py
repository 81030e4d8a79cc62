"""Times at which a lead holds no value: found, left out of extremes, filled. Missing samples are NaN throughout."""

import numpy as np

__all__ = ["fill_gaps", "recorded_spans", "value_ranges"]


def recorded_spans(signal: np.ndarray) -> list[tuple[int, int]]:
    """First and past-the-last sample that hold a value, of each lead; (0, 0) of a lead without any.

    Args:
        signal: Shape (T, leads).

    Example:
        >>> recorded_spans(np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]))
        [(1, 3), (0, 1)]
    """
    there = [np.flatnonzero(~np.isnan(column)) for column in signal.T]
    return [(int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0) for at in there]


def value_ranges(signal: np.ndarray) -> np.ndarray:
    """Largest minus smallest value of each lead; NaN of a lead without any.

    Args:
        signal: Shape (T, leads).

    Returns:
        Shape (leads,).

    Example:
        >>> value_ranges(np.array([[0.0, np.nan], [1.5, np.nan], [np.nan, np.nan]])).tolist()
        [1.5, nan]
    """
    leads = np.ascontiguousarray(signal.T)  # extremes are quick along neighbours
    return np.fmax.reduce(leads, axis=1) - np.fmin.reduce(leads, axis=1)


def fill_gaps(signal: np.ndarray) -> np.ndarray:
    """The signal with straight lines across each lead's gaps; its ends hold their nearest value, a lead without any is 0.

    Args:
        signal: Shape (T, leads).

    Example:
        >>> fill_gaps(np.array([[np.nan], [1.0], [np.nan], [3.0]])).ravel().tolist()
        [1.0, 1.0, 2.0, 3.0]
    """
    filled, holes, times = signal.copy(), np.isnan(signal), np.arange(len(signal))
    for column in np.flatnonzero(holes.any(0)):
        hole = holes[:, column]
        filled[hole, column] = 0.0 if hole.all() else np.interp(times[hole], times[~hole], signal[~hole, column])
    return filled
