"""Floating-point operations of the EVL-ECG losses against those of a full-scale distillation step.

The losses run forward and backward at full size (LLaVA-7B teacher, 2B student, one sample) under torch's operation counter,
which counts matrix products and attention. The step itself is counted by the usual rule: 2 operations per parameter and
token in a forward pass, 6 in a training step.

    OMP_NUM_THREADS=1 python benchmarks/ecg_loss_flops.py

Takes about half a minute of CPU time.
"""

import torch
from reporting import Table, options
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.tokens import TokenFeatures

OFF = {"lambda_mhca": 0.0, "lambda_ot": 0.0, "lambda_relation": 0.0, "lambda_uld": 0.0}
TERMS = {
    "mhca": {"lambda_mhca": 1.0},
    "mhca, anchored": {"lambda_mhca": 1.0, "mhca_mode": "anchored"},
    "mhca + relation": {"lambda_mhca": 1.0, "lambda_relation": 1.0},
    "ot": {"lambda_ot": 1.0},
    "uld": {"lambda_uld": 1.0},
    "paper (mhca + ot + relation)": {"lambda_mhca": 1.0, "lambda_ot": 1.0, "lambda_relation": 1.0},
    "everything off": {},
}


def make_features(length: int, visual: int, answer: int, dim: int, vocabulary: int, grad: bool) -> TokenFeatures:
    """Random features of one sample whose last tokens are the answer."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, *shape).requires_grad_(grad)

    return TokenFeatures(
        hidden=draw(length, dim),
        mask=torch.ones(1, length, dtype=torch.bool),
        visual=draw(visual, dim),
        visual_mask=torch.ones(1, visual, dtype=torch.bool),
        answer_logits=draw(answer, vocabulary),
        answer_ids=torch.zeros(1, answer, dtype=torch.int64),
        answer_mask=torch.ones(1, answer, dtype=torch.bool),
        answer_index=torch.arange(length - answer - 1, length - 1).unsqueeze(0),
    )


def count(options: dict, student: TokenFeatures, teacher: TokenFeatures, head: Tensor) -> int:
    """Operations of forward and backward."""
    loss = EVLECGLoss(student.hidden.shape[2], teacher.hidden.shape[2], **OFF | options)
    ce = torch.zeros((), requires_grad=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        terms = loss(student, teacher if loss.needs_teacher else None, ce, lm_head=head)
        torch.stack(list(terms.values())).sum().backward()
    return counter.get_total_flops()


def main() -> None:
    """Count, and print the table."""
    parser = options(__doc__)
    parser.add_argument("--teacher_params", type=float, default=7e9)
    parser.add_argument("--student_params", type=float, default=2e9)
    parser.add_argument("--teacher_tokens", type=int, default=3000)
    parser.add_argument("--student_tokens", type=int, default=3000)
    parser.add_argument("--teacher_visual", type=int, default=2880)
    parser.add_argument("--student_visual", type=int, default=1024)
    parser.add_argument("--teacher_dim", type=int, default=4096)
    parser.add_argument("--student_dim", type=int, default=2048)
    parser.add_argument("--answer_tokens", type=int, default=100)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    args = parser.parse_args()
    student = make_features(
        args.student_tokens, args.student_visual, args.answer_tokens, args.student_dim, args.vocabulary, grad=True
    )
    teacher = make_features(
        args.teacher_tokens, args.teacher_visual, args.answer_tokens, args.teacher_dim, args.vocabulary, grad=False
    )
    head = torch.randn(args.vocabulary, args.student_dim)
    step = 2 * args.teacher_params * args.teacher_tokens + 6 * args.student_params * args.student_tokens
    cached = 6 * args.student_params * args.student_tokens
    print(
        f"step, per sample: {step / 1e12:.1f} TFLOP with the teacher online, {cached / 1e12:.1f} with a cached teacher\n"
    )
    columns = {"term": "", "GFLOP": ",.1f", "% of the step": ".2f", "% with a cached teacher": ".2f"}
    table = Table(__file__, args.output, columns, ("torch",))
    for name, weights in TERMS.items():
        flops = count(weights, student, teacher, head)
        table.add(name, flops / 1e9, 100 * flops / step, 100 * flops / cached)


if __name__ == "__main__":
    main()
