"""Tasks read from local files or the Hub, one function for each kind."""

from collections.abc import Mapping
from pathlib import Path

from .tables import parse_scores, read_columns, read_table, require_columns
from .tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask, stratified_split

__all__ = ["load_banking77", "load_classification", "load_pair_classification", "load_retrieval", "load_sts"]


def load_sts(
    source: str | Path, *, name: str, split: str = "test", columns: Mapping[str, str] | None = None
) -> STSTask:
    """Read an STS task with the columns sentence1, sentence2 and score.

    Args:
        source: A local file, or a Hub data set such as ``sentence-transformers/stsb``.
        name: Name in the results.
        split: Split of a Hub data set; ignored for a file.
        columns: Names in the source of ``sentence1``, ``sentence2`` and ``score`` where they differ.
    """
    names = _names(columns, "sentence1", "sentence2", "score")
    table = read_columns(source, list(names.values()), split=split)
    scores = parse_scores(table[names["score"]], names["score"], source)
    return STSTask(name, table[names["sentence1"]], table[names["sentence2"]], scores)


def load_classification(
    train: str | Path,
    test: str | Path,
    *,
    name: str,
    columns: Mapping[str, str] | None = None,
    test_split: str = "test",
) -> ClassificationTask:
    """Read a classification task with the columns text and label.

    Args:
        train: A local file, or a Hub data set, whose split ``train`` trains the probe.
        test: A local file, or a Hub data set, whose split ``test_split`` is scored.
        name: Name in the results.
        columns: Names in the sources of ``text`` and ``label`` where they differ.
        test_split: Split of a Hub data set; ignored for a file.
    """
    names = _names(columns, "text", "label")
    parts = [read_columns(path, list(names.values()), split=s) for path, s in ((train, "train"), (test, test_split))]
    texts = [part[names["text"]] for part in parts]
    labels = [[str(label) for label in part[names["label"]]] for part in parts]
    return ClassificationTask(name, texts[0], labels[0], texts[1], labels[1])


def load_banking77(
    source: str | Path, *, validation: bool = False, fraction: float = 0.2, seed: int = 0
) -> ClassificationTask:
    """Read Banking77 (Casanueva et al., 2020), 77 intents of bank customers.

    Args:
        source: Folder with ``train.csv`` and ``test.csv`` (columns text, category), or a Hub data set such as
            ``mteb/banking77`` (columns text, label).
        validation: Leave the test set alone: split the training set into a part that trains the probe and a part that
            is scored, so that settings can be chosen.
        fraction: Share of the training set that is scored with ``validation``.
        seed: Seed of that stratified split.

    Returns:
        The task ``banking77``, or ``banking77_validation``.
    """
    folder = Path(source)
    local = folder.is_dir()
    train, test = (folder / "train.csv", folder / "test.csv") if local else (source, source)
    task = load_classification(train, test, name="banking77", columns={"label": "category"} if local else None)
    if not validation:
        return task
    fit, held = stratified_split(task.train_labels, fraction, seed)
    texts, labels = task.train_texts, task.train_labels
    return ClassificationTask(
        "banking77_validation",
        [texts[i] for i in fit],
        [labels[i] for i in fit],
        [texts[i] for i in held],
        [labels[i] for i in held],
    )


def load_retrieval(source: str | Path, *, name: str, split: str = "test") -> RetrievalTask:
    """Read a retrieval task in the BEIR layout (Thakur et al., 2021). The text of a document is its title, then its body.

    Args:
        source: Folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, or a Hub data set in the MTEB
            layout (subsets ``corpus``, ``queries``, ``default``) such as ``mteb/scifact``.
        name: Name in the results.
        split: Which judgements to use.
    """
    folder = Path(source)
    if folder.is_dir():
        corpus, queries = (read_table(folder / f"{part}.jsonl") for part in ("corpus", "queries"))
        judged: str | Path = folder / "qrels" / f"{split}.tsv"
        judgements = read_columns(judged, ["query-id", "corpus-id", "score"])
    else:
        corpus, queries = (read_table(source, split=part, subset=part) for part in ("corpus", "queries"))
        judged = source
        judgements = read_columns(source, ["query-id", "corpus-id", "score"], split=split, subset="default")
    grades = parse_scores(judgements["score"], "score", judged)
    qrels: dict[str, dict[str, float]] = {}
    for query, document, grade in zip(judgements["query-id"], judgements["corpus-id"], grades, strict=True):
        qrels.setdefault(str(query), {})[str(document)] = grade
    documents, asked = (
        _by_id(table, f"{source} ({part})") for table, part in ((corpus, "corpus"), (queries, "queries"))
    )
    if "title" in corpus:
        for document, title in zip(documents, corpus["title"], strict=True):
            documents[document] = f"{title or ''} {documents[document]}".strip()
    try:
        return RetrievalTask(name, documents, asked, qrels)
    except ValueError as error:
        raise ValueError(f"{judged}: {error}") from error


def load_pair_classification(
    dev: str | Path,
    test: str | Path,
    *,
    name: str,
    columns: Mapping[str, str] | None = None,
    dev_split: str = "validation",
    test_split: str = "test",
) -> PairClassificationTask:
    """Read a pair classification task with the columns sentence1, sentence2 and label (0 or 1).

    Args:
        dev: A local file, or a Hub data set, on which the threshold is chosen.
        test: A local file, or a Hub data set, that is scored.
        name: Name in the results.
        columns: Names in the sources of ``sentence1``, ``sentence2`` and ``label`` where they differ.
        dev_split: Split of a Hub data set; ignored for a file.
        test_split: Split of a Hub data set; ignored for a file.
    """
    names = _names(columns, "sentence1", "sentence2", "label")
    parts = []
    for source, split in ((dev, dev_split), (test, test_split)):
        table = read_columns(source, list(names.values()), split=split)
        labels = parse_scores(table[names["label"]], names["label"], source)
        pairs = list(zip(table[names["sentence1"]], table[names["sentence2"]], strict=True))
        parts.append((pairs, labels))  # the task refuses all but 0 and 1
    return PairClassificationTask(name, *parts[0], *parts[1])


def _names(columns: Mapping[str, str] | None, *expected: str) -> dict[str, str]:
    """Complete a column mapping with the identity; refuse keys that mean nothing."""
    if unknown := sorted(set(columns or {}) - set(expected)):
        raise ValueError(f"Unknown keys {unknown} in columns: map only {list(expected)} to names in the source.")
    return {key: (columns or {}).get(key, key) for key in expected}


def _by_id(table: Mapping[str, list], source: str) -> dict[str, str]:
    """Texts of a corpus or of queries by their id."""
    require_columns(table, ("_id", "text"), source)
    for number, (key, text) in enumerate(zip(table["_id"], table["text"], strict=True), start=1):
        if key is None or not isinstance(text, str):
            raise ValueError(
                f"{source}, row {number}: _id is {key!r:.80} and text is {text!r:.80}; an id and a text are needed."
            )
    texts = {str(key): text for key, text in zip(table["_id"], table["text"], strict=True)}
    if len(texts) < len(table["_id"]):
        raise ValueError(f"{source}: {len(table['_id']) - len(texts)} ids occur twice.")
    return texts
