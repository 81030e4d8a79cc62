"""Text as the columns that a sentence-transformers loss takes: pairs, triplets, scored pairs, single sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from hf_mic.options import check_at_least, check_choice

from .tables import check_texts, parse_scores, pick_columns, read_table

__all__ = ["KINDS", "load_training_data", "simcse_pairs"]

KINDS: dict[str, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "single": ("text",),
}
"""The kinds of training data and the columns of each. ``single`` becomes SimCSE pairs: every text with itself."""


def simcse_pairs(texts: Sequence[str]) -> datasets.Dataset:
    """Pair every text with itself: dropout makes the two embeddings differ (unsupervised SimCSE, arXiv 2104.08821).

    Args:
        texts: Sentences; repeated ones are kept once, since a copy would be a false negative of the other.

    Returns:
        Columns ``anchor`` and ``positive``.

    Example:
        >>> simcse_pairs(["a", "b", "a"])["positive"][:]
        ['a', 'b']
    """
    distinct = list(dict.fromkeys(texts))
    return datasets.Dataset.from_dict({"anchor": distinct, "positive": distinct})


def load_training_data(
    source: str | Path,
    kind: str | None = None,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    score_range: tuple[float, float] | None = None,
    split: str = "train",
    subset: str | None = None,
    max_rows: int | None = None,
) -> datasets.Dataset:
    """Read training data as the columns of one :data:`KINDS` entry, in the order sentence-transformers expects.

    Args:
        source: Path of a file (see :func:`read_table`), or name of a Hub data set.
        kind: ``pairs``, ``triplets``, ``scored`` or ``single``; by default the first of triplets, pairs, scored, single
            whose columns are all there.
        columns: Name of a column of the kind → name in the source, where they differ, such as ``{"anchor": "question"}``.
            ``text`` may name several columns, whose texts all become sentences.
        score_range: Lowest and highest possible score, mapped to 0 and 1 (CoSENT and cosine losses want [0, 1]): (0, 5)
            for STS-B. Scores are left as they are by default.
        split: Split of a Hub data set; ignored for a file.
        subset: Configuration of a Hub data set; ignored for a file.
        max_rows: Keep only the first rows.

    Returns:
        A data set with the columns of the kind; ``single`` gives ``anchor`` and ``positive``, both the same text.

    Raises:
        ValueError: If the kind, the mapping or the range is invalid, a column is missing, a text is blank or not a
            text, or a score is not a finite number or outside ``score_range``.

    Example:
        >>> rows = {"sentence1": ["A plane takes off."], "sentence2": ["A plane lands."], "score": [2.5]}
        >>> _ = datasets.Dataset.from_dict(rows).to_csv("train.csv")
        >>> load_training_data("train.csv", "scored", score_range=(0, 5))[0]
        {'sentence1': 'A plane takes off.', 'sentence2': 'A plane lands.', 'score': 0.5}
    """
    mapping = _checked_mapping(columns)
    check_choice("kind", kind, (None, *KINDS))
    if max_rows is not None:
        check_at_least("max_rows", max_rows, 1)
    table = read_table(source, split=split, subset=subset)
    kind = kind or _infer_kind(source, table, mapping)
    if unused := sorted(set(mapping) - set(KINDS[kind])):
        raise ValueError(f"columns maps {unused}, which kind {kind!r} does not have: its columns are {KINDS[kind]}.")
    wanted = {name: mapping.get(name, [name]) for name in KINDS[kind]}
    cut = {name: values[:max_rows] for name, values in table.items()}
    table = pick_columns(cut, [name for names in wanted.values() for name in names], source)
    for name in (name for target, names in wanted.items() if target != "score" for name in names):
        check_texts(table[name], name, source)
    if kind == "single":
        return simcse_pairs([text for row in zip(*table.values(), strict=True) for text in row])
    result: dict[str, list[Any]] = {target: table[names[0]] for target, names in wanted.items()}
    if kind == "scored":
        scores = parse_scores(result["score"], wanted["score"][0], source)
        result["score"] = scores if score_range is None else _rescale(scores, score_range, source)
    return datasets.Dataset.from_dict(result)


def _checked_mapping(columns: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
    mapping = {key: [names] if isinstance(names, str) else list(names) for key, names in (columns or {}).items()}
    for key, names in mapping.items():
        if not names or (len(names) > 1 and key != "text"):
            raise ValueError(f"columns maps {key!r} to {names}: only 'text' may name several columns.")
    return mapping


def _infer_kind(source: str | Path, table: Mapping[str, list], mapping: Mapping[str, list[str]]) -> str:
    for kind in ("triplets", "pairs", "scored", "single"):
        if all(name in table for target in KINDS[kind] for name in mapping.get(target, [target])):
            return kind
    raise ValueError(
        f"{source}: cannot tell what its columns {list(table)} are. Expected the columns of one of {KINDS}: map them with "
        f"`columns` (which maps {sorted(mapping)})."
    )


def _rescale(scores: Sequence[float], score_range: tuple[float, float], source: str | Path) -> list[float]:
    low, high = score_range
    if not low < high:
        raise ValueError(f"score_range must be (lowest, highest) with lowest < highest, got {score_range}.")
    for number, score in enumerate(scores, start=1):
        if not low <= score <= high:
            raise ValueError(f"{source}, row {number}: score {score:g} lies outside score_range {score_range}.")
    return [(score - low) / (high - low) for score in scores]
