"""Every file that hf_mic reads: how a valid one is made, and by what it is read."""

import json
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from safetensors.numpy import save_file

from fuzzing.harness import Reader
from fuzzing.mutations import LINES, STRUCTURE, TENSORS, YAML, bytes_mutated, compressed
from fuzzing.valid import a_file, a_json
from hf_mic.cards.spec import read_spec
from hf_mic.codes.quantizer import ScalarQuantizer
from hf_mic.codes.storage import load_quantizer, open_codes, save_quantizer
from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.loaders import load_retrieval, load_sts
from hf_mic.evaluation.tables import read_table
from hf_mic.evaluation.training_data import load_training_data
from hf_mic.frozen.candidates import Candidate
from hf_mic.frozen.compressor import Compressor
from hf_mic.frozen.index import open_vectors
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.inspection.vectors import read_map
from hf_mic.results import read_results

WIDTH = 6
ROW = {
    "method": "mic",
    "seed": 0,
    "task": "sts",
    "dim": 8,
    "metric": "spearman",
    "value": 0.8,
    "n": 9,
    "ci_low": 0.7,
    "ci_high": 0.9,
}
PAIRS = [{"sentence1": f"text {i}", "sentence2": "héart", "score": i / 3} for i in range(4)]


@dataclass
class _Options:
    """Options of every kind that a command has."""

    data: str
    dims: list[int] = field(default_factory=lambda: [8])
    gamma: float | Literal["auto"] = 0.1
    kind: Literal["linear", "mlp"] = "linear"
    bf16: bool = False
    steps: int | None = None


@cache
def _vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)


@cache
def _compressor() -> Compressor:
    quantizer = ScalarQuantizer.fit(_vectors()[:, :4], 2, rotation="orthogonal")
    return Compressor(_map(), quantizer, [Candidate("fitted", True, 4, 2, 1, 0.5, 0.9)])


@cache
def _map() -> PrefixMap:
    random_ = torch.Generator().manual_seed(0)
    parts = {name: torch.randn(*shape, generator=random_) for name, shape in
             (("weight", (WIDTH, 4)), ("hidden_weight", (WIDTH, 3)), ("hidden_bias", (3,)), ("output_weight", (3, 4)))}  # fmt: skip
    return PrefixMap(
        "mlp",
        **parts,
        config={"dims": [2, 4], "kind": "mlp"},
        losses={"distill": 0.1},
        held_out=[{"dim": 2, "map": 0.5}],
    )


def _saved(name: str, save: Any) -> Any:
    def make(folder: Path) -> Path:
        save(folder / name)
        return folder / name

    return make


def _lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def _folder_with(name: str) -> Any:
    """A compressor's folder, of which one file is damaged."""

    def make(folder: Path) -> Path:
        _compressor().save(folder)
        return folder / name

    return make


def _retrieval(name: str) -> Any:
    def make(folder: Path) -> Path:
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "corpus.jsonl").write_text(
            _lines([{"_id": f"d{i}", "title": "T", "text": f"body {i}"} for i in range(3)])
        )
        (folder / "queries.jsonl").write_text(_lines([{"_id": f"q{i}", "text": f"query {i}"} for i in range(2)]))
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td2\t1\n")
        return folder / name

    return make


def _used(found: PrefixMap | Compressor) -> None:
    """What was read is whole: it takes vectors, and gives what it says."""
    vectors = np.ones((2, found.width), np.float32)
    given = found.apply(vectors) if isinstance(found, PrefixMap) else found.reconstruct(found.transform(vectors))
    assert given.shape[0] == 2


def _after(use: Any) -> Any:
    """A check of what was read, where it was."""
    return lambda found: None if isinstance(found, BaseException) else use(found)


def _coded(quantizer: ScalarQuantizer) -> None:
    codes = quantizer.encode(np.ones((2, quantizer.dims), np.float32))
    assert quantizer.decode(codes).shape == (2, quantizer.dims)


def _resumed(path: Path) -> None:
    """Codes are written beside what an earlier run may have left, however damaged that is; what it had not done comes out the same."""
    folder, left = path.parent, path.read_bytes()
    out = folder / "out"
    out.mkdir(exist_ok=True)
    name = path.name.removeprefix("left")
    (out / f".codes.npy.{'partial' if name == 'partial' else 'journal.json'}").write_bytes(left)
    other = "journal.json" if name == "partial" else "partial"
    shutil.copy(folder / f"left{other}", out / f".codes.npy.{other}")
    found = np.load(_compressor().transform_to(out / "codes.npy", _vectors(), progress=False))
    shutil.rmtree(out)
    assert (found.shape, found.dtype) == ((40, 1), np.uint8)
    assert np.array_equal(found[16:], _compressor().transform(_vectors())[16:]), (
        "other codes in the rows that were still to be done"
    )


def _half_written(name: str) -> Any:
    """What is left of a run that was killed after 16 of 40 rows."""

    def make(folder: Path) -> Path:
        from hf_mic.frozen.coded_file import _probe

        codes = _compressor().transform(_vectors())
        codes[16:] = 0
        with (folder / "leftpartial").open("wb") as file:
            np.save(file, codes)
        task = {
            "key": _compressor().fingerprint(),
            "shape": list(codes.shape),
            "vectors": _probe(_vectors()),
            "rows": 16,
        }
        (folder / "leftjournal.json").write_text(json.dumps(task))
        return folder / f"left{name}"

    return make


def _parsed(path: Path) -> tuple[Any, ...]:
    return parse_options([_Options], ["--config", str(path)], "Options.", prog="fuzz")


def _npz(path: Path) -> None:
    np.savez(path, _vectors())


def _save_npy(values: np.ndarray) -> Any:
    return lambda path: np.save(path, values)


def _parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({f"c{i}": _vectors()[:, i] for i in range(WIDTH)}), path)


def _parquet_pairs(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), path)


CSV = "sentence1,sentence2,score\n" + "".join(f'"text {i}, more",héart,{i / 3}\n' for i in range(4))
RESULTS = {
    "study": "s",
    "config": {"seed": 0},
    "commit": "c",
    "machine": {"cpu": "x"},
    "rows": [ROW, {**ROW, "dim": 4}],
}
OPTIONS = {"data": "a.csv", "dims": [8, 16], "gamma": 0.3, "kind": "mlp", "bf16": True, "steps": 5}
CARD = {"name": "n", "method": "mic", "results": "r.json", "seed": 1, "baselines": ["pca"], "data": {"a": {"name": "A"}},
        "benchmarks": [{"task": "sts", "dim": 8}], "limits": ["x"]}  # fmt: skip

READERS = [
    Reader("mic results", a_json("results.json", RESULTS), read_results, STRUCTURE),
    Reader("mic options in YAML", a_json("run.yaml", OPTIONS), _parsed, YAML, (ValueError, OSError, SystemExit)),
    Reader("mic card in YAML", a_json("card.yaml", CARD), read_spec, YAML),
    Reader("table jsonl", a_file("t.jsonl", _lines(PAIRS)), read_table, LINES),
    Reader("table jsonl.gz", a_file("t.jsonl.gz", _lines(PAIRS)), read_table, compressed("gz", LINES)),
    Reader("table csv", a_file("t.csv", CSV), read_table),
    Reader("table csv.gz", a_file("t.csv.gz", CSV), read_table, compressed("gz", bytes_mutated)),
    Reader("table txt", a_file("t.txt", "one\ntwo\nthr\u00e9e\n"), read_table),
    Reader("table parquet", _saved("t.parquet", _parquet_pairs), read_table),
    Reader("STS task", a_file("t.jsonl", _lines(PAIRS)), lambda path: load_sts(path, name="t"), LINES),
    Reader("training data", a_file("t.jsonl", _lines(PAIRS)), lambda path: load_training_data(path, "scored"), LINES),
    Reader("retrieval corpus", _retrieval("corpus.jsonl"), lambda path: load_retrieval(path.parent, name="t"), LINES),
    Reader("retrieval judgements", _retrieval("qrels/test.tsv"), lambda path: load_retrieval(path.parent.parent, name="t"), sound=False),
    Reader("vectors npy", _saved("v.npy", _save_npy(_vectors())), open_vectors),
    Reader("vectors npz", _saved("v.npz", _npz), open_vectors),
    Reader("vectors csv", _saved("v.csv", lambda path: np.savetxt(path, _vectors(), delimiter=",")), open_vectors),
    Reader("vectors parquet", _saved("v.parquet", _parquet), open_vectors),
    Reader("vectors safetensors", _saved("v.safetensors", lambda path: save_file({"v": _vectors()}, path)), open_vectors, TENSORS),
    Reader("codes npy", _saved("c.npy", _save_npy(np.zeros((9, 4), np.uint8))), open_codes),
    Reader("quantizer", _saved("q.safetensors", lambda path: save_quantizer(_compressor().quantizer, path)), load_quantizer, TENSORS, check=_after(_coded)),
    Reader("prefix map", _saved("map.safetensors", lambda path: _map().save(path)), PrefixMap.load, TENSORS, check=_after(_used)),
    Reader("map to inspect", _saved("map.safetensors", lambda path: _map().save(path)), read_map, TENSORS),
    Reader("compressor json", _folder_with("compressor.json"), lambda path: Compressor.load(path.parent), STRUCTURE, check=_after(_used)),
    Reader("compressor map", _folder_with("map.safetensors"), lambda path: Compressor.load(path.parent), TENSORS, check=_after(_used), sound=False),
    Reader("compressor quantizer", _folder_with("quantizer.safetensors"), lambda path: Compressor.load(path.parent), TENSORS, check=_after(_used)),
    Reader("journal of codes", _half_written("journal.json"), _resumed, STRUCTURE, refuses=False, share=0.25),
    Reader("half-written codes", _half_written("partial"), _resumed, refuses=False, share=0.25),
]  # fmt: skip
