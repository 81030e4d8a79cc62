"""Universal logit distillation of `hf_evl_ecg.uld` against a loop over samples, and against that of TRL's GOLD, at equal value.

Each way goes forward and backward on the same logits: answers of two tokenizers, padded, of lengths between half and the whole of the
longest, the k-th token of one compared with the k-th of the other. The ways take turns; a ratio is the median over rounds of a way's CPU
seconds to ours: above 1 it is slower. Differences are of the loss, and of the student's gradient as a share of its norm. Peak memory is
of tensors, beyond the logits, in units of the student's logits.

    OMP_NUM_THREADS=1 python benchmarks/ecg_uld.py
    OMP_NUM_THREADS=1 python benchmarks/ecg_uld.py --shapes 2x16x1000x1500 --rounds 2    # a quick look

TRL's loss is the class `ULDLoss` with positional pairs and no cross-entropy; it is left out, and said so, where TRL cannot be imported
(pip install trl --no-deps).
"""

import statistics
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from measuring import median_ratio, peak_tensor_bytes, take_turns
from reporting import Table, options
from torch import Tensor

from hf_evl_ecg.padded import front_mask
from hf_evl_ecg.uld import uld_loss

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its experimental part is experimental
        from trl.experimental.gold.gold_trainer import ULDLoss
except ImportError as error:
    ULDLoss, MISSING = None, f"TRL is left out: {error}"

SHAPES = ("1x32x32000x152000", "1x256x32000x152000", "4x64x32000x152000", "16x32x32000x152000", "16x256x32000x32000")
OURS = "hf_evl_ecg"
COLUMNS = {
    "samples": ",",
    "answer tokens": ",",
    "vocabularies": "",
    "way": "",
    "ms": ",.1f",
    "ratio": ".2f",
    "loss": ".6f",
    "loss difference": ".1e",
    "gradient difference": ".1e",
    "peak memory": ".2f",
}
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def loop(teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor) -> Tensor:
    """The formula as it stands: sample by sample, probabilities sorted, the shorter vocabulary padded."""
    losses = []
    for t, s, t_mask, s_mask in zip(teacher, student, teacher_mask, student_mask, strict=True):
        length = min(int(t_mask.sum()), int(s_mask.sum()))
        ranks = [
            rows[mask][:length].softmax(1).sort(1, descending=True).values for rows, mask in ((t, t_mask), (s, s_mask))
        ]
        width = max(t.shape[1], s.shape[1])
        wide = [F.pad(rank, (0, width - rank.shape[1])) for rank in ranks]
        losses.append(F.l1_loss(wide[1], wide[0], reduction="sum") / length)
    return torch.stack(losses).mean()


def trl_loss() -> Loss:
    """TRL's class with the settings that make it the same loss."""
    settings = {"uld_crossentropy_weight": 0.0, "uld_distillation_weight": 1.0, "use_extended_uld": False}
    settings |= {f"uld_{side}_temperature": 1.0 for side in ("student", "teacher")}
    settings |= {f"uld_skip_{side}_eos": False for side in ("student", "teacher")}
    module = ULDLoss(SimpleNamespace(**settings, uld_token_merge_strategy="observed"))

    def loss(teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor) -> Tensor:
        t_labels, s_labels = (torch.where(mask, 0, -100) for mask in (teacher_mask, student_mask))
        return module(student, teacher, s_labels, t_labels, s_labels, t_labels)

    return loss


def make_logits(samples: int, tokens: int, width: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Logits of random answers and the mask of their tokens; few words are likely, as after training."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, tokens, width, generator=generator).mul_(4)
    lengths = torch.randint(tokens // 2, tokens + 1, (samples,), generator=generator)
    lengths[0] = tokens
    return logits.to(device), front_mask(lengths, tokens).to(device)


def step(loss: Loss, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forward and backward: the value, and its gradient by the student's logits."""
    value = loss(*given)
    return value.detach(), *torch.autograd.grad(value, given[1])


def measure(shape: str, device: str, rounds: int, table: Table) -> None:
    """A row for each way."""
    samples, tokens, *widths = map(int, shape.split("x"))
    (teacher, teacher_mask), (student, student_mask) = (
        make_logits(samples, tokens, width, seed, device) for seed, width in enumerate(widths)
    )
    given = (teacher, student.requires_grad_(), teacher_mask, student_mask)
    losses = {OURS: uld_loss, "loop": loop} | ({} if ULDLoss is None else {"TRL ULDLoss": trl_loss()})
    taken = take_turns({name: partial(step, loss, given) for name, loss in losses.items()}, rounds, device=device)
    expected, wanted = step(uld_loss, given)
    for name, loss in losses.items():
        peak = peak_tensor_bytes(partial(step, loss, given), device) / (student.numel() * student.element_size())
        value, gradient = step(loss, given)
        off = (value - expected).abs().item(), ((gradient - wanted).norm() / wanted.norm()).item()
        ms, ratio = 1e3 * statistics.median(taken[name]), median_ratio(taken[name], taken[OURS])
        table.add(samples, tokens, "{} → {}".format(*widths), name, ms, ratio, value.item(), *off, peak)


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="samples x tokens x teacher's x student's words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if ULDLoss is None:
        print(f"{MISSING}\n")
    table = Table(__file__, args.output, COLUMNS, ("torch", "trl"))
    for shape in args.shapes:
        measure(shape, args.device, args.rounds, table)


if __name__ == "__main__":
    main()
