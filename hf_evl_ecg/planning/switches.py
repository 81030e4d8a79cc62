"""What would make a run fit that does not: single switches and their price, and several where no single one is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .cluster import DISTRIBUTED_HERE, Cluster
from .setup import Setup

__all__ = ["Change", "possible_changes", "smaller_batches"]


@dataclass(frozen=True)
class Change:
    """One change of a run.

    Attributes:
        options: What to add to the command line.
        same_result: Whether the run computes the same, but for rounding.
        setup: Changes the run.
        cluster: Changes how it is shared among GPUs.
        runs_here: Whether ``hf-evl-ecg distil`` runs it.
    """

    options: str
    same_result: bool
    setup: Callable[[Setup], Setup] = lambda setup: setup
    cluster: Callable[[Cluster], Cluster] = lambda cluster: cluster
    runs_here: bool = True


def possible_changes(setup: Setup, cluster: Cluster) -> Iterator[Change]:
    """Changes that take memory off a GPU and that the run does not have yet; smaller batches are `smaller_batches`.

    Args:
        setup: The run.
        cluster: Its GPUs.
    """
    args = setup.args
    if not args.gradient_checkpointing:
        names = ("gradient_checkpointing", "activation_checkpointing")  # the host's old name and its new one
        yield Change("--gradient_checkpointing", True, lambda s: s.changed(dict.fromkeys(names, True)))
    if setup.teacher is not None and not setup.cached and args.lambda_dskd == 0:
        yield Change("--teacher_cache FOLDER (hf-evl-ecg cache)", True, lambda s: replace(s, cached=True))
    if cluster.gpus > 1 and cluster.sharding == "ddp":
        for kind in ("zero2", "fsdp2"):
            here = kind in DISTRIBUTED_HERE
            yield Change(f"--sharding {kind}", True, cluster=_sharded(kind), runs_here=here)
    if not (args.bf16 or args.fp16):
        yield Change("--bf16", False, lambda s: s.changed({"bf16": True}))
    if setup.dtype == "float32":
        yield Change("--dtype bfloat16", False, lambda s: replace(s, dtype="bfloat16"))
    if setup.adapters is not None:
        yield Change("--lora_rank 64", False, lambda s: replace(s, wrap=s.adapters or s.wrap, adapters=None))


def smaller_batches(setup: Setup) -> Iterator[Change]:
    """Ever smaller micro-batches, with as many more of them in a step.

    Args:
        setup: The run.
    """
    size, number = setup.args.per_device_train_batch_size, setup.args.gradient_accumulation_steps
    while size % 2 == 0:
        size, number = size // 2, number * 2
        values = {"per_device_train_batch_size": size, "gradient_accumulation_steps": number}
        yield Change(" ".join(f"--{name} {value}" for name, value in values.items()), True, _with_arguments(values))


def _with_arguments(values: dict[str, int]) -> Callable[[Setup], Setup]:
    """A change of training arguments; in a function of its own, as a loop's variables change."""
    return lambda setup: setup.changed(values)


def _sharded(kind: str) -> Callable[[Cluster], Cluster]:
    return lambda cluster: replace(cluster, sharding=kind)
