"""What the snippets of docs/truncate_an_index.md keep: prefixes of a fitted map in faiss and usearch, then floats of a short list.

Prints bytes per vector in memory and recall@10 of the exact neighbours, with 32 coordinates of one byte each, without a map and with one.

    OMP_NUM_THREADS=1 python benchmarks/mic_search_libraries.py vectors.npy queries.npy

Needs pip install 'hf-mic-evl-ecg[search]'.
"""

import numpy as np
import torch
from reporting import Table, options

from hf_mic.frozen import AdaptConfig, PrefixMap, fit_map
from hf_mic.search import FaissStage, Funnel, UsearchStage, VectorStage
from hf_mic.search.recall import recall

try:
    import faiss
    from usearch.index import Index
except ImportError:
    faiss = None

K, SHORTLIST, DIM = 10, 100, 32


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("vectors")
    parser.add_argument("queries")
    parser.add_argument("--steps", type=int, default=AdaptConfig().steps)
    args = parser.parse_args()
    if faiss is None:
        parser.error("faiss or usearch is missing: pip install 'hf-mic-evl-ecg[search]'")
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    vectors, queries = (np.load(path, mmap_mode="r") for path in (args.vectors, args.queries))
    floats = VectorStage(vectors)
    exact = Funnel([floats]).search(queries, K).rows
    width = vectors.shape[1]
    maps = {
        "first coordinates": PrefixMap("orthogonal", torch.eye(width)),
        "fitted map": fit_map(vectors, AdaptConfig(dims=[DIM], steps=args.steps)),
    }
    print(f"{len(vectors):,} vectors, {len(queries):,} queries; float32: {4 * width} bytes\n")
    columns = {"index": "", "bytes": ",", "coordinates": "", "alone, %": ".1f", f"with floats of {SHORTLIST}, %": ".1f"}
    table = Table(__file__, args.output, columns, ("faiss-cpu", "usearch"))
    for name, fitted in maps.items():
        index = fitted.apply(vectors, dim=DIM)
        coded = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        coded.train(index)
        coded.add(index)
        graph = Index(ndim=DIM, metric="cos", dtype="i8")
        graph.add(np.arange(len(index)), index, threads=1)
        for label, stage in (
            ("faiss SQ, 8 bits", FaissStage(coded, lambda rows, fitted=fitted: fitted.apply(rows, dim=DIM))),
            (
                "usearch, int8, graph besides",
                UsearchStage(graph, lambda rows, fitted=fitted: fitted.apply(rows, dim=DIM)),
            ),
        ):
            alone, both = Funnel([stage]), Funnel([stage, floats], [SHORTLIST])
            table.add(label, DIM, name, *(100 * recall(way.search(queries, K).rows, exact) for way in (alone, both)))


if __name__ == "__main__":
    main()
