"""Divergences between the answer probabilities of two models with one vocabulary: forward and reverse KL, generalised JSD."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.padded import promote
from hf_evl_ecg.tokens import AnswerGroups
from hf_evl_ecg.uld import pair_rows

__all__ = ["DIVERGENCES", "VocabularyMismatchError", "common_vocabulary", "divergence_loss"]

DIVERGENCES = ("forward", "reverse", "jsd")


class VocabularyMismatchError(ValueError):
    """Teacher and student have different vocabularies, where a method compares token by token."""


def divergence_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    teacher_mask: Tensor,
    student_mask: Tensor,
    *,
    groups: AnswerGroups | None = None,
    divergence: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """Divergence of the student's answer probabilities from the teacher's, times the temperature squared.

    - ``"forward"``: ``KL(p_t || p_s)`` (Hinton et al., arXiv 1503.02531)
    - ``"reverse"``: ``KL(p_s || p_t)`` (MiniLLM, arXiv 2306.08543, without its sampling)
    - ``"jsd"``: ``beta KL(p_t || m) + (1 - beta) KL(p_s || m)``, ``m = beta p_t + (1 - beta) p_s`` (GKD, arXiv 2306.13649)

    Args:
        teacher_logits: Answer logits. Shape: (B, A_t, V).
        student_logits: Answer logits. Shape: (B, A_s, V).
        teacher_mask: True at answer tokens. Shape: (B, A_t).
        student_mask: True at answer tokens. Shape: (B, A_s).
        groups: Tokens that belong together; of each group the first tokens are compared. Default: by rank.
        divergence: ``"forward"``, ``"reverse"`` or ``"jsd"``.
        beta: Share of the teacher in the mixture of ``"jsd"``, in (0, 1).
        temperature: Divides both sides' logits; the square keeps the gradient's size.
        vocab_size: Tokens of the common vocabulary, where LM heads have more rows (released sizes of one family differ in
            their padding). Default: every row.

    Returns:
        Mean over the compared tokens of each sample, then over samples that have any, in nats. Scalar, float32 (float64
        for float64 input).

    Raises:
        VocabularyMismatchError: Different numbers of logits.
        ValueError: An option out of range.

    Example:
        >>> mask = torch.ones(1, 1, dtype=torch.bool)
        >>> teacher, student = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[math.log(3.0), 0.0]]])
        >>> divergence_loss(teacher, student, mask, mask)  # log(1/2) - (log(3/4) + log(1/4)) / 2
        tensor(0.1438)
    """
    check_choice("divergence", divergence, DIVERGENCES)
    if not 0 < beta < 1 or not temperature > 0:
        raise ValueError(f"beta={beta}, temperature={temperature}: beta must be in (0, 1), temperature positive.")
    sizes = [logits.shape[2] if vocab_size is None else vocab_size for logits in (teacher_logits, student_logits)]
    if sizes[0] != sizes[1] or min(teacher_logits.shape[2], student_logits.shape[2]) < sizes[0]:
        raise VocabularyMismatchError(
            f"teacher and student have {teacher_logits.shape[2]} and {student_logits.shape[2]} logits a token: a divergence "
            "needs one vocabulary (use ULD or DSKD: --method uld, --method dskd)."
        )
    pairs = pair_rows(teacher_mask, student_mask, groups)
    with torch.autocast(student_logits.device.type, enabled=False):
        log_p, log_q = (
            F.log_softmax(promote(logits[rows][:, : sizes[0]]) / temperature, dim=1)
            for logits, rows in ((teacher_logits.detach(), pairs.teacher), (student_logits, pairs.student))
        )
        if divergence == "forward":
            per_token = _kl(log_p, log_q)
        elif divergence == "reverse":
            per_token = _kl(log_q, log_p)
        else:
            log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
            per_token = beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)
        return temperature**2 * pairs.mean(per_token)


def common_vocabulary(first: Mapping[str, int], second: Mapping[str, int]) -> int:
    """Number of tokens that two vocabularies number alike, where one begins the other; LM heads may have more rows.

    Args:
        first: Token → number, as ``tokenizer.get_vocab()`` gives it.
        second: The other one.

    Raises:
        VocabularyMismatchError: A token has different numbers.

    Example:
        >>> common_vocabulary({"a": 0, "b": 1}, {"a": 0, "b": 1, "<image>": 2})
        2
    """
    small, large = sorted((first, second), key=len)
    if different := [token for token, number in small.items() if large.get(token) != number]:
        raise VocabularyMismatchError(
            f"lambda_kl above 0 needs one vocabulary, but {len(different)} of the {len(small)} tokens differ, such as "
            f"{different[0]!r}; use ULD or DSKD (--method uld, --method dskd)."
        )
    return 1 + max(small.values())


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` of each row. Shapes: (R, V), (R, V) → (R,)."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
