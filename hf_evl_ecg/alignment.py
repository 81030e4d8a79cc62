"""The only trained parts beside the student: cross-attention onto the teacher, and the student-to-teacher projection."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.padded import mean_over_samples, promote, zero_padding

__all__ = [
    "CrossAttentionAligner",
    "StudentToTeacherProjector",
    "alignment_loss",
    "anchor_loss",
    "collapse_monitors",
    "read_frozen_head",
]


class CrossAttentionAligner(nn.Module):
    """Teacher states seen from the student's tokens (multi-head cross-attention of EVL-ECG, arXiv 2605.29977).

    ``H^_t = concat_k[ softmax(H_s W^Q_k (n(H_t) W^K_k)^T / sqrt(d_k)) n(H_t) W^V_k ] W^O``: student states are queries,
    teacher states keys and values, without bias. ``n`` is layer normalisation without parameters, as last hidden states of
    large language models have a few channels of huge magnitude. Equals `torch.nn.MultiheadAttention` on ``n(H_t)``.

    The layers run in the parameters' dtype, or in autocast's where it is on; the result is at least float32.

    Args:
        student_dim: Width of the student.
        teacher_dim: Width of the teacher.
        num_heads: Heads; must divide ``student_dim``.

    Raises:
        ValueError: If ``num_heads`` does not divide ``student_dim``.

    Example:
        >>> aligner = CrossAttentionAligner(student_dim=8, teacher_dim=12, num_heads=2)
        >>> aligner(torch.randn(1, 3, 8), torch.randn(1, 5, 12), torch.ones(1, 5, dtype=torch.bool)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_heads: int = 8):
        super().__init__()
        if num_heads < 1 or student_dim % num_heads:
            divisors = [n for n in range(1, min(student_dim, 64) + 1) if student_dim % n == 0]
            raise ValueError(f"num_heads={num_heads}: must divide student_dim={student_dim}; choose one of {divisors}.")
        self.num_heads = num_heads
        self.query = nn.Linear(student_dim, student_dim, bias=False)
        self.key = nn.Linear(teacher_dim, student_dim, bias=False)
        self.value = nn.Linear(teacher_dim, student_dim, bias=False)
        self.output = nn.Linear(student_dim, student_dim, bias=False)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, student: Tensor, teacher: Tensor, teacher_mask: Tensor) -> Tensor:
        """Align the teacher to the student's tokens.

        Args:
            student: Student states; those at padding only affect their own, meaningless rows. Shape: (B, L_s, student_dim).
            teacher: Teacher states; values at padding are ignored. Shape: (B, L_t, teacher_dim).
            teacher_mask: Non-zero at valid teacher tokens. Shape: (B, L_t).

        Returns:
            Aligned teacher states, zero for a sample without teacher tokens. Shape: (B, L_s, student_dim).
        """
        if teacher_mask.shape != teacher.shape[:2]:
            raise ValueError(
                f"teacher_mask must have the shape {tuple(teacher.shape[:2])}; given {tuple(teacher_mask.shape)}."
            )
        teacher_mask = teacher_mask.to(torch.bool)
        dtype = self.query.weight.dtype
        teacher = promote(zero_padding(teacher, teacher_mask))
        teacher = F.layer_norm(teacher, teacher.shape[-1:]).to(dtype)  # normalise in float32, then the parameters' type
        empty = ~teacher_mask.any(1)
        attended = F.scaled_dot_product_attention(
            self._split(self.query(student.to(dtype))),
            self._split(self.key(teacher)),
            self._split(self.value(teacher)),
            attn_mask=(teacher_mask | empty.unsqueeze(1))[:, None, None, :],  # softmax over no key at all would be NaN
        )
        aligned = self.output(attended.transpose(1, 2).flatten(2))
        return promote(aligned).masked_fill(empty[:, None, None], 0)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, heads, L, D / heads)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class StudentToTeacherProjector(nn.Linear):
    """Linear map of student visual tokens into the teacher's fixed space, orthogonal at the start, without bias.

    Mapping the other way would let the loss vanish by mapping the teacher to a point.

    Args:
        student_dim: Width of the student.
        teacher_dim: Width of the teacher.

    Example:
        >>> StudentToTeacherProjector(4, 6)(torch.randn(2, 3, 4)).shape
        torch.Size([2, 3, 6])
    """

    def __init__(self, student_dim: int, teacher_dim: int):
        super().__init__(student_dim, teacher_dim, bias=False)
        nn.init.orthogonal_(self.weight)  # keeps the angles between tokens, which the transport plan is made of

    def forward(self, student: Tensor) -> Tensor:
        """Map ``(B, N, student_dim)`` to ``(B, N, teacher_dim)``, at least float32."""
        return promote(super().forward(student.to(self.weight.dtype)))


def alignment_loss(student: Tensor, target: Tensor, mask: Tensor, *, channel_mean: bool = True) -> Tensor:
    """Squared distance between student states and the aligned teacher, ``1/L_s sum_l ||H_s,l - H^_t,l||^2``.

    Args:
        student: Student states. Shape: (B, L, D).
        target: Aligned teacher states. Shape: (B, L, D).
        mask: True at valid student tokens. Shape: (B, L).
        channel_mean: Mean over channels, so that the weight does not depend on the width; False sums them, the paper's
            literal formula.

    Returns:
        Mean over valid tokens of each sample, then over samples that have any. Scalar.

    Example:
        >>> mask = torch.ones(1, 1, dtype=torch.bool)
        >>> alignment_loss(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), mask, channel_mean=False)
        tensor(2.)
    """
    with torch.autocast(student.device.type, enabled=False):  # last hidden states have channels whose square overflows
        difference = zero_padding(promote(student) - promote(target), mask)
        per_token = difference.square().mean(2) if channel_mean else difference.square().sum(2)
        return mean_over_samples(per_token.sum(1), mask.sum(1))


def anchor_loss(aligned: Tensor, answer_index: Tensor, answer_ids: Tensor, lm_head: nn.Module | Tensor) -> Tensor:
    """Cross-entropy of the answers read from aligned teacher states through the student's LM head, held constant.

    Args:
        aligned: Aligned teacher states. Shape: (B, L, D).
        answer_index: Index in ``aligned`` of the state that predicts each answer token, -1 for none. Shape: (B, A).
        answer_ids: Tokens to predict, -100 at padding. Shape: (B, A).
        lm_head: LM head of the student, or its weight (V, D). It gets no gradient.

    Returns:
        Mean over the answer tokens of each sample, then over samples that have any, in nats. Scalar.

    Raises:
        ValueError: If there are answer tokens, and none has a state.
    """
    valid = (answer_index >= 0) & (answer_ids != -100)
    if (answer_ids != -100).any() and not valid.any():
        raise ValueError("No answer token is among the covered hidden states; cover the answer (tokens='all').")
    sample, token = valid.nonzero(as_tuple=True)
    states = aligned[sample, answer_index[sample, token]]
    # Held constant: with a gradient into its head the student could fit the aligner instead of the aligner the answers.
    logits = read_frozen_head(lm_head, states)
    per_token = F.cross_entropy(logits, answer_ids[sample, token], reduction="none")
    total = per_token.new_zeros(len(valid)).index_add(0, sample, per_token)
    return mean_over_samples(total, valid.sum(1))


def read_frozen_head(lm_head: nn.Module | Tensor, states: Tensor) -> Tensor:
    """Logits of an LM head whose parameters get no gradient, in at least float32; the states do.

    Args:
        lm_head: A module, with bias or adapters too, or its weight (V, D).
        states: In the head's space. Shape: (…, D).

    Returns:
        Shape: (…, V).

    Example:
        >>> read_frozen_head(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([3.0, 4.0]))
        tensor([3., 8.])
    """
    if isinstance(lm_head, Tensor):
        return promote(F.linear(states.to(lm_head.dtype), lm_head.detach()))
    frozen = {name: parameter.detach() for name, parameter in lm_head.named_parameters()}
    dtype = next(iter(frozen.values())).dtype
    return promote(torch.func.functional_call(lm_head, frozen, (states.to(dtype),)))


@torch.no_grad()
def collapse_monitors(student: Tensor, aligned: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Values that show when student and aligned teacher shrink to one point, which a falling loss hides.

    Args:
        student: Student states, finite at padding. Shape: (B, L, D).
        aligned: Aligned teacher states. Shape: (B, L, D).
        mask: True at valid student tokens. Shape: (B, L).

    Returns:
        ``student_variance``, over the tokens of a sample, and ``variance_ratio``, the aligned teacher's over it.

    Example:
        >>> tokens, mask = torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, dtype=torch.bool)
        >>> collapse_monitors(tokens, tokens / 2, mask)
        {'student_variance': tensor(1.), 'variance_ratio': tensor(0.2500)}
    """
    variance = _token_variance(promote(student), mask)
    return {
        "student_variance": variance,
        "variance_ratio": _token_variance(aligned, mask) / variance.clamp(min=1e-12),  # a point has none
    }


def _token_variance(tokens: Tensor, mask: Tensor) -> Tensor:
    """Variance over the tokens of a sample, a mean over channels and samples."""
    weights = mask.unsqueeze(2).to(tokens.dtype)
    count = weights.sum(1, keepdim=True).clamp(min=1)
    centred = (tokens - (tokens * weights).sum(1, keepdim=True) / count) * weights
    return (centred.square().sum(1, keepdim=True) / count).mean()
