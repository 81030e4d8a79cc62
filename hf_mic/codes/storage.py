"""A quantiser as one safetensors file, and codes as .npy files read as memory maps."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_mic.files import plain, replaced_file

from .quantizer import ScalarQuantizer

__all__ = ["FORMAT_VERSION", "load_quantizer", "open_codes", "save_quantizer"]

FORMAT_VERSION = 1


def save_quantizer(quantizer: ScalarQuantizer, path: str | os.PathLike[str]) -> None:
    """Write a quantiser, whole or not at all: numbers as tensors, the rest as json under ``scalar_quantizer`` in the header.

    Args:
        quantizer: What to write.
        path: The file, ``*.safetensors``; its folder is created.

    Example:
        >>> save_quantizer(ScalarQuantizer(dims=3, bits=16), "code.safetensors")
        >>> load_quantizer("code.safetensors").bytes_per_vector
        6
    """
    header = {
        "format_version": FORMAT_VERSION,
        "dims": plain(quantizer.dims),
        "bits": plain(quantizer.bits),
        "rotation": "hadamard"
        if quantizer.signs is not None
        else "orthogonal"
        if quantizer.rotation is not None
        else None,
        "source": quantizer.source,
    }
    tensors = {name: getattr(quantizer, name) for name in _shapes(header)}
    with replaced_file(path) as temporary:
        save_file(tensors, temporary, metadata={"scalar_quantizer": json.dumps(header)})


def load_quantizer(path: str | os.PathLike[str]) -> ScalarQuantizer:
    """Read what :func:`save_quantizer` wrote.

    Raises:
        ValueError: If the file is no saved quantiser, one of a later version, or its tensors do not fit its header.
        FileNotFoundError: If there is no such file.
    """
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("scalar_quantizer")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from error
    if text is None:
        raise ValueError(f"{path} is a safetensors file but no saved quantiser: its header has no 'scalar_quantizer'.")
    header = json.loads(text)
    if header["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header['format_version']}, this release reads {FORMAT_VERSION}: update the package."
        )
    expected = _shapes(header)
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise ValueError(f"{path} must hold the tensors {expected}: it is damaged, write it again.")
    return ScalarQuantizer(header["dims"], header["bits"], **tensors, source=header["source"])


def _shapes(header: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    dims, bits = header["dims"], header["bits"]
    if bits >= 16:
        return {}
    turned = {"orthogonal": {"rotation": (dims, dims)}, "hadamard": {"signs": (2, dims)}, None: {}}[header["rotation"]]
    return {"means": (dims,), "spreads": (dims,), "levels": (2**bits,), **turned}


def open_codes(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Codes in a .npy file as a memory map. Shape: (N, bytes).

    Raises:
        ValueError: If the file does not hold a matrix of bytes.
        FileNotFoundError: If there is no such file.
    """
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise ValueError(f"{path} must hold uint8 of shape (N, bytes), it holds {codes.dtype} of shape {codes.shape}.")
    return codes
