"""A quantiser as one safetensors file, and codes as .npy files read as memory maps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from hf_mic.files import parse_json, plain, replaced_file

from .packing import BITS
from .quantizer import ScalarQuantizer

__all__ = ["FORMAT_VERSION", "load_quantizer", "open_array", "open_codes", "read_by", "read_tensors", "save_quantizer"]

T = TypeVar("T")

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
    header, tensors = read_tensors(path, "scalar_quantizer", "quantiser")
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')!r:.40}, this release reads {FORMAT_VERSION}: update the package."
        )
    if problem := _problem(header):
        raise ValueError(f"{path} is no saved quantiser: its header says {problem}. It is damaged, write it again.")
    expected = _shapes(header)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise ValueError(f"{path} must hold the tensors {expected}: it is damaged, write it again.")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return ScalarQuantizer(header["dims"], header["bits"], **arrays, source=header["source"])


def _problem(header: dict[str, Any]) -> str | None:
    """What of a header is not as :func:`save_quantizer` writes it."""
    allowed: dict[str, Callable[[Any], bool]] = {
        "dims": lambda value: type(value) is int and 0 < value < 2**31,
        "bits": lambda value: type(value) is int and value in BITS,
        "rotation": lambda value: value in (None, "orthogonal", "hadamard"),
        "source": lambda value: isinstance(value, str),
    }
    wrong = [name for name, fits in allowed.items() if name not in header or not fits(header[name])]
    return f"{wrong[0]}={header.get(wrong[0])!r:.40}" if wrong else None


def read_tensors(path: str | os.PathLike[str], name: str, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The json under ``name`` in the header of a safetensors file, and its tensors, which must be finite numbers of float32.

    Args:
        path: The file.
        name: Under which the json stands.
        what: What the file should hold, for the messages.

    Raises:
        ValueError: If it is no such file, or has no such json, or other numbers.
        FileNotFoundError: If there is no such file.
    """

    def read() -> tuple[str | None, dict[str, Tensor]]:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(name), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    text, tensors = read_by(read, path, "safetensors")
    if text is None:
        raise ValueError(f"{path} is a safetensors file but no saved {what}: its header has no {name!r}.")
    header = parse_json(text, f"{path}, {name!r} in its header,")
    if not isinstance(header, dict):
        raise ValueError(
            f"{path} is no saved {what}: {name!r} in its header is no json object. It is damaged, write it again."
        )
    for key, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {key[:40]!r} must be finite numbers of float32. It is damaged, write it again.")
    return header, tensors


def read_by(read: Callable[[], T], path: str | os.PathLike[str], kind: str) -> T:
    """Let a library read a file; whatever it stumbles over in damaged bytes becomes one error that names the file.

    Raises:
        ValueError: If it cannot be read.
        FileNotFoundError: If there is no such file.
    """
    try:
        return read()
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise ValueError(f"{path} cannot be read as a {kind} file: it asks for more than fits into memory.") from error
    except Exception as error:
        # Some libraries quote the file at any length.
        said = str(error).strip() or type(error).__name__
        raise ValueError(f"{path} cannot be read as a {kind} file: {said[:300]}{'…' * (len(said) > 300)}") from error


def open_array(path: str | os.PathLike[str]) -> NDArray:
    """A .npy file as a memory map.

    Raises:
        ValueError: If it is no such file.
        FileNotFoundError: If there is no such file.
    """
    return read_by(lambda: np.load(path, mmap_mode="r", allow_pickle=False), path, ".npy")


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
    codes = open_array(path)
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise ValueError(f"{path} must hold uint8 of shape (N, bytes), it holds {codes.dtype} of shape {codes.shape}.")
    return codes
