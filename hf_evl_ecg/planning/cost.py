"""Time and cost of an epoch, size of a teacher cache, and from which pass over the data on it pays."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_evl_ecg.distillation.cache_files import CacheLayout

from .batches import TextBudget, TokenBudget
from .cluster import Cluster

__all__ = ["CachePlan", "EpochCost", "cache_bytes", "epoch_cost", "plan_cache"]

_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_MAP_CELLS = 128  # rows and columns of a map of weights, as the drawing's ink has


@dataclass(frozen=True)
class EpochCost:
    """One pass over the training examples.

    Attributes:
        steps: Optimizer steps.
        flop: FLOP on all GPUs.
        seconds: Time at the stated share of peak (s); with a cache, at least the time to read it.
        gpu_hours: Time on all GPUs (h).
        price: In the currency of `Cluster.price`.
    """

    steps: int
    flop: float
    seconds: float
    gpu_hours: float
    price: float


def epoch_cost(
    flop_per_micro_batch: float,
    batch_size: int,
    accumulation: int,
    examples: int,
    cluster: Cluster,
    read_bytes: float = 0,
) -> EpochCost:
    """What an epoch takes.

    Args:
        flop_per_micro_batch: On one GPU.
        batch_size: Examples of a micro-batch.
        accumulation: Micro-batches of an optimizer step.
        examples: Training examples.
        cluster: The GPUs.
        read_bytes: Bytes that all GPUs together read of a cache.

    Example:
        >>> cost = epoch_cost(3e15, 4, 2, examples=640, cluster=Cluster(gpus=8, peak_tflops=1000, share_of_peak=0.5, price=2))
        >>> cost.steps, cost.seconds, cost.price  # 160 micro-batches of 3 PFLOP at 4 PFLOP/s
        (10, 120.0, 0.5333333333333333)
    """
    steps = math.ceil(examples / (batch_size * accumulation * cluster.gpus))
    flop = flop_per_micro_batch * examples / batch_size
    seconds = max(cluster.seconds(flop), read_bytes / (cluster.disk * 1e9))
    hours = seconds * cluster.gpus / 3600
    return EpochCost(steps, flop, seconds, hours, hours * cluster.price)


def cache_bytes(layout: CacheLayout, tokens: TokenBudget, text: TextBudget, width: int) -> int:
    """Bytes of one example in a teacher cache, as `hf_evl_ecg.distillation.TeacherCacheWriter` stores it, without file headers.

    Args:
        layout: What is kept.
        tokens: Tokens of a page in the teacher.
        text: Tokens beside it.
        width: Width of the teacher.

    Example:
        >>> layout = CacheLayout(visual_pool=4, top_k=0)
        >>> cache_bytes(layout, TokenBudget(image=8, page=10, least_text=5), TextBudget(text=20, answer=3), width=100)
        6664
    """
    covered = {"all": tokens.page + text.text, "visual": tokens.image, "answer": text.answer}[layout.tokens]
    visual = math.ceil(tokens.image / layout.visual_pool) if layout.visual else 0
    states = (covered * len(layout.layers) + visual) * width * _DTYPE_BYTES[layout.dtype]
    places = covered * 2 * 4
    answers = text.answer * (2 * 4 + layout.top_k * (4 + 4))  # id and index; of each rank a number and a token
    positions = visual * 2 * 4 * layout.positions
    weights = (visual + _MAP_CELLS**2) * 4 * (layout.visual_weights != "uniform")
    return states + places + answers + positions + weights


@dataclass(frozen=True)
class CachePlan:
    """A teacher cache, compared with the teacher at hand.

    Attributes:
        example_bytes: Bytes of one example.
        total_bytes: Bytes of all.
        write: One pass of the teacher over the examples, without a student.
        online: An epoch with the teacher at hand.
        cached: An epoch from the cache.
        pays_from: Pass over the data from which on the cache has saved time, over all epochs and runs that use it; None: never.
    """

    example_bytes: int
    total_bytes: int
    write: EpochCost
    online: EpochCost
    cached: EpochCost
    pays_from: int | None


def plan_cache(
    example_bytes: int,
    teacher_flop: float,
    student_flop: float,
    batch_size: int,
    accumulation: int,
    examples: int,
    cluster: Cluster,
) -> CachePlan:
    """Compare a cache with the teacher at hand.

    Args:
        example_bytes: From `cache_bytes`.
        teacher_flop: FLOP of the teacher on a micro-batch.
        student_flop: FLOP of all else on it.
        batch_size: Examples of a micro-batch.
        accumulation: Micro-batches of an optimizer step.
        examples: Training examples.
        cluster: The GPUs.

    Example:
        >>> cluster = Cluster(gpus=1, peak_tflops=1, share_of_peak=1, disk=1e-9)  # 1 TFLOP/s, a byte a second
        >>> plan = plan_cache(1, 3e12, 2e12, 1, 1, examples=10, cluster=cluster)
        >>> plan.online.seconds, plan.write.seconds, plan.cached.seconds, plan.pays_from  # 50 s, against 30 s once and 20 s
        (50.0, 30.0, 20.0, 2)
    """
    shape = (batch_size, accumulation, examples, cluster)
    total = example_bytes * examples
    write = epoch_cost(teacher_flop, *shape)
    online = epoch_cost(teacher_flop + student_flop, *shape)
    cached = epoch_cost(student_flop, *shape, read_bytes=total)
    saved = online.seconds - cached.seconds
    pays = None if saved <= 0 else math.floor(write.seconds / saved) + 1
    return CachePlan(example_bytes, total, write, online, cached, pays)
