"""Tasks by a name or a short description, for the final scores or for choosing settings."""

from collections.abc import Sequence
from pathlib import Path

from hf_mic.options import check_choice

from .loaders import load_banking77, load_classification, load_pair_classification, load_retrieval, load_sts
from .tasks import Task

__all__ = ["load_task", "load_tasks", "load_text_tasks"]


def load_tasks(names: Sequence[str], data_dir: str | Path | None = None, *, validation: bool = False) -> list[Task]:
    """Read tasks that a command line names.

    Args:
        names: Any of ``stsb``, ``banking77`` and ``scifact``, or descriptions as for :func:`load_task`.
        data_dir: Folder of the three, as for :func:`load_text_tasks`.
        validation: As for :func:`load_text_tasks`; descriptions are read as they are.

    Raises:
        ValueError: If a name or description is not known.
    """
    return [
        task
        for name in names
        for task in ([load_task(name)] if "=" in name else load_text_tasks(data_dir, [name], validation=validation))
    ]


def load_task(description: str) -> Task:
    """Read a task of one's own from a short description ``KIND=SOURCE`` or ``KIND=SOURCE,SOURCE``.

    - ``sts=FILE``: columns sentence1, sentence2, score.
    - ``classification=TRAIN,TEST``: columns text, label.
    - ``retrieval=FOLDER``: BEIR layout.
    - ``pairs=DEV,TEST``: columns sentence1, sentence2, label (0 or 1).

    A source may also be a Hub data set with the same columns (retrieval: in the MTEB layout).

    Args:
        description: Such as ``sts=data/my_pairs.csv``.

    Returns:
        The task, named after its last source without folder and ending.

    Raises:
        ValueError: If the kind is unknown or the number of sources is not the one above.
    """
    kind, _, given = description.partition("=")
    sources = [source for source in given.split(",") if source]
    expected = {"sts": 1, "classification": 2, "retrieval": 1, "pairs": 2}
    if expected.get(kind) != len(sources):
        raise ValueError(
            f"Cannot read task {description!r}: give sts=FILE, classification=TRAIN,TEST, retrieval=FOLDER or pairs=DEV,TEST."
        )
    name = Path(sources[-1]).name.split(".")[0]
    if kind == "sts":
        return load_sts(sources[0], name=name)
    if kind == "classification":
        return load_classification(sources[0], sources[1], name=name)
    if kind == "retrieval":
        return load_retrieval(sources[0], name=name)
    return load_pair_classification(sources[0], sources[1], name=name)


def load_text_tasks(
    data_dir: str | Path | None,
    names: Sequence[str] = ("stsb", "banking77", "scifact"),
    *,
    validation: bool = False,
    seed: int = 0,
) -> list[Task]:
    """Read STS-B, Banking77 and SciFact, either for the final scores or for choosing settings.

    Args:
        data_dir: Folder with ``stsb/{dev,test}.csv``, ``classification/banking77/{train,test}.csv`` and
            ``retrieval/scifact/``; ``None`` loads the same data from the Hub.
        names: Which tasks, of ``stsb``, ``banking77`` and ``scifact``.
        validation: Score STS-B dev, a held-out fifth of the Banking77 training set and SciFact's training queries. The
            last is no validation for a model trained on SciFact claims. Task names then end in ``_validation``.
        seed: Seed of the Banking77 split.

    Raises:
        ValueError: If a name is unknown.
    """
    for name in names:
        check_choice("task", name, ("stsb", "banking77", "scifact"))
    folder = None if data_dir is None else Path(data_dir)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the folder that holds stsb/, classification/ and retrieval/.")
    ending = "_validation" if validation else ""
    tasks: list[Task] = []
    for name in names:
        task: Task
        if name == "stsb":
            file_split, hub_split = ("dev", "validation") if validation else ("test", "test")
            source = "sentence-transformers/stsb" if folder is None else folder / "stsb" / f"{file_split}.csv"
            task = load_sts(source, name=f"stsb{ending}", split=hub_split)
        elif name == "banking77":
            source = "mteb/banking77" if folder is None else folder / "classification" / "banking77"
            task = load_banking77(source, validation=validation, seed=seed)
        else:
            source = "mteb/scifact" if folder is None else folder / "retrieval" / "scifact"
            task = load_retrieval(source, name=f"scifact{ending}", split="train" if validation else "test")
        tasks.append(task)
    return tasks
