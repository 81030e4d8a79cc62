"""What of a GPU's memory a run takes, by part, under each way to share a model among GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .cluster import Cluster

__all__ = ["GpuMemory", "Held", "memory_per_gpu"]


@dataclass(frozen=True)
class Held:
    """What stays in memory from step to step, before it is shared (bytes).

    Attributes:
        weights: The student's weights.
        gradients: Gradients of those that are trained.
        optimizer: The optimizer's state for them.
        optimizer_step: What the optimizer's step makes beside it, for a moment.
        aligner: Weights and optimizer of aligner and projectors.
        aligner_gradients: Their gradients.
        teacher_weights: The teacher's weights; 0 where its features are cached.
        block: The student's largest layer.
        outside: Its weights that are in no layer: embeddings, head, projector.
    """

    weights: int
    gradients: int = 0
    optimizer: int = 0
    optimizer_step: int = 0
    aligner: int = 0
    aligner_gradients: int = 0
    teacher_weights: int = 0
    block: int = 0
    outside: int = 0


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU at the moment when it is fullest.

    Attributes:
        parts: Bytes by part.
        moment: ``"backward"`` or ``"optimizer step"``.
    """

    parts: dict[str, float]
    moment: str

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())


def memory_per_gpu(held: Held, peak: Mapping[str, int], cluster: Cluster) -> GpuMemory:
    """Memory of each GPU, by part.

    Sharding divides by the number N of GPUs (ZeRO, arXiv 1910.02054, section 5): zero2 gradients and optimizer, zero3 and fsdp2 weights as
    well. Beside that:

    - ddp keeps gradients in buckets, a second copy of them all (torch's DistributedDataParallel without ``gradient_as_bucket_view``);
    - zero2 holds the whole gradients of a layer until they are shared;
    - zero3 and fsdp2 gather the weights of two layers (one ahead) and those outside of all layers, and hold the whole gradients of a
      layer; no copies of weights in autocast's type are counted then, as the gathered ones serve.

    Aligner and projectors are whole on every GPU, and several GPUs average their gradients in one message.

    Args:
        held: What stays from step to step.
        peak: What a micro-batch makes, by kind: `hf_evl_ecg.planning.step.StepCount.peak`.
        cluster: The GPUs.

    Example:
        >>> held = Held(weights=400, gradients=400, optimizer=800, block=40)
        >>> parts = memory_per_gpu(held, {"activations": 1000, "gradients": 400}, Cluster(gpus=4, sharding="fsdp2")).parts
        >>> parts["student weights"], parts["optimizer"], parts["communication"], parts["activations"]
        (100.0, 200.0, 120, 1000)
    """
    weight_shards = cluster.gpus if cluster.sharding in ("zero3", "fsdp2") else 1
    shards = cluster.gpus if cluster.sharding != "ddp" else 1
    buckets = held.gradients if cluster.sharding == "ddp" and cluster.gpus > 1 else 0
    gathered = {"ddp": 0, "zero2": held.block}.get(cluster.sharding, 3 * held.block + held.outside)
    fixed: dict[str, float] = {
        "student weights": held.weights / weight_shards,
        "teacher weights": held.teacher_weights,
        "aligner": held.aligner,
        "optimizer": held.optimizer / shards,
        "batch": peak.get("batch", 0),
    }
    of_aligner = min(peak.get("gradients", 0), held.aligner_gradients)
    backward = {
        **fixed,
        "gradients": (peak.get("gradients", 0) - of_aligner) / shards + of_aligner,
        "activations": peak.get("activations", 0),
        "logits": peak.get("logits", 0),
        "teacher": peak.get("teacher", 0),
        "weights cast": 0 if weight_shards > 1 else peak.get("casts", 0),
        "communication": buckets + gathered,
    }
    step = {
        **fixed,
        "gradients": held.gradients / shards + held.aligner_gradients,
        "optimizer step": held.optimizer_step / shards,
        "communication": buckets + (held.aligner_gradients if cluster.gpus > 1 else 0),
    }
    moments = (GpuMemory(backward, "backward"), GpuMemory(step, "optimizer step"))
    return max(moments, key=lambda memory: memory.total)
