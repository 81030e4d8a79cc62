"""The transport loss of hf_evl_ecg, forward and backward, against the same loss with plans of POT's and GeomLoss's solvers.

All start from the same tokens and solve the same problem: squared distances of unit tokens, divided by their mean over pairs by mass, and
entropic regularisation `--epsilon` on that cost. POT takes it as `reg`, GeomLoss 0.3's `ot.solve_batch` as well; GeomLoss's `SamplesLoss`
would run the same loop with `blur` at the root of half of it, on tokens divided by the root of the mean. Their plan is a constant, as ours
is, and the gradient goes through the cost. `ragged` batches hold samples of half to all of the tokens, the rest has mass zero; the loop over
`ot.sinkhorn` leaves it out.

Each way runs `--iterations`, then as many as it needs to a marginal error (the sum of absolute errors of both marginals, in the worst
sample). Ours is given the error and looks when it is reached; the others need not look: they are told the number, to one in twenty, which
was found beforehand (in the loop for each sample by itself), and a dash says that the most, 1,024, were too few. GeomLoss lowers epsilon
on the way. The ways take turns; a ratio is the median over rounds of a way's CPU seconds to ours: above 1 it is slower. Gradient difference
is from ours of the same run, as a share of its norm. Peak memory is of tensors in three iterations, in units of the cost matrix.

    OMP_NUM_THREADS=1 python benchmarks/ecg_sinkhorn.py
    OMP_NUM_THREADS=1 python benchmarks/ecg_sinkhorn.py --shapes 2x49x49 --rounds 1     # a quick look
    python benchmarks/ecg_sinkhorn.py --shapes 64x2880x1024 --device cuda

GeomLoss is left out, and said so, where it is not installed. Nearly all of the time goes into the solvers that work on logarithms.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import ot
import torch
import torch.nn.functional as F
from measuring import median_ratio, peak_tensor_bytes, take_turns
from ot.batch import solve_batch
from reporting import Table, options
from torch import Tensor

from hf_evl_ecg.ot import marginal_error, ot_matching_loss, sinkhorn
from hf_evl_ecg.padded import front_mask

try:
    from geomloss import ot as geomloss
except ImportError as error:
    geomloss, MISSING = None, f"GeomLoss is left out: {error}"

SHAPES = (
    "1x49x49", "16x49x49", "64x49x49", "16x196x196", "1x576x256", "16x576x256", "64x576x256", "8x1152x512",
    "1x2880x1024", "4x2880x1024",
)  # fmt: skip
OURS, LOOP, KERNEL, LOGARITHMS = "hf_evl_ecg", "loop of ot.sinkhorn", "POT sinkhorn", "POT log_sinkhorn"
MOST = 1024  # iterations
COLUMNS = {
    "shape": "",
    "masses": "",
    "run": "",
    "way": "",
    "iterations": ",",
    "ms": ",.1f",
    "ratio": ".2f",
    "marginal error": ".1e",
    "loss": ".5f",
    "gradient difference": ".1e",
    "peak memory": ".2f",
}
Solver = Callable[[Tensor, Tensor, Tensor, float, Sequence[int]], Tensor]
Told = dict[str, Sequence[int] | None]  # iterations of each way: one number, or one for each sample; None: not run


@dataclass(frozen=True)
class Problem:
    """Tokens (B, N, D) and (B, M, D), and masks."""

    teacher: Tensor
    student: Tensor
    teacher_mask: Tensor
    student_mask: Tensor

    def masses(self) -> tuple[Tensor, Tensor]:
        """Uniform over the tokens that are there."""
        return tuple(mask / mask.sum(1, keepdim=True) for mask in (self.teacher_mask, self.student_mask))

    def costs(self) -> tuple[Tensor, Tensor]:
        """Squared distances, with their gradient, and what the plan is found on, without."""
        teacher, student = (F.normalize(tokens, dim=2) for tokens in (self.teacher, self.student))
        distances = 2 - 2 * teacher @ student.mT
        a, b = self.masses()
        with torch.no_grad():
            mean = a.unsqueeze(1) @ distances @ b.unsqueeze(2)
            return distances, distances / mean


def make_problem(shape: str, ragged: bool, device: str, width: int = 256) -> Problem:
    """Tokens that share clusters, as image patches do."""
    batch, *counts = map(int, shape.split("x"))
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(batch, 16, width, generator=generator)
    tokens, masks = [], []
    for count in counts:
        which = torch.randint(16, (batch, count, 1), generator=generator).expand(-1, -1, width)
        tokens.append((centres.gather(1, which) + torch.randn(batch, count, width, generator=generator)).to(device))
        lengths = torch.randint(count // 2, count + 1, (batch,), generator=generator)
        masks.append(front_mask(lengths if ragged else torch.full((batch,), count), count).to(device))
    return Problem(tokens[0], tokens[1].requires_grad_(), *masks)


def solve_ours(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: Sequence[int], tol: float = 0.0
) -> Tensor:
    """This package's solver."""
    return sinkhorn(cost, a, b, epsilon=epsilon, max_iter=max(iterations), tol=tol)


def solve_pot(method: str, cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: Sequence[int]) -> Tensor:
    """One of POT's batched methods."""
    return solve_batch(cost, epsilon, a, b, max_iter=max(iterations), tol=0, method=method, grad="detach").plan


def solve_loop(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: Sequence[int]) -> Tensor:
    """One problem after the other, each without its padding."""
    plan = torch.zeros_like(cost)
    for i, number in enumerate(iterations):
        n, m = int((a[i] > 0).sum()), int((b[i] > 0).sum())
        own = (a[i, :n], b[i, :m], cost[i, :n, :m])
        plan[i, :n, :m] = ot.sinkhorn(*own, epsilon, numItermax=number, stopThr=0, warn=False)
    return plan


def solve_geomloss(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: Sequence[int]) -> Tensor:
    """GeomLoss's solver for a given cost."""
    return geomloss.solve_batch(cost, a=a, b=b, reg=epsilon, max_iter=max(iterations)).plan


SOLVERS: dict[str, Solver] = {
    OURS: solve_ours,
    KERNEL: partial(solve_pot, "sinkhorn"),
    LOGARITHMS: partial(solve_pot, "log_sinkhorn"),
    LOOP: solve_loop,
} | ({} if geomloss is None else {"GeomLoss": solve_geomloss})


def our_step(problem: Problem, epsilon: float, tol: float, iterations: Sequence[int]) -> tuple[Tensor, Tensor]:
    """This package's loss and the student's gradient."""
    options = {"epsilon": epsilon, "tol": tol, "max_iter": max(iterations)}
    loss = ot_matching_loss(problem.teacher, problem.student, problem.teacher_mask, problem.student_mask, **options)
    return loss.detach(), *torch.autograd.grad(loss, problem.student)


def their_step(solve: Solver, problem: Problem, epsilon: float, iterations: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The same with another solver's plan."""
    distances, cost = problem.costs()
    with torch.no_grad():
        plan = solve(cost, *problem.masses(), epsilon, iterations)
    loss = (plan * distances).sum((1, 2)).mean()
    return loss.detach(), *torch.autograd.grad(loss, problem.student)


def worst_error(solve: Solver, problem: Problem, epsilon: float, iterations: Sequence[int]) -> float:
    """Marginal error of the worst sample; NaN where a plan is not finite."""
    with torch.no_grad():
        cost, (a, b) = problem.costs()[1], problem.masses()
        return marginal_error(solve(cost, a, b, epsilon, iterations), a, b).max().item()


def least_iterations(solve: Solver, problem: Problem, epsilon: float, target: float) -> int | None:
    """How many iterations the worst sample needs, to one in twenty; None if more than `MOST`."""
    low, high = 0, 8
    while not worst_error(solve, problem, epsilon, [high]) <= target:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        enough = worst_error(solve, problem, epsilon, [middle]) <= target
        low, high = (low, middle) if enough else (middle, high)
    return high


def needed(problem: Problem, epsilon: float, target: float, before: Told) -> Told:
    """Iterations to a marginal error; those that did not get to a larger one ``before`` are left out."""
    tokens = (problem.teacher, problem.student, problem.teacher_mask, problem.student_mask)
    alone = [Problem(*(part[i : i + 1] for part in tokens)) for i in range(len(problem.teacher))]
    told: Told = {OURS: [MOST]}
    for name, solve in SOLVERS.items():
        if name == LOGARITHMS and told[KERNEL] is not None:
            told[name] = told[KERNEL]  # the same iterates, found in less time
        elif name != OURS and before[name] is not None:
            found = [least_iterations(solve, one, epsilon, target) for one in (alone if name == LOOP else [problem])]
            told[name] = None if None in found else found
        else:
            told.setdefault(name, None)
    return told


def measure(problem: Problem, epsilon: float, told: Told, tol: float, rounds: int, device: str) -> list[list]:
    """Cells of each way, from its name to the gradient difference; a way that is not run has none."""
    steps = {OURS: partial(our_step, problem, epsilon, tol, told[OURS])}
    for name, iterations in told.items():
        if name != OURS and iterations is not None:
            steps[name] = partial(their_step, SOLVERS[name], problem, epsilon, iterations)
    taken = take_turns(steps, rounds, device=device)
    wanted, rows = steps[OURS]()[1], []
    for name, iterations in told.items():
        if iterations is None:
            rows.append([name, *[None] * 6])
            continue
        value, gradient = steps[name]()
        error = worst_error(
            partial(solve_ours, tol=tol) if name == OURS else SOLVERS[name], problem, epsilon, iterations
        )
        ms, ratio = 1e3 * statistics.median(taken[name]), median_ratio(taken[name], taken[OURS])
        number = None if name == OURS and tol else max(iterations)
        off = ((gradient - wanted).norm() / wanted.norm()).item()
        rows.append([name, number, ms, ratio, error, value.item(), off])
    return rows


def memory(problem: Problem, epsilon: float, device: str) -> dict[str, float]:
    """Peak of three iterations of each way, in cost matrices."""
    size = 4 * len(problem.student) * problem.teacher.shape[1] * problem.student.shape[1]
    three = [3] * len(problem.student)
    steps = {OURS: partial(our_step, problem, epsilon, 0.0, three)}
    steps |= {name: partial(their_step, SOLVERS[name], problem, epsilon, three) for name in SOLVERS if name != OURS}
    return {name: peak_tensor_bytes(step, device) / size for name, step in steps.items()}


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="BxNxM: samples, teacher's and student's tokens")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--errors", type=float, nargs="*", default=[1e-3, 1e-5], help="marginal errors to run to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if geomloss is None:
        print(f"{MISSING}\n")
    table = Table(__file__, args.output, COLUMNS, ("torch", "POT", "geomloss"))
    for shape in args.shapes:
        for masses in ("full", "ragged"):
            problem = make_problem(shape, masses == "ragged", args.device)
            peaks = memory(problem, args.epsilon, args.device)
            told: Told = dict.fromkeys(SOLVERS, [args.iterations] * len(problem.student))
            for error in (0.0, *sorted(args.errors, reverse=True)):
                run = f"to {error:g}" if error else f"{args.iterations} iterations"
                told = needed(problem, args.epsilon, error, told) if error else told
                for name, *cells in measure(problem, args.epsilon, told, error, args.rounds, args.device):
                    table.add(shape, masses, run, name, *cells, peaks[name])


if __name__ == "__main__":
    main()
