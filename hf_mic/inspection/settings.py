"""Settings of an inspection."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_mic.evaluation.precision import PRECISIONS, check_precisions
from hf_mic.files import plain_fields
from hf_mic.options import check_at_least, check_distinct

__all__ = ["InspectionError", "InspectionSettings", "default_dims"]


class InspectionError(ValueError):
    """What was given cannot be inspected; the message says why and what to do."""


@dataclass(frozen=True)
class InspectionSettings:
    """How to inspect.

    Raises:
        ValueError: If a value is out of range, or both prompts are given.
    """

    dims: list[int] | None = field(
        default=None,
        metadata={"help": "Prefix lengths. Default: powers of two from 8, the width, and the model's truncate_dim."},
    )
    precisions: list[str] = field(
        default_factory=lambda: list(PRECISIONS),
        metadata={"help": f"How stored vectors are coded: any of {', '.join(PRECISIONS)}."},
    )
    prompt_name: str | None = field(
        default=None,
        metadata={"help": "Stored prompt to use instead of the model's default; not for queries of retrieval tasks."},
    )
    prompt: str | None = field(
        default=None, metadata={"help": "Text to put before every text, instead of a stored prompt."}
    )
    max_texts: int = field(
        default=4000, metadata={"help": "Measure a random sample if there are more texts or vectors."}
    )
    k: int = field(default=10, metadata={"help": "Neighbours per text."})
    max_queries: int = field(
        default=1000, metadata={"help": "Texts or vectors whose neighbours are compared; all are candidates."}
    )
    batch_size: int = field(default=64, metadata={"help": "Texts per forward pass."})
    n_bootstrap: int = field(
        default=500, metadata={"help": "Resamples for the 95 %% intervals of the scores; 0 for none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of samples and resamples."})

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least in (("k", 1), ("max_queries", 1), ("batch_size", 1), ("n_bootstrap", 0), ("seed", 0)):
            check_at_least(name, getattr(self, name), least)
        check_at_least("max_texts", self.max_texts, 2 * self.k + 1)  # a text, its k neighbours, and as many others
        check_precisions(self.precisions)
        if self.dims is not None:
            check_distinct("dims", self.dims)
        if self.prompt is not None and self.prompt_name is not None:
            raise InspectionError("prompt replaces prompt_name: give one of them.")

    def dims_for(self, width: int, truncate_dim: int | None = None) -> list[int]:
        """Prefix lengths for a model of this width, ascending, the full width always among them.

        Raises:
            InspectionError: If one exceeds the width.
        """
        dims = self.dims or default_dims(width, truncate_dim)
        if max(dims) > width:
            raise InspectionError(f"dims={dims}: must be at most {width}, the width of the embeddings")
        return sorted({*dims, width})


def default_dims(width: int, truncate_dim: int | None = None) -> list[int]:
    """Powers of two from 8 to below the width, the width, and the dimension that the model truncates to.

    Example:
        >>> default_dims(96, truncate_dim=48)
        [8, 16, 32, 48, 64, 96]
    """
    powers = {2**power for power in range(3, width.bit_length()) if 2**power < width}
    return sorted(powers | {width} | {min(truncate_dim or width, width)})
