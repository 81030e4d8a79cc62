"""How strongly each term of a loss pulls, measured where it acts, and a weight that follows from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mic.statistics import is_distributed

__all__ = ["AUTO_STEPS", "LEAST_SHARE", "GammaMeasure", "TermBalance", "TermShares", "gradient_norm", "gradient_shares"]

logger = logging.getLogger(__name__)

AUTO_STEPS = 20
"""Training steps over which ``gamma="auto"`` is measured."""
LEAST_SHARE = 0.01
"""Below this share of the main loss's gradient a term does next to nothing, and the log says so."""


def gradient_norm(value: Tensor, acted: Sequence[Tensor]) -> float:
    """Euclidean norm of the gradient of a loss with respect to all of several tensors together, within this process.

    Nothing is accumulated: parameters keep the gradients they have. Nothing is exchanged either: processes may be at batches of
    different data sets, whose losses have other terms.

    Args:
        value: The loss. Shape: ().
        acted: Tensors of its graph, such as the hidden states of one layer for each column.

    Example:
        >>> x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        >>> gradient_norm((3 * x + 4 * y).sum(), [x, y])
        5.0
    """
    if not value.requires_grad or not acted:
        return 0.0
    gradients = torch.autograd.grad(value, list(acted), retain_graph=True, allow_unused=True)
    squares = [gradient.detach().float().square().sum() for gradient in gradients if gradient is not None]
    if not squares:
        return 0.0
    return math.sqrt(float(torch.stack(squares).sum()))


def gradient_shares(
    main: Tensor, terms: Mapping[str, Tensor], acted: Mapping[str, Sequence[Tensor]]
) -> dict[str, float]:
    """Gradient of each weighted term as a share of the main loss's, at the tensors on which the term acts.

    Args:
        main: The main loss. Shape: ().
        terms: Name → term as it enters the sum. Shape: ().
        acted: Name → the tensors on which it acts, of the graph of both.

    Returns:
        Name → ratio of the norms; infinity where the main loss has no gradient there.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradient_shares(x.sum(), {"scr": 0.25 * x.sum()}, {"scr": [x]})["scr"]
        0.25
    """
    shares = {}
    for name, term in terms.items():
        own, whole = gradient_norm(term, acted[name]), gradient_norm(main, acted[name])
        shares[name] = own / whole if whole else math.inf if own else 0.0
    return shares


class GammaMeasure:
    """The weight at which the regularisers' gradient is a given share of the main loss's, from the first training steps.

    Each step gives one weight; their geometric mean holds from then on, and is fixed after :data:`AUTO_STEPS` of them. The
    steps of a run differ by factors, so the mean is taken of logarithms. Among several processes it is that of all: what each
    measures counts when :class:`TermShares` has exchanged it at the end of the step.

    Args:
        share: Gradient of the regularisers as a share of the main loss's.

    Attributes:
        value: The weight so far; 0 before the first step.
        fixed: Whether the weight changes no more.
        pending: Logarithms that were measured in this process and do not count yet.

    Example:
        >>> measure = GammaMeasure(0.1)
        >>> measure.add(main=2.0, regularisers=4.0), measure.add(main=8.0, regularisers=4.0)
        (None, None)
        >>> round(measure.value, 6), measure.fixed
        (0.1, False)
    """

    def __init__(self, share: float) -> None:
        self.share, self.value, self.fixed = share, 0.0, False
        self.pending: list[float] = []
        self._sum, self._count = 0.0, 0

    def add(self, *, main: float, regularisers: float) -> None:
        """Take the gradient norms of one step; one without a gradient on either side says nothing.

        Raises:
            RuntimeError: In several processes whose measurements nobody exchanges.
        """
        if self.fixed or not (0 < main < math.inf and 0 < regularisers < math.inf):
            return
        self.pending.append(math.log(self.share * main / regularisers))
        if not is_distributed():
            self.count(self.pending)
        elif len(self.pending) > 100 * AUTO_STEPS:  # far beyond what gradient accumulation puts in one step
            raise RuntimeError(
                "gamma='auto' in several processes needs MICTrainer, which exchanges what each of them measures."
            )

    def count(self, logarithms: Sequence[float]) -> None:
        """Let measurements count, those of all processes."""
        self._sum, self._count = self._sum + sum(logarithms), self._count + len(logarithms)
        self.pending = []
        if self._count:
            self.value = math.exp(self._sum / self._count)
        self.fixed = self._count >= AUTO_STEPS

    def fix(self, value: float) -> None:
        """Take a weight that was measured before, when a run goes on."""
        self.value, self.fixed = value, True


class TermBalance:
    """Gamma of one loss, given or measured, and the shares of its terms.

    Args:
        gamma: Weight of the regularisers, or ``"auto"``.
        share: See :class:`GammaMeasure`.

    Attributes:
        measured: The measurement of ``"auto"``, else None.
        watched: Whether the shares of the next training step are measured; it costs a second backward pass down to where terms act.
        shares: Those that were measured last.
    """

    def __init__(self, gamma: float | str, share: float) -> None:
        self.measured = GammaMeasure(share) if gamma == "auto" else None
        self.watched, self.shares = False, dict[str, float]()
        self._given = 0.0 if gamma == "auto" else float(gamma)

    @property
    def gamma(self) -> float:
        """The weight of the regularisers as it is now."""
        return self._given if self.measured is None else self.measured.value

    def measure(self, main: Tensor, terms: Mapping[str, Tensor], acted: Mapping[str, Sequence[Tensor]]) -> None:
        """Take one step's gradients for ``"auto"``, from terms without gamma, while it is not fixed."""
        own = [terms[name] for name in ("scr", "sir") if name in terms]
        if own and self.measured is not None and not self.measured.fixed:
            pull = gradient_norm(torch.stack(own).sum(), acted["scr"])
            self.measured.add(main=gradient_norm(main, acted["scr"]), regularisers=pull)

    def watch(self, main: Tensor, weighted: Mapping[str, Tensor], acted: Mapping[str, Sequence[Tensor]]) -> None:
        """Measure the shares, if they are watched."""
        if self.watched:
            self.shares = gradient_shares(main, weighted, acted)


class TermShares(TrainerCallback):
    """Measure how strongly each term pulls in the steps that are logged, and let a resumed run keep the gamma it had measured.

    Args:
        balances: Gives the balance of each loss, after what its entries in the log begin with; a trainer may change its losses.
    """

    def __init__(self, balances: Callable[[], Mapping[str, TermBalance]]) -> None:
        self.balances = balances
        self._warned, self._fixed = set[str](), set[str]()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take what was measured before from the log of the run that goes on."""
        for prefix, balance in self.balances().items():
            found = [entry[f"{prefix}gamma"] for entry in state.log_history if f"{prefix}gamma" in entry]
            if balance.measured is not None and found:
                balance.measured.fix(found[-1])
                self._fixed.add(prefix)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the step whose end is logged."""
        step = state.global_step + 1
        every = state.logging_steps if args.logging_strategy == "steps" else 0
        logged = bool(every and step % every == 0) or (args.logging_first_step and step == 1) or step == state.max_steps
        for balance in self.balances().values():
            balance.watched = logged

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Exchange what processes have measured; log a gamma as soon as it is fixed, where a run that goes on finds it."""
        measured = {prefix: b.measured for prefix, b in self.balances().items() if b.measured is not None}
        if is_distributed() and not all(measure.fixed for measure in measured.values()):
            found = gather_object([{prefix: measure.pending for prefix, measure in measured.items()}])
            for prefix, measure in measured.items():
                if not measure.fixed:
                    measure.count([value for process in found for value in process[prefix]])
        for prefix, measure in measured.items():
            if measure.fixed and prefix not in self._fixed:
                self._fixed.add(prefix)
                control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say once that a term does next to nothing."""
        for prefix, balance in self.balances().items():
            for name, share in balance.shares.items():
                if share < LEAST_SHARE and prefix + name not in self._warned and state.is_world_process_zero:
                    self._warned.add(prefix + name)
                    logger.warning(
                        "step %d: the gradient of %s%s is %.2g %% of the main loss's, where it acts: it hardly changes the model. "
                        "Give it more weight (gamma='auto' measures one), or leave it out.",
                        *(state.global_step, prefix, name, 100 * share),
                    )
            balance.shares = {}  # logged; those of a later entry are measured anew

    def logs(self) -> dict[str, float]:
        """Share of each term when it was measured last, and gamma where it is measured and fixed."""
        logs: dict[str, float] = {}
        for prefix, balance in self.balances().items():
            logs |= {f"{prefix}{name}_share": share for name, share in balance.shares.items()}
            if balance.measured is not None and balance.measured.fixed:
                logs[f"{prefix}gamma"] = balance.gamma
        return logs
