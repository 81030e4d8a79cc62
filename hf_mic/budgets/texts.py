"""Texts that maps and codes of the study of bytes are fitted on, where no long text has to be embedded."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

from hf_mic.evaluation.tables import read_columns
from hf_mic.options import check_choice

__all__ = ["FIT_TEXTS", "fit_texts"]

FIT_TEXTS = ("task", "few")
FEW = 4000


def fit_texts(name: str, data_dir: str | Path | None, scored: Collection[str]) -> list[str]:
    """Distinct training texts of Banking77 and STS-B.

    Args:
        name: ``"task"``: all of them; ``"few"``: 4,000 of them, drawn at random but the same each time.
        data_dir: Folder with ``classification/banking77/train.csv`` and ``stsb/train.csv``; ``None`` reads the Hub.
        scored: Texts that are left out: nothing is fitted on what is scored.

    Raises:
        ValueError: If the name is unknown.
    """
    check_choice("text", name, FIT_TEXTS)
    if data_dir is None:
        banking = read_columns("mteb/banking77", ["text"])
        sts = read_columns("sentence-transformers/stsb", ["sentence1", "sentence2"])
    else:
        banking = read_columns(Path(data_dir, "classification/banking77/train.csv"), ["text"])
        sts = read_columns(Path(data_dir, "stsb/train.csv"), ["sentence1", "sentence2"])
    found = dict.fromkeys([*banking["text"], *sts["sentence1"], *sts["sentence2"]])
    texts = [text for text in found if text not in scored]
    return texts if name == "task" else random.Random(0).sample(texts, FEW)
