"""Papers: the colours of an ECG sheet and of the ink on it, by name."""

from __future__ import annotations

from dataclasses import dataclass

from hf_evl_ecg.arguments import plain_fields

__all__ = ["PALETTES", "Palette"]

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours of the paper, the 1 mm and the 5 mm lines, and the ink, as (red, green, blue) from 0 to 255.

    Raises:
        ValueError: A colour that is not three whole numbers from 0 to 255.

    Example:
        >>> Palette((255, 255, 255), (230, 230, 230), (180, 180, 180), (0, 0, 0)).ink
        (0, 0, 0)
    """

    paper: Colour
    thin: Colour
    thick: Colour
    ink: Colour

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("paper", "thin", "thick", "ink"):
            colour = tuple(getattr(self, name))
            if len(colour) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in colour):
                raise ValueError(f"{name}={colour}: give (red, green, blue) as whole numbers from 0 to 255")
            object.__setattr__(self, name, colour)


PALETTES = {
    "red": Palette((255, 253, 252), (250, 192, 192), (238, 134, 134), (20, 20, 30)),
    "pink": Palette((255, 240, 240), (246, 196, 202), (232, 146, 158), (30, 25, 40)),
    "orange": Palette((255, 252, 246), (252, 206, 164), (240, 150, 92), (25, 25, 25)),
    "green": Palette((250, 255, 250), (176, 222, 184), (104, 178, 122), (20, 25, 20)),
    "blue": Palette((250, 252, 255), (184, 206, 240), (116, 152, 216), (15, 15, 40)),
    "grey": Palette((255, 255, 255), (212, 212, 212), (158, 158, 158), (0, 0, 0)),
}
"""Papers by name; ``"red"`` is the default."""
