"""Funnel search against faiss at equal bytes: recall of the exact neighbours, bytes read and time for a query.

Each way finds the ten nearest for float queries, on one thread: from its codes alone, and with the best 100 codes compared again in
floats, of which a memory map reads those rows only. A ratio is CPU time of a way to that of our codes of the same size: above 1 it is
slower.

    OMP_NUM_THREADS=1 python benchmarks/mic_search.py
    OMP_NUM_THREADS=1 python benchmarks/mic_search.py --rows 1000000 --bytes 8    # two minutes, 0.77 GB of float16 in the temporary folder
    OMP_NUM_THREADS=1 python benchmarks/mic_search.py --vectors vectors.npy --queries queries.npy

Without --vectors, rows are made: clusters around centres of which each has a hundred rows, in 64 of 384 directions that a rotation hides,
with noise in all. Such rows say how fast a way is; what a code keeps depends on the data, so recall needs --vectors. faiss is left out if
it is not installed (pip install 'hf-mic-evl-ecg[search]').
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hf_mic import Compressor
from hf_mic.frozen import AdaptConfig
from hf_mic.search import CodedStage, FaissStage, Funnel, VectorStage
from hf_mic.search.recall import recall

try:
    import faiss
except ImportError:
    faiss = None

K, SHORTLIST = 10, 100
WIDTH, HIDDEN = 384, 64
LEARNED = 20_000  # rows that codes are fitted on
CHUNK = 65536


def make_vectors(folder: Path, count: int) -> np.ndarray:
    """Rows as a float16 memory map, written in chunks."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(WIDTH, HIDDEN)))[0].astype(np.float32).T
    spread = np.arange(1, HIDDEN + 1, dtype=np.float32) ** -0.5
    centres = random.normal(size=(max(1, count // 100), HIDDEN)).astype(np.float32) * spread
    path = folder / "vectors.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (count, WIDTH))
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        hidden = centres[random.integers(0, len(centres), size)]
        hidden = hidden + 0.6 * spread * random.normal(size=hidden.shape).astype(np.float32)
        rows[start : start + size] = hidden @ basis + 0.02 * random.normal(size=(size, WIDTH)).astype(np.float32)
    rows.flush()
    return np.load(path, mmap_mode="r")


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows as float32 of unit length."""
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def faiss_stages(vectors: np.ndarray, learned: np.ndarray, size: int) -> dict[str, FaissStage]:
    """Indexes of faiss whose codes have that many bytes, filled in chunks."""
    if faiss is None:
        return {}
    width, inner = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    made = {}
    for bits, kind in ((8, faiss.ScalarQuantizer.QT_8bit), (4, faiss.ScalarQuantizer.QT_4bit)):
        if (dims := 8 * size // bits) <= width:
            cut = lambda rows, dims=dims: np.ascontiguousarray(rows[:, :dims])  # noqa: E731
            made[f"faiss SQ {dims} x {bits} bits"] = FaissStage(faiss.IndexScalarQuantizer(dims, kind, inner), cut)
    if width % size == 0:
        made[f"faiss PQ {size} x 8 bits"] = FaissStage(faiss.IndexPQ(width, size, 8, inner))
    if 8 * size <= width:
        signs = lambda rows: np.packbits(rows[:, : 8 * size] > 0, axis=1)  # noqa: E731
        made[f"faiss binary {8 * size} bits"] = FaissStage(faiss.IndexBinaryFlat(8 * size), signs)
    for stage in made.values():
        shown = stage.transform or (lambda rows: rows)
        if not isinstance(stage.index, faiss.IndexBinary):
            stage.index.train(shown(learned))
        for start in range(0, len(vectors), CHUNK):
            stage.index.add(shown(unit(vectors[start : start + CHUNK])))
    return made


def milliseconds(funnel: Funnel, queries: np.ndarray, rounds: int) -> float:
    """CPU time of a query, the least of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        funnel.search(queries, K)
        taken.append(time.process_time() - start)
    return 1e3 * min(taken) / len(queries)


def measure(vectors: np.ndarray, queries: np.ndarray, sizes: list[int], steps: int, rounds: int) -> list[dict]:
    """A row for each way, alone and with floats after it."""
    floats = VectorStage(vectors)
    start = time.process_time()
    exact = Funnel([floats]).search(queries, K)
    exact_ms = 1e3 * (time.process_time() - start) / len(queries)
    print(f"exact search: {exact.bytes_read[0]:,.0f} bytes and {exact_ms:.2f} ms for a query")
    learned = unit(vectors[np.sort(np.random.default_rng(1).permutation(len(vectors))[:LEARNED])])
    rows: list[dict] = []
    print("| bytes | way | stages | recall@10 | bytes read | ms | ratio |\n| --: | --- | --- | --: | --: | --: | --: |")
    for size in sizes:
        ours = Compressor.fit(learned, size, config=AdaptConfig(steps=steps))
        name = f"hf_mic {ours.dims} x {ours.quantizer.bits} bits"
        first = {name: CodedStage(ours, ours.transform(vectors)), **faiss_stages(vectors, learned, size)}
        for stages in ("codes", f"codes, floats of {SHORTLIST}"):
            own = 0.0
            for way, stage in first.items():
                funnel = Funnel([stage]) if stages == "codes" else Funnel([stage, floats], [SHORTLIST])
                found = funnel.search(queries, K)
                spent = milliseconds(funnel, queries, rounds)
                own = own or spent  # ours is the first
                read, kept = sum(found.bytes_read), recall(found.rows, exact.rows)
                rows.append(
                    {"bytes": size, "way": way, "stages": stages, "recall": kept, "bytes_read": read, "ms": spent, "ratio": spent / own}
                )  # fmt: skip
                print(
                    f"| {size} | {way} | {stages} | {100 * kept:.1f} | {read:,.0f} | {spent:.2f} | {spent / own:.2f} |",
                    flush=True,
                )
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows that are made")
    parser.add_argument("--vectors", type=Path, help="vectors of your own, a .npy file")
    parser.add_argument("--queries", type=Path, help="queries of your own, a .npy file; default: 200 rows with noise")
    parser.add_argument("--bytes", type=int, nargs="+", default=[8, 48])
    parser.add_argument("--steps", type=int, default=100, help="steps of the fitted maps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the rows that are made lie meanwhile")
    parser.add_argument("--output", type=Path, help="json file for the rows of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        vectors = np.load(args.vectors, mmap_mode="r") if args.vectors else make_vectors(Path(folder), args.rows)
        if args.queries:
            queries = unit(np.load(args.queries, mmap_mode="r")[:200])
        else:
            random = np.random.default_rng(2)
            queries = unit(vectors[np.sort(random.permutation(len(vectors))[:200])])
            queries = unit(queries + random.normal(size=queries.shape) * 0.3 / np.sqrt(queries.shape[1]))
        print(f"{len(vectors):,} rows of width {vectors.shape[1]}, {vectors.dtype}, {len(queries)} queries")
        rows = measure(vectors, queries, args.bytes, args.steps, args.rounds)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
