"""Layouts of a 12-lead ECG as data: which leads stand in which row, and for how long each is shown."""

from __future__ import annotations

from dataclasses import dataclass

from hf_evl_ecg.signals.ecg import STANDARD_LEADS

__all__ = ["LAYOUTS", "Layout"]

LONGEST_S = 86_400.0  # a day; far beyond, the scale of a page is no number any more


@dataclass(frozen=True)
class Layout:
    """Which leads stand where: rows of leads that share the record's time equally.

    A row of four leads over 10 s shows each for 2.5 s, one after the other, as an ECG cart prints them; a row of one lead
    is a rhythm strip.

    Args:
        name: Name of the layout.
        rows: For each row from the top, its leads from the left.
        duration_s: Time each row covers (s).

    Raises:
        ValueError: No rows, an empty row, an unknown lead, or a duration that is not positive, or longer than a day.

    Example:
        >>> Layout("limb", (("I", "II"),), 5.0).strip_duration_s(0)
        2.5
    """

    name: str
    rows: tuple[tuple[str, ...], ...]
    duration_s: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        object.__setattr__(self, "duration_s", float(self.duration_s))
        if not self.rows or not all(self.rows):
            raise ValueError(
                f"layout {self.name!r}: rows={self.rows!r}: at least one row is needed, and one lead in each"
            )
        unknown = [lead for row in self.rows for lead in row if lead not in STANDARD_LEADS]
        if unknown:
            raise ValueError(f"layout {self.name!r}: leads={unknown}: allowed are {list(STANDARD_LEADS)}")
        if not 0 < self.duration_s <= LONGEST_S:
            raise ValueError(
                f"layout {self.name!r}: duration_s={self.duration_s}: a positive number of seconds is needed, at most {LONGEST_S:g}"
            )

    def strip_duration_s(self, row: int) -> float:
        """Seconds for which each lead of a row is shown."""
        return self.duration_s / len(self.rows[row])

    def blank_leads(self, duration_s: float) -> tuple[str, ...]:
        """Leads of which nothing is shown of a recording of this length (s), because their place begins after its end.

        Example:
            >>> LAYOUTS["3x4+rhythm"].blank_leads(6.0)
            ('V4', 'V5', 'V6')
        """
        begins = [(lead, i * self.strip_duration_s(n)) for n, row in enumerate(self.rows) for i, lead in enumerate(row)]
        blank = {lead for lead, _ in begins} - {lead for lead, start_s in begins if start_s < duration_s}
        return tuple(lead for lead in STANDARD_LEADS if lead in blank)


_THREE_BY_FOUR = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("3x4+rhythm", (*_THREE_BY_FOUR, ("II",))),
        Layout("3x4", _THREE_BY_FOUR),
        Layout("6x2", tuple(zip(STANDARD_LEADS[:6], STANDARD_LEADS[6:], strict=True))),
        Layout("12x1", tuple((lead,) for lead in STANDARD_LEADS)),
    )
}
"""The four common layouts by name; ``"3x4+rhythm"`` is the default everywhere."""
