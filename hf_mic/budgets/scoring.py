"""Tasks scored with queries as floats and everything that is stored as its bytes give it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hf_mic.codes.searching import best_rows
from hf_mic.evaluation import metrics
from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask, STSTask, Task

__all__ = ["CodedTexts", "Outcome", "few_shot_rows", "nearest_label", "score_coded"]

Floats = NDArray[np.float32]
NEIGHBOURS = 10
CHUNK = 16384  # rows decoded at once
QUERIES = 512  # queries searched for at once
EXPERIMENTS, SHOTS = 10, 8  # of MTEB's classification protocol


@dataclass(frozen=True)
class CodedTexts:
    """Texts as queries and as rows of an index.

    Attributes:
        rows: Text → row of ``mapped``.
        mapped: Mapped vectors. Shape: (N, D).
        query: Mapped vectors → float queries.
        store: Mapped vectors → what their bytes stand for.
    """

    rows: Mapping[str, int]
    mapped: Floats
    query: Callable[[Floats], Floats]
    store: Callable[[Floats], Floats]

    def queries(self, texts: Sequence[str]) -> Floats:
        """Float queries of unit length. Shape: (len(texts), d)."""
        return metrics.normalize(self.query(self._of(texts)))

    def stored(self, texts: Sequence[str]) -> Floats:
        """Decoded rows of unit length. Shape: (len(texts), d)."""
        return metrics.normalize(self.store(self._of(texts)))

    def _of(self, texts: Sequence[str]) -> Floats:
        return self.mapped[[self.rows[text] for text in texts]]


@dataclass(frozen=True)
class Outcome:
    """A score in [-1, 1], on how many items, and what it is in each bootstrap resample of them. Shape: (R,)."""

    metric: str
    value: float
    n: int
    resampled: NDArray[np.floating]


def score_coded(task: Task, texts: CodedTexts, counts: NDArray[np.int64], *, probes: bool = False) -> list[Outcome]:
    """Score a task; the headline metric comes first.

    - STS: Spearman's correlation of the cosine of the first sentence (float) to the second (stored).
    - Classification: ``accuracy_10nn``, the label most frequent among the ten nearest stored training texts. With ``probes`` a
      logistic regression too, whose training and test texts are both stored: ``accuracy`` on all training texts, standardised,
      and ``accuracy_few_shot`` as MTEB has it, 8 texts of each label, mean of ten draws.
    - Retrieval: nDCG@10 of the cosines of queries (float) to documents (stored); equal scores in the order of the corpus.

    Args:
        task: What to score on.
        texts: Its texts.
        counts: Bootstrap resamples of the test items. Shape: (R, number of test items).
        probes: Also fit logistic regressions.
    """
    if isinstance(task, STSTask):
        cosines = (texts.queries(task.sentences1) * texts.stored(task.sentences2)).sum(axis=1)
        value = float(metrics.spearman(cosines, task.scores)[0])
        return [Outcome("spearman", value, len(cosines), metrics.spearman(cosines, task.scores, counts))]
    if isinstance(task, RetrievalTask):
        return [_mean("ndcg@10", _ndcg(task, texts), counts)]
    assert isinstance(task, ClassificationTask), task
    outcomes = [_mean("accuracy_10nn", _nearest(task, texts), counts)]
    if probes:
        outcomes += _probes(task, texts, counts)
    return outcomes


def _mean(metric: str, values: NDArray, counts: NDArray[np.int64]) -> Outcome:
    return Outcome(metric, float(np.mean(values)), len(values), counts @ np.asarray(values, float) / len(values))


def _search(queries: Floats, stored: Floats, k: int) -> NDArray[np.int64]:
    """Rows of the k largest cosines, best first; of equal ones the lower row."""
    found = []
    for first in range(0, len(queries), QUERIES):
        block = torch.from_numpy(queries[first : first + QUERIES])
        found.append(best_rows(_scored(block, stored), len(block), min(k, len(stored)))[1])
    return np.concatenate(found)


def _scored(queries: Tensor, stored: Floats) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(stored), CHUNK):
        yield start, torch.from_numpy(stored[start : start + CHUNK]) @ queries.T


def nearest_label(labels: Sequence[str]) -> str:
    """The most frequent of the labels of neighbours, nearest first; of equally frequent ones that of the nearest.

    Example:
        >>> nearest_label(["a", "b", "b", "a", "c"])
        'a'
    """
    return max(dict.fromkeys(labels), key=list(labels).count)


def _nearest(task: ClassificationTask, texts: CodedTexts) -> NDArray[np.bool_]:
    rows = _search(texts.queries(task.test_texts), texts.stored(task.train_texts), NEIGHBOURS)
    said = [nearest_label([task.train_labels[i] for i in nearest]) for nearest in rows]
    return np.asarray(said) == np.asarray(task.test_labels)


def _ndcg(task: RetrievalTask, texts: CodedTexts) -> NDArray[np.float64]:
    ids, judged = list(task.corpus), task.judged_queries()
    stored = texts.stored(list(task.corpus.values()))
    rows = _search(texts.queries([task.queries[query] for query in judged]), stored, 10)
    return np.asarray(
        [
            metrics.ndcg_at_k([ids[i] for i in found], task.qrels[query], 10)
            for query, found in zip(judged, rows, strict=True)
        ]
    )


def _probes(task: ClassificationTask, texts: CodedTexts, counts: NDArray[np.int64]) -> list[Outcome]:
    train, test = texts.stored(task.train_texts), texts.stored(task.test_texts)
    labels, truth = np.asarray(task.train_labels), np.asarray(task.test_labels)
    spread = train.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1)  # a coordinate that never changes stays as it is
    full = LogisticRegression(C=1.0, max_iter=300).fit((train - train.mean(axis=0)) / scale, labels)
    right = full.predict((test - train.mean(axis=0)) / scale) == truth
    shots = np.zeros(len(truth))
    for rows in few_shot_rows(task.train_labels):
        probe = LogisticRegression(max_iter=100).fit(train[rows], labels[rows])
        shots += (probe.predict(test) == truth) / EXPERIMENTS
    return [_mean("accuracy", right, counts), _mean("accuracy_few_shot", shots, counts)]


def few_shot_rows(labels: Sequence[str], seed: int = 42) -> list[NDArray[np.int64]]:
    """Rows of ten draws of eight texts of each label.

    Args:
        labels: Label of each training text.
        seed: Seed of the draws.

    Source: the classification protocol of Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", 2023.

    Example:
        >>> [len(rows) for rows in few_shot_rows(["a", "b"] * 20)] == [16] * 10
        True
    """
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(EXPERIMENTS):
        order = random.permutation(len(labels))
        seen: dict[str, int] = {}
        kept = []
        for row in order:
            count = seen.get(labels[row], 0)
            if count < SHOTS:
                seen[labels[row]] = count + 1
                kept.append(row)
        draws.append(np.asarray(kept))
    return draws
