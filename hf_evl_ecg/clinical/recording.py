"""Channels of stored numbers, each with its scale, unit and rate → the leads of a recording in mV at one rate."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hf_evl_ecg.signals.ecg import DERIVED_LEADS, FS_RANGE_HZ, STANDARD_LEADS, canonical_lead, derive_limb_leads
from hf_evl_ecg.signals.errors import ECGRecordError
from hf_evl_ecg.signals.units import mv_per_unit

from .content import ARRAYS

__all__ = ["MAX_VALUES", "Channel", "Recording", "check_count", "combine", "read_whole"]

MAX_VALUES = 100_000_000  # samples of all channels; a day of 12 leads at 96 Hz, or 4 hours at 500 Hz


@dataclass(frozen=True)
class Channel:
    """One channel as a file stores it.

    Attributes:
        name: As the file spells it.
        samples: Stored numbers, shape (T,); NaN where one is missing.
        unit: Unit of a voltage; None where the file names none.
        fs_hz: Sampling rate in Hz.
        scale: Units per stored number.
        offset: Units of the stored number 0.
    """

    name: str
    samples: np.ndarray
    unit: str | None
    fs_hz: float
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Recording:
    """What a clinical file holds.

    Attributes:
        kind: Format, one of `READ`.
        millivolts: The 12 standard leads by name, float64, shape (T,), NaN where samples are missing.
        fs_hz: Their sampling rate in Hz.
        derived: Leads that were computed from I and II.
        gains: Stored numbers per mV, of each lead.
        age: In years, as stated.
        sex: "male", "female" or None.
        notes: What a user should know, one sentence each; never about who the patient is.
        start_s: Where in the recording what was read begins, in seconds.
        recorded_s: Length of the whole recording in seconds, where only a part was read.
        identity: Names, numbers and free text of the file; for those only who ask for it.
    """

    kind: str
    millivolts: dict[str, np.ndarray]
    fs_hz: float
    derived: tuple[str, ...]
    gains: frozenset[float]
    age: float | None = None
    sex: str | None = None
    notes: tuple[str, ...] = ()
    start_s: float = 0.0
    recorded_s: float | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def combine(path: Path, kind: str, channels: Iterable[Channel], **facts: Any) -> Recording:
    """Take the standard leads out of channels, in mV, all at the rate of the fastest; III, aVR, aVL, aVF are computed if absent.

    Args:
        path: The file, for messages.
        kind: Its format.
        channels: Its channels; those that are none of the 12 leads are left out.
        facts: Other attributes of the `Recording`.

    Raises:
        ECGRecordError: Leads are missing, twice there, of different length, without a voltage unit, or of a rate out of range.

    Example:
        >>> stored = [Channel(name, np.ones(10), "uV", 500.0, scale=5.0) for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
        >>> found = combine(Path("a.xml"), "GE MUSE XML", stored)
        >>> found.derived, float(found.millivolts["aVR"][0])
        (('III', 'aVR', 'aVL', 'aVF'), -0.005)
    """
    leads: dict[str, Channel] = {}
    names = []
    for channel in channels:
        names.append(channel.name)
        lead = canonical_lead(channel.name)
        if lead is None:
            continue
        if lead in leads:
            raise ECGRecordError(path, "leads", f"{leads[lead].name}, {channel.name}", f"lead {lead} once")
        _check_channel(path, lead, channel)
        leads[lead] = channel
    missing = [name for name in STANDARD_LEADS if name not in leads and name not in DERIVED_LEADS]
    if missing:
        found = _shown(names, leads) if kind not in ARRAYS else ", ".join(names)
        raise ECGRecordError(path, "leads", found, f"the 12 standard leads or I, II, V1-V6; missing: {missing}")
    fs_hz = max(channel.fs_hz for channel in leads.values())
    seconds = {name: len(channel.samples) / channel.fs_hz for name, channel in leads.items()}
    if max(seconds.values()) - min(seconds.values()) > 1.5 / min(channel.fs_hz for channel in leads.values()):
        raise ECGRecordError(
            path, "length of leads", {name: f"{s:.3f} s" for name, s in seconds.items()}, "the same of all"
        )
    millivolts = {name: _millivolts(path, channel, fs_hz) for name, channel in leads.items()}
    length = min(map(len, millivolts.values()))
    millivolts = {name: values[:length] for name, values in millivolts.items()}
    derived = tuple(name for name in DERIVED_LEADS if name not in millivolts)
    if derived:
        millivolts = derive_limb_leads(millivolts["I"], millivolts["II"]) | millivolts
    gains = frozenset(1 / abs(channel.scale * (mv_per_unit(channel.unit or "") or 1.0)) for channel in leads.values())
    return Recording(kind, millivolts, fs_hz, derived, gains, **facts)


def read_whole(path: Path, kind: str, most: int, part: Path | None = None) -> bytes:
    """A file's bytes, its size checked first; of ``part`` in its place, where only that is needed.

    Raises:
        ECGRecordError: It is larger than ``most`` bytes, or cannot be read.
    """
    try:
        file = path if part is None else part
        size = file.stat().st_size
        if size > most:
            allowed = f"at most {most} bytes for {kind}; export a shorter part, or convert it to WFDB"
            raise ECGRecordError(path, "file size", size, allowed)
        return file.read_bytes()
    except OSError as error:
        raise ECGRecordError(path, "file", error.strerror, "a readable file") from error


def check_count(path: Path, counts: Sequence[int]) -> None:
    """Refuse more samples than are read, before room for them is taken."""
    if sum(counts) > MAX_VALUES:
        raise ECGRecordError(
            path, "samples", sum(counts), f"at most {MAX_VALUES} of all channels; export a shorter part"
        )


def _shown(names: list[str], leads: Mapping[str, Channel]) -> str:
    """Names of channels that are leads, and how many others there are: in a damaged file a name may be the patient's."""
    others = len(names) - len(leads)
    return ", ".join(filter(None, [*leads, f"{others} other channels" if others else ""])) or "no channel"


def _check_channel(path: Path, lead: str, channel: Channel) -> None:
    if channel.unit is None or mv_per_unit(channel.unit) is None:
        raise ECGRecordError(path, f"units of lead {lead}", (channel.unit or "not stated")[:12], "mV, uV, nV or V")
    if not (math.isfinite(channel.scale) and channel.scale and math.isfinite(channel.offset)):
        found = f"{channel.scale} (offset {channel.offset})"
        raise ECGRecordError(path, f"scale of lead {lead}", found, "a number other than 0, of units per stored step")
    if not FS_RANGE_HZ[0] <= channel.fs_hz <= FS_RANGE_HZ[1]:
        limits = f"{FS_RANGE_HZ[0]:g} to {FS_RANGE_HZ[1]:g} Hz"
        raise ECGRecordError(path, f"sampling rate of lead {lead}", channel.fs_hz, limits)
    if not len(channel.samples):
        raise ECGRecordError(path, f"samples of lead {lead}", 0, "at least 1")


def _millivolts(path: Path, channel: Channel, fs_hz: float) -> np.ndarray:
    factor = mv_per_unit(channel.unit or "")
    assert factor is not None
    values = (channel.samples.astype(np.float64) * channel.scale + channel.offset) * factor
    if channel.fs_hz == fs_hz:
        return values
    ratio = (Fraction(fs_hz) / Fraction(channel.fs_hz)).limit_denominator(10_000)
    if not math.isclose(float(ratio), fs_hz / channel.fs_hz, rel_tol=1e-6):
        rates = f"{channel.fs_hz:g} and {fs_hz:g} Hz"
        raise ECGRecordError(path, "sampling rates", rates, "rates with a simple ratio")
    # Imported here: it takes longer than all else in this module, and few records hold several rates.
    from scipy.signal import resample_poly

    return resample_poly(values, *ratio.as_integer_ratio(), padtype="line")
