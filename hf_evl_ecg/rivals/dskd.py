"""Dual-space distillation with cross-model attention (DSKD-CMA, arXiv 2406.17328), between any two vocabularies."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.alignment import read_frozen_head
from hf_evl_ecg.padded import mean_over_samples, promote, zero_padding
from hf_evl_ecg.tokens import TokenFeatures

from .answer_states import answer_states

__all__ = ["AnswerSide", "CrossModelProjectors", "answer_side", "cross_model_attention", "dskd_terms"]


class CrossModelProjectors(nn.Module):
    """The three linear maps of DSKD-CMA: of the student's embeddings to queries, of states from each space to the other.

    Args:
        student_dim: Width of the student.
        teacher_dim: Width of the teacher.
    """

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(2 * student_dim, 2 * teacher_dim)
        self.t2s = nn.Linear(teacher_dim, student_dim)
        self.s2t = nn.Linear(student_dim, teacher_dim)


class AnswerSide(NamedTuple):
    """What DSKD reads of one model about its answer tokens, zero at padding.

    Attributes:
        states: States that predict the tokens. Shape: (B, A, D).
        read: Embeddings of the tokens that these states stand at. Shape: (B, A, D).
        wanted: Embeddings of the tokens to predict. Shape: (B, A, D).
        logits: What the model predicts. Shape: (B, A, V).
        ids: Tokens to predict. Shape: (B, A), int64.
        mask: True at answer tokens. Shape: (B, A), bool.
    """

    states: Tensor
    read: Tensor
    wanted: Tensor
    logits: Tensor
    ids: Tensor
    mask: Tensor


def answer_side(features: TokenFeatures, side: str) -> AnswerSide:
    """What DSKD reads of one model.

    Raises:
        ValueError: The features lack embeddings, logits or ids of the answers.
    """
    names = ("answer_read", "answer_wanted", "answer_logits", "answer_ids")
    read, wanted, logits, ids = (getattr(features, name) for name in names)
    if read is None or wanted is None or logits is None or ids is None:
        raise ValueError(f"lambda_dskd above 0 needs {', '.join(names)} of the {side}; or set lambda_dskd=0.")
    states, mask = answer_states(features)
    # Embeddings say which token is which; they are keys and queries, not what is taught.
    read, wanted = (zero_padding(promote(part.detach()), mask) for part in (read, wanted))
    return AnswerSide(promote(states), read, wanted, logits, ids, mask)


def cross_model_attention(
    query: Tensor, key: Tensor, student_mask: Tensor, teacher_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention from each student token over the teacher's answer, and from each teacher token over the student's (Eq. 6 to 9).

    Args:
        query: Projected student embeddings. Shape: (B, A_s, D).
        key: Teacher embeddings. Shape: (B, A_t, D).
        student_mask: True at answer tokens. Shape: (B, A_s), bool.
        teacher_mask: True at answer tokens. Shape: (B, A_t), bool.

    Returns:
        Weights of the teacher's tokens, (B, A_s, A_t), and of the student's, (B, A_t, A_s). Each row at an answer token sums to
        one over answer tokens; all else is zero.

    Example:
        >>> one, two = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[True, False]])
        >>> cross_model_attention(torch.ones(1, 1, 4), torch.ones(1, 2, 4), one, two)[0]
        tensor([[[1., 0.]]])
    """
    scores = torch.bmm(query, key.mT) / math.sqrt(key.shape[2])
    pairs = student_mask.unsqueeze(2) & teacher_mask.unsqueeze(1)
    # The lowest finite number, not -inf: a row without any pair would be NaN; the product then clears it.
    scores = scores.masked_fill(~pairs, torch.finfo(scores.dtype).min)
    return scores.softmax(2) * pairs, scores.mT.softmax(2) * pairs.mT


def dskd_terms(
    teacher: AnswerSide,
    student: AnswerSide,
    projectors: CrossModelProjectors,
    student_head: nn.Module | Tensor,
    teacher_head: nn.Module | Tensor,
    *,
    temperature: float = 2.0,
) -> dict[str, Tensor]:
    """The three terms of DSKD-CMA, as in the authors' code (github.com/songmzhang/DSKD).

    - ``t2s_ce``: cross-entropy of the answers, read by the student's head, held constant, from the teacher's states in the
      student's space: it trains the projectors alone.
    - ``t2s``: KL of the student's probabilities from those, on tokens that those name rightly.
    - ``s2t``: KL of what the teacher's head reads from the student's states in the teacher's space, from the teacher's own
      probabilities.

    One thing differs: the authors divide states and embeddings by a standard deviation that is taken over the padding too, so
    that the same sample teaches something else in a longer batch. Here it is taken over the answer tokens of each sample.

    Args:
        teacher: From `answer_side`.
        student: From `answer_side`.
        projectors: The maps.
        student_head: The student's LM head, a module or its weight (V_s, D_s). It gets no gradient.
        teacher_head: The teacher's.
        temperature: Of both KL terms; they are not multiplied by its square.

    Returns:
        Means over the answer tokens of each sample, then over samples that both models answer. Scalars, float32.

    Example:
        >>> mask, ids = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0, 1]])
        >>> teacher = AnswerSide(*torch.randn(3, 1, 2, 6), torch.randn(1, 2, 9), ids, mask)
        >>> student = AnswerSide(*torch.randn(3, 1, 2, 4), torch.randn(1, 2, 7), ids, mask)
        >>> heads = torch.randn(7, 4), torch.randn(9, 6)
        >>> list(dskd_terms(teacher, student, CrossModelProjectors(4, 6), *heads))
        ['t2s_ce', 't2s', 's2t']
    """
    device = student.states.device.type
    with torch.autocast(device, enabled=False):
        usable = teacher.mask.any(1) & student.mask.any(1)
        t_mask, s_mask = teacher.mask & usable.unsqueeze(1), student.mask & usable.unsqueeze(1)
        states, read, wanted = (
            _unit_deviation(part.detach(), t_mask)
            for part in (teacher.states, torch.cat([teacher.read, teacher.wanted], 2), teacher.wanted)
        )
        dtype = projectors.query.weight.dtype
        query = promote(projectors.query(torch.cat([student.read, student.wanted], 2).to(dtype)))
        to_teacher, to_student = cross_model_attention(query, read, s_mask, t_mask)
        seen = torch.bmm(to_teacher, promote(projectors.t2s((states + wanted).to(dtype))))
        shown = torch.bmm(to_student, promote(projectors.s2t(student.states.to(dtype))))
        t2s, s2t = read_frozen_head(student_head, seen[s_mask]), read_frozen_head(teacher_head, shown[t_mask])
        ids = student.ids[s_mask]
        right = (t2s.argmax(1) == ids).to(t2s.dtype)
        return {
            "t2s_ce": _mean(F.cross_entropy(t2s, ids, reduction="none"), s_mask),
            "t2s": _mean(right * _kl(t2s.detach(), promote(student.logits[s_mask]), temperature), s_mask),
            "s2t": _mean(_kl(promote(teacher.logits.detach()[t_mask]), s2t, temperature), t_mask),
        }


def _unit_deviation(part: Tensor, mask: Tensor) -> Tensor:
    """Divide each sample by the standard deviation of all its numbers at tokens."""
    count = (mask.sum(1) * part.shape[2]).clamp(min=2)[:, None, None]
    kept = zero_padding(part, mask)
    mean = kept.sum((1, 2), keepdim=True) / count
    variance = zero_padding((kept - mean).square(), mask).sum((1, 2), keepdim=True) / (count - 1)
    return kept / variance.sqrt().clamp(min=torch.finfo(part.dtype).tiny ** 0.5)


def _kl(target: Tensor, found: Tensor, temperature: float) -> Tensor:
    """``KL(softmax(target / T) || softmax(found / T))`` of each row. Shapes: (R, V), (R, V) → (R,)."""
    log_p, log_q = (F.log_softmax(side / temperature, dim=1) for side in (target, found))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of each sample, then over samples that have any; one value for each True of the mask."""
    total = values.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], values)
    return mean_over_samples(total, mask.sum(1))
