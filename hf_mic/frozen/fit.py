"""MIC on frozen embeddings: fit a map after which the prefixes of existing vectors can be used alone.

No text, no labels, no encoder: the vectors themselves are the data, at full width they are the teacher, and only the map
is trained.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import get_scheduler

from hf_mic.codes.inputs import Vectors
from hf_mic.functional import (
    similarity_distillation_loss,
    soft_collapse_loss,
    spectral_isotropy_loss,
)
from hf_mic.statistics import similarity_divergence

from .config import AdaptConfig
from .held_out import compare_with_pca, split_held_out
from .prefix_map import PrefixMap
from .rotations import CayleyAdam, nearest_orthogonal
from .soft_codes import SHARPNESS, coded_similarity
from .vectors import checked_vectors, principal_axes, unit_rows

__all__ = ["fit_map"]

LEAST_DIVERGENCE = 1e-4  # nats: the full width starts at none, and has to stay near it, not to approach it for ever


def fit_map(embeddings: Vectors, config: AdaptConfig | None = None, *, progress: bool = True) -> PrefixMap:
    r"""Fit a map so that prefixes of the mapped embeddings see the data as the whole embeddings do.

    Minimised over the map f, with Z = f(X) for a batch X of unit vectors, with the geometric mean of the divergences and the
    arithmetic means of the regularisers over the prefix lengths d:

    .. math:: w_{distill} \exp\Big(\frac1{|\mathcal M|} \sum_d \log \mathrm{KL}(X \Vert Z_{:d})\Big)
        + \frac1{|\mathcal M|} \sum_d \big( w_{sir} L_{SIR}(Z_{:d}) + w_{scr} L_{SCR}(\sqrt D Z; d) \big)

    The three terms are those of :mod:`hf_mic.functional`; SCR has the batch in place of the tokens of a sequence, and sees
    coordinates of unit mean square so that its floor of 1 on the standard deviations is the isotropic value. The full
    width is one more student for ``linear`` and ``mlp``, which limits how far it drifts; a rotation keeps it exactly.

    The embeddings are checked once from end to end, then ``pool_size`` rows (``batch_size`` without neighbours) are read at
    a time. Exact copies are left out: a copy is its own nearest neighbour and teaches nothing.

    A twentieth of the rows, at most 512, is held out. ``held_out`` of the map says how many of their ten nearest rows each
    prefix finds, and how many as many principal axes find; a warning names the lengths at which the map is behind.

    Args:
        embeddings: Floating-point vectors of any scale; a numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).
        config: Settings; default :class:`AdaptConfig`.
        progress: Show a progress bar.

    Returns:
        The map. The same embeddings, settings and number of threads give the same bits.

    Raises:
        ValueError: If the embeddings are not a floating-point matrix, have fewer rows that differ than a batch, a row that
            is zero or not finite, or a width not above ``dims``; if they point the same way but for rounding, as with a huge
            offset or coordinate; or if the fit diverges.

    Source: terms after arXiv 2605.29987.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(500, 32))
        >>> config = AdaptConfig(dims=[4, 8], batch_size=64, pool_size=256, steps=20)
        >>> fit_map(vectors, config, progress=False).apply(vectors, dim=4).shape
        (500, 4)
    """
    config = config or AdaptConfig()
    rows, distinct = checked_vectors(embeddings, config.dims, config.batch_size)
    fit, held_out = (distinct[some] for some in split_held_out(len(distinct), config.batch_size, config.seed))
    axes = principal_axes(rows, config.seed, among=fit)
    current = _initial_map(axes, config)
    losses = _train(current, rows, fit, config, progress)
    tensors: dict[str, Any] = {name: tensor.detach().contiguous() for name, tensor in current.tensors()}
    if config.kind == "orthogonal":
        # Hundreds of float32 steps leave rounding in the matrix; a rotation must keep cosines exactly.
        tensors["weight"] = nearest_orthogonal(tensors["weight"])
    fitted = PrefixMap(config.kind, **tensors, config=asdict(config), losses=losses)
    apply = partial(fitted.forward, columns=max(config.dims))
    kept = compare_with_pca(apply, axes, rows, fit, held_out, config.dims, bits=config.bits, seed=config.seed)
    return replace(fitted, held_out=kept)


def _train(current: PrefixMap, rows: NDArray, fit: NDArray, config: AdaptConfig, progress: bool) -> dict[str, float]:
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
    with tqdm(_batches(rows, fit, config), total=config.steps, desc="fit", unit="step", disable=not progress) as bar:
        for step, batch in enumerate(bar):
            terms = _terms(batch, current.forward(batch, columns=columns), config, step / config.steps)
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


def _terms(batch: Tensor, mapped: Tensor, config: AdaptConfig, done: float) -> dict[str, Tensor]:
    """The weighted terms of the loss after a share of the steps, those of weight 0 left out."""
    width, terms = batch.size(1), {}
    if config.distill_weight:
        divergence = _distillation(batch, mapped, config, done)
        # A geometric mean: each length counts by its relative change. In a sum the shortest prefix, whose divergence is the
        # greatest by far, decides at the cost of the long ones.
        terms["distill"] = config.distill_weight * (divergence + LEAST_DIVERGENCE).log().mean().exp()
    if weight := config.isotropy():
        isotropy = spectral_isotropy_loss(mapped, config.dims, t=config.t, cv_mode=config.cv_mode)
        terms["sir"] = weight * isotropy.mean()
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


def _distillation(batch: Tensor, mapped: Tensor, config: AdaptConfig, done: float) -> Tensor:
    """Divergence of each prefix, through the code if there is one, and of the full width where it can change."""
    temperature = config.temperature
    # A rotation keeps all cosines of the full width, so there the divergence is 0 by construction.
    floats = [] if config.kind == "orthogonal" else [batch.size(1)]
    divergences = []
    if config.bits is None:
        floats = [*config.dims, *floats]
    else:
        sharpness = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * done
        coded = coded_similarity(mapped, config.dims, config.bits, sharpness)
        divergences.append(similarity_divergence(batch @ batch.T, coded, temperature, temperature))
    if floats:
        options = {"student_temperature": temperature, "teacher_temperature": temperature}
        divergences.append(similarity_distillation_loss(mapped, floats, teacher=batch, **options))
    return torch.cat(divergences)


def _batches(rows: NDArray, fit: NDArray, config: AdaptConfig) -> Iterator[Tensor]:
    """Batches of distinct unit rows out of those numbered ``fit``; with neighbours, anchors and the rows nearest to them.

    Neighbours are looked for in a pool. Each row of the pool is an anchor once, then the next pool is drawn.
    """
    random = np.random.default_rng(config.seed)
    if not config.neighbours:
        for _ in range(config.steps):
            yield _draw(rows, fit, config.batch_size, random)
        return
    anchors = config.batch_size // (config.neighbours + 1)
    pool, order = torch.empty(0), torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        if len(order) < anchors:
            if not len(pool) or len(fit) > config.pool_size:  # a pool that holds all rows needs no other
                pool = _draw(rows, fit, min(config.pool_size, len(fit)), random)
            order = torch.from_numpy(random.permutation(len(pool)))
        chosen, order = order[:anchors], order[anchors:]
        similarity = pool[chosen] @ pool.T
        similarity.scatter_(1, chosen.unsqueeze(1), -torch.inf)
        nearest = similarity.topk(config.neighbours, dim=1).indices
        # A row that is the neighbour of two others must not stand twice: a copy is nearest to itself and teaches nothing.
        yield pool[torch.cat([chosen, nearest.flatten()]).unique()]


def _draw(rows: NDArray, fit: NDArray, number: int, random: np.random.Generator) -> Tensor:
    """Unit rows drawn without replacement, in ascending order: a memory map is read forward."""
    return unit_rows(rows[fit[np.sort(random.choice(len(fit), number, replace=False, shuffle=False))]])


def _initial_map(axes: Tensor, config: AdaptConfig) -> PrefixMap:
    width = len(axes)
    weight = axes.clone() if config.init == "pca" else torch.eye(width)
    if config.kind != "mlp":
        return PrefixMap(config.kind, weight)
    hidden_weight = torch.randn(width, config.hidden_dim, generator=torch.Generator().manual_seed(config.seed))
    return PrefixMap(
        "mlp", weight, hidden_weight, torch.zeros(config.hidden_dim), torch.zeros(config.hidden_dim, width)
    )
