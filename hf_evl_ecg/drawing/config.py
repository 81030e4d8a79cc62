"""How an ECG is drawn, as data: `RenderConfig`, checked when it is made, and what earlier exports stored instead of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hf_evl_ecg.arguments import check_between, check_choice, plain_fields

from .geometry import arrange
from .header_text import header_fields
from .layouts import LAYOUTS, Layout
from .page import Page
from .palettes import PALETTES, Palette

__all__ = ["TRACE_RANGE_MM", "RenderConfig", "read_stored_config"]

_DRAWING_VERSION = (
    1  # raised when the same configuration gives other pixels, so that old caches are not taken for new ones
)
TRACE_RANGE_MM = (0.05, 3.0)  # from the finest pen to one that hides an R wave
_GRIDS = ("full", "thick", "none")
_OVERFLOWS = ("overlap", "clamp")
_MODES = ("RGB", "L")

# Older exports stored the training script's option names; the second set does not affect drawing.
_OPTION_NAMES = {"image_width": "width_px", "image_height": "height_px", "paper": "palette"}
_OPTIONS_OF_TRAINING = {"augment", "image_seed"}


@dataclass(frozen=True)
class RenderConfig:
    """How an ECG is drawn. Hashable, comparable, and convertible to plain data with `to_dict`.

    Args:
        width_px: Image width (px).
        height_px: Image height (px).
        dpi: Resolution of the paper (dots per inch); ``None`` takes the largest at which the layout fits the image.
        layout: A `Layout`, the name of one of `LAYOUTS`, or its fields as a mapping.
        speed_mm_s: Paper speed, 25 or 50 mm/s.
        gain_mm_mv: Gain, 5, 10 or 20 mm/mV.
        palette: A `Palette`, the name of one of `PALETTES`, or its fields as a mapping.
        grid: ``"full"`` (1 and 5 mm lines), ``"thick"`` (5 mm lines) or ``"none"``.
        trace_mm: Width of the trace (mm); never drawn thinner than one pixel.
        calibration: Draw a 1 mV, 200 ms pulse at the start of each row.
        lead_names: Write each lead's name above its start.
        footer: Write speed and gain below the last row, and "simulated" when the record's metadata has ``simulated=True``.
        header: Text above the first row; ``{record_name}``, ``{duration_s}``, ``{fs_hz}`` and any key of the record's metadata
            are replaced, what is not known of the record by "-". At most three lines; empty: none, and no room for them.
        overflow: ``"overlap"`` lets a trace run into its neighbour's row, ``"clamp"`` stops it half-way.
        mode: ``"RGB"`` or ``"L"`` (grey).

    Raises:
        ValueError: A value that is not allowed, or a layout larger than the paper.

    Example:
        >>> RenderConfig(layout="12x1") == RenderConfig.from_dict(RenderConfig(layout="12x1").to_dict())
        True
    """

    width_px: int = 1100
    height_px: int = 850
    dpi: float | None = None
    layout: Layout | str = "3x4+rhythm"
    speed_mm_s: float = 25.0
    gain_mm_mv: float = 10.0
    palette: Palette | str = "red"
    grid: str = "full"
    trace_mm: float = 0.3
    calibration: bool = True
    lead_names: bool = True
    footer: bool = True
    header: str = ""
    overflow: str = "overlap"
    mode: str = "RGB"

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "layout", _named("layout", self.layout, LAYOUTS, Layout))
        object.__setattr__(self, "palette", _named("palette", self.palette, PALETTES, Palette))
        for name in ("speed_mm_s", "gain_mm_mv", "trace_mm"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.dpi is not None:
            object.__setattr__(self, "dpi", float(self.dpi))
        for name, allowed in (("grid", _GRIDS), ("overflow", _OVERFLOWS), ("mode", _MODES)):
            check_choice(name, getattr(self, name), allowed)
        check_between("trace_mm", self.trace_mm, *TRACE_RANGE_MM, "mm")
        if self.header.count("\n") > 2:
            raise ValueError(f"header={self.header!r}: at most three lines are allowed")
        header_fields(self.header)
        self.page()  # a layout larger than the paper is refused here, not at the first record

    def page(self) -> Page:
        """Where everything lies, in pixels."""
        assert isinstance(self.layout, Layout)
        return arrange(
            self.layout,
            width_px=self.width_px,
            height_px=self.height_px,
            dpi=self.dpi,
            speed_mm_s=self.speed_mm_s,
            gain_mm_mv=self.gain_mm_mv,
            calibration=self.calibration,
            header=bool(self.header),
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain numbers, strings, lists and mappings, ready for json or YAML.

        Example:
            >>> RenderConfig(palette="grey").to_dict()["palette"]["ink"]
            [0, 0, 0]
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples become lists, as they would in a file
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RenderConfig:
        """The configuration whose `to_dict` gave these fields; absent ones take their default.

        Raises:
            ValueError: An unknown field, or a value that is not allowed or of another type.

        Example:
            >>> RenderConfig.from_dict({"width_px": 640, "height_px": 480}).height_px
            480
        """
        for name in fields:
            check_choice("field", name, cls.__dataclass_fields__)
        try:
            return cls(**fields)
        except (
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:  # a file may hold null or a list where a number or text belongs
            raise ValueError(f"{dict(fields)}: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 over all fields and the version of the drawing code, as 64 hex digits: equal only for equal pictures."""
        text = json.dumps({"drawing": _DRAWING_VERSION, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_stored_config(stored: Mapping[str, Any]) -> RenderConfig:
    """The configuration that a model's folder or a study's results store: `RenderConfig.to_dict`, or script options of before.

    Args:
        stored: Fields of `RenderConfig`; or ``image_width``, ``image_height``, ``layout``, ``grid``, ``paper``, ``footer`` and
            ``overflow``, with ``augment`` and ``image_seed``, which concern training only and are left out.

    Raises:
        ValueError: An unknown field, or a value that is not allowed.

    Example:
        >>> read_stored_config({"image_width": 640, "image_height": 480, "augment": 0.5}).width_px
        640
    """
    fields = {name: value for name, value in stored.items() if name not in _OPTIONS_OF_TRAINING}
    return RenderConfig.from_dict({_OPTION_NAMES.get(name, name): value for name, value in fields.items()})


def _named(what: str, value: Any, known: Mapping[str, Any], kind: type) -> Any:
    """A `Layout` or `Palette` from itself, its name, or its fields."""
    if isinstance(value, str):
        value = known.get(value, value)
    if isinstance(value, Mapping):
        try:
            return kind(**value)
        except TypeError as error:
            raise ValueError(f"{what}={dict(value)!r}: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{what}={value!r}: allowed are {sorted(known)}, or a {kind.__name__}")
    return value
