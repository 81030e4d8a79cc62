"""How stored vectors are coded: as float32, as one byte or as one bit per coordinate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISIONS", "bytes_per_vector", "check_precisions", "quantize"]

PRECISIONS = ("float32", "int8", "binary")

Vectors = NDArray[np.float32]


def check_precisions(precisions: Sequence[str]) -> None:
    """Refuse what is not a list of distinct :data:`PRECISIONS`."""
    if not precisions or set(precisions) - {*PRECISIONS} or len(set(precisions)) < len(precisions):
        raise ValueError(f"precisions={list(precisions)}: must be distinct, of {', '.join(PRECISIONS)}, at least one")


def bytes_per_vector(dim: int, precision: str) -> int:
    """Storage of one vector: 4 bytes per coordinate as float32, 1 as int8, one bit (rounded up to bytes) as binary.

    Example:
        >>> [bytes_per_vector(12, precision) for precision in PRECISIONS]
        [48, 12, 2]
    """
    return {"float32": 4 * dim, "int8": dim, "binary": (dim + 7) // 8}[precision]


def quantize(vectors: Vectors, precision: str, calibration: Vectors) -> Vectors:
    """Pass vectors through a quantised code and back, to floats on which cosine is the similarity of the codes.

    The code is that of :func:`sentence_transformers.util.quantize_embeddings`:

    - ``int8``: 256 equal steps between the smallest and largest value of each coordinate in ``calibration``. Decoded to
      the middle of the step. One table of ranges (2 x d floats) is kept for the whole index.
    - ``binary``: the sign bit of each coordinate, decoded to ±1, so that cosine is 1 - 2 · Hamming distance / d: the
      ranking is exactly that of the Hamming distance, ties included.

    Args:
        vectors: Truncated, normalised embeddings. Shape: (N, d).
        precision: One of :data:`PRECISIONS`.
        calibration: Embeddings that set the int8 ranges (training texts or corpus, at least 2). Shape: (M, d).

    Returns:
        Decoded vectors; not normalised for ``int8`` and ``binary``. Shape: (N, d).

    Example:
        >>> quantize(np.array([[0.6, -0.8]], dtype=np.float32), "binary", np.zeros((2, 2), dtype=np.float32))
        array([[ 1., -1.]], dtype=float32)
    """
    if precision == "float32":
        return vectors
    # Here, because the settings of an inspection name precisions and must not wait for torch.
    from sentence_transformers.util import quantize_embeddings

    if precision == "binary":
        packed = np.asarray(quantize_embeddings(vectors, "ubinary"))
        bits = np.unpackbits(packed, axis=1, count=vectors.shape[1])
        # As +-1, so that a cosine counts equal bits exactly.
        return 2 * bits.astype(np.float32) - 1
    ranges = np.vstack([calibration.min(axis=0), calibration.max(axis=0)])
    codes = np.asarray(quantize_embeddings(vectors, "int8", ranges=ranges)).astype(np.float32)
    # Codes are -128 to 127; + 128.5 is the middle of a step, which halves the largest error of decoding.
    return ranges[0] + (codes + 128.5) * (ranges[1] - ranges[0]) / 255
