"""Sinkhorn of hf_evl_ecg against POT's batched solvers: time, peak memory and marginal error at equal iterations.

All solvers get the same mean-normalised feature costs, epsilon and number of iterations, in interleaved repeats; times are
medians. POT's kernel solver (`method="sinkhorn"`) counts as stable only where its plan is finite, and "ratio" is the time of
POT's fastest stable solver over ours. Peak memory is measured in a process of its own, in units of the cost matrix, without
the cost matrix itself.

    OMP_NUM_THREADS=1 python benchmarks/ecg_sinkhorn.py
    python benchmarks/ecg_sinkhorn.py --shapes 8x2880x1024 --epsilon 0.01 --device cuda

Nearly all of the time goes into POT's log-domain solver; `--shapes 4x576x256 --no-memory` is a quick look.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from ot.batch import solve_batch
from torch import Tensor

from hf_evl_ecg.ot import marginal_error, sinkhorn

SHAPES = ("4x576x256", "32x576x256", "8x1152x512", "4x2880x1024", "32x2880x1024")
OURS = "ours"
Solver = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]


def solve_ours(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int) -> Tensor:
    """This package's solver."""
    return sinkhorn(cost, a, b, epsilon=epsilon, max_iter=iterations)


def pot_solver(method: str) -> Solver:
    """One of POT's batched methods, without gradient."""

    def solve(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int) -> Tensor:
        return solve_batch(cost, epsilon, a, b, max_iter=iterations, tol=0, method=method, grad="detach").plan

    return solve


SOLVERS: dict[str, Solver] = {
    OURS: solve_ours,
    "pot sinkhorn": pot_solver("sinkhorn"),
    "pot log_sinkhorn": pot_solver("log_sinkhorn"),
}


def make_problem(shape: tuple[int, int, int], device: str, dim: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Mean-normalised squared distances of unit tokens that share clusters, as image patches do; uniform masses."""
    batch, n, m = shape
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(batch, 16, dim, generator=generator)

    def draw(count: int) -> Tensor:
        which = torch.randint(16, (batch, count, 1), generator=generator).expand(-1, -1, dim)
        return F.normalize(centres.gather(1, which) + torch.randn(batch, count, dim, generator=generator), dim=2)

    cost = torch.bmm(draw(n), draw(m).mT).mul_(-2).add_(2)
    cost /= cost.mean((1, 2), keepdim=True)
    return cost.to(device), torch.full((batch, n), 1 / n, device=device), torch.full((batch, m), 1 / m, device=device)


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def measure_memory(name: str, shape: tuple[int, int, int], device: str, epsilon: float, iterations: int) -> float:
    """Peak memory beyond the cost matrix, in cost matrices; run it in a fresh process on CPU."""
    warm = make_problem((1, 8, 8), device)
    SOLVERS[name](*warm, epsilon, 2)
    cost, a, b = make_problem(shape, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        SOLVERS[name](cost, a, b, epsilon, iterations)
        return (torch.cuda.max_memory_allocated() - before) / (cost.numel() * cost.element_size())
    Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = _status_kib("VmRSS")
    SOLVERS[name](cost, a, b, epsilon, iterations)
    return (_status_kib("VmHWM") - before) * 1024 / (cost.numel() * cost.element_size())


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only, pass --no-memory.")


def run_shape(
    shape: tuple[int, int, int], device: str, epsilon: float, iterations: int, repeats: int, memory: bool
) -> list[tuple[str, float, float, float]]:
    """(solver, median seconds, worst marginal error, peak memory) of each solver."""
    cost, a, b = make_problem(shape, device)
    times: dict[str, list[float]] = {name: [] for name in SOLVERS}
    errors: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for name, solve in SOLVERS.items():
            synchronize(device)
            start = time.perf_counter()
            plan = solve(cost, a, b, epsilon, iterations)
            synchronize(device)
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - start)
            errors[name] = marginal_error(plan, a, b).max().item()
            del plan
    rows = []
    for name in SOLVERS:
        peak = float("nan")
        if memory:
            os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # the child gives freed matrices back at once
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak = pool.apply(measure_memory, (name, shape, device, epsilon, 3))
        rows.append((name, statistics.median(times[name]), errors[name], peak))
    return rows


def main() -> None:
    """Print one block per shape and the smallest ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="BxNxM")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} thread(s), epsilon {args.epsilon}, ",
        end="",
    )
    print(f"{args.iterations} iterations, float32, median of {args.repeats}")
    print(f"{'shape':>14} {'solver':>18} {'ms':>10} {'marginal error':>15} {'peak memory':>12} {'ratio':>7}")
    ratios = []
    for text in args.shapes:
        shape = tuple(int(size) for size in text.split("x"))
        rows = run_shape(shape, args.device, args.epsilon, args.iterations, args.repeats, not args.no_memory)
        ours = next(seconds for name, seconds, _, _ in rows if name == OURS)
        ratios.append(min(seconds for name, seconds, error, _ in rows if name != OURS and error == error) / ours)
        for name, seconds, error, peak in rows:
            print(
                f"{text:>14} {name:>18} {1e3 * seconds:>10.1f} {error:>15.1e} {peak:>12.2f} {seconds / ours:>7.1f}",
                flush=True,
            )
    print(f"POT's fastest stable solver over ours: {', '.join(f'{r:.1f}' for r in ratios)}; smallest {min(ratios):.1f}")


if __name__ == "__main__":
    main()
