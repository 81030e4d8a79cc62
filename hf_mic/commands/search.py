"""Search an index of codes, and say what it finds of the exact neighbours for how many bytes read.

INDEX is a folder that `hf-mic adapt VECTORS --bytes N --output_dir INDEX` wrote, QUERIES a file of vectors of the same encoder:

    hf-mic search outputs/index8 queries.npy --k 10

With the float vectors, the best codes are compared again in full (of a .npy file only those rows are read), for several numbers of
them; with a folder of more bytes per vector between, in three stages. Recall is the share of the exact neighbours that is found:

    hf-mic search outputs/index8 queries.npy --vectors vectors.npy --refine outputs/index48

Writes neighbours.npz (scores and rows of the funnel that finds most, with float vectors), search.json and, with them, recall.png.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mic.command_line.options import parse_options
from hf_mic.options import check_at_least

if TYPE_CHECKING:
    from hf_mic.search.funnel import CodedStage


@dataclass
class SearchArguments:
    """What is searched for, in which index, and where the answer goes."""

    index: str = field(metadata={"help": "Folder of a compressor and its codes.npy; the word --index may be left out."})
    queries: str = field(
        metadata={
            "help": "Vectors of shape (Q, D): .npy, .npz, .safetensors, .csv or .parquet; --queries may be left out after INDEX."
        }
    )
    k: int = field(default=10, metadata={"help": "Neighbours of each query."})
    vectors: str | None = field(
        default=None,
        metadata={"help": "The vectors that were coded, in the same order: last stage, and what is exact."},
    )
    refine: str | None = field(
        default=None, metadata={"help": "Another such folder of the same vectors with more bytes: the stage between."}
    )
    shortlists: list[int] = field(
        default_factory=lambda: [20, 50, 100, 200, 500, 1000],
        metadata={"help": "Rows that the last stage compares; those below --k or beyond the index are left out."},
    )
    output_dir: str = field(default="outputs/search", metadata={"help": "Folder of what is written."})

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), *(("shortlists", size) for size in self.shortlists)):
            check_at_least(name, value, 1)


def parse(words: Sequence[str]) -> tuple[SearchArguments]:
    """Read the words after the verb: INDEX and QUERIES may stand without their names."""
    given = list(words)
    if len(given) > 1 and not given[0].startswith("-") and not given[1].startswith("-"):
        given.insert(1, "--queries")
    (args,) = parse_options((SearchArguments,), given, __doc__, prog="hf-mic search", positional="index")
    return (args,)


def main(args: SearchArguments) -> list[dict[str, Any]]:
    """Search, print the table, write the files.

    Returns:
        A row for each funnel.

    Raises:
        ValueError: If index, queries and vectors do not fit together.
    """
    import numpy as np

    from hf_mic.files import replaced_files, write_atomically
    from hf_mic.frozen.index import open_vectors
    from hf_mic.search.funnel import Funnel, VectorStage
    from hf_mic.search.recall import funnels, plot_recall, recall_rows

    coded = [_coded(folder) for folder in (args.index, args.refine) if folder is not None]
    queries = open_vectors(args.queries)
    floats = None if args.vectors is None else VectorStage(open_vectors(args.vectors))
    width = coded[0].compressor.width
    for name, found in (
        (args.queries, queries.shape[1:]),
        (args.vectors, (width,) if floats is None else floats.vectors.shape[1:]),
    ):
        if found != (width,):
            raise ValueError(
                f"{name} must hold vectors of width {width}, as {args.index} does; its shape ends in {found}."
            )
    sizes = sorted({size for size in args.shortlists if args.k <= size <= len(coded[0])})
    candidates = funnels(coded, floats, sizes)
    exact = None if floats is None else Funnel([floats]).search(queries, args.k)
    rows = recall_rows(candidates, queries, args.k, None if exact is None else exact.rows)
    best = rows[-1] if exact is None else max(rows, key=lambda row: (row["recall"], -row["bytes_read"]))
    answer = dict(candidates)[best["name"]].search(queries, args.k)
    content: dict[str, Any] = {
        "queries": len(queries),
        "vectors": len(coded[0]),
        "k": args.k,
        "rows": rows,
        "answer": best["name"],
    }
    print(_table(rows, args.k))
    with replaced_files(args.output_dir) as folder:
        if exact is not None:
            content["exact_bytes"] = sum(exact.bytes_read)
            print(f"Exact search reads {content['exact_bytes']:,.0f} bytes for a query.")
            plot_recall(rows, content["exact_bytes"], args.k, folder / "recall.png")
        write_atomically(folder / "neighbours.npz", lambda file: np.savez(file, scores=answer.scores, rows=answer.rows))
        (folder / "search.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {args.output_dir}, with the neighbours by {best['name']}")
    return rows


def _coded(folder: str) -> CodedStage:
    from hf_mic.codes.storage import open_codes
    from hf_mic.frozen.compressor import SETTINGS, Compressor
    from hf_mic.search.funnel import CodedStage

    for name in (SETTINGS, "codes.npy"):
        if not Path(folder, name).is_file():
            raise ValueError(f"{folder} holds no {name}: give a folder that hf-mic adapt VECTORS --bytes N wrote.")
    return CodedStage(Compressor.load(folder), open_codes(Path(folder, "codes.npy")))


def _table(rows: Sequence[dict[str, Any]], k: int) -> str:
    lines = [f"| stages | bytes read for a query | recall@{k} |", "| --- | --: | --: |"]
    for row in rows:
        kept = "" if row["recall"] is None else f"{100 * row['recall']:.1f}"
        lines.append(f"| {row['name']} | {row['bytes_read']:,.0f} | {kept} |")
    return "\n".join(lines)
