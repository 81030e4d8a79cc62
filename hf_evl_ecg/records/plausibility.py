"""Is a recording's voltage scale believable? Warnings that name the likely cause when it is not."""

import warnings
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from hf_evl_ecg.signals.ecg import ECG, einthoven_error_mv
from hf_evl_ecg.signals.gaps import value_ranges

from .header import ECGRecordError, ECGRecordWarning, Header, SignalLine
from .samples import DEFAULT_GAIN

__all__ = ["ImplausibleAmplitudeWarning", "amplitude_mv", "refuse_flat", "warn_about_scale", "warn_about_voltages"]

PLAUSIBLE_AMPLITUDE_MV = (
    0.5,
    8.0,
)  # 268 real records of LUDB, the 2021 Challenge, PTB and PTB-XL lie within 1.2 to 7.2
USUAL_GAINS = (1000.0, 200.0, 4880.0, 2000.0)  # units per mV that devices and databases use; 200 is the default of WFDB
LIMB_ERROR_MV, LIMB_ERROR_SHARE = 0.1, 0.05  # filters of the leads that differ slightly
ROUNDING_STEPS = 2  # by which three rounded leads can miss Einthoven's law, in stored units


class ImplausibleAmplitudeWarning(ECGRecordWarning):
    """Voltages that no heart produces: most likely a wrong gain in the header."""


def refuse_flat(ecg: ECG, record: str) -> ECG:
    """The ECG, unless none of its leads moves: nothing was recorded, whatever its label says.

    Raises:
        ECGRecordError: All leads are flat.

    Example:
        >>> refuse_flat(ECG(np.zeros((5000, 12), np.float32), fs_hz=500), "zeros")
        Traceback (most recent call last):
        hf_evl_ecg.signals.errors.ECGRecordError: zeros: signal is 'flat in every lead'; allowed: a lead that moves
    """
    if len(ecg.flat_leads) == len(ecg.leads):
        raise ECGRecordError(record, "signal", "flat in every lead", "a lead that moves")
    return ecg


def amplitude_mv(signal_mv: np.ndarray, fs_hz: float) -> float:
    """Return the height of the tallest lead's waves in mV: the median over 2 s windows of its peak-to-peak range.

    Every window of 2 s holds a beat at 30/min or more; the median ignores baseline steps and short artefacts.

    Args:
        signal_mv: Shape (T, leads), in mV; missing samples (NaN) are left out.
        fs_hz: Sampling rate in Hz.

    Example:
        >>> wave = np.tile([0.0, 0.0, 1.5, 0.0], 250)[:, None]
        >>> amplitude_mv(wave, 100.0)
        1.5
    """
    if np.isnan(signal_mv).any():
        kept = (column[~np.isnan(column), None] for column in signal_mv.T)
        return max((amplitude_mv(values, fs_hz) for values in kept if len(values)), default=0.0)
    window = max(1, min(len(signal_mv), round(2 * fs_hz)))
    count = len(signal_mv) // window
    windows = np.ascontiguousarray(signal_mv[: count * window].T).reshape(-1, count, window)  # quick along neighbours
    return float(np.median(np.ptp(windows, axis=2), axis=1).max())


def warn_about_scale(
    ecg: ECG,
    header: Header,
    gain_per_mv: float | None = None,
    parts: Sequence[tuple[slice, Mapping[str, SignalLine]]] | None = None,
) -> None:
    """Warn about voltages that are guessed, scaled lead by lead, contradict each other, or are beyond what hearts produce.

    Args:
        ecg: The recording as read.
        header: Its header.
        gain_per_mv: The gain that replaced the header's, if any.
        parts: Of each segment its samples and the signal lines of its leads, whose headers are not the record's; None for a plain record.
    """
    if parts is None:
        parts = [(slice(None), {line.lead: line for line in header.signals if line.lead})]
    scaled = False
    if gain_per_mv is None:
        silent = list(dict.fromkeys(line.name for _, lines in parts for line in lines.values() if line.gain is None))
        if silent:
            text = f"{header.path}: no gain for {silent}; WFDB's default of 200 per mV was used, voltages may be wrong"
            warnings.warn(text, ECGRecordWarning, stacklevel=3)
        if scaled := any(_scaled_lead_by_lead(ecg, part, lines) for part, lines in parts):
            text = (
                f"{header.path}: III = II - I holds for the stored numbers and not for the voltages, so the header's gains "
                "scale each lead by itself and the leads cannot be compared; if the stored unit is 1 uV, as in LUDB, read "
                "with gain_per_mv=1000 (--gain_per_mv 1000 of prepare and interpret)"
            )
            warnings.warn(text, ECGRecordWarning, stacklevel=3)
    gains = {gain_per_mv} if gain_per_mv else {_gain_per_mv(line) for _, lines in parts for line in lines.values()}
    if not scaled:
        _warn_about_limb_leads(ecg, header.path, min(gains))
    _warn_about_amplitude(ecg, header.path, gains)


def warn_about_voltages(ecg: ECG, path: Path, gains: Set[float]) -> None:
    """Warn about voltages that contradict each other or are beyond what hearts produce, in a file that states its scale.

    Args:
        ecg: The recording as read.
        path: Its file.
        gains: Stored numbers per mV, of all leads.
    """
    _warn_about_limb_leads(ecg, path, min(gains), stacklevel=5)
    _warn_about_amplitude(ecg, path, gains, stacklevel=5)


def _gain_per_mv(line: SignalLine) -> float:
    return (line.gain or DEFAULT_GAIN) / (line.mv_per_unit or 1.0)


def _warn_about_amplitude(ecg: ECG, path: Path, gains: Set[float], stacklevel: int = 4) -> None:
    low, high = PLAUSIBLE_AMPLITUDE_MV
    amplitude = amplitude_mv(ecg.signal_mv, ecg.fs_hz)
    if low <= amplitude <= high or amplitude == 0:
        return
    cause = "the gain or the units in the header are wrong"
    if len(gains) == 1:
        (gain,) = gains
        better = [g for g in USUAL_GAINS if low <= amplitude * gain / g <= high]
        if better:
            corrected = amplitude * gain / better[0]
            cause = f"the gain of {gain:g} per mV is wrong (with {better[0]:g} it would be {corrected:.2g} mV)"
    tallest = f"the tallest waves are {amplitude:.2g} mV, hearts produce {low:g} to {high:g} mV"
    warnings.warn(f"{path}: {tallest}; most likely {cause}", ImplausibleAmplitudeWarning, stacklevel=stacklevel)


def _warn_about_limb_leads(ecg: ECG, path: Path, lowest_gain: float, stacklevel: int = 4) -> None:
    """Warn if III, aVR, aVL or aVF are not what I and II imply, beyond rounding; filled gaps are no reason to."""
    error = einthoven_error_mv(ecg)
    limb = np.stack([ecg.lead(name) for name in ("I", "II", "III")], axis=1)
    size = float(np.fmax.reduce(value_ranges(limb)))
    allowed = max(LIMB_ERROR_MV, LIMB_ERROR_SHARE * size, ROUNDING_STEPS / lowest_gain)
    if error > allowed and "interpolated_samples" not in ecg.metadata:
        text = (
            f"{path}: III, aVR, aVL and aVF deviate by up to {error:.2g} mV from what I and II imply; most likely limb "
            "leads are swapped, wrongly named or processed one by one"
        )
        warnings.warn(text, ECGRecordWarning, stacklevel=stacklevel)


def _scaled_lead_by_lead(ecg: ECG, part: slice, lines: Mapping[str, SignalLine]) -> bool:
    """Tell whether Einthoven's law holds for a part's stored numbers of I, II, III within rounding, and not for their mV."""
    limb = [lines[name] for name in ("I", "II", "III") if name in lines]
    gains = [_gain_per_mv(line) for line in limb if line.gain is not None]
    if len(gains) < 3 or len(set(gains)) == 1:
        return False
    millivolts = np.stack([ecg.lead(name)[part] for name in ("I", "II", "III")]).astype(np.float64)
    millivolts = millivolts[:, ~np.isnan(millivolts).any(axis=0)]
    if not np.ptp(millivolts, axis=1).all() if millivolts.size else True:
        return False  # nothing read of it, or flat leads, whose gains cannot be compared
    stored = millivolts * np.array(gains)[:, None] + np.array([line.baseline for line in limb])[:, None]
    errors = [float(np.abs(x[2] - (x[1] - x[0])).max() / np.ptp(x)) for x in (stored, millivolts)]
    return errors[0] < 0.005 and errors[1] > 0.05  # rounding of stored numbers; more than filters make of true voltages
