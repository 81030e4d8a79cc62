"""The 12-lead ECG as data: leads in a fixed order, millivolts, seconds; resampling, cropping, derived limb leads.

Everything here is a pure function of arrays: no files, no drawing. Units: signal in mV, sampling rate in Hz, time in s.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from hf_evl_ecg.arguments import check_between

from .gaps import fill_gaps, value_ranges

__all__ = [
    "DERIVED_LEADS",
    "ECG",
    "FS_RANGE_HZ",
    "INDEPENDENT_LEADS",
    "STANDARD_LEADS",
    "canonical_lead",
    "canonical_leads",
    "crop",
    "derive_limb_leads",
    "einthoven_error_mv",
    "resample",
]

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DERIVED_LEADS = ("III", "aVR", "aVL", "aVF")
FS_RANGE_HZ = (25.0, 20_000.0)  # below, a QRS complex falls between two samples; above, no recorder works
FLAT_RANGE_MV = 0.001  # a step of most converters

_PREFIX = re.compile(r"^(MDC)?(ECG)?(LEAD)?")
_SPELLINGS = {
    **{lead.upper(): lead for lead in STANDARD_LEADS},
    **{f"D{roman}": roman for roman in ("I", "II", "III")},
    **{f"{prefix}{i}": roman for prefix in ("", "D") for i, roman in enumerate(("I", "II", "III"), 1)},
    **{f"C{i}": f"V{i}" for i in range(1, 7)},
}


def canonical_lead(name: str) -> str | None:
    """Return the standard spelling of a lead's name, or None when it is not one of the 12 standard leads.

    Case, spaces, underscores and hyphens inside the name, and the prefixes `ECG`, `lead` and `MDC_ECG_LEAD_` are ignored;
    `DI`/`D1`/`1` mean I, and IEC's `C1` to `C6` mean V1 to V6. A leading minus (Cabrera's −aVR is another signal) and
    modified leads (`MLII`) are not standard leads.

    Example:
        >>> [canonical_lead(name) for name in ("i", "AVR", "MDC_ECG_LEAD_V3", "DII", "MLII")]
        ['I', 'aVR', 'V3', 'II', None]
    """
    name = name.strip()
    if name.startswith(("-", "−")):
        return None
    return _SPELLINGS.get(_PREFIX.sub("", re.sub(r"[\s_.-]", "", name).upper()))


def canonical_leads(names: Sequence[str]) -> tuple[str, ...]:
    """Check that the names are the 12 standard leads, each once, and return their standard spelling in the given order.

    Raises:
        ValueError: A name is unknown, given twice or missing; the message lists them.

    Example:
        >>> canonical_leads([name.lower() for name in STANDARD_LEADS])[3:6]
        ('aVR', 'aVL', 'aVF')
    """
    leads = [canonical_lead(name) for name in names]
    unknown = [name for name, lead in zip(names, leads, strict=True) if lead is None]
    if unknown:
        raise ValueError(f"unknown leads {unknown}: allowed are {list(STANDARD_LEADS)}")
    known = [lead for lead in leads if lead is not None]
    repeated = sorted({lead for lead in known if known.count(lead) > 1})
    missing = [lead for lead in STANDARD_LEADS if lead not in known]
    if repeated or missing:
        raise ValueError(
            f"leads: the 12 standard leads are needed, each once (missing: {missing}, given twice: {repeated})"
        )
    return tuple(known)


@dataclass(frozen=True, eq=False)
class ECG:
    """One 12-lead recording.

    Attributes:
        signal_mv: Shape (T, 12), float32, millivolts, every value finite (see `allow_missing`); made read-only.
        fs_hz: Sampling rate in Hz, within `FS_RANGE_HZ`.
        leads: The 12 standard leads, naming the columns of `signal_mv`; `STANDARD_LEADS` order unless asked otherwise.
        record_name: The record's name, for messages and headers.
        comments: Comment lines as they stand in the record, without the leading `#`.
        diagnoses: Diagnostic statements or codes found in the comments, in their order.
        metadata: Anything else worth keeping: age, sex, source, derived leads, how the voltage scale was found.
        allow_missing: NaN means that nothing was recorded then, as in digitised paper, whose leads hold 2.5 s each; it stays blank
            where the ECG is drawn. Otherwise NaN is an error.

    Raises:
        ValueError: Wrong shape, no samples, a value that is not finite, a sampling rate out of range, or wrong leads.

    Example:
        >>> ecg = ECG(np.zeros((5000, 12)), fs_hz=500)
        >>> ecg.duration_s, ecg.lead("V1").shape
        (10.0, (5000,))
    """

    signal_mv: np.ndarray
    fs_hz: float
    leads: tuple[str, ...] = STANDARD_LEADS
    record_name: str = ""
    comments: tuple[str, ...] = ()
    diagnoses: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    allow_missing: bool = False

    def __post_init__(self) -> None:
        signal = np.array(self.signal_mv, dtype=np.float32)
        if signal.ndim != 2 or signal.shape[1] != len(STANDARD_LEADS) or not len(signal):
            raise ValueError(f"signal_mv of shape {signal.shape}: (T, 12) is needed with T >= 1, one column per lead")
        fs_hz = float(self.fs_hz)
        _check_rate(fs_hz)
        leads = canonical_leads(self.leads)
        finite = np.isfinite(signal) | (np.isnan(signal) if self.allow_missing else False)
        if not finite.all():
            bad = {lead: int(n) for lead, n in zip(leads, (~finite).sum(0), strict=True) if n}
            raise ValueError(f"signal_mv: not every value is finite, samples per lead: {bad} (fill or drop them first)")
        signal.setflags(write=False)
        object.__setattr__(self, "signal_mv", signal)
        object.__setattr__(self, "fs_hz", fs_hz)
        object.__setattr__(self, "leads", leads)
        object.__setattr__(self, "comments", tuple(self.comments))
        object.__setattr__(self, "diagnoses", tuple(self.diagnoses))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __reduce__(self) -> tuple[type["ECG"], tuple[Any, ...]]:
        """Rebuild through the constructor: a read-only mapping cannot be pickled, and loader workers send ECGs around."""
        return ECG, (
            self.signal_mv, self.fs_hz, self.leads, self.record_name, self.comments, self.diagnoses, dict(self.metadata),
            self.allow_missing,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.signal_mv)

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds."""
        return len(self.signal_mv) / self.fs_hz

    @property
    def recorded_s(self) -> float:
        """Length in seconds of the record that this is the beginning of (`duration_s` of `read_record`), or its own."""
        return float(self.metadata.get("recorded_s", self.duration_s))

    @property
    def flat_leads(self) -> tuple[str, ...]:
        """Leads whose whole range is below 1 µV: an electrode that was off, or a channel that was never recorded."""
        ranges = value_ranges(self.signal_mv)
        return tuple(lead for lead, value in zip(self.leads, ranges, strict=True) if value < FLAT_RANGE_MV)

    def lead(self, name: str) -> np.ndarray:
        """Return one lead in mV, shape (T,), by any spelling of its name.

        Raises:
            ValueError: The name is not one of the 12 standard leads.
        """
        lead = canonical_lead(name)
        if lead is None:
            raise ValueError(f"lead={name!r}: allowed are {list(STANDARD_LEADS)}")
        return self.signal_mv[:, self.leads.index(lead)]

    def reordered(self, leads: Sequence[str]) -> "ECG":
        """Return the same ECG with its columns in another order.

        Raises:
            ValueError: The names are not the 12 standard leads, each once.
        """
        order = canonical_leads(leads)
        return replace(self, signal_mv=self.signal_mv[:, [self.leads.index(lead) for lead in order]], leads=order)


def resample(ecg: ECG, fs_hz: float) -> ECG:
    """Resample with a polyphase anti-aliasing filter; a recording of T samples becomes ceil(T · fs_hz / ecg.fs_hz).

    The ends are extended by each lead's own straight line, so a baseline offset does not ring there.

    Args:
        ecg: The recording.
        fs_hz: The new sampling rate in Hz.

    Raises:
        ValueError: The rate is out of range, or no ratio of integers up to 10,000 comes within 1 ppm of it.

    Example:
        >>> len(resample(ECG(np.ones((5000, 12)), 500), 100))
        1000
    """
    if fs_hz == ecg.fs_hz:
        return ecg
    _check_rate(fs_hz)  # before the filter is built: its length grows with the ratio
    ratio = (Fraction(fs_hz) / Fraction(ecg.fs_hz)).limit_denominator(10_000)
    if not math.isclose(float(ratio), fs_hz / ecg.fs_hz, rel_tol=1e-6):
        raise ValueError(f"fs_hz={fs_hz:g}: it has no simple ratio to {ecg.fs_hz:g} Hz (choose a rounder rate)")
    up, down = ratio.as_integer_ratio()
    # Imported here: it takes longer than all else in this module, and most records keep their rate.
    from scipy.signal import resample_poly

    # float64, as the filter adds up in the precision that it is given
    signal = resample_poly(fill_gaps(ecg.signal_mv.astype(np.float64)), up, down, axis=0, padtype="line")
    if ecg.allow_missing:  # a filter would spread NaN over its whole length
        nearest = np.rint(np.arange(len(signal)) * down / up).astype(np.intp).clip(max=len(ecg) - 1)
        signal[np.isnan(ecg.signal_mv)[nearest]] = np.nan
    return replace(ecg, signal_mv=signal, fs_hz=fs_hz)


def _check_rate(fs_hz: float) -> None:
    check_between("fs_hz", fs_hz, *FS_RANGE_HZ, "Hz")


def crop(ecg: ECG, start_s: float = 0.0, duration_s: float | None = None) -> ECG:
    """Cut a stretch out of the recording; boundaries are rounded to the nearest sample.

    Args:
        ecg: The recording.
        start_s: Start in seconds.
        duration_s: Length in seconds; None means to the end.

    Raises:
        ValueError: The stretch is empty or reaches outside the recording.

    Example:
        >>> crop(ECG(np.zeros((5000, 12)), 500), start_s=2.5, duration_s=2.5).duration_s
        2.5
    """
    start = round(start_s * ecg.fs_hz)
    stop = len(ecg) if duration_s is None else start + round(duration_s * ecg.fs_hz)
    if not 0 <= start < stop <= len(ecg):
        raise ValueError(
            f"start_s={start_s:g}, duration_s={duration_s}: samples {start} to {stop} do not lie within the recording's "
            f"{len(ecg)} ({ecg.duration_s:g} s)"
        )
    return replace(ecg, signal_mv=ecg.signal_mv[start:stop])


def derive_limb_leads(lead_i_mv: np.ndarray, lead_ii_mv: np.ndarray) -> dict[str, np.ndarray]:
    """Compute III, aVR, aVL and aVF from leads I and II (Einthoven's law and Goldberger's augmented leads).

    III = II − I, aVR = −(I + II)/2, aVL = I − II/2, aVF = II − I/2.

    Args:
        lead_i_mv: Lead I in mV, shape (T,).
        lead_ii_mv: Lead II in mV, shape (T,).

    Returns:
        The four leads in mV, each of shape (T,), by name.

    Example:
        >>> {k: float(v[0]) for k, v in derive_limb_leads(np.array([0.5]), np.array([1.0])).items()}
        {'III': 0.5, 'aVR': -0.75, 'aVL': 0.0, 'aVF': 0.75}
    """
    return {
        "III": lead_ii_mv - lead_i_mv,
        "aVR": -(lead_i_mv + lead_ii_mv) / 2,
        "aVL": lead_i_mv - lead_ii_mv / 2,
        "aVF": lead_ii_mv - lead_i_mv / 2,
    }


def einthoven_error_mv(ecg: ECG) -> float:
    """Return the largest deviation of III, aVR, aVL and aVF from what I and II imply, in mV.

    A few µV are rounding; more means that leads were scaled, filtered or shifted separately, or that electrodes or
    channels were swapped. Times at which one of the leads was not recorded do not count.

    Example:
        >>> einthoven_error_mv(ECG(np.zeros((10, 12)), 500))
        0.0
    """
    implied = derive_limb_leads(ecg.lead("I").astype(np.float64), ecg.lead("II").astype(np.float64))
    errors = [np.fmax.reduce(np.abs(ecg.lead(name) - values)) for name, values in implied.items()]
    return float(np.fmax.reduce(errors, initial=0.0))
