"""A student whose tokens shrink to one point is named in the log, as its falling loss would hide it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

__all__ = ["COLLAPSED_SHARE", "CollapseWarning", "collapsed_now"]

logger = logging.getLogger(__name__)

COLLAPSED_SHARE = 0.05
"""Of its first value; a collapse ends near 0.003 (an untrained aligner as target), half way there on a logarithmic scale."""

_NAME = "student_variance"


def collapsed_now(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last entry of a training log is the first one with less than ``COLLAPSED_SHARE`` of the first variance.

    Args:
        history: ``trainer.state.log_history``, which a resumed run goes on with.

    Example:
        >>> log = [{"student_variance": v} for v in (1.0, 0.8, 0.003, 0.002)]
        >>> [collapsed_now(log[:end]) for end in (1, 2, 3, 4)]
        [False, False, True, False]
    """
    values = [entry[_NAME] for entry in history if _NAME in entry]
    if not values or _NAME not in history[-1]:
        return False
    below = [value < COLLAPSED_SHARE * values[0] for value in values]
    return below[-1] and sum(below) == 1


class CollapseWarning(TrainerCallback):
    """Warns once, with the step, when the student's token variance has collapsed."""

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at what was just logged; one process speaks for all, as the values are means over them."""
        if state.is_world_process_zero and collapsed_now(state.log_history):
            logger.warning(
                "step %d: the variance of the student's matched states has fallen to %.2g, less than %.0f %% of its first "
                "value: they shrink to one point, whatever the loss says (try mhca_mode='anchored', hidden_tokens='answer', "
                "or a lower alpha).",
                state.global_step,
                state.log_history[-1][_NAME],
                100 * COLLAPSED_SHARE,
            )
