"""What a run is planned for: the GPUs, and everything about them that is assumed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_evl_ecg.arguments import check_at_least, check_between, check_choice

__all__ = ["DISTRIBUTED_HERE", "GB", "SHARDINGS", "Cluster"]

GB = 1e9
"""Bytes of a GB; a card of 80 GB has a little more."""

SHARDINGS = ("ddp", "zero2", "zero3", "fsdp2")
DISTRIBUTED_HERE = ("ddp",)
"""What `hf_evl_ecg.distillation.EVLECGTrainer` runs; the others are planned for a loop that does."""


@dataclass
class Cluster:
    """GPUs, and what is assumed about them.

    Raises:
        ValueError: A number that is out of range, or an unknown sharding.

    Example:
        >>> Cluster(gpus=2, memory=80, headroom=0.1).usable  # bytes
        72000000000.0
    """

    gpus: int = field(default=8, metadata={"help": "GPUs, of one kind."})
    memory: float = field(default=80.0, metadata={"help": "Memory of each (GB, 1e9 bytes)."})
    headroom: float = field(
        default=0.1,
        metadata={
            "help": "Share of it that is left free for CUDA's context, NCCL and fragments (assumed, not measured)."
        },
    )
    sharding: str = field(
        default="ddp",
        metadata={
            "help": "What GPUs share of the student: ddp: nothing (what distil runs); zero2: gradients and optimizer; zero3, fsdp2: "
            "weights too. The teacher is whole on every GPU."
        },
    )
    peak_tflops: float = field(
        default=989.0,
        metadata={
            "help": "Peak of a GPU (TFLOP/s); the default is NVIDIA's dense bf16 figure for an H100 SXM, 312 that for an A100."
        },
    )
    share_of_peak: float = field(
        default=0.35,
        metadata={
            "help": "Share of that peak that a run reaches, over all FLOP counted here (assumed: measure a few steps of yours)."
        },
    )
    price: float = field(default=0.0, metadata={"help": "Price of a GPU hour, in any currency; 0: GPU hours only."})
    disk: float = field(
        default=2.0, metadata={"help": "What all GPUs together read from a teacher cache (GB/s; assumed)."}
    )

    def __post_init__(self) -> None:
        check_choice("sharding", self.sharding, SHARDINGS)
        check_at_least("gpus", self.gpus, 1)
        check_between("headroom", self.headroom, 0, 0.9)
        check_between("share_of_peak", self.share_of_peak, 0.01, 1)
        check_at_least("price", self.price, 0)
        for name in ("memory", "peak_tflops", "disk"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if self.gpus == 1 and self.sharding != "ddp":
            raise ValueError(f"sharding={self.sharding!r}, gpus=1: one GPU shares nothing (leave sharding='ddp')")

    @property
    def usable(self) -> float:
        """Bytes of a GPU that a run may take."""
        return self.memory * GB * (1 - self.headroom)

    def seconds(self, flop: float) -> float:
        """How long the GPUs take together, at the stated share of their peak (s).

        Args:
            flop: Floating-point operations of all of them.

        Example:
            >>> Cluster(gpus=2, peak_tflops=100, share_of_peak=0.5).seconds(1e15)
            10.0
        """
        return flop / (self.gpus * self.peak_tflops * 1e12 * self.share_of_peak)
