"""MIC on frozen embeddings: fit a map after which the prefixes of existing vectors can be used alone.

No text, no labels, no encoder: the vectors themselves are the data, at full width they are the teacher, and only the map
is trained.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import get_scheduler

from hf_mic.functional import similarity_distillation_loss, soft_collapse_loss, spectral_isotropy_loss

from .prefix_map import FLOATS, PrefixMap, append_to_model, unit_rows
from .rotations import CayleyAdam, nearest_orthogonal

__all__ = ["AdaptConfig", "PrefixMap", "append_to_model", "fit_map", "principal_axes"]

SCAN_ROWS = 16384
COVARIANCE_ROWS = 100_000


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of :func:`fit_map`; the defaults did best on validation data of all-MiniLM-L6-v2.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["orthogonal", "linear", "mlp"] = field(
        default="orthogonal",
        metadata={
            "help": "orthogonal: a rotation, full-width cosine similarities stay exactly as they are. linear: any matrix; "
            "the full width is kept close by distillation only. mlp: a matrix plus a network of one hidden ReLU layer."
        },
    )
    dims: list[int] = field(
        default_factory=lambda: [8, 16, 32, 64, 128],
        metadata={"help": "Prefix lengths that shall be usable, each below the width of the embeddings."},
    )
    distill_weight: float = field(
        default=1.0, metadata={"help": "Weight of the similarity distillation from the original full-width embeddings."}
    )
    sir_weight: float = field(default=1.0, metadata={"help": "Weight of the spectral isotropy regularisation, SIR."})
    scr_weight: float = field(default=0.3, metadata={"help": "Weight of the soft collapse regularisation, SCR."})
    temperature: float = field(
        default=0.07, metadata={"help": "Temperature of the similarity distributions of teacher and prefixes."}
    )
    cv_mode: Literal["diagonal", "eigen"] = field(
        default="eigen",
        metadata={"help": "Variances whose spread SIR measures: of the coordinates, as in the paper, or eigenvalues."},
    )
    uniformity_t: float = field(default=2.0, metadata={"help": "Sharpness t of the uniformity term of SIR."})
    tau: float = field(
        default=0.1, metadata={"help": "Correlations of prefix and residual features up to this size cost nothing."}
    )
    var_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of SCR's floor on the standard deviations, which are measured in units of 1/sqrt(D)."
        },
    )
    init: Literal["pca", "identity"] = field(
        default="pca",
        metadata={"help": "Where the fit starts: at the principal axes of the embeddings or at no change."},
    )
    hidden_dim: int = field(default=512, metadata={"help": "Hidden units of the mlp."})
    neighbours: int = field(
        default=1,
        metadata={
            "help": "Each row of a batch brings its nearest neighbours out of a random pool, this many; 0: random batches. "
            "Distinguishing close vectors is what random batches hardly teach."
        },
    )
    pool_size: int = field(default=2048, metadata={"help": "Rows among which the neighbours are looked for, per step."})
    batch_size: int = field(default=256, metadata={"help": "Rows per step, neighbours included."})
    steps: int = field(default=400, metadata={"help": "Optimisation steps."})
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Peak rate; for a rotation the root mean square angle per step between two axes, in radians. "
            "Default: 0.01 for orthogonal, 0.003 for linear, 0.001 for mlp."
        },
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = field(
        default="cosine", metadata={"help": "Course of the learning rate after the warm-up."}
    )
    warmup_ratio: float = field(
        default=0.1, metadata={"help": "Share of the steps in which the rate rises to its peak."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of batches and initial weights; the same seed, the same map."})

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", ("orthogonal", "linear", "mlp")),
            ("cv_mode", ("diagonal", "eigen")),
            ("init", ("pca", "identity")),
            ("lr_scheduler_type", ("cosine", "linear", "constant_with_warmup")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        for name, value in (
            ("temperature", self.temperature),
            ("uniformity_t", self.uniformity_t),
            ("learning_rate", self.peak_rate()),
        ):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}.")
        weights = ("distill_weight", "sir_weight", "scr_weight")
        for name in (*weights, "tau", "var_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {getattr(self, name)}.")
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"Nothing to optimise: {', '.join(weights)} are all 0.")
        for name, least in (("batch_size", 3), ("steps", 1), ("hidden_dim", 1), ("neighbours", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio must lie in [0, 1), got {self.warmup_ratio}.")
        if self.batch_size // (self.neighbours + 1) < 3:
            raise ValueError(
                f"{self.neighbours} neighbours per row do not fit in a batch of {self.batch_size}: there must be room for "
                "three rows with theirs."
            )
        if self.neighbours and self.pool_size < self.batch_size:
            raise ValueError(f"pool_size must be at least batch_size, {self.batch_size}, got {self.pool_size}.")
        if not self.dims or min(self.dims) < 1 or len(set(self.dims)) < len(self.dims):
            raise ValueError(f"dims must be distinct positive prefix lengths, got {self.dims}.")

    def peak_rate(self) -> float:
        """The learning rate, or the default of the kind of map."""
        if self.learning_rate is not None:
            return self.learning_rate
        return {"orthogonal": 1e-2, "linear": 3e-3, "mlp": 1e-3}[self.kind]


def fit_map(embeddings: NDArray | Tensor, config: AdaptConfig | None = None, *, progress: bool = True) -> PrefixMap:
    r"""Fit a map so that prefixes of the mapped embeddings see the data as the whole embeddings do.

    Minimised over the map f, with Z = f(X) for a batch X of unit vectors and means over the prefix lengths d:

    .. math:: \frac1{|\mathcal M|} \sum_d w_{distill} \, \mathrm{KL}(X \Vert Z_{:d}) + w_{sir} L_{SIR}(Z_{:d})
        + w_{scr} L_{SCR}(\sqrt D Z; d)

    The three terms are those of :mod:`hf_mic.functional`; SCR has the batch in place of the tokens of a sequence, and sees
    coordinates of unit mean square so that its floor of 1 on the standard deviations is the isotropic value. The full
    width is one more student for ``linear`` and ``mlp``, which limits how far it drifts; a rotation keeps it exactly.

    The embeddings are checked once from end to end, then only ``pool_size`` rows (``batch_size`` without neighbours) are
    read per step. Remove exact copies first: a copy is its own nearest neighbour and teaches nothing.

    Args:
        embeddings: Floating-point vectors of any scale; a numpy array, a memory map, or a tensor. Shape: (N, D).
        config: Settings; default :class:`AdaptConfig`.
        progress: Show a progress bar.

    Returns:
        The map. The same embeddings, settings and number of threads give the same bits.

    Raises:
        ValueError: If the embeddings are not a floating-point matrix, have fewer rows than a batch, a row that
            is zero or not finite, or a width not above ``dims``; or if the fit diverges.

    Source: terms after arXiv 2605.29987.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(500, 32))
        >>> config = AdaptConfig(dims=[4, 8], batch_size=64, pool_size=256, steps=20)
        >>> fit_map(vectors, config, progress=False).apply(vectors, dim=4).shape
        (500, 4)
    """
    config = config or AdaptConfig()
    rows = _as_rows(embeddings, config)
    current = _initial_map(rows, config)
    losses = _train(current, rows, config, progress)
    tensors = {name: tensor.detach().contiguous() for name, tensor in current.tensors()}
    if config.kind == "orthogonal":
        tensors["weight"] = nearest_orthogonal(tensors["weight"])
    return PrefixMap(config.kind, **tensors, config=asdict(config), losses=losses)


def _train(current: PrefixMap, rows: NDArray, config: AdaptConfig, progress: bool) -> dict[str, float]:
    """Optimise the tensors of a map in place; returns the terms of the loss, averaged over the last tenth."""
    parameters = [tensor.requires_grad_() for _, tensor in current.tensors()]
    longest = max(config.dims)
    optimizer: torch.optim.Optimizer
    if config.kind == "orthogonal":
        optimizer = CayleyAdam(parameters, config.peak_rate(), columns=longest)
    else:
        optimizer = torch.optim.Adam(parameters, config.peak_rate(), betas=(0.9, 0.99))
    warmup = round(config.warmup_ratio * config.steps)
    scheduler = get_scheduler(config.lr_scheduler_type, optimizer, warmup, config.steps)
    columns = longest if config.kind == "orthogonal" and not config.scr_weight else None
    recent: deque[dict[str, float]] = deque(maxlen=max(1, config.steps // 10))
    with tqdm(_batches(rows, config), total=config.steps, desc="fit", unit="step", disable=not progress) as bar:
        for step, batch in enumerate(bar):
            terms = _terms(batch, current.forward(batch, columns=columns), config)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise ValueError(f"The fit diverged at step {step}: lower learning_rate, {config.peak_rate():g}.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            recent.append({name: term.item() for name, term in terms.items()})
            bar.set_postfix({name: f"{value:.3f}" for name, value in recent[-1].items()}, refresh=False)
    return {name: float(np.mean([values[name] for values in recent])) for name in recent[-1]}


def _terms(batch: Tensor, mapped: Tensor, config: AdaptConfig) -> dict[str, Tensor]:
    """The weighted terms of the loss, those of weight 0 left out."""
    width, terms = batch.size(1), {}
    if config.distill_weight:
        students = config.dims if config.kind == "orthogonal" else [*config.dims, width]
        divergence = similarity_distillation_loss(
            mapped,
            students,
            teacher=batch,
            student_temperature=config.temperature,
            teacher_temperature=config.temperature,
        )
        terms["distill"] = config.distill_weight * divergence.sum() / len(config.dims)
    if config.sir_weight:
        isotropy = spectral_isotropy_loss(mapped, config.dims, t=config.uniformity_t, cv_mode=config.cv_mode)
        terms["sir"] = config.sir_weight * isotropy.mean()
    if config.scr_weight:
        collapse = soft_collapse_loss(
            math.sqrt(width) * mapped.unsqueeze(0),
            torch.ones(1, len(mapped)),
            config.dims,
            tau=config.tau,
            var_weight=config.var_weight,
        )
        terms["scr"] = config.scr_weight * collapse.mean()
    return terms


def _batches(rows: NDArray, config: AdaptConfig) -> Iterator[Tensor]:
    """Batches of distinct unit rows; with neighbours, anchors and the rows nearest to them in a fresh random pool."""
    random = np.random.default_rng(config.seed)
    anchors = config.batch_size // (config.neighbours + 1)
    for _ in range(config.steps):
        drawn = min(config.pool_size, len(rows)) if config.neighbours else config.batch_size
        pool = unit_rows(rows[np.sort(random.choice(len(rows), drawn, replace=False, shuffle=False))])
        if not config.neighbours:
            yield pool
            continue
        chosen = torch.from_numpy(random.choice(drawn, anchors, replace=False))
        similarity = pool[chosen] @ pool.T
        similarity.scatter_(1, chosen.unsqueeze(1), -torch.inf)
        nearest = similarity.topk(config.neighbours, dim=1).indices
        yield pool[torch.cat([chosen, nearest.flatten()]).unique()]


def _as_rows(embeddings: NDArray | Tensor, config: AdaptConfig) -> NDArray:
    """The embeddings as a numpy array, after a look at every row."""
    if isinstance(embeddings, Tensor):
        tensor = embeddings.detach().cpu()
        embeddings = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2:
        raise ValueError(f"Embeddings must have shape (N, D), got {embeddings.shape}.")
    if embeddings.dtype not in FLOATS:
        raise ValueError(
            f"Embeddings must be float16, float32 or float64, got {embeddings.dtype}: decode quantised vectors first."
        )
    count, width = embeddings.shape
    if max(config.dims) >= width:
        raise ValueError(f"dims {config.dims} must all lie below the width {width} of the embeddings.")
    if count < config.batch_size:
        raise ValueError(
            f"A batch of {config.batch_size} needs at least as many embeddings, got {count}: lower batch_size, or give "
            "more vectors (ten times the width is a fair least)."
        )
    for start in range(0, count, SCAN_ROWS):
        unit_rows(embeddings[start : start + SCAN_ROWS], start)
    return embeddings


def _initial_map(rows: NDArray, config: AdaptConfig) -> PrefixMap:
    width = rows.shape[1]
    weight = principal_axes(rows, config.seed) if config.init == "pca" else torch.eye(width)
    if config.kind != "mlp":
        return PrefixMap(config.kind, weight)
    hidden_weight = torch.randn(width, config.hidden_dim, generator=torch.Generator().manual_seed(config.seed))
    return PrefixMap(
        "mlp", weight, hidden_weight, torch.zeros(config.hidden_dim), torch.zeros(config.hidden_dim, width)
    )


def principal_axes(rows: NDArray, seed: int = 0) -> Tensor:
    """Principal axes of the unit vectors as an orthogonal matrix, most variance first, largest entry positive.

    Args:
        rows: Embeddings; of more than 100,000 rows a random sample of that size is used. Shape: (N, D).
        seed: Seed of the sample.

    Returns:
        The eigenvectors of the covariance matrix, as columns. Shape: (D, D).
    """
    count, width = rows.shape
    used = np.arange(count)
    if count > COVARIANCE_ROWS:
        used = np.sort(np.random.default_rng(seed).choice(count, COVARIANCE_ROWS, replace=False, shuffle=False))
    total, mean = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for start in range(0, len(used), SCAN_ROWS):
        unit = unit_rows(rows[used[start : start + SCAN_ROWS]])
        total += (unit.T @ unit).double()
        mean += unit.double().sum(dim=0)
    mean /= len(used)
    axes = torch.linalg.eigh(total / len(used) - torch.outer(mean, mean)).eigenvectors.flip(1)
    sign = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return (axes * sign).float()
