"""A Hadamard rotation against a dense random one: time of the rotation and of coding, and what one bit per coordinate keeps.

Times are CPU seconds of this process on one thread, the best of several rounds in which both ways take turns; a ratio above 1 says that
Hadamard is faster. Error is the squared error of decoded rows as a share of their variance, and neighbours kept are the ten nearest by
all floats that are among the ten nearest by code, both as means over seeds. Rows are random with a decaying spectrum, unless a file of
vectors is given.

    OMP_NUM_THREADS=1 python benchmarks/mic_rotation.py
    OMP_NUM_THREADS=1 python benchmarks/mic_rotation.py --vectors vectors.npy

Takes about two minutes.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hf_mic.codes import ScalarQuantizer, hadamard_turn, random_orthogonal, random_signs

WIDTHS = (384, 512, 768, 1024)
TIMED_ROWS, JUDGED_ROWS, QUERIES = 16384, 4000, 500


def make_vectors(count: int, width: int) -> np.ndarray:
    """Rows whose coordinates are principal axes, most variance first."""
    spread = np.arange(1, width + 1, dtype=np.float32) ** -0.4
    return (np.random.default_rng(0).normal(size=(count, width)) * spread).astype(np.float32)


def fastest(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """CPU seconds of each way, the least of the rounds."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for i, way in enumerate(ways):
            start = time.process_time()
            way()
            best[i] = min(best[i], time.process_time() - start)
    return best


def kept(vectors: np.ndarray, rotation: str | None, seeds: int) -> tuple[float, float]:
    """Share of squared error and of neighbours, means over seeds."""
    rows, queries = vectors[QUERIES:], vectors[:QUERIES]
    exact = ScalarQuantizer.fit(rows, 32)
    _, truth = exact.search(queries, exact.encode(rows), 10)
    errors, shares = [], []
    for seed in range(seeds):
        quantizer = ScalarQuantizer.fit(rows, 1, rotation=rotation, seed=seed)
        codes = quantizer.encode(rows)
        errors.append(((quantizer.decode(codes) - rows) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum())
        _, found = quantizer.search(queries, codes, 10)
        shares.append(np.mean([len({*a} & {*b}) for a, b in zip(truth, found, strict=True)]) / 10)
    return float(np.mean(errors)), float(np.mean(shares))


def main() -> None:
    """Print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", help="A .npy file of floats; default: random rows of several widths.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", default="outputs/mic_rotation.json")
    args = parser.parse_args()
    given = [np.load(args.vectors).astype(np.float32)] if args.vectors else []
    results = []
    for judged in given or (make_vectors(JUDGED_ROWS, width) for width in WIDTHS):
        width = judged.shape[1]
        timed = np.resize(judged, (TIMED_ROWS, width))
        matrix, signs = random_orthogonal(width), random_signs(width)
        quantizers = [ScalarQuantizer.fit(judged, 1, rotation=rotation) for rotation in ("orthogonal", "hadamard")]
        turns = fastest([lambda: timed @ matrix, lambda: hadamard_turn(timed, signs)], args.rounds)  # noqa: B023
        coded = fastest([lambda q=q: q.encode(timed) for q in quantizers], args.rounds)  # noqa: B023
        row = {"width": width, "rotation": turns[0] / turns[1], "coding": coded[0] / coded[1]}
        for rotation in (None, "orthogonal", "hadamard"):
            row[f"error, {rotation}"], row[f"neighbours kept, {rotation}"] = kept(judged, rotation, args.seeds)
        results.append(row)
        print({name: round(value, 4) for name, value in row.items()})
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
