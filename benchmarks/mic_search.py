"""Funnel search against faiss at equal bytes: recall of the exact neighbours, bytes read and time for a query.

Each way finds the ten nearest for float queries, on one thread: from its codes alone, and with the best 100 codes compared again in
floats, of which a memory map reads those rows only. A ratio is the median over rounds of a way's CPU seconds to those of our codes of the
same size in the same round: above 1 it is slower.

    OMP_NUM_THREADS=1 python benchmarks/mic_search.py
    OMP_NUM_THREADS=1 python benchmarks/mic_search.py --rows 1000000 --bytes 8    # two minutes, 0.77 GB of float16 in the temporary folder
    OMP_NUM_THREADS=1 python benchmarks/mic_search.py --vectors vectors.npy --queries queries.npy

Without --vectors, rows are made: clusters around centres of which each has a hundred rows, in 64 of 384 directions that a rotation hides,
with noise in all. Such rows say how fast a way is; what a code keeps depends on the data, so recall needs --vectors. faiss is left out if
it is not installed (pip install 'hf-mic-evl-ecg[search]').
"""

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import median_ratio, take_turns
from reporting import Table, options

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
COLUMNS = {
    "bytes": ",",
    "way": "",
    "stages": "",
    "recall@10, %": ".1f",
    "bytes read": ",.0f",
    "ms": ".2f",
    "ratio": ".2f",
}


def make_vectors(folder: Path, count: int, width: int = WIDTH) -> np.ndarray:
    """Rows as a float16 memory map, written in chunks."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(width, HIDDEN)))[0].astype(np.float32).T
    spread = np.arange(1, HIDDEN + 1, dtype=np.float32) ** -0.5
    centres = random.normal(size=(max(1, count // 100), HIDDEN)).astype(np.float32) * spread
    path = folder / "vectors.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (count, width))
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        hidden = centres[random.integers(0, len(centres), size)]
        hidden = hidden + 0.6 * spread * random.normal(size=hidden.shape).astype(np.float32)
        rows[start : start + size] = hidden @ basis + 0.02 * random.normal(size=(size, width)).astype(np.float32)
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


def measure(
    vectors: np.ndarray, queries: np.ndarray, sizes: Sequence[int], steps: int, rounds: int, table: Table
) -> None:
    """A row for exact search, then for each way, alone and with floats after it."""
    floats = VectorStage(vectors)
    exact = Funnel([floats]).search(queries, K)
    times = take_turns({"exact": lambda: Funnel([floats]).search(queries, K)}, 1, warm_up=False)["exact"]
    table.add(None, "exact", "floats", 100.0, exact.bytes_read[0], 1e3 * times[0] / len(queries), None)
    learned = unit(vectors[np.sort(np.random.default_rng(1).permutation(len(vectors))[:LEARNED])])
    for size in sizes:
        ours = Compressor.fit(learned, size, config=AdaptConfig(steps=steps))
        name = f"hf_mic {ours.dims} x {ours.quantizer.bits} bits"
        first = {name: CodedStage(ours, ours.transform(vectors)), **faiss_stages(vectors, learned, size)}
        alone = {way: Funnel([stage]) for way, stage in first.items()}
        both = {way: Funnel([stage, floats], [SHORTLIST]) for way, stage in first.items()}
        for stages, funnels in (("codes", alone), (f"codes, floats of {SHORTLIST}", both)):
            taken = take_turns({way: partial(funnel.search, queries, K) for way, funnel in funnels.items()}, rounds)
            for way, funnel in funnels.items():
                found, ms = funnel.search(queries, K), 1e3 * statistics.median(taken[way]) / len(queries)
                kept, read = 100 * recall(found.rows, exact.rows), sum(found.bytes_read)
                table.add(size, way, stages, kept, read, ms, median_ratio(taken[way], taken[name]))


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="rows that are made")
    parser.add_argument("--vectors", type=Path, help="vectors of your own, a .npy file")
    parser.add_argument("--queries", type=Path, help="queries of your own, a .npy file; default: 200 rows with noise")
    parser.add_argument("--bytes", type=int, nargs="+", default=[8, 48])
    parser.add_argument("--steps", type=int, default=100, help="steps of the fitted maps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the rows that are made lie meanwhile")
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
        print(f"{len(vectors):,} rows of width {vectors.shape[1]}, {vectors.dtype}, {len(queries)} queries\n")
        table = Table(__file__, args.output, COLUMNS, ("numpy", "torch", "faiss-cpu"))
        measure(vectors, queries, args.bytes, args.steps, args.rounds, table)


if __name__ == "__main__":
    main()
