"""Scores of a task at one dimension and precision: decode the vectors, compare them, summarise with intervals."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from hf_mic.codes.inputs import as_array

from . import metrics
from .precision import quantize
from .tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask, Task

__all__ = [
    "Score",
    "TextIndex",
    "TextView",
    "count_test_items",
    "embed_checked",
    "score_task",
]

PROBE_TOLERANCE = 1e-5
"""Gradient at which L-BFGS stops: at scikit-learn's default of 1e-4 accuracies are still up to half a point off."""

CHUNK_SCORES = 2**24
"""Most similarities of a retrieval task held in memory at once."""

Embed = Callable[[list[str]], NDArray]
Vectors = NDArray[np.float32]
Score = tuple[str, float, int, tuple[float, float] | None]
"""Metric, value, number of test items, 95 % interval."""


def _cosine(a: Vectors, b: Vectors, precision: str) -> NDArray:
    """Row-by-row cosine of decoded vectors. Shapes: (N, d), (N, d) → (N,)."""
    if precision == "binary":  # sums of ±1 are exact, so equal Hamming distances stay equal
        return (a * b).sum(axis=1) / a.shape[1]
    return (metrics.normalize(a) * metrics.normalize(b)).sum(axis=1)


class TextView:
    """Embeddings of all texts of a run at one dimension and precision, found by text."""

    def __init__(self, embeddings: Vectors, index: "TextIndex", dim: int, precision: str):
        self.vectors, self.index, self.dim, self.precision = metrics.truncate(embeddings, dim), index, dim, precision

    def texts(self, texts: Sequence[str], calibration: Sequence[str]) -> Vectors:
        """Decoded vectors of texts or documents; ``calibration`` are the texts that set the int8 ranges."""
        return self._decode([self.index.documents[text] for text in texts], calibration)

    def queries(self, texts: Sequence[str], calibration: Sequence[str]) -> Vectors:
        """Decoded vectors of queries."""
        return self._decode([self.index.queries[text] for text in texts], calibration)

    def _decode(self, rows: list[int], calibration: Sequence[str]) -> Vectors:
        ranged = calibration if self.precision == "int8" else []
        base = self.vectors[[self.index.documents[text] for text in ranged]]
        return quantize(self.vectors[rows], self.precision, base)


class TextIndex:
    """The distinct texts of all tasks and the row of the embedding matrix that belongs to each."""

    def __init__(self, tasks: Iterable[Task], separate_queries: bool):
        documents: dict[str, None] = {}
        queries: dict[str, None] = {}
        for task in tasks:
            for group in _text_groups(task):
                documents.update(dict.fromkeys(group))
            if isinstance(task, RetrievalTask):
                queries.update(dict.fromkeys(task.queries[query] for query in task.judged_queries()))
        if not separate_queries:
            documents |= queries
        self.documents = {text: row for row, text in enumerate(documents)}
        offset = len(documents)
        self.queries = {text: offset + row for row, text in enumerate(queries)} if separate_queries else self.documents

    def embed(self, embed: Embed, embed_queries: Embed | None) -> Vectors:
        """Embed every distinct text once. Shape: (number of texts, D)."""
        parts = [embed_checked(embed, list(self.documents))]
        if embed_queries is not None and self.queries:
            parts.append(embed_checked(embed_queries, list(self.queries)))
        return np.concatenate(parts)


def _text_groups(task: Task) -> list[Sequence[str]]:
    """Every list of texts of a task, without the queries of a retrieval task."""
    if isinstance(task, STSTask):
        return [task.sentences1, task.sentences2, task.calibration_texts]
    if isinstance(task, ClassificationTask):
        return [task.train_texts, task.test_texts]
    if isinstance(task, RetrievalTask):
        return [list(task.corpus.values())]
    return [list(side) for pairs in (task.dev_pairs, task.test_pairs) for side in zip(*pairs, strict=True)]


def embed_checked(embed: Embed, texts: list[str]) -> Vectors:
    """Embed texts.

    Raises:
        ValueError: If the embeddings are not one finite row per text.

    Example:
        >>> embed_checked(lambda texts: np.ones((len(texts), 2)), ["a", "b"]).shape
        (2, 2)
    """
    embeddings = as_array(embed(texts)).astype(np.float32)
    if embeddings.ndim != 2 or len(embeddings) != len(texts):
        raise ValueError(f"embed must return one row per text, ({len(texts)}, D); got shape {embeddings.shape}.")
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(texts)} embeddings hold NaN or infinity, the first for {texts[bad[0]]!r}: "
            "the model diverged or overflowed in half precision."
        )
    return embeddings


def _score_sts(task: STSTask, view: TextView, counts: NDArray | None) -> list[Score]:
    calibration = task.calibration_texts or [*task.sentences1, *task.sentences2]
    first, second = (view.texts(side, calibration) for side in (task.sentences1, task.sentences2))
    similarity = _cosine(first, second, view.precision)
    # A collapsed model gives all pairs one similarity, of which no rank correlation is defined: it scores 0.
    value = float(np.nan_to_num(metrics.spearman(similarity, task.scores)[0]))
    interval = None
    if counts is not None:
        resampled = metrics.spearman(similarity, task.scores, counts)
        interval = metrics.percentile_interval(np.nan_to_num(resampled))
    return [("spearman", value, len(similarity), interval)]


def _score_classification(
    task: ClassificationTask, view: TextView, counts: NDArray | None, probe_c: float, probe_max_iter: int
) -> list[Score]:
    train, test = (
        metrics.normalize(view.texts(texts, task.train_texts)) for texts in (task.train_texts, task.test_texts)
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, 1)  # a dead coordinate stays (almost) zero
    features = {"accuracy": (train, test), "accuracy_standardised": ((train - mean) / scale, (test - mean) / scale)}
    scores: list[Score] = []
    for metric, (fit, held) in features.items():
        probe = LogisticRegression(C=probe_c, max_iter=probe_max_iter, tol=PROBE_TOLERANCE).fit(fit, task.train_labels)
        correct = probe.predict(held) == np.asarray(task.test_labels)
        interval = None if counts is None else metrics.mean_interval(correct, counts)
        scores.append((metric, float(correct.mean()), len(correct), interval))
    return scores


def _score_retrieval(task: RetrievalTask, view: TextView, counts: NDArray | None) -> list[Score]:
    ids, texts, judged = list(task.corpus), list(task.corpus.values()), task.judged_queries()
    corpus = view.texts(texts, texts)
    queries = view.queries([task.queries[query] for query in judged], texts)
    if view.precision != "binary":
        corpus, queries = metrics.normalize(corpus), metrics.normalize(queries)
    chunk = max(1, CHUNK_SCORES // len(ids))
    rankings = [
        [ids[i] for i in row]
        for start in range(0, len(judged), chunk)
        for row in metrics.rank_top_k(queries[start : start + chunk] @ corpus.T, ids, 100)
    ]
    scores: list[Score] = []
    for metric, function, k in (
        ("ndcg@10", metrics.ndcg_at_k, 10),
        ("recall@10", metrics.recall_at_k, 10),
        ("recall@100", metrics.recall_at_k, 100),
    ):
        values = [function(ranking, task.qrels[query], k) for ranking, query in zip(rankings, judged, strict=True)]
        interval = None if counts is None else metrics.mean_interval(values, counts)
        scores.append((metric, float(np.mean(values)), len(values), interval))
    return scores


def _score_pairs(task: PairClassificationTask, view: TextView, counts: NDArray | None) -> list[Score]:
    calibration = [text for pair in task.dev_pairs for text in pair]
    dev_scores, test_scores = (
        _cosine(
            view.texts([first for first, _ in pairs], calibration),
            view.texts([second for _, second in pairs], calibration),
            view.precision,
        )
        for pairs in (task.dev_pairs, task.test_pairs)
    )
    labels = np.asarray(task.test_labels)
    correct = (test_scores > metrics.best_threshold(dev_scores, task.dev_labels)) == labels
    precision = float(metrics.average_precision(test_scores, labels)[0])
    intervals: list[tuple[float, float] | None] = [None, None]
    if counts is not None:
        resampled = metrics.average_precision(test_scores, labels, counts)
        intervals = [metrics.mean_interval(correct, counts), metrics.percentile_interval(resampled)]
    values = (("accuracy", float(correct.mean())), ("average_precision", precision))
    return [(name, value, len(labels), interval) for (name, value), interval in zip(values, intervals, strict=True)]


def count_test_items(task: Task) -> int:
    """Number of items that a task's metrics average over (scored pairs, texts or queries).

    Example:
        >>> count_test_items(STSTask("toy", ["a", "b"], ["c", "d"], [1.0, 2.0]))
        2
    """
    if isinstance(task, STSTask):
        return len(task.scores)
    if isinstance(task, RetrievalTask):
        return len(task.judged_queries())
    return len(task.test_labels)


def score_task(task: Task, view: TextView, counts: NDArray | None, probe_c: float, probe_max_iter: int) -> list[Score]:
    """Score one task at the dimension and precision of ``view``.

    Args:
        task: What to score on; its texts must be in the view.
        view: The embeddings.
        counts: Bootstrap resamples of the test items; ``None`` gives no intervals. Shape: (R, number of test items).
        probe_c: Inverse penalty of the logistic regression.
        probe_max_iter: Most iterations of its solver.

    Returns:
        The metrics of the task.
    """
    if isinstance(task, STSTask):
        return _score_sts(task, view, counts)
    if isinstance(task, ClassificationTask):
        return _score_classification(task, view, counts, probe_c, probe_max_iter)
    if isinstance(task, RetrievalTask):
        return _score_retrieval(task, view, counts)
    return _score_pairs(task, view, counts)
