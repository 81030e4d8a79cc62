"""MIC on frozen embeddings: fit a map after which the prefixes of existing vectors can be used alone.

No text, no labels, no encoder: the vectors themselves are the data, at full width they are the teacher, and only the map
is trained.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import get_scheduler

from hf_mic.functional import similarity_distillation_loss, soft_collapse_loss, spectral_isotropy_loss

from .config import AdaptConfig
from .prefix_map import PrefixMap
from .rotations import CayleyAdam, nearest_orthogonal
from .vectors import checked_vectors, principal_axes, unit_rows

__all__ = ["fit_map"]


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
    rows = checked_vectors(embeddings, config.dims, config.batch_size)
    current = _initial_map(rows, config)
    losses = _train(current, rows, config, progress)
    tensors = {name: tensor.detach().contiguous() for name, tensor in current.tensors()}
    if config.kind == "orthogonal":
        # Hundreds of float32 steps leave rounding in the matrix; a rotation must keep cosines exactly.
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
    # A rotation leaves the full width as it is: without SCR no term looks beyond the longest prefix.
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
        # A rotation keeps all cosines of the full width, so there the divergence is 0 by construction.
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
        isotropy = spectral_isotropy_loss(mapped, config.dims, t=config.t, cv_mode=config.cv_mode)
        terms["sir"] = config.sir_weight * isotropy.mean()
    if config.scr_weight:
        collapse = soft_collapse_loss(
            # Coordinates of unit vectors have mean square 1/D, and the floor of L_var is at a standard deviation of 1.
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
        # Ascending row numbers: a memory map is read forward.
        pool = unit_rows(rows[np.sort(random.choice(len(rows), drawn, replace=False, shuffle=False))])
        if not config.neighbours:
            yield pool
            continue
        chosen = torch.from_numpy(random.choice(drawn, anchors, replace=False))
        similarity = pool[chosen] @ pool.T
        similarity.scatter_(1, chosen.unsqueeze(1), -torch.inf)
        nearest = similarity.topk(config.neighbours, dim=1).indices
        # A row that is the neighbour of two others must not stand twice: a copy is nearest to itself and teaches nothing.
        yield pool[torch.cat([chosen, nearest.flatten()]).unique()]


def _initial_map(rows: NDArray, config: AdaptConfig) -> PrefixMap:
    width = rows.shape[1]
    weight = principal_axes(rows, config.seed) if config.init == "pca" else torch.eye(width)
    if config.kind != "mlp":
        return PrefixMap(config.kind, weight)
    hidden_weight = torch.randn(width, config.hidden_dim, generator=torch.Generator().manual_seed(config.seed))
    return PrefixMap(
        "mlp", weight, hidden_weight, torch.zeros(config.hidden_dim), torch.zeros(config.hidden_dim, width)
    )
