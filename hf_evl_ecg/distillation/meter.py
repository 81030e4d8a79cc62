"""What a step counts, and the means of its terms: over steps or examples, and over processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_evl_ecg.tokens import IGNORE

__all__ = ["TermMeter", "check_uses_unanswered", "count_answer_tokens", "is_over_answers", "share_terms"]

_OF_ANSWERS = ("uld", "kl", "dskd_t2s_ce", "dskd_t2s", "dskd_s2t", "anchor_ce", "cka")
_OF_HIDDEN = ("mhca", "relation", "rkd_distance", "rkd_angle", "em_kd", "feature_mse")


def count_answer_tokens(labels: Tensor) -> Tensor:
    """Answer tokens, examples, and examples with an answer of a batch.

    Args:
        labels: -100 outside the answers. Shape: (B, T).

    Returns:
        Shape: (3,), int64.

    Example:
        >>> count_answer_tokens(torch.tensor([[5, -100, 7], [-100, 8, 9]]))
        tensor([3, 2, 2])
    """
    # The first label has no state before it that could predict it.
    answered = labels[:, 1:] != IGNORE
    examples = torch.tensor(labels.shape[0], device=labels.device)
    return torch.stack([answered.sum(), examples, answered.any(1).sum()])


def is_over_answers(term: str, hidden_tokens: str) -> bool:
    """Whether a term is a mean over the examples with an answer, not over all.

    Args:
        term: Its name.
        hidden_tokens: Which tokens ``hidden`` of student and teacher covers.

    Example:
        >>> is_over_answers("mhca", "answer"), is_over_answers("mhca", "all"), is_over_answers("ot", "answer")
        (True, False, False)
    """
    return term in _OF_ANSWERS or (hidden_tokens == "answer" and term in _OF_HIDDEN)


def share_terms(terms: Mapping[str, Tensor], shares: Tensor, hidden_tokens: str) -> dict[str, Tensor]:
    """What a micro-batch adds to an optimizer step's terms.

    Args:
        terms: Means over the micro-batch; ``"ce"`` is divided by the step's answer tokens already.
        shares: The micro-batch's part of the step's answer tokens, examples, and examples with an answer. Shape: (3,).
        hidden_tokens: Which tokens ``hidden`` of student and teacher covers.

    Example:
        >>> share_terms({"ot": torch.tensor(2.0), "uld": torch.tensor(2.0)}, torch.tensor([1.0, 0.5, 0.25]), "all")
        {'ot': tensor(1.), 'uld': tensor(0.5000)}
    """
    of_answers = {name: is_over_answers(name, hidden_tokens) for name in terms}
    return {n: term if n == "ce" else term * shares[2 if of_answers[n] else 1] for n, term in terms.items()}


def check_uses_unanswered(weights: Mapping[str, float], hidden_tokens: str) -> None:
    """Refuse to train on questions without answers where nothing could be learnt from them.

    Args:
        weights: Weight of each term, by its name.
        hidden_tokens: Which tokens ``hidden`` of student and teacher covers.

    Raises:
        ValueError: No term of positive weight reads pictures or questions.
    """
    able = ("ot", *_OF_HIDDEN) if hidden_tokens != "answer" else ("ot",)
    if not any(weights.get(term, 0) > 0 for term in able):
        raise ValueError(
            f"unanswered='use' with hidden_tokens={hidden_tokens!r}: no term of positive weight learns without answers (set "
            "lambda_ot, or hidden_tokens='all' with lambda_mhca; or leave such examples out with unanswered='drop')"
        )


class TermMeter:
    """Sums named terms on their device, and gives their means when they are to be reported.

    Args:
        accelerator: The trainer's; means are over its processes too.

    Attributes:
        count: What the sums are divided by: optimizer steps while training, examples while evaluating.

    Example:
        >>> meter = TermMeter(Accelerator(cpu=True))
        >>> meter.add({"ce": torch.tensor(2.0)})
        >>> meter.add({"ce": torch.tensor(4.0)})
        >>> meter.count += 2
        >>> meter.means()
        {'ce': 3.0}
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.count = 0
        self._accelerator = accelerator
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Tensor], weight: float | Tensor = 1.0) -> None:
        """Add one micro-batch; ``weight`` is what its terms count, such as its examples."""
        for name, value in terms.items():
            share = value.detach() * weight  # no float(): it would wait for the device at every step
            self._sums[name] = self._sums[name] + share if name in self._sums else share

    def means(self) -> dict[str, float]:
        """Mean of each term since the last call; every process must call it, as each term is one message."""
        count = max(self.count, 1)
        # In order of names: the processes must send the same term at the same time.
        found = {n: float(self._accelerator.reduce(v / count, "mean")) for n, v in sorted(self._sums.items())}
        self._sums, self.count = {}, 0
        return found
