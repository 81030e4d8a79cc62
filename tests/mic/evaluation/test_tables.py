"""Reading training data: formats, mappings, and errors that say what is wrong."""

import csv
import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from torch.utils.data import DataLoader

from hf_mic.evaluation.tables import parse_scores, read_columns, read_table
from hf_mic.evaluation.training_data import KINDS, load_training_data, simcse_pairs

ROWS = [{"anchor": 'A "quoted", text', "positive": "null"}, {"anchor": "line\nbreak", "positive": "NA  é"}]


def write(path, rows):
    """Write rows in the format of the ending, by other means than those under test."""
    opener = gzip.open if path.suffix == ".gz" else open
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.csv.gz", "a.parquet"])
def test_every_format_gives_the_same_pairs(tmp_path, name):
    data = load_training_data(write(tmp_path / name, ROWS))
    assert data.to_list() == ROWS  # "null" and "NA" are texts
    assert data.column_names == ["anchor", "positive"]


def test_txt_becomes_simcse_pairs(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\none\n", encoding="utf-8")
    assert load_training_data(path).to_list() == [{"anchor": t, "positive": t} for t in ("one", "two")]
    assert simcse_pairs(["b", "a", "b"])["anchor"] == ["b", "a"]


def test_kind_is_inferred_and_can_be_chosen(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"negative": "n", "positive": "p", "anchor": "a", "id": 3}])
    assert load_training_data(path).to_list() == [{"anchor": "a", "positive": "p", "negative": "n"}]
    assert load_training_data(path).column_names == list(KINDS["triplets"])
    assert load_training_data(path, "pairs").to_list() == [{"anchor": "a", "positive": "p"}]
    with pytest.raises(ValueError, match="kind='tuples': must be one of None, 'pairs'"):
        load_training_data(path, "tuples")


def test_column_mapping(tmp_path):
    path = write(tmp_path / "a.csv", [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}])
    pairs = load_training_data(path, columns={"anchor": "question", "positive": "answer"})
    assert pairs.to_list() == [{"anchor": "q1", "positive": "a1"}, {"anchor": "q2", "positive": "a2"}]
    sentences = load_training_data(path, columns={"text": ["question", "answer"]})
    assert sentences["anchor"] == sentences["positive"] == ["q1", "a1", "q2", "a2"]
    with pytest.raises(ValueError, match=r"cannot tell what its columns \['question', 'answer'\] are"):
        load_training_data(path)
    with pytest.raises(ValueError, match=r"`columns` \(which maps \['query'\]\)"):
        load_training_data(path, columns={"query": "question"})
    with pytest.raises(ValueError, match="only 'text' may name several"):
        load_training_data(path, columns={"anchor": ["question", "answer"]})
    with pytest.raises(ValueError, match=r"maps .'negative'., which kind 'pairs' does not have"):
        load_training_data(path, "pairs", columns={"anchor": "question", "positive": "answer", "negative": "answer"})


def test_scores_are_rescaled_only_when_asked(tmp_path):
    rows = [{"sentence1": "a", "sentence2": "b", "score": "5.0"}, {"sentence1": "c", "sentence2": "d", "score": "2"}]
    path = write(tmp_path / "a.csv", rows)
    assert load_training_data(path)["score"] == [5.0, 2.0]
    assert load_training_data(path, score_range=(0, 5))["score"] == [1.0, 0.4]
    assert load_training_data(path, score_range=(1, 5))["score"] == [1.0, 0.25]
    with pytest.raises(ValueError, match=r"row 2: score 2 lies outside score_range \(3, 5\)"):
        load_training_data(path, score_range=(3, 5))
    with pytest.raises(ValueError, match="lowest < highest"):
        load_training_data(path, score_range=(5, 0))


@pytest.mark.parametrize("cell", ["nan", "", "inf", "4,5", "high"])
def test_bad_scores_name_the_row(tmp_path, cell):
    rows = [{"sentence1": "a", "sentence2": "b", "score": "1"}, {"sentence1": "c", "sentence2": "d", "score": cell}]
    with pytest.raises(ValueError, match="row 2: column 'score'"):
        load_training_data(write(tmp_path / "a.csv", rows), "scored")


def test_missing_columns_name_those_that_are_there(tmp_path):
    path = write(tmp_path / "a.csv", [{"question": "q", "positive": "p"}])
    with pytest.raises(ValueError, match=r"no column \['anchor'\]. Its columns are \['question', 'positive'\]"):
        load_training_data(path, "pairs")


@pytest.mark.parametrize("blank", ["", "  ", None, float("nan")])
def test_blank_texts_name_the_row(tmp_path, blank):
    rows = [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": blank}]
    with pytest.raises(ValueError, match="row 2: column 'positive'"):
        load_training_data(write(tmp_path / "a.jsonl", rows))


def test_numbers_are_no_texts(tmp_path):
    with pytest.raises(ValueError, match="row 1: column 'anchor' holds 7, not a text"):
        load_training_data(write(tmp_path / "a.jsonl", [{"anchor": 7, "positive": "p"}]))


def test_absent_key_in_one_json_line_is_a_missing_value(tmp_path):
    with pytest.raises(ValueError, match="row 2: column 'positive' is None"):
        load_training_data(write(tmp_path / "a.jsonl", [{"anchor": "a", "positive": "p"}, {"anchor": "b"}]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "anchor,positive\n", "is empty"),
        ("a.txt", "\n\n", "is empty"),
        ("a.jsonl", "\n", "is empty"),
        ("a.csv", "anchor,positive\na,b\nc\n", "line 3: 1 cells, but the header names 2"),
        ("a.csv", "anchor,anchor\na,b\n", "names a column twice"),
        ("a.jsonl", '{"anchor": "a"}\n{oops\n', "line 2, cannot be read as json"),
        ("a.jsonl", '["a", "b"]\n', "line 1: expected a JSON object, found list"),
        ("a.xlsx", "x", "unknown ending '.xlsx'"),
        ("a.parquet.gz", "x", "unknown ending"),
    ],
)
def test_malformed_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "anchor,positive\nfrühe,späte\n".encode("latin-1"), "a.csv is not UTF-8 text"),
        ("a.jsonl", '{"anchor": "ü"}'.encode("utf-16"), "a.jsonl is not UTF-8 text"),
        ("a.csv.gz", b"anchor,positive\na,b\n", "a.csv.gz cannot be read as csv: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"text\n" * 99, mtime=0)[:-9], "a.txt.gz cannot be read as txt"),
        ("a.csv", b"anchor,positive\n" + b"x" * 140_000 + b",b\n", "a.csv cannot be read as csv: field larger"),
        ("a.parquet", b"no parquet at all", "a.parquet cannot be read as parquet"),
    ],
)
def test_unreadable_bytes_are_refused_with_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


def test_line_breaks_within_quotes_stay(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'anchor,positive\r\n"one\r\ntwo","x ""y"", z"\r\n')
    assert load_training_data(path).to_list() == [{"anchor": "one\r\ntwo", "positive": 'x "y", z'}]


def test_folders_and_absent_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent.csv does not exist"):
        read_table(tmp_path / "absent.csv")


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfanchor,positive\r\na,b\r\n")
    assert load_training_data(path).to_list() == [{"anchor": "a", "positive": "b"}]


def test_other_names_go_to_the_hub(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_dict({"anchor": ["a"], "positive": ["p"], "negative": ["n"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_training_data("sentence-transformers/all-nli", subset="triplet", split="dev")
    assert data.to_list() == [{"anchor": "a", "positive": "p", "negative": "n"}]
    assert calls == [(("sentence-transformers/all-nli", "triplet"), {"split": "dev"})]


def test_max_rows(tmp_path):
    path = write(tmp_path / "a.csv", [{"text": str(i)} for i in range(5)])
    assert load_training_data(path, max_rows=2)["anchor"] == ["0", "1"]
    with pytest.raises(ValueError, match="max_rows=0: must be at least 1"):
        load_training_data(path, max_rows=0)


def test_helpers():
    assert parse_scores(["1", 2, 0.5], "score", "x") == [1.0, 2.0, 0.5]
    with pytest.raises(ValueError, match="x, row 2: column 'label' is 'a', not a finite number"):
        parse_scores([1, "a"], "label", "x")


@pytest.mark.real_data
def test_real_files(data_dir):
    text = data_dir / "text"
    pairs = load_training_data(text / "pairs/medquad_qa.pairs.jsonl.gz")
    assert (len(pairs), pairs.column_names) == (13223, ["anchor", "positive"])
    triplets = load_training_data(text / "pairs/snli_devtest.triplets.jsonl.gz")
    assert (len(triplets), triplets.column_names) == (5746, ["anchor", "positive", "negative"])
    scored = load_training_data(text / "stsb/train.csv", score_range=(0, 5))
    assert len(scored) == 5749
    assert (min(scored["score"]), max(scored["score"])) == (0, 1)
    single = load_training_data(text / "stsb/train.csv", columns={"text": ["sentence1", "sentence2"]}, kind="single")
    assert single["anchor"] == single["positive"]
    assert len(single) == len(set(scored["sentence1"]) | set(scored["sentence2"]))
    assert len(read_columns(text / "classification/banking77/test.csv", ["text", "category"])["text"]) == 3080
    assert len(next(iter(DataLoader(triplets, batch_size=4)))["negative"]) == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id;text\n1;fast rhythm\n", "one column with ';' in it"),
        ("a.csv", "id\ttext\n1\tfast\n", r"one column with '\\t' in it"),
        ("a.tsv", "id,text\n1,fast\n", "one column with ',' in it"),
        ("a.jsonl", '{"text": "half \\ud83d"}\n', "line 1: holds half of a surrogate pair"),
    ],
)
def test_texts_that_would_be_misread_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "fast rhythm\n"), ("a.csv", "text\nfast rhythm\n"), ("a.jsonl", '{"text": "fast rhythm"}\n')],
)
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    with gzip.open(tmp_path / f"{name}.gz", "wb") as packed:
        packed.write(b"\xef\xbb\xbf" + text.encode())
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        assert read_table(path) == {"text": ["fast rhythm"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 3000, "line 2, cannot be read as json: maximum recursion depth"),
        ('{"score": ' + "9" * 5000 + "}", "line 2, cannot be read as json: Exceeds the limit"),
        ('{"score": 1' + "0" * 400 + "}", "row 2: column 'score' is 1000"),
        ('{"score": "' + "x" * 5000 + '"}', "row 2: column 'score' is 'xxx"),
    ],
)
def test_lines_that_a_parser_stumbles_over(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"score": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"^{path}, {message}") as caught:
        parse_scores(read_table(path)["score"], "score", path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000


def test_damaged_pages_of_parquet_name_the_file(tmp_path):
    """Arrow says what is wrong with a page in an OSError that names nothing."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"text {i}" for i in range(50)]}), path)
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 40 + data[44:])
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as parquet: ") as caught:
        read_table(path)
    assert type(caught.value) is ValueError
