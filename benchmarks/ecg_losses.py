"""Alignment, relation and transport losses of `hf_evl_ecg` against straightforward PyTorch written from the formulas, at equal value.

Each way goes forward and backward on the same padded batch: student and teacher states of up to the given number of tokens, the
teacher's twice as wide. The peers are, for alignment, attention weights made whole and masked, and `torch.nn.MultiheadAttention`; for
relations, `torch.cdist` and cosines sample by sample; for transport, 50 iterations in logarithms, which start at zero and not, as ours, at
the least costs, and the cost of the plan. The ways take turns; a ratio is the median over rounds of a way's CPU seconds to ours: above 1 it
is slower. Differences are of the value, and of the student's gradient as a share of its norm. Peak memory is of tensors.

    OMP_NUM_THREADS=1 python benchmarks/ecg_losses.py
    OMP_NUM_THREADS=1 python benchmarks/ecg_losses.py --shapes 2x49x32 --rounds 2    # a quick look
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from measuring import median_ratio, peak_tensor_bytes, take_turns
from reporting import Table, options
from torch import Tensor, nn

from hf_evl_ecg.alignment import CrossAttentionAligner, alignment_loss
from hf_evl_ecg.ot import ot_matching_loss
from hf_evl_ecg.padded import front_mask
from hf_evl_ecg.relations import relation_loss

SHAPES = ("1x49x512", "4x144x512", "1x576x512", "4x576x512")
HEADS, EPSILON, ITERATIONS = 8, 0.05, 50
OURS = "hf_evl_ecg"
COLUMNS = {
    "loss": "",
    "shape": "",
    "way": "",
    "ms": ",.1f",
    "ratio": ".2f",
    "value": ".6f",
    "value difference": ".1e",
    "gradient difference": ".1e",
    "peak [MiB]": ",.1f",
}


@dataclass(frozen=True)
class Batch:
    """Student states (B, L, D), teacher states (B, L, 2 D) and others of the student's width, masks (B, L), and an aligner."""

    student: Tensor
    teacher: Tensor
    target: Tensor
    student_mask: Tensor
    teacher_mask: Tensor
    aligner: CrossAttentionAligner


Loss = Callable[[Batch], Tensor]


def make_batch(samples: int, tokens: int, width: int, device: str) -> Batch:
    """Random states; samples are between half as long and as long as the longest, which comes first."""
    torch.manual_seed(0)
    lengths = torch.randint(tokens // 2, tokens + 1, (2, samples))
    lengths[:, 0] = tokens
    masks = [front_mask(length, tokens).to(device) for length in lengths]
    states = [torch.randn(samples, tokens, size).to(device) for size in (width, 2 * width, width)]
    aligner = CrossAttentionAligner(width, 2 * width, HEADS).to(device)
    return Batch(states[0].requires_grad_(), *states[1:], *masks, aligner)


def matched(batch: Batch, aligned: Tensor) -> Tensor:
    """Mean square of the difference over channels, then over the tokens of a sample, then over samples."""
    per_token = (batch.student - aligned).square().mean(2) * batch.student_mask
    return (per_token.sum(1) / batch.student_mask.sum(1)).mean()


def align_ours(batch: Batch) -> Tensor:
    """This package's aligner and loss."""
    aligned = batch.aligner(batch.student, batch.teacher, batch.teacher_mask)
    return alignment_loss(batch.student, aligned, batch.student_mask)


def align_formula(batch: Batch) -> Tensor:
    """Softmax of all products of queries and keys, those of padding masked, times the values."""
    own, (samples, tokens, width) = batch.aligner, batch.student.shape
    teacher = F.layer_norm(batch.teacher, batch.teacher.shape[2:])
    states = [own.query(batch.student), own.key(teacher), own.value(teacher)]
    query, key, value = (x.view(samples, tokens, HEADS, -1).transpose(1, 2) for x in states)
    mask = batch.teacher_mask[:, None, None].expand(-1, HEADS, tokens, -1)
    scores = (query @ key.mT / math.sqrt(width // HEADS)).masked_fill(~mask, -math.inf)
    return matched(batch, own.output((scores.softmax(3) @ value).transpose(1, 2).flatten(2)))


def align_module(batch: Batch) -> Loss:
    """PyTorch's module with the aligner's weights."""
    own, width = batch.aligner, batch.student.shape[2]
    module = nn.MultiheadAttention(width, HEADS, bias=False, kdim=2 * width, vdim=2 * width, batch_first=True)
    module.q_proj_weight, module.k_proj_weight, module.v_proj_weight = (
        own.query.weight,
        own.key.weight,
        own.value.weight,
    )
    module.out_proj.weight = own.output.weight

    def loss(batch: Batch) -> Tensor:
        teacher = F.layer_norm(batch.teacher, batch.teacher.shape[2:])
        padding = ~batch.teacher_mask
        return matched(batch, module(batch.student, teacher, teacher, padding, need_weights=False)[0])

    return loss


def relate_ours(batch: Batch) -> Tensor:
    """This package's loss: half the sum of its terms, as in the paper."""
    return sum(relation_loss(batch.target, batch.student, batch.student_mask)) / 2


def relate_formula(batch: Batch) -> Tensor:
    """Pairwise distances over their mean, and cosines, of each sample's tokens."""
    losses = []
    for target, student, mask in zip(batch.target, batch.student, batch.student_mask, strict=True):
        distances, cosines = [], []
        for tokens in (target[mask], student[mask]):
            apart = torch.cdist(tokens, tokens)
            distances.append(apart / (apart.sum() / (len(tokens) * (len(tokens) - 1))))
            unit = F.normalize(tokens, dim=1)
            cosines.append(unit @ unit.T)
        losses.append((F.mse_loss(*distances) + F.mse_loss(*cosines)) / 2)
    return torch.stack(losses).mean()


def transport_ours(batch: Batch) -> Tensor:
    """This package's loss."""
    masks = (batch.teacher_mask, batch.student_mask)
    return ot_matching_loss(batch.target, batch.student, *masks, epsilon=EPSILON, max_iter=ITERATIONS)


def transport_formula(batch: Batch) -> Tensor:
    """Sinkhorn's iterations on the logarithms, then the cost of their plan."""
    teacher, student = (F.normalize(states, dim=2) for states in (batch.target, batch.student))
    a, b = (mask / mask.sum(1, keepdim=True) for mask in (batch.teacher_mask, batch.student_mask))
    cost = torch.cdist(teacher, student).square()
    with torch.no_grad():
        mean = torch.einsum("bn,bnm,bm->b", a, cost, b)
        kernel = -cost / mean[:, None, None] / EPSILON
        f, g, log_a, log_b = torch.zeros_like(a), torch.zeros_like(b), a.log(), b.log()
        for _ in range(ITERATIONS):
            f = log_a - (kernel + g.unsqueeze(1)).logsumexp(2)
            g = log_b - (kernel + f.unsqueeze(2)).logsumexp(1)
        plan = (kernel + f.unsqueeze(2) + g.unsqueeze(1)).exp()
    return (plan * cost).sum((1, 2)).mean()


def ways(batch: Batch) -> dict[str, dict[str, Loss]]:
    """Ours first, then its peers, by loss."""
    return {
        "alignment": {OURS: align_ours, "formula": align_formula, "nn.MultiheadAttention": align_module(batch)},
        "relation": {OURS: relate_ours, "formula": relate_formula},
        "transport": {OURS: transport_ours, "formula": transport_formula},
    }


def step(loss: Loss, batch: Batch) -> tuple[Tensor, Tensor]:
    """Forward and backward, the aligner's weights included where they take part: the value, and the student's gradient."""
    value = loss(batch)
    gradients = torch.autograd.grad(value, [batch.student, *batch.aligner.parameters()], allow_unused=True)
    return value.detach(), gradients[0]


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="samples x tokens x width of the student")
    parser.add_argument("--losses", nargs="+", choices=("alignment", "relation", "transport"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    table = Table(__file__, args.output, COLUMNS, ("torch",))
    for shape in args.shapes:
        samples, tokens, width = map(int, shape.split("x"))
        batch = make_batch(samples, tokens, width, args.device)
        for name, losses in ways(batch).items():
            if args.losses and name not in args.losses:
                continue
            steps = {way: partial(step, loss, batch) for way, loss in losses.items()}
            taken = take_turns(steps, args.rounds, device=args.device)
            expected, wanted = steps[OURS]()
            for way, run in steps.items():
                value, gradient = run()
                off = (value - expected).abs().item(), ((gradient - wanted).norm() / wanted.norm()).item()
                ms, ratio = 1e3 * statistics.median(taken[way]), median_ratio(taken[way], taken[OURS])
                peak = peak_tensor_bytes(run, args.device) / 2**20
                table.add(name, shape, way, ms, ratio, value.item(), *off, peak)


if __name__ == "__main__":
    main()
