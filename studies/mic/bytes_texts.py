"""Texts of the study of bytes: five tasks, one more of 100,000 documents, items to choose codes on, texts to fit on."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hf_mic.budgets.published import scored_texts
from hf_mic.budgets.texts import FIT_TEXTS, fit_texts
from hf_mic.evaluation.tables import read_columns
from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask, STSTask, Task
from hf_mic.evaluation.text_tasks import load_text_tasks

__all__ = ["StudyTexts", "read_study_texts"]

SEED = 0
LARGE = "scifact_100k"
MEDQUAD = {"answers": 5000, "queries": 1000, "characters": 600, "fit": 4000}
WORDNET = {"synsets": 20000, "queries": 1000, "fit": 10000}


@dataclass(frozen=True)
class StudyTexts:
    """What the study reads.

    Attributes:
        tasks: The scored tasks, ``scifact_100k`` among them.
        validation: STS-B dev and a fifth of Banking77's training set, on which codes are chosen.
        fits: Name of a text to fit on → distinct texts, none of which is scored; ``general``: definitions and questions, none
            of which is in an index.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    fits: Mapping[str, Sequence[str]]

    def only(self, tasks: Collection[str], fits: Collection[str]) -> StudyTexts:
        """Some of the tasks and of the texts to fit on."""
        return StudyTexts(
            [task for task in self.tasks if task.name in tasks],
            self.validation,
            {name: texts for name, texts in self.fits.items() if name in fits},
        )

    def groups(self) -> dict[str, list[str]]:
        """Distinct texts by the name of the file their embeddings go to; a text is in the first group that has it."""
        done: set[str] = set()
        groups = {}
        parts = {task.name: texts_of(task) for task in [*self.tasks, *self.validation]}
        parts |= {f"fit_{name}": list(texts) for name, texts in self.fits.items()}
        if LARGE in parts:
            parts[LARGE] = parts.pop(LARGE)  # last: the others are in it, and it takes longest
        for name, texts in parts.items():
            groups[name] = [text for text in dict.fromkeys(texts) if text not in done]
            done.update(groups[name])
        return {name: texts for name, texts in groups.items() if texts}


def texts_of(task: Task) -> list[str]:
    """All texts that a task reads."""
    if isinstance(task, STSTask):
        return [*task.sentences1, *task.sentences2]
    if isinstance(task, ClassificationTask):
        return [*task.train_texts, *task.test_texts]
    if isinstance(task, RetrievalTask):
        return [*(task.queries[query] for query in task.judged_queries()), *task.corpus.values()]
    raise TypeError(f"{task.name}: a study of bytes has no tasks of this kind.")


def read_study_texts(data_dir: str | Path) -> StudyTexts:
    """Read all texts, the same in each run.

    - ``stsb``, ``banking77``, ``scifact``: as :func:`hf_mic.evaluation.text_tasks.load_text_tasks`.
    - ``medquad``: find the answer to a question among 5,000 answers, cut to 600 characters.
    - ``wordnet``: find the words of a definition among 20,000 synsets.
    - ``scifact_100k``: the claims of ``scifact`` in an index that also holds those answers and WordNet's definitions.

    Args:
        data_dir: Folder with ``stsb``, ``classification``, ``retrieval`` and ``pairs``.
    """
    folder = Path(data_dir)
    tasks = load_text_tasks(folder)
    validation = load_text_tasks(folder, ["stsb", "banking77"], validation=True)
    scifact = next(task for task in tasks if isinstance(task, RetrievalTask))

    medquad = _pairs(folder, "pairs/medquad_qa.pairs.jsonl.gz", MEDQUAD["characters"])
    held, rest = medquad[: MEDQUAD["answers"]], medquad[MEDQUAD["answers"] :]
    tasks.append(_retrieval("medquad", held, MEDQUAD["queries"]))

    # A definition asks for the words that it defines.
    glosses = [(gloss, words) for words, gloss in _pairs(folder, "pairs/wordnet_glosses.pairs.jsonl.gz", 10**6)]
    synsets, others = glosses[: WORDNET["synsets"]], glosses[WORDNET["synsets"] :]
    tasks.append(_retrieval("wordnet", synsets, WORDNET["queries"]))

    answers = {answer for _, answer in held}
    indexed = {words for _, words in synsets} | {gloss for gloss, _ in synsets}
    general = [gloss for gloss, _ in others[: WORDNET["fit"]]]
    questions = [question for question, _ in rest[: MEDQUAD["fit"]]]
    # Definitions that something is fitted on are not in the index.
    distractors = [gloss for gloss, _ in [*synsets, *others[WORDNET["fit"] :]]]
    corpus = dict(scifact.corpus)
    known = set(corpus.values()) | set(general)
    for text in dict.fromkeys([*sorted(answers), *distractors]):
        if text not in known:
            corpus[f"other{len(corpus)}"] = text
    tasks.append(replace(scifact, name=LARGE, corpus=_shuffled(corpus)))
    tasks[2] = replace(scifact, corpus=_shuffled(scifact.corpus))

    scored = {*scored_texts(folder), *answers, *indexed, *(question for question, _ in held)}
    fits = {name: fit_texts(name, folder, scored) for name in FIT_TEXTS}
    fits["general"] = [text for text in dict.fromkeys([*general, *questions]) if text not in scored]
    return StudyTexts(tasks, validation, fits)


def _pairs(folder: Path, file: str, characters: int) -> list[tuple[str, str]]:
    """Distinct pairs in random order; the second text cut to so many characters."""
    table = read_columns(folder / file, ["anchor", "positive"])
    pairs = [(a, b[:characters]) for a, b in zip(table["anchor"], table["positive"], strict=True)]
    distinct = list(dict.fromkeys(pairs))
    random.Random(SEED).shuffle(distinct)
    return distinct


def _retrieval(name: str, pairs: Sequence[tuple[str, str]], queries: int) -> RetrievalTask:
    """Queries out of pairs (query, document) against the documents of all of them.

    The same query text may have several documents, all of which are relevant; a document stands once in the index.
    """
    place = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(document for _, document in pairs))}
    relevant: dict[str, dict[str, float]] = {}
    for query, document in pairs:
        relevant.setdefault(query, {})[place[document]] = 1.0
    asked = list(relevant)[:queries]
    return RetrievalTask(
        name,
        {key: text for text, key in place.items()},
        {f"q{i}": query for i, query in enumerate(asked)},
        {f"q{i}": relevant[query] for i, query in enumerate(asked)},
    )


def _shuffled(corpus: Mapping[str, str]) -> dict[str, str]:
    """In random order: equal codes are ranked by their place, which must say nothing."""
    items = list(corpus.items())
    random.Random(SEED).shuffle(items)
    return dict(items)
