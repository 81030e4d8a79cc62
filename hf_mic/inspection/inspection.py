"""What an encoder's prefixes are worth: neighbours kept, storage, geometry and scores at each dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from hf_mic.capture import check_encoder
from hf_mic.evaluation.evaluation import encoders, precomputed, score_embeddings
from hf_mic.evaluation.metrics import normalize, truncate
from hf_mic.evaluation.precision import bytes_per_vector, quantize
from hf_mic.evaluation.scoring import TextIndex, embed_checked
from hf_mic.evaluation.tasks import Task
from hf_mic.frozen.vectors import NARROW, describe_direction, principal_axes
from hf_mic.geometry.diagnostics import geometry_report
from hf_mic.geometry.linalg import centre, draw, eigenvalues, factorise, neighbours, shared

from .settings import InspectionError, InspectionSettings

__all__ = ["Inspection", "inspect_model", "measure_embeddings"]

RANDOM_DRAWS = 3


@dataclass(frozen=True)
class Inspection:
    """Measurements of one encoder on one set of texts, or of vectors from anywhere.

    Attributes:
        model: Facts about the encoder, or the vectors.
        texts: How many texts or vectors were given and measured, and where they came from.
        neighbours: One row per dimension: share of a text's k nearest full-width neighbours (cosine) that remain among
            its k nearest, for the first d coordinates (``first``), for d coordinates drawn at random (``random``, mean of
            three draws) and for the first d principal axes of the same texts (``principal_axes``).
        storage: One row per dimension and precision: ``bytes_per_vector``, and the share of neighbours ``kept``.
        geometry: Rows of :func:`hf_mic.geometry.diagnostics.geometry_report`.
        spectra: Dimension → covariance eigenvalues of that prefix, largest first.
        scores: Rows of :func:`hf_mic.evaluation.evaluation.score_embeddings`; empty without tasks.
        settings: The settings.
        mapped: What a map makes of the same vectors: its ``name``, ``neighbours``, ``storage``, ``geometry``, ``spectra``, and
            the ``code`` of a compressor; empty without a map.
    """

    model: Mapping[str, Any]
    texts: Mapping[str, Any]
    neighbours: Sequence[Mapping[str, Any]]
    storage: Sequence[Mapping[str, Any]]
    geometry: Sequence[Mapping[str, Any]]
    spectra: Mapping[int, NDArray]
    scores: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    mapped: Mapping[str, Any] = field(default_factory=dict)


def inspect_model(
    model: SentenceTransformer,
    texts: Sequence[str] | None = None,
    *,
    tasks: Sequence[Task] = (),
    name: str = "model",
    next_command: str | None = None,
    settings: InspectionSettings | None = None,
    progress_bar: bool = False,
) -> Inspection:
    """Embed texts at full width and measure every prefix.

    A ``truncate_dim`` of the model is set aside meanwhile, and is one of the dimensions measured by default.

    Args:
        model: Any SentenceTransformer; only its sentence embeddings are used.
        texts: What it will see in use, since geometry depends on the domain. Default: the texts of the tasks.
        tasks: What to score it on.
        name: Its name in the report.
        next_command: What finds a rotation for it, named in the verdict where one can make prefixes better.
        settings: How to inspect; default :class:`hf_mic.inspection.settings.InspectionSettings`.
        progress_bar: Show progress.

    Raises:
        InspectionError: Too few distinct texts in the texts or tasks, embeddings that are all equal, an unknown prompt, or dims
            beyond the width.
        TypeError: A model that is no SentenceTransformer.
        ValueError: Embeddings that are not finite.

    Example:
        >>> words = ("fast", "slow", "wide", "narrow", "normal")
        >>> texts = [f"{first} heart rate {second} complex" for first in words for second in words]
        >>> found = inspect_model(encoder, texts)
        >>> [row["bytes_per_vector"] for row in found.storage[:3]]  # 8 dimensions as float32, int8 and bits
        [32, 8, 1]
    """
    check_encoder(model, "inspect_model")
    settings = settings or InspectionSettings()
    if settings.prompt_name is not None and settings.prompt_name not in model.prompts:
        raise InspectionError(f"prompt_name={settings.prompt_name!r}: the model has {sorted(model.prompts)}")
    given = None if texts is None else list(dict.fromkeys(texts))
    # Everything is measured from the full width, whatever encode would return.
    truncate_dim, model.truncate_dim = model.truncate_dim, None
    try:
        chosen, embeddings, index, scored = _embed(model, given, tasks, settings, progress_bar)
    finally:
        model.truncate_dim = truncate_dim
    dims = settings.dims_for(embeddings.shape[1], truncate_dim)
    measured = measure_embeddings(embeddings, dims, settings, progress_bar=progress_bar)
    counts = {
        "from": "tasks" if given is None else "texts",
        "given": len(index.documents) if given is None else len(given),
        "measured": len(chosen),
        "mean_characters": round(float(np.mean([len(text) for text in chosen])), 1),
    }
    scores = _score(tasks, index, scored, dims, name, settings, progress_bar) if tasks else []
    facts = _facts(model, name, truncate_dim, embeddings) | {"next_command": next_command}
    return Inspection(facts, counts, **measured, scores=scores, settings=asdict(settings))


def _embed(
    model: SentenceTransformer,
    given: list[str] | None,
    tasks: Sequence[Task],
    settings: InspectionSettings,
    progress_bar: bool,
) -> tuple[list[str], NDArray, TextIndex, NDArray]:
    """The measured texts with their embeddings, and all texts of the tasks with theirs."""
    embed, embed_queries = encoders(
        model,
        batch_size=settings.batch_size,
        progress_bar=progress_bar,
        prompt_name=settings.prompt_name,
        prompt=settings.prompt,
    )
    index = TextIndex(tasks, separate_queries=embed_queries is not None)
    pool = list(index.documents) if given is None else given
    if len(pool) < 2 * settings.k + 1:
        raise InspectionError(
            f"{len(pool)} distinct texts are too few to compare {settings.k} neighbours: give at least {2 * settings.k + 1} "
            "like those the model will see (--texts FILE), or tasks that bring their own (--tasks)."
        )
    rows = draw(len(pool), settings.max_texts, settings.seed)
    chosen = [pool[row] for row in rows]
    scored = index.embed(embed, embed_queries) if tasks else np.zeros((0, 0), np.float32)
    embeddings = scored[rows] if given is None else embed_checked(embed, chosen)
    if not np.ptp(embeddings, axis=0).any():
        raise InspectionError(f"All {len(chosen)} texts have the same embedding: the model is collapsed.")
    return chosen, embeddings, index, scored


def _score(
    tasks: Sequence[Task],
    index: TextIndex,
    embeddings: NDArray,
    dims: Sequence[int],
    name: str,
    settings: InspectionSettings,
    progress_bar: bool,
) -> list[dict[str, Any]]:
    documents, queries = list(index.documents), list(index.queries)
    separate = index.queries is not index.documents and queries
    return score_embeddings(
        tasks,
        precomputed(documents, embeddings[: len(documents)]),
        dims,
        method=name,
        precisions=settings.precisions,
        embed_queries=precomputed(queries, embeddings[len(documents) :]) if separate else None,
        n_bootstrap=settings.n_bootstrap,
        bootstrap_seed=settings.seed,
        progress_bar=progress_bar,
    )


def _facts(model: SentenceTransformer, name: str, truncate_dim: int | None, embeddings: NDArray) -> dict[str, Any]:
    norms = np.linalg.norm(embeddings, axis=1)
    outside, direction = describe_direction(normalize(embeddings[norms > 0]))
    longest = model.max_seq_length
    return {
        "name": name,
        "modules": [type(module).__name__ for module in model],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "width": embeddings.shape[1],
        "truncate_dim": truncate_dim,
        "max_seq_length": int(longest) if longest is not None and math.isfinite(longest) else None,
        "similarity": model.similarity_fn_name,
        "prompts": {key: text for key, text in model.prompts.items() if text},
        "default_prompt_name": model.default_prompt_name,
        "norm": {"mean": float(norms.mean()), "lowest": float(norms.min()), "highest": float(norms.max())},
        "outside_of_one_direction": outside,
        "one_direction": direction if outside < NARROW else None,
    }


def measure_embeddings(
    embeddings: NDArray,
    dims: Sequence[int],
    settings: InspectionSettings,
    *,
    reference: NDArray | None = None,
    progress_bar: bool = False,
) -> dict[str, Any]:
    """The label-free part of an inspection, of vectors from anywhere.

    Args:
        embeddings: Vectors of distinct texts. Shape: (N, D), N ≥ 2k + 1.
        dims: Prefix widths, each 1 ≤ d ≤ D.
        settings: ``precisions``, ``k``, ``max_queries`` and ``seed`` are used.
        reference: Vectors of the same texts whose neighbours are to be kept. Default: the embeddings. Shape: (N, D').
        progress_bar: Show progress.

    Returns:
        ``neighbours``, ``storage``, ``geometry`` and ``spectra`` of an :class:`Inspection`.
    """
    full = normalize(np.asarray(embeddings, dtype=np.float32))
    count, width = full.shape
    queries, k = draw(count, settings.max_queries, settings.seed), settings.k
    nearest = neighbours(full if reference is None else reference, queries, k)
    # Zero vectors have no direction, so they do not shape the axes.
    axes = full @ principal_axes(full[full.any(axis=1)]).numpy()
    random = np.random.default_rng(settings.seed)
    orders = [random.permutation(width) for _ in range(RANDOM_DRAWS)]

    def kept(vectors: NDArray) -> float:
        return float(shared(nearest, neighbours(vectors, queries, k)).mean() / k)

    compared: list[dict[str, Any]] = []
    storage: list[dict[str, Any]] = []
    for dim in tqdm(dims, desc="neighbours", disable=not progress_bar):
        prefix = truncate(full, dim)
        row = {"dim": dim, "first": kept(prefix)}
        row["random"] = float(np.mean([kept(full[:, order[:dim]]) for order in orders]))
        compared.append(row | {"principal_axes": kept(axes[:, :dim])})
        for precision in settings.precisions:
            share = row["first"] if precision == "float32" else kept(quantize(prefix, precision, prefix))
            size = bytes_per_vector(dim, precision)
            storage.append({"dim": dim, "precision": precision, "bytes_per_vector": size, "kept": share})
    factor = factorise(centre(np.asarray(embeddings, dtype=np.float64)))
    return {
        "neighbours": compared,
        "storage": storage,
        "geometry": geometry_report(
            embeddings, dims, k=k, max_rows=max(count, 2), max_queries=settings.max_queries, seed=settings.seed
        ),
        "spectra": {dim: eigenvalues(factor[:, :dim], count) for dim in dims},
    }
