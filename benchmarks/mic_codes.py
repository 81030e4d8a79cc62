"""Searching packed codes with `hf_mic.codes` against unpacking and multiplying, and against faiss at equal bytes.

Each way finds the ten most similar of the coded rows for a batch of float queries, on one thread. A ratio is the median over rounds of
a way's time to the time of `ScalarQuantizer.search` in the same round: above 1 the way is slower than ours. Times are CPU seconds of
this process. Speed only: the rows are random, and what a code keeps depends on the data.

    OMP_NUM_THREADS=1 python benchmarks/mic_codes.py
    OMP_NUM_THREADS=1 python benchmarks/mic_codes.py --rows 1000000 --queries 1 64

Scalar quantisers of faiss have no 1 and 2 bits, so at equal bytes they keep fewer coordinates. Product quantisation sees all of them.
faiss is left out if it is not installed (pip install faiss-cpu). Takes about four minutes.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from measuring import median_ratio, take_turns
from reporting import Table, options

from hf_mic.codes import ScalarQuantizer, unpack

try:
    import faiss
except ImportError:
    faiss = None

K = 10
WIDTH = 128
OURS = {8: [(64, 1), (32, 2)], 16: [(128, 1), (64, 2), (32, 4)], 32: [(128, 2), (64, 4), (32, 8)]}
Search = Callable[[np.ndarray], np.ndarray]


def make_vectors(count: int, random: np.random.Generator) -> np.ndarray:
    """Unit rows, coordinates ordered by variance."""
    vectors = random.normal(size=(count, WIDTH)).astype(np.float32) * np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.4
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def unpack_and_multiply(quantizer: ScalarQuantizer, codes: np.ndarray) -> Search:
    """What one writes without tables: every coordinate is unpacked, scaled, and multiplied by BLAS."""

    def search(queries: np.ndarray) -> np.ndarray:
        best, rows = [], []
        for start in range(0, len(codes), 16384):
            part = codes[start : start + 16384]
            if quantizer.bits == 1:
                symbols = np.unpackbits(part, axis=1, bitorder="little", count=quantizer.dims)
            else:
                symbols = unpack(part, quantizer.bits, quantizer.dims)
            decoded = quantizer.means + quantizer.spreads * quantizer.levels[symbols]
            decoded /= np.linalg.norm(decoded, axis=1, keepdims=True)
            scores = queries @ decoded.T
            top = np.argpartition(scores, -K, axis=1)[:, -K:]
            best.append(np.take_along_axis(scores, top, 1))
            rows.append(top + start)
        scores, found = np.concatenate(best, 1), np.concatenate(rows, 1)
        return np.take_along_axis(found, np.argsort(-scores, axis=1)[:, :K], 1)

    return search


def faiss_ways(vectors: np.ndarray, size: int) -> dict[str, Search]:
    """Indexes of faiss whose codes have that many bytes."""
    if faiss is None:
        return {}
    kinds = faiss.ScalarQuantizer
    made = {
        f"faiss SQ 8 bits x {size}": faiss.IndexScalarQuantizer(size, kinds.QT_8bit, faiss.METRIC_INNER_PRODUCT),
        f"faiss SQ 4 bits x {2 * size}": faiss.IndexScalarQuantizer(
            2 * size, kinds.QT_4bit, faiss.METRIC_INNER_PRODUCT
        ),
        f"faiss PQ {size} x 8 bits": faiss.IndexPQ(WIDTH, size, 8, faiss.METRIC_INNER_PRODUCT),
        f"faiss PQ fast scan {2 * size} x 4 bits": faiss.IndexPQFastScan(
            WIDTH, 2 * size, 4, faiss.METRIC_INNER_PRODUCT
        ),
    }
    ways = {}
    for name, index in made.items():
        index.train(vectors[:20_000, : index.d])
        index.add(np.ascontiguousarray(vectors[:, : index.d]))
        ways[name] = lambda queries, index=index: index.search(np.ascontiguousarray(queries[:, : index.d]), K)[1]
    return ways


def measure(
    vectors: np.ndarray, queries: np.ndarray, size: int, counts: Sequence[int], rounds: int, table: Table
) -> None:
    """Times of all ways for codes of one size, relative to each of our codes of that size."""
    others = faiss_ways(vectors, size)
    for dims, bits in OURS[size]:
        quantizer = ScalarQuantizer.fit(vectors[:20_000, :dims], bits)
        codes = quantizer.encode(vectors[:, :dims])
        compared: dict[str, Search] = {
            "hf_mic": lambda asked, quantizer=quantizer, codes=codes: quantizer.search(asked, codes, K)[1],
            "unpack and multiply": unpack_and_multiply(quantizer, codes),
        }
        for count in counts:
            ways = {name: partial(way, queries[:count, :dims]) for name, way in compared.items()}
            ways |= {name: partial(way, queries[:count]) for name, way in others.items()}
            for name, times in (taken := take_turns(ways, rounds)).items():
                ratio = median_ratio(times, taken["hf_mic"])
                table.add(size, f"{dims} x {bits} bits", count, name, 1e3 * statistics.median(times), ratio)


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16, 256], help="sizes of the batch of queries")
    parser.add_argument("--bytes", type=int, nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    random = np.random.default_rng(0)
    vectors, queries = make_vectors(args.rows, random), make_vectors(max(args.queries), random)
    columns = {"bytes": ",", "code": "", "queries": ",", "way": "", "ms": ",.1f", "ratio": ".2f"}
    table = Table(__file__, args.output, columns, ("numpy", "torch", "faiss-cpu"))
    for size in args.bytes:
        measure(vectors, queries, size, args.queries, args.rounds, table)


if __name__ == "__main__":
    main()
