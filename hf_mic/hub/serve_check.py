"""Does a running server answer with the embeddings of a saved encoder, at each of its prefixes?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from hf_mic.layers import marked_dims
from hf_mic.options import check_between, check_distinct, check_number

from .embedding_server import DimensionsRefusedError, EmbeddingServer
from .publish import CHECK_TEXTS

__all__ = ["ADVICE", "ServeReport", "WidthCheck", "check_server"]

Verdict = Literal["same", "map left out", "prompt left out", "dimensions refused", "dimensions ignored", "other"]
Vectors = NDArray[np.float32]

UNIT = 5e-3
"""How far from 1 the length of a unit vector may be: bfloat16 has 8 bits."""

ADVICE: dict[Verdict, str] = {
    "map left out": "the server skipped the Dense modules, so prefixes are plain truncation. Save the encoder with legacy_modules "
    "(hf-mic adapt, train or publish --legacy_modules), or use a version of the server that reads today's names.",
    "prompt left out": "the encoder puts its default prompt before each text and the server does not: put it there yourself, or "
    "start the server with it (text-embeddings-inference: --default-prompt-name).",
    "dimensions refused": "config.json must hold is_matryoshka and matryoshka_dimensions: save the encoder again with "
    "hf_mic.layers.mark_matryoshka(model, dims), or start vLLM with --hf-overrides '{\"is_matryoshka\": true}'.",
    "dimensions ignored": "the server does not know dimensions: cut the vectors short and normalise them yourself, or use a newer "
    "version.",
    "other": "these are vectors of another model, pooling or prompt: look at what the server says of modules and pooling as it starts.",
}
"""What to do about each verdict but ``same``."""


@dataclass(frozen=True)
class WidthCheck:
    """What a server answers at one width.

    Attributes:
        dim: The width; the first of a report is the full one, asked for without ``dimensions``.
        verdict: ``same``: the vectors of the folder; ``map left out``: those of its encoder without its Dense modules;
            ``prompt left out``: those without its default prompt; ``dimensions refused``, ``dimensions ignored``; ``other``.
        distance: Largest 1 - cosine between the vectors of the server and those of the folder; None if they cannot be compared.
        unit: Whether the vectors have length 1; None if there are none.
        said: The words of a server that refused.
    """

    dim: int
    verdict: Verdict
    distance: float | None = None
    unit: bool | None = None
    said: str = ""


@dataclass(frozen=True)
class ServeReport:
    """What a server answers at each width of an encoder."""

    checks: tuple[WidthCheck, ...]

    @property
    def same(self) -> bool:
        """Whether the server gives the embeddings of the folder at every width."""
        return all(check.verdict == "same" for check in self.checks)

    def lines(self) -> Iterator[str]:
        """The report for a terminal: a line per width, then what to do."""
        yield f"{'width':>6} {'1 - cosine':>11} {'length 1':>9}  verdict"
        for check in self.checks:
            distance = "" if check.distance is None else f"{check.distance:.1e}"
            unit = {None: "", True: "yes", False: "no"}[check.unit]
            yield f"{check.dim:>6} {distance:>11} {unit:>9}  {check.verdict}"
        for verdict in dict.fromkeys(check.verdict for check in self.checks):
            said = next((f" ({check.said})" for check in self.checks if check.verdict == verdict and check.said), "")
            if verdict in ADVICE:
                yield f"{verdict}{said}: {ADVICE[verdict]}"
        if any(check.verdict == "same" and check.unit is False for check in self.checks):
            yield "Vectors of other lengths than 1 are to be compared by cosine, not by dot product."


def check_server(
    server: EmbeddingServer,
    folder: str | Path,
    *,
    dims: Sequence[int] | None = None,
    texts: Sequence[str] = CHECK_TEXTS,
    tolerance: float = 1e-3,
) -> ServeReport:
    """Compare what a server answers with what sentence-transformers computes from the folder that it should serve.

    Args:
        server: Where to ask.
        folder: The saved encoder, or its name on the Hub.
        dims: Prefix lengths to ask for. Default: those that its config names.
        texts: What to embed.
        tolerance: Largest 1 - cosine of equal vectors: half precision comes to about 1e-4.

    Raises:
        ServerError: The server cannot be reached, or answers with something else than one vector per text.
        ValueError: An option is out of range, or the folder holds no encoder.

    See docs/serve.md for a run.
    """
    check_number("tolerance", tolerance, positive=True)
    model = SentenceTransformer(str(folder), device="cpu")
    model.truncate_dim = None
    known = _known_vectors(model, list(texts))
    full = known["same"].shape[1]
    asked = [dim for dim in marked_dims(model) if dim < full] if dims is None else list(dims)
    for dim in asked:
        check_between("dims", dim, 1, full)
    if asked:
        check_distinct("dims", asked)
    checks = [_judge(server.embed(texts), full, known, tolerance)]
    for dim in sorted(asked, reverse=True):
        try:
            checks.append(_judge(server.embed(texts, dim), dim, known, tolerance))
        except DimensionsRefusedError as error:
            checks.append(WidthCheck(dim, "dimensions refused", said=str(error)))
    return ServeReport(tuple(checks))


def _known_vectors(model: SentenceTransformer, texts: list[str]) -> dict[Verdict, Vectors]:
    """Full-width vectors that a server may answer with: right ones first, then those of known mistakes."""
    found: dict[Verdict, Vectors] = {"same": model.encode(texts)}
    if any(isinstance(module, Dense) for module in model):
        rest = SentenceTransformer(
            modules=[module for module in model if not isinstance(module, Dense)],
            device="cpu",
            prompts={name: text or "" for name, text in model.prompts.items()},
            default_prompt_name=model.default_prompt_name,
        )
        found["map left out"] = rest.encode(texts)
    if model.default_prompt_name and model.prompts.get(model.default_prompt_name):
        found["prompt left out"] = model.encode(texts, prompt="")
    return found


def _judge(answer: Vectors, dim: int, known: dict[Verdict, Vectors], tolerance: float) -> WidthCheck:
    lengths = np.linalg.norm(answer, axis=1)
    unit = bool((np.abs(lengths - 1) <= UNIT).all())
    distances = {verdict: _distance(answer, vectors[:, :dim]) for verdict, vectors in known.items()}
    if answer.shape[1] == known["same"].shape[1] != dim:
        return WidthCheck(dim, "dimensions ignored", None, unit)
    near = [verdict for verdict, distance in distances.items() if distance is not None and distance <= tolerance]
    return WidthCheck(dim, near[0] if near else "other", distances["same"], unit)


def _distance(first: Vectors, second: Vectors) -> float | None:
    """Largest 1 - cosine of rows; None if they are of different width."""
    if first.shape != second.shape:
        return None
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return float(np.maximum(1 - cosines, 0).max())
