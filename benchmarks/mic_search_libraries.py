"""What the snippets of docs/truncate_an_index.md keep: prefixes of a fitted map in faiss and usearch, then floats of a short list.

Prints bytes per vector in memory and recall@10 of the exact neighbours, with 32 coordinates of one byte each, without a map and with one.

    OMP_NUM_THREADS=1 python benchmarks/mic_search_libraries.py vectors.npy queries.npy

Needs pip install 'hf-mic-evl-ecg[search]'.
"""

import argparse

import faiss
import numpy as np
import torch
from usearch.index import Index

from hf_mic.frozen import AdaptConfig, PrefixMap, fit_map
from hf_mic.search import FaissStage, Funnel, UsearchStage, VectorStage
from hf_mic.search.recall import recall

K, SHORTLIST, DIM = 10, 100, 32


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors")
    parser.add_argument("queries")
    parser.add_argument("--steps", type=int, default=AdaptConfig().steps)
    args = parser.parse_args()
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
    print(f"| index | bytes | coordinates | alone | with floats of {SHORTLIST} |\n| --- | --: | --- | --: | --: |")
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
            alone = recall(Funnel([stage]).search(queries, K).rows, exact)
            both = recall(Funnel([stage, floats], [SHORTLIST]).search(queries, K).rows, exact)
            print(f"| {label} | {DIM} | {name} | {100 * alone:.1f} | {100 * both:.1f} |", flush=True)


if __name__ == "__main__":
    main()
