"""Small numbers in bytes and back.

Coordinates stand in their order and fill each byte from its lowest bit: of 2-bit symbols, coordinate 0 is bits 0 and 1 of byte 0,
coordinate 4 bits 0 and 1 of byte 1. Bits that no coordinate needs are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hf_mic.options import check_choice

__all__ = ["BITS", "code_bytes", "pack", "symbols_of_bytes", "unpack"]

BITS = (1, 2, 4, 8, 16, 32)
"""Bits per coordinate that there are; 16 and 32 are floating-point numbers, the others numbers of levels."""


def code_bytes(dims: int, bits: int) -> int:
    """Bytes of a vector of ``dims`` coordinates with ``bits`` each, rounded up.

    Example:
        >>> [code_bytes(12, bits) for bits in BITS]
        [2, 3, 6, 12, 24, 48]
    """
    check_choice("bits", bits, BITS)
    return -(-dims * bits // 8)


def pack(symbols: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Numbers below ``2 ** bits`` in as few bytes as they need.

    Args:
        symbols: One number per coordinate. Shape: (N, d).
        bits: Bits per coordinate, at most 8.

    Returns:
        Shape: (N, code_bytes(d, bits)).

    Example:
        >>> pack(np.array([[1, 0, 1], [3, 2, 1]], dtype=np.uint8), 2)  # 1 + 16 * 1 and 3 + 4 * 2 + 16 * 1
        array([[17],
               [27]], dtype=uint8)
    """
    check_choice("bits", bits, BITS[:4])
    count, dims = symbols.shape
    per_byte = 8 // bits
    if dims % per_byte:
        symbols = np.pad(symbols, ((0, 0), (0, -dims % per_byte)))
    if bits == 1:
        return np.packbits(symbols, axis=1, bitorder="little")
    packed = symbols[:, ::per_byte].astype(np.uint8)
    for place in range(1, per_byte):
        packed |= symbols[:, place::per_byte] << np.uint8(bits * place)
    return packed.reshape(count, code_bytes(dims, bits))  # -1 says nothing of no rows


def unpack(codes: NDArray[np.uint8], bits: int, dims: int) -> NDArray[np.uint8]:
    """The numbers that :func:`pack` put into bytes.

    Args:
        codes: Shape: (N, code_bytes(dims, bits)).
        bits: Bits per coordinate, at most 8.
        dims: Coordinates d.

    Returns:
        Shape: (N, d).

    Example:
        >>> unpack(np.array([[17], [27]], dtype=np.uint8), 2, 3)
        array([[1, 0, 1],
               [3, 2, 1]], dtype=uint8)
    """
    check_choice("bits", bits, BITS[:4])
    return symbols_of_bytes(bits)[codes].reshape(len(codes), codes.shape[1] * (8 // bits))[:, :dims]


def symbols_of_bytes(bits: int) -> NDArray[np.uint8]:
    """The numbers that each byte holds. Shape: (256, 8 / bits).

    Example:
        >>> symbols_of_bytes(4)[0x21]
        array([1, 2], dtype=uint8)
    """
    shifts = np.arange(0, 8, bits)
    return ((np.arange(256)[:, None] >> shifts) & (2**bits - 1)).astype(np.uint8)
