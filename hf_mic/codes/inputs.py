"""What is accepted as vectors and codes: matrices in lists, in memory, on disk or in torch; rows of vectors are finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FLOATS", "Codes", "Vectors", "as_array", "as_codes", "as_matrix", "check_floats", "finite_rows"]

FLOATS = (np.float16, np.float32, np.float64)

Vectors: TypeAlias = NDArray | Tensor | Sequence[Sequence[float]] | Sequence[NDArray] | Sequence[Tensor]
"""Rows of floats: a numpy array, a memory map, a tensor on any device, or a list of rows."""

Codes = TypeVar("Codes", bound=NDArray | Tensor)


def check_floats(embeddings: NDArray) -> None:
    """Refuse vectors that are no floating-point numbers.

    Raises:
        ValueError: If they are of another type.
    """
    if embeddings.dtype.newbyteorder("=") not in FLOATS:
        raise ValueError(
            f"Embeddings must be float16, float32 or float64, got {embeddings.dtype}: decode quantised vectors first, or convert whole "
            "numbers that are no codes with astype(numpy.float32)."
        )


def as_array(embeddings: Vectors) -> NDArray:
    """A numpy array, a memory map as it is, the values of a tensor, or a list or column of rows of any of these.

    Floats that numpy has not, such as bfloat16, become float32.

    Raises:
        ValueError: If rows are of different lengths, or a tensor is sparse.
    """
    try:
        if (
            isinstance(embeddings, np.ndarray) and embeddings.dtype == object
        ):  # a column of a table holds an array of arrays
            embeddings = list(embeddings)
        if isinstance(embeddings, list | tuple) and embeddings and isinstance(embeddings[0], Tensor):
            embeddings = torch.stack(list(embeddings))
        if not isinstance(embeddings, Tensor):
            return np.asarray(embeddings)
        tensor = embeddings.detach().cpu()
        known = tensor.dtype in (torch.float16, torch.float64) or not tensor.is_floating_point()
        return (tensor if known else tensor.float()).numpy()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"Embeddings must have shape (N, D), rows of one length, not sparse: {error}") from error


def as_matrix(embeddings: Vectors, width: int | None = None) -> NDArray:
    """Floating-point vectors as a numpy array, without a copy of what is one.

    Args:
        embeddings: As :data:`Vectors`. Shape: (N, D).
        width: The D that is needed; default any.

    Raises:
        ValueError: If they are no matrix of floating-point numbers of that width.

    Example:
        >>> as_matrix(torch.ones(2, 3, dtype=torch.bfloat16), width=3).dtype
        dtype('float32')
    """
    array = as_array(embeddings)
    if array.ndim != 2 or not array.shape[1] or array.shape[1] != (width or array.shape[1]):
        single = " (a single vector is a matrix of one row: [vector])" if array.ndim == 1 else ""
        raise ValueError(f"Embeddings must have shape (N, {width or 'D'}), got {array.shape}{single}.")
    check_floats(array)
    return array


def as_codes(codes: Codes, bytes_per_vector: int, what: str = "Codes") -> Codes:
    """Codes as they are, an array, a memory map or a tensor on its device; of lists of numbers an array.

    Args:
        codes: Shape: (N, bytes_per_vector).
        bytes_per_vector: Bytes of a code.
        what: Whose codes, for the message.

    Raises:
        ValueError: If they are no bytes of that shape.

    Example:
        >>> as_codes([[255, 0]], bytes_per_vector=2)
        array([[255,   0]], dtype=uint8)
    """
    given: Any = codes if isinstance(codes, np.ndarray | Tensor) else as_array(codes)
    if given is not codes and given.dtype == np.int64 and not (given & ~0xFF).any():
        given = given.astype(np.uint8)
    if given.dtype not in (np.uint8, torch.uint8) or given.ndim != 2 or given.shape[1] != bytes_per_vector:
        raise ValueError(
            f"{what} must be uint8 of shape (N, {bytes_per_vector}), got {given.dtype} of shape {tuple(given.shape)}."
        )
    return given


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
