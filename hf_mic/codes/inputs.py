"""What is accepted as vectors: matrices of floats in memory, on disk or in torch, whose rows are finite."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FLOATS", "as_array", "as_matrix", "check_floats", "finite_rows"]

FLOATS = (np.float16, np.float32, np.float64)


def check_floats(embeddings: NDArray) -> None:
    """Refuse vectors that are no floating-point numbers.

    Raises:
        ValueError: If they are of another type.
    """
    if embeddings.dtype not in FLOATS:
        raise ValueError(
            f"Embeddings must be float16, float32 or float64, got {embeddings.dtype}: decode quantised vectors first."
        )


def as_array(embeddings: NDArray | Tensor) -> NDArray:
    """A numpy array, a memory map as it is, or the values of a tensor. bfloat16, which numpy has not, becomes float32.

    Raises:
        ValueError: If rows are of different lengths.
    """
    if isinstance(embeddings, Tensor):
        tensor = embeddings.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    try:
        return np.asarray(embeddings)
    except ValueError as error:
        raise ValueError(f"Embeddings must have shape (N, D), rows of one length: {error}") from error


def as_matrix(embeddings: NDArray | Tensor, width: int | None = None) -> NDArray:
    """Floating-point vectors as a numpy array, without a copy of what is one.

    Args:
        embeddings: A numpy array, a memory map, or a tensor. Shape: (N, D).
        width: The D that is needed; default any.

    Raises:
        ValueError: If they are no matrix of floating-point numbers of that width.

    Example:
        >>> as_matrix(torch.ones(2, 3, dtype=torch.bfloat16), width=3).dtype
        dtype('float32')
    """
    array = as_array(embeddings)
    if array.ndim != 2 or not array.shape[1] or array.shape[1] != (width or array.shape[1]):
        raise ValueError(f"Embeddings must have shape (N, {width or 'D'}), got {array.shape}.")
    check_floats(array)
    return array


def finite_rows(rows: NDArray, first: int = 0) -> NDArray[np.float32]:
    """Rows as float32, each checked.

    Args:
        rows: Vectors. Shape: (B, D).
        first: Number of the first row within the whole array, for the message.

    Raises:
        ValueError: If a row holds NaN or infinity, or a number beyond float32.

    Example:
        >>> finite_rows(np.array([[1.0, np.nan]]), first=7)
        Traceback (most recent call last):
        ValueError: Embedding row 7 holds NaN or infinity, or a number beyond float32 (1 such rows among 1): drop these rows, ...
    """
    with np.errstate(over="ignore"):  # refused below, by its row
        values = np.ascontiguousarray(rows, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Embedding row {first + bad[0]} holds NaN or infinity, or a number beyond float32 ({bad.size} such rows among "
            f"{len(rows)}): drop these rows, or embed their texts again."
        )
    return values
