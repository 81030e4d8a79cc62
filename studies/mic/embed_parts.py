"""Embed texts once, in parts that survive a stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from hf_mic.files import write_atomically

__all__ = ["embed_parts"]

PART = 2048  # texts of a file
BATCH = 128


def embed_parts(
    model: str, texts: Sequence[str], folder: Path, name: str, *, dtype: str = "float32", progress: bool = True
) -> NDArray[np.float32]:
    """Unit embeddings of texts, from ``NAME.npy`` if it is there.

    Texts are embedded by length, in files ``NAME.KEY.0000.npy`` … of 2,048; a stopped run goes on after the last of them. The
    key is made of model and texts, so files of other texts are never taken for these.

    Args:
        model: Encoder: a folder or a name on the Hub.
        texts: What to embed.
        folder: Where the files are; made if missing.
        name: Beginning of their names.
        dtype: What the encoder computes in; ``"bfloat16"`` is three times as fast on processors that have it, and the vectors
            keep a cosine of 0.999 to those of float32.
        progress: Show a progress bar.

    Returns:
        float32. Shape: (len(texts), D).
    """
    key = hashlib.sha256(json.dumps([Path(model).name, dtype, *texts]).encode()).hexdigest()[:12]
    whole = folder / f"{name}.{key}.npy"
    if whole.exists():
        return np.load(whole)
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    parts = [folder / f"{name}.{key}.{start // PART:04d}.npy" for start in range(0, len(order), PART)]
    encoder: SentenceTransformer | None = None
    bar = tqdm(enumerate(parts), total=len(parts), desc=name, unit="part", disable=not progress)
    for number, part in bar:
        if part.exists():
            continue
        encoder = encoder or SentenceTransformer(model, model_kwargs={"dtype": getattr(torch, dtype)})
        chunk = [texts[i] for i in order[number * PART : (number + 1) * PART]]
        vectors = encoder.encode(chunk, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        write_atomically(part, partial(np.save, arr=vectors.astype(np.float32)))
    found = np.concatenate([np.load(part) for part in parts])
    embeddings = np.empty_like(found)
    embeddings[order] = found
    write_atomically(whole, lambda file: np.save(file, embeddings))
    for part in parts:
        part.unlink()
    return embeddings
