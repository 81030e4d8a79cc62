"""Settings of a map that is fitted on frozen embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hf_mic.files import plain_fields
from hf_mic.options import check_at_least, check_choice, check_distinct, check_number

__all__ = ["CODED_BITS", "AdaptConfig"]

CODED_BITS = (1, 2)  # codes that a map can be fitted for


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of a map; the defaults did best in `studies/mic/map_search.py`, by neighbours kept.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["orthogonal", "linear", "mlp"] = field(
        default="orthogonal",
        metadata={
            "help": "orthogonal: a rotation, full-width cosine similarities stay exactly as they are. linear: any matrix; "
            "the full width is kept close by distillation only. mlp: a matrix plus a network of one hidden ReLU layer."
        },
    )
    dims: list[int] = field(
        default_factory=lambda: [8, 16, 32, 64, 128],
        metadata={"help": "Prefix lengths to be usable, each below the width of the embeddings."},
    )
    bits: int | None = field(
        default=None,
        metadata={
            "help": "Bits per coordinate in which the mapped rows will be stored, 1 or 2, while queries stay floats: the "
            "prefixes are then fitted through a soft form of that code. Default: for floats."
        },
    )
    distill_weight: float = field(
        default=1.0, metadata={"help": "Weight of the similarity distillation from the original full-width embeddings."}
    )
    sir_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the spectral isotropy regularisation, SIR, whose value may be negative. Default: 1 for codes of one or two bits, which lose least "
            "where a prefix fills its space evenly; 0 for floats."
        },
    )
    scr_weight: float = field(default=0.0, metadata={"help": "Weight of the soft collapse regularisation, SCR."})
    temperature: float = field(
        default=0.05, metadata={"help": "Temperature of the similarity distributions of teacher and prefixes."}
    )
    cv_mode: Literal["diagonal", "eigen"] = field(
        default="eigen",
        metadata={"help": "Variances whose spread SIR measures: of the coordinates, as in the paper, or eigenvalues."},
    )
    t: float = field(default=2.0, metadata={"help": "Sharpness of the uniformity term of SIR."})
    tau: float = field(
        default=0.1, metadata={"help": "Correlations of prefix and residual features up to this size cost nothing."}
    )
    var_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of SCR's floor on the standard deviations, which are measured in units of 1/sqrt(D)."
        },
    )
    init: Literal["pca", "identity"] = field(
        default="pca",
        metadata={"help": "Where the fit starts: at the principal axes of the embeddings or at no change."},
    )
    hidden_dim: int = field(default=512, metadata={"help": "Hidden units of the mlp."})
    neighbours: int = field(
        default=7,
        metadata={
            "help": "Each row of a batch brings its nearest neighbours out of a random pool, this many; 0: random batches. "
            "Distinguishing close vectors is what random batches hardly teach."
        },
    )
    pool_size: int = field(
        default=8192, metadata={"help": "Rows among which the neighbours are looked for; held in memory."}
    )
    batch_size: int = field(default=512, metadata={"help": "Rows per step, neighbours included."})
    steps: int = field(default=400, metadata={"help": "Optimisation steps."})
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Peak rate; for a rotation the root mean square angle per step between two axes, in radians. "
            "Default: 0.005 for orthogonal, 0.003 for linear, 0.001 for mlp."
        },
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = field(
        default="cosine", metadata={"help": "Course of the learning rate after the warm-up."}
    )
    warmup_ratio: float = field(
        default=0.1, metadata={"help": "Share of the steps in which the rate rises to its peak."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of batches and initial weights; the same seed, the same map."})

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, allowed in (
            ("kind", ("orthogonal", "linear", "mlp")),
            ("bits", (None, *CODED_BITS)),
            ("cv_mode", ("diagonal", "eigen")),
            ("init", ("pca", "identity")),
            ("lr_scheduler_type", ("cosine", "linear", "constant_with_warmup")),
        ):
            check_choice(name, getattr(self, name), allowed)
        for name, value in (("temperature", self.temperature), ("t", self.t), ("learning_rate", self.peak_rate())):
            check_number(name, value, positive=True)
        for name in ("distill_weight", "scr_weight", "tau", "var_weight"):
            check_number(name, getattr(self, name))
        check_number("sir_weight", self.isotropy())
        if not (self.distill_weight or self.isotropy() or self.scr_weight):
            raise ValueError(
                "distill_weight, sir_weight and scr_weight are all 0: nothing is optimised (give one of them)"
            )
        for name, least in (("steps", 1), ("hidden_dim", 1), ("neighbours", 0), ("seed", 0)):
            check_at_least(name, getattr(self, name), least)
        if self.bits is not None and not self.distill_weight:
            raise ValueError(
                f"bits={self.bits}: only distillation sees the code (leave bits out, or give distill_weight)"
            )
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio}: must lie in [0, 1)")
        # Distillation compares a row with at least two others (and their neighbours), see similarity_distillation_loss.
        check_at_least(f"neighbours={self.neighbours}, batch_size", self.batch_size, 3 * (self.neighbours + 1))
        if self.neighbours:
            check_at_least("pool_size", self.pool_size, self.batch_size)
        check_distinct("dims", self.dims)

    def isotropy(self) -> float:
        """The weight of SIR, or its default for such a code."""
        if self.sir_weight is not None:
            return self.sir_weight
        return 0.0 if self.bits is None else 1.0

    def peak_rate(self) -> float:
        """The learning rate, or the default of the kind of map."""
        if self.learning_rate is not None:
            return self.learning_rate
        return {"orthogonal": 5e-3, "linear": 3e-3, "mlp": 1e-3}[self.kind]
