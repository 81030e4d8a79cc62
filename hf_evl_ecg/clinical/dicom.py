"""DICOM waveforms → channels of the rhythm: https://dicom.nema.org/medical/dicom/current/output/html/part03.html#sect_C.10.9.

Read with pydicom, as no library chooses between multiplex groups by what the file says of them: the first may hold median beats.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_evl_ecg.signals.ecg import canonical_lead
from hf_evl_ecg.signals.errors import ECGRecordError

from .libraries import library, read_by, refuse
from .recording import Channel, Recording, check_count, combine, read_whole

__all__ = ["read_dicom"]

KIND = "DICOM"
MAX_BYTES = 64 << 20
MAX_CHANNELS = 1024
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # a few bytes of it become gigabytes
_MEDIAN = ("MEDIAN", "REPRESENTATIVE", "AVERAGE")
_TYPES = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "i2", (16, "US"): "u2", (32, "SL"): "i4", (32, "UL"): "u4"}
_LEADS = {1: "I", 2: "II", **{2 + i: f"V{i}" for i in range(1, 7)}, 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
_CODES = re.compile(r"(?:2:|5\.6\.3-9-)(\d+)")  # MDC and SCP-ECG number the leads alike (PS3.16, CID 3001)
_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class _Group:
    """One multiplex group, its samples not yet touched."""

    item: Any
    channels: int
    samples: int
    dtype: np.dtype
    fs_hz: float
    median: bool

    @property
    def duration_s(self) -> float:
        return self.samples / self.fs_hz


def read_dicom(path: Path) -> Recording:
    """Read the rhythm of a DICOM ECG: of several multiplex groups the longest that holds no median beats.

    Raises:
        ECGRecordError: No waveforms, a damaged file, or no 12-lead ECG.
    """
    data = read_whole(path, KIND, MAX_BYTES)
    if _DEFLATED in data[:4096]:
        allowed = "a transfer syntax that is not deflated; export it as Explicit VR Little Endian"
        raise ECGRecordError(path, "transfer syntax", _DEFLATED.decode(), allowed)
    pydicom = library(path, KIND, "pydicom")
    recording, _ = read_by(path, KIND, lambda: _parse(path, pydicom.dcmread(io.BytesIO(data)), pydicom))
    return recording


def _parse(path: Path, dataset: Any, pydicom: Any) -> Recording:
    if not dataset.get("WaveformSequence"):
        stated = str(dataset.get("SOPClassUID") or "")
        name = pydicom.uid.UID_dictionary.get(stated, ("of an unknown kind",))[0]
        allowed = (
            "an ECG waveform; where the ECG is in it as a PDF or picture, export that and give it to the interpreter"
        )
        raise ECGRecordError(path, "DICOM object", name, allowed)
    little = bool(dataset.original_encoding[1])
    groups = [_group(path, item, little) for item in dataset.WaveformSequence]
    rhythm = max((group for group in groups if not group.median), key=lambda group: group.duration_s, default=None)
    if rhythm is None:
        allowed = "a group with the rhythm; export the whole recording"
        raise ECGRecordError(path, "multiplex groups", f"{len(groups)}, of median beats only", allowed)
    others = [group for group in groups if group is not rhythm]
    left_out = ", ".join(
        f"{group.channels} channels of {group.duration_s:.3g} s{' (median beats)' if group.median else ''}"
        for group in others
    )
    notes = (
        f"of {len(groups)} multiplex groups the rhythm of {rhythm.duration_s:.3g} s was read; left out: {left_out}",
    )
    return combine(
        path,
        KIND,
        _channels(path, rhythm),
        age=_age(dataset),
        sex={"M": "male", "F": "female"}.get(str(dataset.get("PatientSex") or "").strip().upper()),
        notes=notes if others else (),
        identity=_identity(dataset),
    )


def _group(path: Path, item: Any, little: bool) -> _Group:
    """Check what a group says of itself against the bytes that it has."""
    channels, samples = int(item.NumberOfWaveformChannels), int(item.NumberOfWaveformSamples)
    bits, code = int(item.WaveformBitsAllocated), str(item.WaveformSampleInterpretation)
    if (bits, code) not in _TYPES:
        allowed = "linear samples of 8, 16 or 32 bits (SB, UB, SS, US, SL, UL)"
        raise ECGRecordError(path, "waveform samples", f"{bits} bits, {code[:2]}", allowed)
    dtype = np.dtype(_TYPES[bits, code]).newbyteorder("<" if little else ">")
    stored = len(item.WaveformData or b"")
    if not 1 <= channels <= MAX_CHANNELS or not samples >= 1 or channels * samples * dtype.itemsize > stored:
        found = f"{channels} x {samples} samples in {stored} bytes"
        raise ECGRecordError(
            path, "multiplex group", found, f"at most {MAX_CHANNELS} channels, all of whose samples are there"
        )
    check_count(path, [channels * samples])
    fs_hz = float(item.SamplingFrequency)
    if not fs_hz > 0:
        raise ECGRecordError(path, "sampling rate", fs_hz, "a positive number of Hz")
    label = str(item.get("MultiplexGroupLabel") or "").upper()
    derived = str(item.get("WaveformOriginality") or "").upper() == "DERIVED"
    median = any(word in label for word in _MEDIAN) or (derived and samples / fs_hz < 2.0)
    return _Group(item, channels, samples, dtype, fs_hz, median)


def _channels(path: Path, group: _Group) -> list[Channel]:
    definitions = list(group.item.get("ChannelDefinitionSequence") or [])
    if len(definitions) != group.channels:
        raise ECGRecordError(path, "channel definitions", len(definitions), f"{group.channels}, one for each channel")
    count = group.channels * group.samples
    numbers = np.frombuffer(group.item.WaveformData, group.dtype, count).reshape(group.samples, group.channels)
    padding = group.item.get("WaveformPaddingValue")
    padding = (
        np.frombuffer(padding, group.dtype, 1)[0]
        if isinstance(padding, bytes) and len(padding) >= group.dtype.itemsize
        else None
    )
    channels = []
    for index, definition in enumerate(definitions):
        name = _lead_name(definition) or f"channel {index + 1}"
        if canonical_lead(name) is None:
            continue
        samples = numbers[:, index].astype(np.float64)
        if padding is not None:
            samples[numbers[:, index] == padding] = np.nan
        skew = round(
            group.fs_hz * float(definition.get("ChannelTimeSkew") or 0)
            + float(definition.get("ChannelSampleSkew") or 0)
        )
        if skew:
            refuse(path, KIND, f"lead {name} skewed by {skew} samples")
        if definition.get("ChannelSensitivity") is None:
            raise ECGRecordError(path, f"sensitivity of lead {name}", "not stated", "a number of units per stored step")
        scale = float(definition.ChannelSensitivity) * _number(definition, "ChannelSensitivityCorrectionFactor", 1.0)
        unit = _code(definition, "ChannelSensitivityUnitsSequence")
        channels.append(Channel(name, samples, unit, group.fs_hz, scale, _number(definition, "ChannelBaseline", 0.0)))
    return channels


def _number(definition: Any, name: str, default: float) -> float:
    value = definition.get(name)
    return default if value is None or value == "" else float(value)


def _code(item: Any, name: str) -> str | None:
    """The value of a coded entry, which for units is UCUM's name (mV, uV)."""
    entries = item.get(name)
    return str(entries[0].get("CodeValue") or entries[0].get("CodeMeaning") or "") or None if entries else None


def _lead_name(definition: Any) -> str:
    """A channel's lead by its code, else by what code or label call it."""
    sources: Sequence[Any] = definition.get("ChannelSourceSequence") or []
    source = sources[0] if sources else {}
    value, meaning = str(source.get("CodeValue") or ""), str(source.get("CodeMeaning") or "")
    if (match := _CODES.fullmatch(value)) and int(match[1]) in _LEADS:
        return _LEADS[int(match[1])]
    spelt = (value, re.split(r"[,(]", meaning)[0].strip(), str(definition.get("ChannelLabel") or ""))
    return next((name for name in spelt if canonical_lead(name)), "")


def _age(dataset: Any) -> float | None:
    """The stated age, else the years from birth to the recording."""
    if match := _AGE.fullmatch(str(dataset.get("PatientAge") or "").strip().upper()):
        return round(int(match[1]) * _YEARS[match[2]], 2)
    born = str(dataset.get("PatientBirthDate") or "")
    taken = str(dataset.get("AcquisitionDateTime") or dataset.get("AcquisitionDate") or dataset.get("StudyDate") or "")[
        :8
    ]
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", taken)):
        return None
    years = int(taken[:4]) - int(born[:4]) - (taken[4:] < born[4:])
    return float(years) if years >= 0 else None


def _identity(dataset: Any) -> dict[str, str]:
    names = {"patient_id": "PatientID", "patient_name": "PatientName", "birth_date": "PatientBirthDate"}
    return {key: str(dataset.get(name)) for key, name in names.items() if dataset.get(name)}
