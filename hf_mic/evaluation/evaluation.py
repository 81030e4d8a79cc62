"""One score per task, dimension and precision: embed once at full width, then truncate, quantise and score in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from tqdm.auto import tqdm

from hf_mic.files import plain
from hf_mic.options import check_at_least, check_between, check_distinct

from . import metrics
from .precision import bytes_per_vector, check_precisions
from .scoring import Embed, Score, TextIndex, TextView, count_test_items, score_task
from .tasks import Task

__all__ = ["encoders", "evaluate_model", "precomputed", "score_embeddings"]


def precomputed(texts: Sequence[str], embeddings: NDArray) -> Embed:
    """Let :func:`score_embeddings` look embeddings up that were computed before, such as vectors from an API.

    Args:
        texts: The texts that were embedded; all those of the tasks must be among them.
        embeddings: Their embeddings. Shape: (len(texts), D).

    Returns:
        A function for the argument ``embed``; it raises a ValueError for a text it does not know.

    Example:
        >>> import numpy as np
        >>> precomputed(["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]]))(["b"])
        array([[0., 1.]])
    """
    if len(texts) != len(embeddings):
        raise ValueError(f"Give one row per text: got {len(texts)} texts and {len(embeddings)} embeddings.")
    rows = {text: row for row, text in enumerate(texts)}

    def look_up(wanted: list[str]) -> NDArray:
        if unknown := [text for text in wanted if text not in rows]:
            raise ValueError(f"{len(unknown)} of {len(wanted)} texts have no embedding, such as {unknown[0]!r}.")
        return embeddings[[rows[text] for text in wanted]]

    return look_up


def score_embeddings(
    tasks: Sequence[Task],
    embed: Embed,
    dims: Sequence[int],
    *,
    method: str,
    seed: int | None = None,
    precisions: Sequence[str] = ("float32",),
    embed_queries: Embed | None = None,
    probe_c: float = 10.0,
    probe_max_iter: int = 1000,
    n_bootstrap: int = 500,
    bootstrap_seed: int = 0,
    progress_bar: bool = False,
) -> list[dict[str, Any]]:
    """Score the prefixes of an embedding on every task.

    Each distinct text is embedded once, at full width; then: truncate → renormalise → quantise → score. Similarity is
    always the cosine (of the decoded codes, see :func:`quantize`; for ``binary`` 1 - 2 · Hamming distance / d). A map
    such as PCA is scored by an ``embed`` that returns the rotated columns. Metrics:

    - STS: ``spearman`` of the similarity with the human scores; 0 if a collapsed model gives all pairs the same one.
    - Classification: ``accuracy`` of multinomial logistic regression on the vectors as they are, and
      ``accuracy_standardised`` on features brought to zero mean and unit variance of the training set. The first
      depends on the scale of the coordinates through the penalty, the second does not, but is hardly penalised, so it
      overfits more.
    - Retrieval: ``ndcg@10``, ``recall@10``, ``recall@100`` by exact search; ties by descending document id (trec_eval).
    - Pairs: ``accuracy`` at the threshold that is best on the dev pairs, and ``average_precision``.

    The ranges of ``int8`` come from the training texts of a classification, the corpus of a retrieval, the dev pairs of a pair
    task, and for STS from ``calibration_texts`` or, without them, from the scored sentences themselves: no score enters, but
    the codes have seen the vectors that they are measured on.

    Intervals are 95 % percentile bootstrap intervals over the test items; they do not cover the spread over training
    seeds. All methods and dimensions share the resamples of a task.

    Args:
        tasks: What to score on; names must differ.
        embed: Texts → embeddings. Shape of its result: (number of texts, D).
        dims: Prefix lengths, each from 1 to D.
        method: Name of the method in the rows, in lower case such as ``mic``.
        seed: Training seed in the rows.
        precisions: Any of ``float32``, ``int8``, ``binary``.
        embed_queries: Embeds the queries of retrieval tasks, if they need another prompt than the documents.
        probe_c: Inverse penalty of the logistic regression.
        probe_max_iter: Most iterations of its L-BFGS solver.
        n_bootstrap: Number of resamples; 0 leaves the intervals out (None).
        bootstrap_seed: Seed of the resampling.
        progress_bar: Show progress over tasks, dims and precisions.

    Returns:
        One row per task, dimension, precision and metric: ``{"method", "seed", "task", "dim", "precision",
        "bytes_per_vector", "metric", "value", "n", "ci_low", "ci_high"}``. ``value`` is a fraction or a correlation, not
        multiplied by 100; ``n`` is the number of test items.

    Raises:
        ValueError: If there are no tasks, two share a name, a dimension or precision is impossible, or an embedding is
            not finite.

    Example:
        >>> import numpy as np
        >>> from hf_mic.evaluation.tasks import STSTask
        >>> task = STSTask("toy", ["a", "a", "a"], ["a", "b", "c"], [5.0, 1.0, 3.0])
        >>> vectors = {"a": [1.0, 0.0], "b": [-1.0, 0.5], "c": [0.5, 1.0]}
        >>> rows = score_embeddings([task], lambda texts: np.array([vectors[t] for t in texts]), [2], method="toy")
        >>> rows[0]["metric"], rows[0]["value"]
        ('spearman', 1.0)
    """
    dims = plain(dims)
    _check_request(tasks, dims, precisions, n_bootstrap)
    index = TextIndex(tasks, separate_queries=embed_queries is not None)
    embeddings = index.embed(embed, embed_queries)
    check_between("dims", max(dims), 1, embeddings.shape[1])  # before the shorter ones are scored
    rows: list[dict[str, Any]] = []
    resamples = {
        task.name: metrics.bootstrap_counts(count_test_items(task), n_bootstrap, bootstrap_seed)
        if n_bootstrap
        else None
        for task in tasks
    }
    with tqdm(total=len(tasks) * len(dims) * len(precisions), desc=method, disable=not progress_bar) as bar:
        for dim in dims:
            for precision in precisions:
                view = TextView(embeddings, index, dim, precision)
                for task in tasks:
                    scores = score_task(task, view, resamples[task.name], probe_c, probe_max_iter)
                    rows += [_row(method, seed, task.name, view, score) for score in scores]
                    bar.update()
    return rows


def _row(method: str, seed: int | None, task: str, view: TextView, score: Score) -> dict[str, Any]:
    metric, value, n, interval = score
    low, high = interval or (None, None)
    return {
        "method": method,
        "seed": seed,
        "task": task,
        "dim": view.dim,
        "precision": view.precision,
        "bytes_per_vector": bytes_per_vector(view.dim, view.precision),
        "metric": metric,
        "value": value,
        "n": n,
        "ci_low": low,
        "ci_high": high,
    }


def _check_request(tasks: Sequence[Task], dims: Sequence[int], precisions: Sequence[str], n_bootstrap: int) -> None:
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks={names}: at least one is needed, and their names must differ")
    check_distinct("dims", dims)
    check_precisions(precisions)
    check_at_least("n_bootstrap", n_bootstrap, 0)


def encoders(
    model: SentenceTransformer,
    *,
    batch_size: int = 64,
    progress_bar: bool = False,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> tuple[Embed, Embed | None]:
    """How a sentence-transformers model embeds texts and, if differently, the queries of retrieval tasks.

    A model that stores a ``query`` prompt or begins with a Router embeds queries and documents with ``encode_query`` and
    ``encode_document``; all other texts go through ``encode_document`` too, then, whose prompt is empty for most models.

    Args:
        model: The model.
        batch_size: Texts per forward pass.
        progress_bar: Show progress.
        prompt_name: Prompt of the model for all texts but the queries, instead of the one above.
        prompt: Text put before all texts but the queries, instead of a stored prompt.

    Returns:
        A function texts → embeddings, and one for queries, or None where the first serves both.
    """

    def encode(method: Callable[..., NDArray], **options: str | None) -> Embed:
        return lambda texts: method(
            texts, batch_size=batch_size, show_progress_bar=progress_bar, convert_to_numpy=True, **options
        )

    if model.prompts.get("query") or isinstance(model[0], Router):
        return encode(model.encode_document, prompt_name=prompt_name, prompt=prompt), encode(model.encode_query)
    return encode(model.encode, prompt_name=prompt_name, prompt=prompt), None


def evaluate_model(
    model: SentenceTransformer,
    tasks: Sequence[Task],
    dims: Sequence[int],
    *,
    method: str,
    seed: int | None = None,
    batch_size: int = 64,
    progress_bar: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Score a sentence-transformers model: :func:`score_embeddings` on its embeddings.

    Prompts are those of :func:`encoders`.

    Args:
        model: The model, with its own default prompt.
        tasks: What to score on.
        dims: Prefix lengths.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        batch_size: Texts per forward pass.
        progress_bar: Show progress.
        **options: Further options of :func:`score_embeddings`.

    Returns:
        The rows of :func:`score_embeddings`.
    """
    embed, embed_queries = encoders(model, batch_size=batch_size, progress_bar=progress_bar)
    return score_embeddings(
        tasks,
        embed,
        dims,
        method=method,
        seed=seed,
        embed_queries=embed_queries,
        progress_bar=progress_bar,
        **options,
    )
