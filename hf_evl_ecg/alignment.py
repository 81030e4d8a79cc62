"""The only trained parts beside the student: cross-attention onto the teacher, and the student-to-teacher projection."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.padded import mean_over_samples, promote, token_variance, zero_padding
from hf_evl_ecg.tokens import visible_tokens

__all__ = [
    "ATTENTIONS",
    "MASK_ELEMENTS",
    "MATCHES",
    "CrossAttentionAligner",
    "StudentToTeacherProjector",
    "alignment_loss",
    "anchor_loss",
    "collapse_monitors",
    "read_frozen_head",
]

ATTENTIONS = ("all", "turn", "aligned")
MATCHES = ("raw", "normalised")
MASK_ELEMENTS = 2**22
"""Most elements of a mask of samples, student tokens and teacher tokens; a larger one is made in parts."""


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
        attention: What a student token may attend to; see `hf_evl_ecg.tokens.visible_tokens`. ``"all"``: every covered teacher token (the
            paper's literal form).

    Raises:
        ValueError: If ``num_heads`` does not divide ``student_dim``, or for an unknown ``attention``.

    Example:
        >>> aligner = CrossAttentionAligner(student_dim=8, teacher_dim=12, num_heads=2)
        >>> aligner(torch.randn(1, 3, 8), torch.randn(1, 5, 12), torch.ones(1, 5, dtype=torch.bool)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_heads: int = 8, attention: str = "all"):
        super().__init__()
        check_choice("attention", attention, ATTENTIONS)
        if num_heads < 1 or student_dim % num_heads:
            divisors = [n for n in range(1, min(student_dim, 64) + 1) if student_dim % n == 0]
            raise ValueError(f"num_heads={num_heads}: must divide student_dim={student_dim}; choose one of {divisors}.")
        self.num_heads = num_heads
        self.attention = attention
        self.query = nn.Linear(student_dim, student_dim, bias=False)
        self.key = nn.Linear(teacher_dim, student_dim, bias=False)
        self.value = nn.Linear(teacher_dim, student_dim, bias=False)
        self.output = nn.Linear(student_dim, student_dim, bias=False)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_mask: Tensor,
        student_places: Tensor | None = None,
        teacher_places: Tensor | None = None,
    ) -> Tensor:
        """Align the teacher to the student's tokens.

        Args:
            student: Student states; those at padding only affect their own, meaningless rows. Shape: (B, L_s, student_dim).
            teacher: Teacher states; values at padding are ignored. Shape: (B, L_t, teacher_dim).
            teacher_mask: Non-zero at valid teacher tokens. Shape: (B, L_t).
            student_places: Turn and byte of each student token, unless ``attention="all"``. Shape: (B, L_s, 2).
            teacher_places: The same of the teacher. Shape: (B, L_t, 2).

        Returns:
            Aligned teacher states, zero for a student token that may attend to none. Shape: (B, L_s, student_dim).

        Raises:
            ValueError: If shapes do not fit, or places are missing.
        """
        if teacher_mask.shape != teacher.shape[:2]:
            raise ValueError(
                f"teacher_mask must have the shape {tuple(teacher.shape[:2])}; given {tuple(teacher_mask.shape)}."
            )
        teacher_mask = teacher_mask.to(torch.bool)
        dtype = self.query.weight.dtype
        teacher = promote(zero_padding(teacher, teacher_mask))
        teacher = F.layer_norm(teacher, teacher.shape[-1:]).to(dtype)  # normalise in float32, then the parameters' type
        query, key, value = self.query(student.to(dtype)), self.key(teacher), self.value(teacher)
        query, key, value = self._split(query), self._split(key), self._split(value)
        parts = self._parts(teacher_mask, student_places)
        if len(parts) == 1:
            attended = self._attend(query, key, value, teacher_mask, parts[0], teacher_places)
        else:  # in parts, each made again for its gradient: neither a mask nor several are ever kept whole
            fixed = (key, value, teacher_mask)
            pieces = [
                checkpoint(self._attend, q, *fixed, p, teacher_places, use_reentrant=False, preserve_rng_state=False)
                for q, p in zip(query.split([p.shape[1] for p in parts], 2), parts, strict=True)  # type: ignore[union-attr]
            ]
            attended = torch.cat(pieces, 2)
        return promote(self.output(attended.transpose(1, 2).flatten(2)))

    def has_target(
        self, teacher_mask: Tensor, student_places: Tensor | None = None, teacher_places: Tensor | None = None
    ) -> Tensor:
        """Which student tokens may attend to any teacher token; the others have nothing to match.

        Args:
            teacher_mask: As in `forward`.
            student_places: As in `forward`.
            teacher_places: As in `forward`.

        Returns:
            Shape: (B, L_s), or (B, 1) where it is the same for all of a sample.
        """
        parts = self._parts(teacher_mask, student_places)
        return torch.cat([self._visible(teacher_mask.bool(), part, teacher_places).any(2) for part in parts], 1)

    def _parts(self, teacher_mask: Tensor, student_places: Tensor | None) -> tuple[Tensor | None, ...]:
        """Places of the student's tokens, in parts that keep a mask small; None where none are needed."""
        if self.attention == "all":
            return (None,)
        if student_places is None:
            raise ValueError(
                f"student_places=None: attention={self.attention!r} needs them (EVLECGCollator makes them)."
            )
        return student_places.split(max(1, MASK_ELEMENTS // max(1, teacher_mask.numel())), 1)

    def _visible(self, teacher_mask: Tensor, student_places: Tensor | None, teacher_places: Tensor | None) -> Tensor:
        """What each student token sees. Shape: (B, L_s or 1, L_t)."""
        if student_places is None:
            return teacher_mask.unsqueeze(1)
        if teacher_places is None:
            raise ValueError(
                f"teacher_places=None: attention={self.attention!r} needs them (EVLECGCollator makes them)."
            )
        return visible_tokens(student_places, teacher_places, self.attention) & teacher_mask.unsqueeze(1)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        teacher_mask: Tensor,
        student_places: Tensor | None,
        teacher_places: Tensor | None,
    ) -> Tensor:
        """Attention of some student tokens, zero where nothing may be seen. Shape: (B, heads, L, D / heads)."""
        visible = self._visible(teacher_mask, student_places, teacher_places)
        none = ~visible.any(2, keepdim=True)
        mask = (visible | none).unsqueeze(1)  # softmax over no key at all would be NaN
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).masked_fill(none.unsqueeze(1), 0)

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


def alignment_loss(
    student: Tensor, target: Tensor, mask: Tensor, *, channel_mean: bool = True, match: str = "raw"
) -> Tensor:
    """Squared distance between student states and the aligned teacher, ``1/L_s sum_l ||H_s,l - H^_t,l||^2``.

    Args:
        student: Student states. Shape: (B, L, D).
        target: Aligned teacher states. Shape: (B, L, D).
        mask: True at valid student tokens. Shape: (B, L).
        channel_mean: Mean over channels, so that the weight does not depend on the width; False sums them, the paper's
            literal formula.
        match: ``"raw"``, the paper's literal form, or ``"normalised"``: both sides are layer-normalised, without parameters,
            so that a difference in scale between them does not outweigh the direction.

    Returns:
        Mean over valid tokens of each sample, then over samples that have any. Scalar.

    Example:
        >>> mask = torch.ones(1, 1, dtype=torch.bool)
        >>> alignment_loss(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), mask, channel_mean=False)
        tensor(2.)
        >>> state = torch.tensor([[[1.0, 2.0]]])
        >>> float(alignment_loss(state, 100 * state + 3, mask, match="normalised")) < 1e-6
        True
    """
    check_choice("match", match, MATCHES)
    with torch.autocast(student.device.type, enabled=False):  # last hidden states have channels whose square overflows
        student, target = zero_padding(promote(student), mask), zero_padding(promote(target), mask)
        if match == "normalised":
            student, target = (F.layer_norm(states, states.shape[-1:]) for states in (student, target))
        difference = student - target
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
    variance = token_variance(promote(student), mask)
    return {
        "student_variance": variance,
        "variance_ratio": token_variance(aligned, mask) / variance.clamp(min=1e-12),  # a point has none
    }
