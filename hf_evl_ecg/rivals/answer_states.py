"""Hidden states of the answers of two models, brought together."""

from __future__ import annotations

from torch import Tensor

from hf_evl_ecg.padded import promote, take_tokens, zero_padding
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures
from hf_evl_ecg.uld import mean_of_slots, pair_rows

__all__ = ["answer_states", "paired_answer_states"]


def answer_states(features: TokenFeatures) -> tuple[Tensor, Tensor]:
    """States that predict the answer tokens, and their mask; from ``hidden`` where they are not given by themselves.

    Returns:
        Shapes: (B, A, D), zero at padding, and (B, A), bool.

    Raises:
        ValueError: The features hold no state of the answers.

    Example:
        >>> import torch
        >>> hidden, mask = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.ones(1, 3, dtype=torch.bool)
        >>> index, both = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
        >>> answer_states(TokenFeatures(hidden, mask, None, None, answer_mask=both, answer_index=index))[0].flatten()
        tensor([2., 3.])
    """
    if features.answer_hidden is not None and features.answer_mask is not None:
        return zero_padding(features.answer_hidden, features.answer_mask), features.answer_mask
    if features.answer_index is None or features.answer_mask is None:
        raise ValueError("the features hold no answers; give answer_hidden or answer_index, and answer_mask.")
    if not bool((features.answer_index >= 0)[features.answer_mask].all()):
        raise ValueError(
            "hidden does not cover the answers (hidden_tokens='visual'), and answer_hidden is not given; a cache needs "
            "tokens='all' or 'answer'."
        )
    index = features.answer_index.clamp(min=0)
    return take_tokens(features.hidden, index, features.answer_mask), features.answer_mask


def paired_answer_states(
    teacher: TokenFeatures, student: TokenFeatures, groups: AnswerGroups | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean state of each group of answer tokens that both models have, over the whole batch.

    Returns:
        Teacher, detached, and student in at least float32, and the sample of each group. Shapes: (P, D_t), (P, D_s), (P,).

    Example:
        >>> import torch
        >>> mask, index = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0, 1]])
        >>> side = TokenFeatures(torch.tensor([[[1.0], [3.0]]]), mask, None, None, answer_mask=mask, answer_index=index)
        >>> whole = AnswerGroups(torch.tensor([[0, 0]]), torch.tensor([[0, 0]]))  # the two tokens spell one word
        >>> paired_answer_states(side, side, whole)[0]
        tensor([[2.]])
    """
    (t_states, t_mask), (s_states, s_mask) = answer_states(teacher), answer_states(student)
    pairs = pair_rows(t_mask, s_mask, groups, merge="mean")
    return (
        mean_of_slots(promote(t_states.detach()[pairs.teacher]), pairs.teacher_slot),
        mean_of_slots(promote(s_states[pairs.student]), pairs.student_slot),
        pairs.sample,
    )
