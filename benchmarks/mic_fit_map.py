"""Fitting a map on a memory map of a million rows: seconds and memory of `hf_mic.frozen.fit_map`, beside PCA of scikit-learn.

A map is more than principal axes, so both are measured: `fit_map` with its default settings, which looks at every row once and trains a
rotation, and `principal_axes`, on 100,000 rows drawn at random, where it starts. scikit-learn gets unit rows, as ours makes of them:
`PCA(svd_solver="covariance_eigh")` all in memory as float32, `IncrementalPCA` parts of the memory map. Kept is the share of the ten nearest
rows, of 8,192, that the first 32 coordinates find for 512 others.

Each fit runs in a process of its own. Seconds are CPU seconds of the fit alone, medians over rounds in turn; a ratio is the median over
rounds to `fit_map`: above 1 a way is slower. Memory is the most that the fit holds beyond what the process held before, without the pages
of the memory map. Made rows say how fast a way is; what it keeps depends on the data.

    OMP_NUM_THREADS=1 python benchmarks/mic_fit_map.py --folder /folder/with/2/GB
    OMP_NUM_THREADS=1 python benchmarks/mic_fit_map.py --rows 3000 --width 64 --steps 20 --rounds 1     # a quick look
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import median_ratio, peak_anonymous_bytes
from mic_search import make_vectors, unit
from reporting import Table, options
from sklearn.decomposition import PCA, IncrementalPCA

from hf_mic.frozen import AdaptConfig, fit_map, principal_axes
from hf_mic.frozen.held_out import neighbours_kept

DIM, LONGEST, K = 32, 128, 10
QUERIES, SEARCHED, PART = 512, 8192, 16384
OURS = "hf_mic fit_map"
COLUMNS = {"way": "", "rows": ",", "seconds": ".1f", "ratio": ".2f", "memory [MB]": ",.0f", f"kept at {DIM}, %": ".1f"}
Fit = Callable[[np.ndarray, int, int], np.ndarray]


def fit_ours(rows: np.ndarray, longest: int, steps: int) -> np.ndarray:
    """The map's matrix."""
    dims = [dim for dim in AdaptConfig().dims if dim <= longest]
    return fit_map(rows, AdaptConfig(dims=dims, steps=steps), progress=False).weight.numpy()


def fit_axes(rows: np.ndarray, longest: int, steps: int) -> np.ndarray:
    """This package's principal axes."""
    return principal_axes(rows).numpy()


def fit_pca(rows: np.ndarray, longest: int, steps: int) -> np.ndarray:
    """scikit-learn's, of all rows in memory."""
    held = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), PART):
        held[start : start + PART] = unit(rows[start : start + PART])
    return PCA(longest, svd_solver="covariance_eigh", copy=False).fit(held).components_.T


def fit_incremental(rows: np.ndarray, longest: int, steps: int) -> np.ndarray:
    """scikit-learn's, part by part; a last part with fewer rows than components is left out, as it must be."""
    pca = IncrementalPCA(longest, copy=False)
    for start in range(0, len(rows), PART):
        if len(part := rows[start : start + PART]) >= longest:
            pca.partial_fit(unit(part))
    return pca.components_.T


FITS: dict[str, Fit] = {
    OURS: fit_ours,
    "hf_mic principal_axes": fit_axes,
    "sklearn PCA, covariance_eigh": fit_pca,
    "sklearn IncrementalPCA": fit_incremental,
}


def run(name: str, path: str, longest: int, steps: int) -> tuple[float, int, np.ndarray]:
    """Seconds, bytes and the matrix of one fit, in a fresh process."""
    rows = np.load(path, mmap_mode="r")
    FITS[name](rows[:2048], longest, 1)  # what libraries load when they are first used is no part of a fit
    taken: list = []

    def fit() -> None:
        start = time.process_time()
        matrix = FITS[name](rows, longest, steps)
        taken.extend((time.process_time() - start, matrix))

    memory = peak_anonymous_bytes(fit)
    return taken[0], memory, taken[1]


def kept(matrix: np.ndarray, rows: np.ndarray) -> float:
    """Share of the nearest rows that the first coordinates find."""
    chosen = np.sort(np.random.default_rng(1).permutation(len(rows))[: QUERIES + SEARCHED])
    some = torch.from_numpy(unit(rows[chosen]))
    queries, searched = some[: len(some) // 17], some[len(some) // 17 :]
    nearest = (queries @ searched.T).topk(K, dim=1).indices
    short = torch.from_numpy(matrix[:, :DIM].astype(np.float32))
    return neighbours_kept(queries @ short, searched @ short, nearest).mean().item()


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--steps", type=int, default=AdaptConfig().steps, help="steps of fit_map")
    parser.add_argument(
        "--ways", nargs="+", default=list(FITS), choices=list(FITS), help="fit_map is always among them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the rows lie meanwhile")
    args = parser.parse_args()
    longest = min(LONGEST, args.width // 2)
    ways = dict.fromkeys([OURS, *args.ways])
    found: dict[str, list[tuple[float, int, np.ndarray]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = make_vectors(Path(folder), args.rows, args.width)
        for _ in range(args.rounds):
            for name in ways:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[name].append(pool.apply(run, (name, f"{folder}/vectors.npy", longest, args.steps)))
        table = Table(__file__, args.output, COLUMNS, ("numpy", "torch", "scikit-learn"))
        for name in ways:
            times, memory, matrices = zip(*found[name], strict=True)
            ratio = median_ratio(times, [seconds for seconds, *_ in found[OURS]])
            share = 100 * kept(matrices[0], rows)
            table.add(name, args.rows, statistics.median(times), ratio, max(memory) / 1e6, share)


if __name__ == "__main__":
    main()
