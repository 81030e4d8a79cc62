"""Logit distillation between two vocabularies.

Universal logit distillation (ULD, https://arxiv.org/abs/2402.12030) compares sorted probabilities, so it needs no common
vocabulary. Which answer tokens of the two models are compared is said by `hf_evl_ecg.chat.token_groups.AnswerGroups`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.padded import mean_over_samples, promote
from hf_evl_ecg.tokens import AnswerGroups

__all__ = ["PairedRows", "mean_of_slots", "pair_rows", "uld_loss"]

_MERGES = ("first", "mean")


def uld_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    teacher_mask: Tensor,
    student_mask: Tensor,
    *,
    groups: AnswerGroups | None = None,
    merge: str = "first",
    temperature: float = 1.0,
    top_k: int | None = None,
    teacher_logsumexp: Tensor | None = None,
) -> Tensor:
    """Universal logit distillation, ``sum_r |sort(p_t)_r - sort(p_s)_r|``, the shorter vocabulary padded with zeros.

    Args:
        teacher_logits: Answer logits over the teacher's vocabulary, or a cache's K largest. Shape: (B, A_t, V_t).
        student_logits: Answer logits over the student's vocabulary. Shape: (B, A_s, V_s).
        teacher_mask: True at answer tokens. Shape: (B, A_t).
        student_mask: True at answer tokens. Shape: (B, A_s).
        groups: Tokens that belong together. Default: the k-th token of one with the k-th of the other, up to the shorter
            answer, as in the paper.
        merge: ``"first"`` compares the first tokens of a group, where both models have read the same text; ``"mean"``
            the mean of the sorted probabilities over the group's tokens.
        temperature: Divides both sides' logits.
        top_k: Compare the ``top_k`` largest ranks, and all smaller ones by their sum: a lower bound of the full value
            that spares sorting the vocabulary. Default: every rank.
        teacher_logsumexp: For K cached logits, ``logsumexp`` over the full vocabulary (zeros if log-probabilities were
            cached); ``top_k`` is then at most K. Without it K logits count as a vocabulary of size K. Shape: (B, A_t).

    Returns:
        Mean over the compared tokens or groups of each sample, then over samples that have any; at most 2 per token.
        Scalar, float32 (float64 for float64 input).

    Raises:
        ValueError: For shapes or options that do not fit.

    Example:
        >>> mask = torch.ones(1, 1, dtype=torch.bool)
        >>> certain, undecided = torch.tensor([[[0.0, 50.0]]]), torch.tensor([[[1.0, 1.0, -50.0]]])
        >>> uld_loss(certain, undecided, mask, mask)
        tensor(1.)
    """
    _check_logits(teacher_logits, student_logits, teacher_mask, student_mask, groups)
    _check_options(merge, temperature, top_k)
    if teacher_logsumexp is not None and temperature != 1:
        raise ValueError("Cached logits with teacher_logsumexp are normalised at temperature 1; set temperature to 1.")
    pairs = pair_rows(teacher_mask, student_mask, groups, merge=merge)
    with torch.autocast(student_logits.device.type, enabled=False):
        if teacher_logsumexp is not None:
            top_k = min(top_k or teacher_logits.shape[2], teacher_logits.shape[2])
        t_norm = None if teacher_logsumexp is None else teacher_logsumexp.detach()[pairs.teacher]
        # only the rows that are compared are sorted, each as wide as a vocabulary
        t_ranks = _ranked_probabilities(teacher_logits.detach()[pairs.teacher], temperature, top_k, t_norm)
        s_ranks = _ranked_probabilities(student_logits[pairs.student], temperature, top_k, None)
        ranks = mean_of_slots(t_ranks, pairs.teacher_slot), mean_of_slots(s_ranks, pairs.student_slot)
        return pairs.mean(_rank_distance(*ranks, has_tail=top_k is not None))


class PairedRows(NamedTuple):
    """Answer tokens of two models that are compared: which ones, and which of them belong together.

    Attributes:
        teacher: Sample and token of each teacher row. Shapes: (R_t,), (R_t,), int64.
        student: Sample and token of each student row. Shapes: (R_s,), (R_s,), int64.
        teacher_slot: Pair that each teacher row belongs to. Shape: (R_t,), int64.
        student_slot: Pair that each student row belongs to. Shape: (R_s,), int64.
        sample: Sample of each pair. Shape: (P,), int64.
        samples: Samples in the batch.
    """

    teacher: tuple[Tensor, Tensor]
    student: tuple[Tensor, Tensor]
    teacher_slot: Tensor
    student_slot: Tensor
    sample: Tensor
    samples: int

    def mean(self, values: Tensor) -> Tensor:
        """Mean of one value per pair, (P,), over the pairs of each sample, then over samples that have any. Scalar."""
        total = values.new_zeros(self.samples).index_add(0, self.sample, values)
        return mean_over_samples(total, torch.bincount(self.sample, minlength=self.samples))


def pair_rows(
    teacher_mask: Tensor, student_mask: Tensor, groups: AnswerGroups | None, *, merge: str = "first"
) -> PairedRows:
    """Which answer tokens of two models are compared; one pair for each group that both sides have.

    Args:
        teacher_mask: True at answer tokens. Shape: (B, A_t).
        student_mask: True at answer tokens. Shape: (B, A_s).
        groups: Tokens that belong together. Default: the k-th token of one with the k-th of the other.
        merge: ``"first"``: the first token of a group stands for it; ``"mean"``: all its tokens are rows.

    Example:
        >>> groups = AnswerGroups(torch.tensor([[0, 0, 1]]), torch.tensor([[0, -1, 1]]))
        >>> mask = torch.ones(1, 3, dtype=torch.bool)
        >>> pair_rows(mask, mask, groups, merge="mean").teacher_slot
        tensor([0, 0, 1])
    """
    if groups is None:
        groups = _groups_by_rank(teacher_mask, student_mask)
    groups = AnswerGroups(groups.teacher.masked_fill(~teacher_mask, -1), groups.student.masked_fill(~student_mask, -1))
    number = _number_common_groups(groups)
    t_pick, t_slot, _ = _pick_rows(number.teacher, merge)
    s_pick, s_slot, sample = _pick_rows(number.student, merge)
    return PairedRows(t_pick, s_pick, t_slot, s_slot, sample, len(student_mask))


def _number_common_groups(groups: AnswerGroups) -> AnswerGroups:
    """Number the groups over the whole batch, and drop (-1) those that only one side has."""
    width = 1 + max(int(side.max()) if side.numel() else 0 for side in (groups.teacher, groups.student))
    numbered, present = [], []
    for side in (groups.teacher, groups.student):
        offset = width * torch.arange(len(side), device=side.device).unsqueeze(1)
        numbered.append(torch.where(side >= 0, side + offset, -1))
        seen = torch.zeros(len(side) * max(width, 1), dtype=torch.bool, device=side.device)
        seen[numbered[-1][side >= 0]] = True
        present.append(seen)
    common = present[0] & present[1]
    if not common.any():
        return AnswerGroups(*(torch.full_like(side, -1) for side in numbered))
    return AnswerGroups(*(torch.where((side >= 0) & common[side.clamp(min=0)], side, -1) for side in numbered))


def _pick_rows(numbers: Tensor, merge: str) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """(sample, token) of the rows to compare, the slot each goes to, and the sample of each slot, in order of groups."""
    rows, tokens = (numbers >= 0).nonzero(as_tuple=True)
    _, slot = torch.unique_consecutive(numbers[rows, tokens], return_inverse=True)
    first = torch.ones_like(slot, dtype=torch.bool)
    first[1:] = slot[1:] != slot[:-1]
    sample = rows[first]
    if merge == "first":  # later tokens of a group have read text that the other model has not
        return (sample, tokens[first]), slot[first], sample
    return (rows, tokens), slot, sample


def _ranked_probabilities(logits: Tensor, temperature: float, top_k: int | None, logsumexp: Tensor | None) -> Tensor:
    """Probabilities in descending order; with ``top_k`` the largest, zeros up to ``top_k``, then the sum of the rest."""
    logits = promote(logits) / temperature
    if logsumexp is None:
        probabilities = logits.softmax(1)
    else:
        probabilities = (logits - logsumexp.to(logits.dtype).unsqueeze(1)).exp()
    if top_k is None:
        return probabilities.sort(1, descending=True).values
    top = probabilities.topk(min(top_k, probabilities.shape[1]), dim=1).values
    # |sum of differences| <= sum of |differences|: the tail as one number makes a lower bound
    return torch.cat([F.pad(top, (0, top_k - top.shape[1])), 1 - top.sum(1, keepdim=True)], dim=1)


def mean_of_slots(rows: Tensor, slot: Tensor) -> Tensor:
    """Mean of the rows of each slot; every slot has one or more.

    Args:
        rows: Shape: (R, D).
        slot: Slot of each row, from 0. Shape: (R,), int64.

    Returns:
        Shape: (P, D).

    Example:
        >>> mean_of_slots(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])).flatten()
        tensor([2., 5.])
    """
    count = torch.bincount(slot)
    if len(count) == len(rows):
        return rows
    return rows.new_zeros(len(count), rows.shape[1]).index_add(0, slot, rows) / count.unsqueeze(1)


def _rank_distance(teacher: Tensor, student: Tensor, *, has_tail: bool) -> Tensor:
    """Summed absolute difference of two ranked lists, the shorter padded with zeros (a tail has equal widths already)."""
    shared = min(teacher.shape[1], student.shape[1])
    distance = (teacher[:, :shared] - student[:, :shared]).abs().sum(1)
    if has_tail:
        return distance
    return distance + teacher[:, shared:].sum(1) + student[:, shared:].sum(1)


def _groups_by_rank(teacher_mask: Tensor, student_mask: Tensor) -> AnswerGroups:
    shorter = torch.minimum(teacher_mask.sum(1), student_mask.sum(1)).unsqueeze(1)
    ranks = [mask.cumsum(1) - 1 for mask in (teacher_mask, student_mask)]
    teacher, student = (torch.where(rank < shorter, rank, -1) for rank in ranks)
    return AnswerGroups(teacher, student)


def _check_logits(
    teacher_logits: Tensor,
    student_logits: Tensor,
    teacher_mask: Tensor,
    student_mask: Tensor,
    groups: AnswerGroups | None,
) -> None:
    for name, logits, mask in (
        ("teacher", teacher_logits, teacher_mask),
        ("student", student_logits, student_mask),
    ):
        if logits.dim() != 3 or mask.shape != logits.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}_logits must be (B, A, V) with a bool {name}_mask (B, A); given {tuple(logits.shape)} and "
                f"{mask.dtype} {tuple(mask.shape)}."
            )
    if teacher_mask.shape[0] != student_mask.shape[0]:
        raise ValueError(f"Teacher has {teacher_mask.shape[0]} samples, student {student_mask.shape[0]}.")
    if groups is not None and (groups.teacher.shape, groups.student.shape) != (teacher_mask.shape, student_mask.shape):
        raise ValueError(
            f"groups have shapes {tuple(groups.teacher.shape)} and {tuple(groups.student.shape)}; they must be those of "
            f"the masks, {tuple(teacher_mask.shape)} and {tuple(student_mask.shape)}."
        )


def _check_options(merge: str, temperature: float, top_k: int | None) -> None:
    check_choice("merge", merge, _MERGES)
    if not temperature > 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"temperature={temperature}, top_k={top_k}: both must be positive.")
