"""A Hadamard rotation against a dense random one: time of the rotation and of coding, and what one bit per coordinate keeps.

A ratio is the median over rounds of the dense rotation's CPU seconds to Hadamard's in the same round, on one thread: above 1 Hadamard is
faster. Error is the squared error of decoded rows as a share of their variance, and neighbours kept are the ten nearest by all floats
that are among the ten nearest by code, both as means over seeds. Rows are random with a decaying spectrum, unless a file is given.

    OMP_NUM_THREADS=1 python benchmarks/mic_rotation.py
    OMP_NUM_THREADS=1 python benchmarks/mic_rotation.py --vectors vectors.npy

Takes about two minutes.
"""

import numpy as np
from measuring import median_ratio, take_turns
from reporting import Table, options

from hf_mic.codes import ScalarQuantizer, hadamard_turn, random_orthogonal, random_signs

WIDTHS = (384, 512, 768, 1024)
TIMED_ROWS, JUDGED_ROWS, QUERIES = 16384, 4000, 500
ROTATIONS = (None, "orthogonal", "hadamard")
COLUMNS = {"width": ",", "rotation, ratio": ".2f", "coding, ratio": ".2f"}
COLUMNS |= {f"{what}, {rotation or 'none'}": ".3f" for rotation in ROTATIONS for what in ("error", "neighbours kept")}


def make_vectors(count: int, width: int) -> np.ndarray:
    """Rows whose coordinates are principal axes, most variance first."""
    spread = np.arange(1, width + 1, dtype=np.float32) ** -0.4
    return (np.random.default_rng(0).normal(size=(count, width)) * spread).astype(np.float32)


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


def measure(judged: np.ndarray, timed_rows: int, rounds: int) -> list[float]:
    """Ratio of the rotations, and of coding as a whole."""
    width = judged.shape[1]
    timed = np.resize(judged, (timed_rows, width))
    matrix, signs = random_orthogonal(width), random_signs(width)
    dense, hadamard = (ScalarQuantizer.fit(judged, 1, rotation=rotation) for rotation in ("orthogonal", "hadamard"))
    times = take_turns(
        {
            "dense": lambda: timed @ matrix,
            "hadamard": lambda: hadamard_turn(timed, signs),
            "dense, coding": lambda: dense.encode(timed),
            "hadamard, coding": lambda: hadamard.encode(timed),
        },
        rounds,
    )
    return [median_ratio(times[f"dense{what}"], times[f"hadamard{what}"]) for what in ("", ", coding")]


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--vectors", help="a .npy file of floats; default: random rows of several widths")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="widths of the random rows")
    parser.add_argument("--rows", type=int, default=TIMED_ROWS, help="rows that are turned and coded")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    table = Table(__file__, args.output, COLUMNS, ("numpy",))
    given = [np.load(args.vectors).astype(np.float32)] if args.vectors else []
    for judged in given or (make_vectors(JUDGED_ROWS, width) for width in args.widths):
        quality = [share for rotation in ROTATIONS for share in kept(judged, rotation, args.seeds)]
        table.add(judged.shape[1], *measure(judged, args.rows, args.rounds), *quality)


if __name__ == "__main__":
    main()
