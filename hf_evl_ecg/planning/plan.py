"""From a run and its GPUs to a plan: parameters, FLOP, memory, time, cache, and what would make it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cluster import Cluster
from .cost import CachePlan, EpochCost, cache_bytes, epoch_cost, plan_cache
from .memory import GpuMemory, memory_per_gpu
from .setup import Counted, Setup, count_setup
from .switches import Change, possible_changes, smaller_batches

__all__ = ["Plan", "Switch", "make_plan"]


@dataclass(frozen=True)
class Switch:
    """A change that takes memory off a GPU, and what it costs.

    Attributes:
        options: What to add to the command line.
        bytes: Memory of each GPU after it.
        seconds: Time of an epoch after it (s), without what GPUs send each other.
        fits: Whether the run fits with it.
        same_result: Whether the run computes the same, but for rounding.
        runs_here: Whether ``hf-evl-ecg distil`` runs it.
    """

    options: str
    bytes: float
    seconds: float
    fits: bool
    same_result: bool
    runs_here: bool


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        setup: The run.
        cluster: Its GPUs.
        examples: Training examples of an epoch.
        counted: Parameters, and FLOP and bytes of a micro-batch.
        memory: Memory of each GPU.
        epoch: An epoch.
        cache: The teacher's cache; None without a teacher.
        switches: If the run does not fit: single changes, those that compute the same first, in the order of their time; where none of
            them is enough, also several together.
    """

    setup: Setup
    cluster: Cluster
    examples: int
    counted: Counted
    memory: GpuMemory
    epoch: EpochCost
    cache: CachePlan | None
    switches: Sequence[Switch]

    @property
    def fits(self) -> bool:
        """Whether each GPU has the memory."""
        return self.memory.total <= self.cluster.usable


def make_plan(setup: Setup, cluster: Cluster, examples: int) -> Plan:
    """Plan a run.

    Args:
        setup: The run.
        cluster: Its GPUs.
        examples: Training examples of an epoch.

    Raises:
        ModelLoadError: A model cannot be found.
        ValueDependentError: A term cannot be counted without values.
        ValueError: Budgets of tokens, optimizer or terms do not fit.

    Example:
        >>> from hf_evl_ecg.data.rendered import RenderedECG
        >>> from hf_evl_ecg.drawing.config import RenderConfig
        >>> from hf_evl_ecg.planning.batches import TextBudget
        >>> from hf_evl_ecg.planning.setup import PlannedConfig
        >>> text, args = TextBudget(100, 20), PlannedConfig("out", alpha=0.0)
        >>> page = RenderedECG(RenderConfig(width_px=440, height_px=340))
        >>> plan = make_plan(Setup("ecg-student", None, args, page, text, text), Cluster(gpus=1, memory=1), examples=800)
        >>> plan.fits, plan.epoch.steps, plan.counted.student_tokens.image
        (True, 100, 20)
    """
    counted = count_setup(setup)
    memory = memory_per_gpu(counted.held, counted.step.peak, cluster)
    cache = _cache(setup, counted, cluster, examples)
    epoch = _epoch(setup, counted, cluster, examples)
    switches = [] if memory.total <= cluster.usable else _switches(setup, cluster, examples, counted)
    return Plan(setup, cluster, examples, counted, memory, epoch, cache, switches)


def _cache(setup: Setup, counted: Counted, cluster: Cluster, examples: int) -> CachePlan | None:
    if counted.teacher_tokens is None or counted.step.teacher_flop == 0:
        return None
    flop = sum(count for part, count in counted.step.flop.items() if part != "teacher")
    of_one = cache_bytes(setup.cache_layout, counted.teacher_tokens, setup.teacher_text, counted.teacher_width)
    args = setup.args
    shape = (args.per_device_train_batch_size, args.gradient_accumulation_steps, examples, cluster)
    return plan_cache(of_one, counted.step.teacher_flop, flop, *shape)


def _epoch(setup: Setup, counted: Counted, cluster: Cluster, examples: int) -> EpochCost:
    args, cache = setup.args, _cache(setup, counted, cluster, examples)
    if setup.cached and cache is not None:
        return cache.cached
    shape = (args.per_device_train_batch_size, args.gradient_accumulation_steps, examples, cluster)
    return epoch_cost(sum(counted.step.flop.values()), *shape)


def _switches(setup: Setup, cluster: Cluster, examples: int, counted: Counted) -> list[Switch]:
    """Single changes; where none is enough, those that distil runs one after the other, the ones that compute the same first."""
    changes = list(possible_changes(setup, cluster))
    found = [_switch([change], setup, cluster, examples, counted) for change in changes]
    batches = []
    for change in smaller_batches(setup):
        batches.append((change, _switch([change], setup, cluster, examples, counted)))
        if batches[-1][1].fits:
            break
    found += [switch for _, switch in batches[-1:]]
    found.sort(key=lambda switch: (not switch.same_result, not switch.runs_here, switch.seconds, switch.bytes))
    if any(switch.fits and switch.runs_here for switch in found):
        return found
    changes = [change for change in [*changes, *(change for change, _ in batches[-1:])] if change.runs_here]
    changes.sort(key=lambda change: not change.same_result)
    for number in range(2, len(changes) + 1):
        together = _switch(changes[:number], setup, cluster, examples, counted)
        if together.fits or number == len(changes):
            found.append(together)
            break
    return found


def _switch(changes: Sequence[Change], setup: Setup, cluster: Cluster, examples: int, counted: Counted) -> Switch:
    """The run after some changes; ``counted`` is what was counted before them."""
    before = setup
    for change in changes:
        setup, cluster = change.setup(setup), change.cluster(cluster)
    if setup is not before:
        counted = count_setup(setup)
    memory = memory_per_gpu(counted.held, counted.step.peak, cluster)
    return Switch(
        options=" ".join(change.options for change in changes),
        bytes=memory.total,
        seconds=_epoch(setup, counted, cluster, examples).seconds,
        fits=memory.total <= cluster.usable,
        same_result=all(change.same_result for change in changes),
        runs_here=all(change.runs_here for change in changes),
    )
