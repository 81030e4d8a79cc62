"""Scores of truncated embeddings in NumPy: correlation, accuracy, ranking quality, bootstrap intervals.

Every function is pure. Correlations lie in [-1, 1], everything else in [0, 1]; nothing is multiplied by 100 here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_mic.options import check_between

__all__ = [
    "average_precision",
    "best_threshold",
    "bootstrap_counts",
    "mean_interval",
    "ndcg_at_k",
    "normalize",
    "percentile_interval",
    "rank_top_k",
    "recall_at_k",
    "spearman",
    "truncate",
]

Floats = NDArray[np.floating]


def normalize(embeddings: Floats) -> Floats:
    """Scale every row to unit L2 norm; rows of zeros stay zero.

    Args:
        embeddings: Vectors. Shape: (N, D).

    Returns:
        Unit vectors of the same dtype. Shape: (N, D).

    Example:
        >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms).astype(embeddings.dtype)


def truncate(embeddings: Floats, dim: int) -> Floats:
    """Keep the first ``dim`` coordinates of every row and renormalise, as a user of a Matryoshka model does.

    Args:
        embeddings: Full-width vectors. Shape: (N, D).
        dim: Number of coordinates to keep, 1 <= dim <= D.

    Returns:
        Unit vectors. Shape: (N, dim).

    Raises:
        ValueError: If ``dim`` is outside [1, D].

    Example:
        >>> truncate(np.array([[3.0, 4.0, 12.0]]), 2)
        array([[0.6, 0.8]])
    """
    check_between("dim", dim, 1, embeddings.shape[1])
    return normalize(embeddings[:, :dim])


def bootstrap_counts(n: int, n_bootstrap: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each of ``n`` test items occurs in each bootstrap resample (Efron, 1979).

    The same arguments give the same resamples, so intervals of several methods or dimensions on one test set are paired.

    Args:
        n: Number of test items.
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Counts; each row sums to ``n``. Shape: (n_bootstrap, n).

    Example:
        >>> bootstrap_counts(4, 1000).sum(axis=1).tolist() == [4] * 1000
        True
    """
    picks = np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))
    # One bincount for all resamples: item i of resample r has the number r n + i.
    picks += n * np.arange(n_bootstrap)[:, None]
    return np.bincount(picks.ravel(), minlength=n_bootstrap * n).reshape(n_bootstrap, n)


def percentile_interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Central percentile interval of bootstrap values; undefined (NaN) values are left out.

    Example:
        >>> percentile_interval(range(101), level=0.5)
        (25.0, 75.0)
    """
    low, high = np.nanquantile(np.asarray(samples, dtype=float), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, counts: NDArray[np.int64]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean over test items.

    Args:
        values: One value per test item. Shape: (n,).
        counts: From :func:`bootstrap_counts`. Shape: (R, n).

    Example:
        >>> mean_interval([1, 1, 1], bootstrap_counts(3, 10))  # every resample has the same mean
        (1.0, 1.0)
    """
    return percentile_interval(counts @ np.asarray(values, dtype=float) / counts.shape[1])


def _mid_ranks(values: NDArray, counts: NDArray[np.int64]) -> Floats:
    """Mid-ranks of ``values`` within each resample, ties averaged. Shapes: (n,), (R, n) → (R, n)."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(sizes, axis=1) - sizes / 2 + 0.5)[:, group]


def spearman(x: ArrayLike, y: ArrayLike, counts: NDArray[np.int64] | None = None) -> Floats:
    """Spearman's rank correlation, ties given their mean rank, for many resamples at once.

    The ranks are computed anew inside each resample (exactly, from the counts), not carried over from the full sample.

    Args:
        x: First variable. Shape: (n,).
        y: Second variable. Shape: (n,).
        counts: Multiplicity of each item in each resample; every item once if omitted. Shape: (R, n).

    Returns:
        One correlation per resample, NaN where a variable is constant. Shape: (R,).

    Example:
        >>> spearman([1, 2, 3, 4], [10, 30, 20, 40])
        array([0.8])
    """
    x, y = np.asarray(x), np.asarray(y)
    counts = np.ones((1, len(x)), dtype=np.int64) if counts is None else counts
    total = counts.sum(axis=1, keepdims=True)
    rank_x, rank_y = (_mid_ranks(v, counts) - (total + 1) / 2 for v in (x, y))
    covariance = (counts * rank_x * rank_y).sum(axis=1)
    scale = np.sqrt((counts * rank_x**2).sum(axis=1) * (counts * rank_y**2).sum(axis=1))
    return np.divide(covariance, scale, out=np.full(len(counts), np.nan), where=scale > 0)


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Threshold with the highest accuracy of the rule ``score > threshold``; the lowest one on ties.

    Candidates lie halfway between neighbouring distinct scores, and beyond both ends.

    Args:
        scores: Similarity of each pair. Shape: (n,).
        labels: 1 for a positive pair, 0 for a negative one. Shape: (n,).

    Example:
        >>> best_threshold([0.1, 0.4, 0.8], [0, 0, 1])
        0.6000000000000001
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=int)
    distinct, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, weights=labels, minlength=len(distinct))
    negatives = np.bincount(group, weights=1 - labels, minlength=len(distinct))
    correct = np.concatenate([[0], np.cumsum(negatives - positives)]) + labels.sum()
    middle = (distinct[:-1] + distinct[1:]) / 2
    candidates = np.concatenate([[distinct[0] - 1], middle, [distinct[-1] + 1]])
    return float(candidates[np.argmax(correct)])


def average_precision(
    scores: ArrayLike, labels: ArrayLike, counts: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Average precision Σ (R_k - R_{k-1}) P_k over the distinct scores, for many resamples at once.

    Args:
        scores: Similarity of each pair. Shape: (n,).
        labels: 1 for a positive pair, 0 for a negative one. Shape: (n,).
        counts: Multiplicity of each item in each resample; every item once if omitted. Shape: (R, n).

    Returns:
        One value per resample, NaN where a resample holds no positive pair. Shape: (R,).
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=int)
    counts = np.ones((1, len(scores)), dtype=np.int64) if counts is None else counts
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    found = np.add.reduceat((counts * labels)[:, order], starts, axis=1)
    retrieved = np.cumsum(np.add.reduceat(counts[:, order], starts, axis=1), axis=1)
    precision = np.cumsum(found, axis=1) / np.maximum(retrieved, 1)
    positives = found.sum(axis=1)
    summed = (found * precision).sum(axis=1)
    return np.divide(summed, positives, out=np.full(len(counts), np.nan), where=positives > 0)


def rank_top_k(scores: NDArray, doc_ids: Sequence[str], k: int) -> NDArray[np.int64]:
    """Positions of the ``k`` best documents per query, best first.

    Ties are broken as trec_eval (and so pytrec_eval and BEIR) does: by document id, descending as strings.

    Args:
        scores: Similarities. Shape: (Q, N).
        doc_ids: Identifier of each column. Length N.
        k: Length of the ranking; shortened to N when there are fewer documents.

    Returns:
        Column positions. Shape: (Q, min(k, N)).

    Example:
        >>> rank_top_k(np.array([[0.5, 0.9, 0.5]]), ["a", "b", "c"], 3)
        array([[1, 2, 0]])
    """
    by_id = np.asarray(sorted(range(len(doc_ids)), key=lambda i: doc_ids[i], reverse=True), dtype=np.int64)
    k = min(k, len(by_id))
    ranking = np.empty((len(scores), k), dtype=np.int64)
    for i, row in enumerate(scores):
        candidates = row[by_id]
        at_least = np.flatnonzero(candidates >= np.partition(candidates, -k)[-k])
        order = np.argsort(-candidates[at_least], kind="stable")[:k]
        ranking[i] = by_id[at_least[order]]
    return ranking


def ndcg_at_k(ranking: Sequence[str], relevance: Mapping[str, float], k: int) -> float:
    """Normalised discounted cumulative gain with linear gains, as trec_eval computes it (Järvelin & Kekäläinen, 2002).

    Args:
        ranking: Retrieved document ids, best first.
        relevance: Grade of each judged document; unjudged ones count 0, grades below 0 count 0.
        k: Cut-off of the ranking and of the ideal ranking.

    Example:
        >>> round(ndcg_at_k(["x", "a"], {"a": 1}, 10), 4)
        0.6309
    """
    ideal = sorted((grade for grade in relevance.values() if grade > 0), reverse=True)[:k]
    gains = [max(relevance.get(doc, 0), 0) for doc in ranking[:k]]
    discounts = 1 / np.log2(np.arange(2, 2 + max(len(gains), len(ideal))))
    return float(np.dot(gains, discounts[: len(gains)]) / np.dot(ideal, discounts[: len(ideal)]))


def recall_at_k(ranking: Sequence[str], relevance: Mapping[str, float], k: int) -> float:
    """Share of the relevant documents (grade > 0) among the first ``k`` retrieved ones.

    Example:
        >>> recall_at_k(["a", "b", "c"], {"a": 1, "c": 2, "d": 0}, 2)  # of two relevant documents one
        0.5
    """
    relevant = {doc for doc, grade in relevance.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant)
