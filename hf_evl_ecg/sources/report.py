"""What a loader says of the records it read: how many, what was left out, what looks wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hf_evl_ecg.records.warned import gather_warnings, warning_kind

__all__ = ["LoadReport", "RecordWarnings"]


@dataclass
class LoadReport:
    """What was read, what was left out and why, and what a reader of results must know.

    Attributes:
        source: Name of the dataset.
        n_rows: Records kept.
        skipped: (record, reason) of each record left out.
        notes: Facts about splits, labels or voltages that belong beside any result.
    """

    source: str
    n_rows: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.describe()

    def describe(self, most: int | None = None) -> str:
        """The report as text; of more than ``most`` skipped records the first ``most`` are named."""
        lines = [f"{self.source}: {self.n_rows} records, {len(self.skipped)} skipped", *self.notes]
        lines += [f"skipped {record}: {reason}" for record, reason in self.skipped[:most]]
        left = len(self.skipped[:most]) - len(self.skipped)
        return "\n  ".join(lines + ([f"skipped {-left} more"] if left else []))


class RecordWarnings:
    """Counts records by what was warned of.

    Example:
        >>> warned = RecordWarnings()
        >>> for name in ("a", "b"):
        ...     warned.add(name, f"{name}.hea: the tallest waves are 43 mV")
        >>> warned.notes(3)
        ['2 of 3 records, such as a: the tallest waves are 43 mV']
    """

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, str]]] = {}

    @contextmanager
    def of(self, record: str) -> Iterator[None]:
        """Take what is warned of while a record is checked or read."""
        with gather_warnings() as texts:
            yield
        for text in texts:
            self.add(record, text)

    def add(self, record: str, text: str) -> None:
        """Take a text that begins with the record's file."""
        self._found.setdefault(warning_kind(text), []).append((record, text.partition(": ")[2]))

    def notes(self, total: int, which: str = "") -> list[str]:
        """A line for each kind: of how many records, and what was said of the first one."""
        return [
            f"{len(found)} of {total} records{which}, such as {found[0][0]}: {found[0][1]}"
            for found in self._found.values()
        ]
