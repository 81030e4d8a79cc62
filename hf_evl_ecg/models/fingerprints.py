"""SHA-256 of what decides a model's answers: its weights, its processor, the tensors of an example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .native import base_model

__all__ = ["model_fingerprint", "processor_fingerprint", "tensors_sha256"]


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a model's weights: its revision, wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(base_model(model).state_dict().items()):
        _update(digest, name, tensor.detach().cpu())
    return digest.hexdigest()


def _update(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())


def processor_fingerprint(processor: Any) -> str:
    """SHA-256 over a processor's settings, chat template and tokenizer; the same before and after the tokenizer was used."""
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    tokenizer |= {"padding": None, "truncation": None}  # left over from the last call
    parts = (processor.to_json_string(), processor.chat_template or "", json.dumps(tokenizer, sort_keys=True))
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of some tensors, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        _update(digest, name, tensor)
    return digest.hexdigest()
