"""Visual tokens matched one to one by the Hungarian algorithm (EM-KD, arXiv 2511.21106)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hf_evl_ecg.padded import front_mask, mean_over_samples, promote, take_tokens, zero_padding
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures
from hf_evl_ecg.uld import PairedRows, mean_of_slots, pair_rows

from .answer_states import answer_states

__all__ = ["affinity_loss", "hungarian_loss", "match_tokens"]


def match_tokens(
    teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The one-to-one assignment of tokens with the smallest summed Manhattan distance; the longer side keeps a rest.

    The assignment itself runs on the CPU, sample by sample; the costs come from the device in one piece.

    Args:
        teacher: Shape: (B, N, D).
        student: Student tokens in the teacher's space. Shape: (B, M, D).
        teacher_mask: True at tokens. Shape: (B, N), bool.
        student_mask: True at tokens. Shape: (B, M), bool.

    Returns:
        Index of each matched teacher token and of its student token, 0 at padding, and their mask. Shapes: (B, K), each.

    Example:
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> match_tokens(torch.tensor([[[0.0], [5.0]]]), torch.tensor([[[4.0], [1.0]]]), mask, mask)[1]
        tensor([[1, 0]])
    """
    with torch.no_grad():
        tokens = zero_padding(promote(teacher), teacher_mask), zero_padding(promote(student), student_mask)
        costs = torch.cdist(*tokens, p=1.0).cpu().numpy()
    t_masks, s_masks = teacher_mask.cpu().numpy(), student_mask.cpu().numpy()
    rows, columns = [], []
    for cost, t_valid, s_valid in zip(costs, t_masks, s_masks, strict=True):
        at_t, at_s = t_valid.nonzero()[0], s_valid.nonzero()[0]
        row, column = linear_sum_assignment(cost[at_t[:, None], at_s])
        rows.append(torch.from_numpy(at_t[row]))
        columns.append(torch.from_numpy(at_s[column]))
    count = torch.tensor([len(row) for row in rows])
    t_index, s_index = (torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in (rows, columns))
    mask = front_mask(count, t_index.shape[1])
    return t_index.to(student.device), s_index.to(student.device), mask.to(student.device)


def hungarian_loss(teacher: Tensor, student: Tensor, matches: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Smooth L1 distance of matched tokens: EM-KD's vision semantic distillation, in the teacher's space.

    The paper compares what the LM heads make of the tokens, by reverse KL; that needs one vocabulary, and a tensor of image
    tokens times vocabulary.

    Args:
        teacher: Shape: (B, N, D).
        student: Student tokens in the teacher's space. Shape: (B, M, D).
        matches: From `match_tokens`.

    Returns:
        Mean over channels and matches of each sample, then over samples that have any. Scalar, float32 (float64 for float64
        input).

    Example:
        >>> mask, tokens = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[[0.0], [5.0]]])
        >>> hungarian_loss(tokens, tokens.flip(1), match_tokens(tokens, tokens.flip(1), mask, mask))
        tensor(0.)
    """
    t_index, s_index, mask = matches
    with torch.autocast(student.device.type, enabled=False):
        target, found = (
            take_tokens(promote(teacher.detach()), t_index, mask),
            take_tokens(promote(student), s_index, mask),
        )
        per_token = F.smooth_l1_loss(found, target, reduction="none").mean(2)
        return mean_over_samples(per_token.sum(1), mask.sum(1))


def affinity_loss(
    teacher: TokenFeatures,
    student: TokenFeatures,
    matches: tuple[Tensor, Tensor, Tensor],
    groups: AnswerGroups | None = None,
) -> Tensor:
    """Vision-language affinity distillation of EM-KD: smooth L1 between cosines of text and matched visual states.

    Text tokens are the groups of answer tokens that both models have, each by its mean state.

    Args:
        teacher: Features whose ``hidden`` are visual states.
        student: The same of the student.
        matches: From `match_tokens`, indices within ``hidden``.
        groups: Answer tokens that belong together. Default: by rank.

    Returns:
        Mean over the pairs of each sample, then over samples that have any. Scalar, float32 (float64 for float64 input).

    Example:
        >>> patches, mask = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2, dtype=torch.bool)
        >>> answer = {"answer_hidden": torch.tensor([[[1.0, 1.0]]]), "answer_mask": mask[:, :1]}
        >>> side = TokenFeatures(patches, mask, None, None, **answer)
        >>> affinity_loss(side, side, match_tokens(patches, patches, mask, mask))
        tensor(0.)
    """
    t_index, s_index, mask = matches
    (t_text, t_mask), (s_text, s_mask) = answer_states(teacher), answer_states(student)
    pairs = pair_rows(t_mask, s_mask, groups, merge="mean")
    place = _places(pairs)
    with torch.autocast(student.hidden.device.type, enabled=False):
        target = _affinities(
            mean_of_slots(promote(t_text.detach()[pairs.teacher]), pairs.teacher_slot),
            take_tokens(promote(teacher.hidden.detach()), t_index, mask),
            place,
        )
        found = _affinities(
            mean_of_slots(promote(s_text[pairs.student]), pairs.student_slot),
            take_tokens(promote(student.hidden), s_index, mask),
            place,
        )
        distance = F.smooth_l1_loss(found, target, reduction="none").sum((1, 2))  # padding is zero on both sides
        words = torch.bincount(pairs.sample, minlength=pairs.samples)
        return mean_over_samples(distance, words * mask.sum(1))


def _places(pairs: PairedRows) -> tuple[Tensor, Tensor]:
    """Sample of each pair, and its number within that sample. Shapes: (P,), (P,)."""
    count = torch.bincount(pairs.sample, minlength=pairs.samples)
    first = count.cumsum(0) - count
    return pairs.sample, torch.arange(len(pairs.sample), device=first.device) - first[pairs.sample]


def _affinities(words: Tensor, patches: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
    """Cosine of each word and each patch of its sample. Shapes: (P, D), (B, K, D) → (B, G, K), zero at padding."""
    width = 1 + int(place[1].max()) if len(words) else 0
    padded = words.new_zeros(len(patches), width, words.shape[1]).index_put(place, F.normalize(words, dim=1, eps=1e-6))
    return torch.bmm(padded, F.normalize(patches, dim=2, eps=1e-6).mT)
