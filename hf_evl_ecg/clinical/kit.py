"""HL7 aECG, GE MUSE, Philips Sierra, SCP-ECG and EDF, parsed by ecgdatakit once their sizes are checked → recordings."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hf_evl_ecg.signals.ecg import canonical_lead
from hf_evl_ecg.signals.errors import ECGRecordError

from .edf import stretch
from .libraries import library, read_by
from .limits import check_edf, check_scp
from .recording import Channel, Recording, check_count, combine, read_whole
from .xml_limits import check_sierra, check_xml

__all__ = ["read_by_kit"]

CALIBRATION_S = 10.7  # of Sierra's 11 s, from here to 10.9 s every lead holds a pulse of 1 mV instead of the heart
_XML_BYTES = 32 << 20
_AGAIN = re.compile(r"(.+)_\d+")  # how the library tells leads of one name apart


class _Format(NamedTuple):
    module: str
    parser: str
    largest: int
    checks: tuple[Callable[[Path, str, bytes], None], ...]


_FORMATS = {
    "HL7 aECG": _Format("hl7_aecg", "HL7aECGParser", _XML_BYTES, (check_xml,)),
    "GE MUSE XML": _Format("ge_muse_xml", "GEMuseXMLParser", _XML_BYTES, (check_xml,)),
    "Philips Sierra XML": _Format("sierra_xml", "SierraXMLParser", 8 << 20, (check_sierra,)),
    "SCP-ECG": _Format("scp_ecg", "SCPECGParser", 2 << 20, (check_scp,)),
    "EDF": _Format("edf", "EDFParser", 256 << 20, (check_edf,)),
}


def read_by_kit(path: Path, kind: str, start_s: float = 0.0, duration_s: float | None = None) -> Recording:
    """Read a file of one of the five kinds that ecgdatakit parses here.

    Args:
        path: The file.
        kind: One of the five.
        start_s: Where what is needed begins; of EDF no more than a second before is read.
        duration_s: How long it is; of EDF no more than a second beyond is read. None: up to the end.

    Raises:
        ECGRecordError: It is larger than any such recording, damaged, or no 12-lead ECG.
    """
    if kind != "EDF":
        return _read(path, path, kind)
    with stretch(path, start_s, duration_s) as part:
        return replace(_read(path, part.path, kind), start_s=part.start_s, recorded_s=part.recorded_s)


def _read(path: Path, part: Path, kind: str) -> Recording:
    """Read a file, or of it the part that is a file of its own."""
    form = _FORMATS[kind]
    data = read_whole(path, kind, form.largest, part)
    for check in form.checks:
        check(path, kind, data)
    parser = getattr(library(path, kind, f"ecgdatakit.parsing.parsers.{form.module}"), form.parser)
    (record, recording), said = read_by(path, kind, lambda: _parse(path, part, kind, parser), data)
    notes = [f"{kind}: {text}" for text in said if not text.startswith("Sampling rate")]  # rounded there, and not here
    if kind == "Philips Sierra XML":
        recording, cut = _without_calibration(recording)
        notes += cut
    return replace(recording, notes=tuple(notes), identity=_identity(record))


def _parse(path: Path, part: Path, kind: str, parser: Any) -> tuple[Any, Recording]:
    record = parser().parse(part)
    if len({lead.annotations.get("start_sample", "1") for lead in record.leads}) > 1:
        raise ECGRecordError(path, "leads", "beginning at different samples", "leads that begin together")
    onsets = record.raw_metadata.get("record_onsets", [])
    step = record.raw_metadata.get("record_duration", 0)
    if any(abs(onset - onsets[0] - i * step) > 1e-3 for i, onset in enumerate(onsets)):
        allowed = "one stretch without gaps; export the stretches one by one (EDF+C)"
        raise ECGRecordError(path, "data records", "with gaps between them (EDF+D)", allowed)
    check_count(path, [len(lead.samples) for lead in record.leads])
    channels = [
        Channel(
            _name(lead.label),
            lead.samples,
            lead.resolution_unit or None,
            _rate(record, lead),
            lead.resolution,
            lead.offset,
        )
        for lead in record.leads
    ]
    patient = record.patient
    age = None if patient.age is None else float(patient.age)
    return record, combine(path, kind, channels, age=age, sex={"M": "male", "F": "female"}.get(patient.sex))


def _name(label: str) -> str:
    match = _AGAIN.fullmatch(label)
    return match[1] if match and canonical_lead(match[1]) else label


def _rate(record: Any, lead: Any) -> float:
    """The rate as the file states it: the library rounds it to whole Hz."""
    stated = record.raw_metadata
    if interval := stated.get("rhythm_sample_interval_us"):
        return 1e6 / interval
    exact = stated.get("exact_sampling_rates", {}).get(lead.label) or stated.get("rhythm_time", {}).get(
        "sampling_rate_exact"
    )
    return float(exact if exact and abs(exact - lead.sampling_rate) > 1e-6 else lead.sampling_rate)


def _without_calibration(recording: Recording) -> tuple[Recording, list[str]]:
    length = len(recording.millivolts["I"])
    if abs(length / recording.fs_hz - 11.0) > 0.05:
        return recording, []
    kept = round(CALIBRATION_S * recording.fs_hz)
    millivolts = {name: values[:kept] for name, values in recording.millivolts.items()}
    note = f"the calibration pulse in the last of its 11 s is cut off; {CALIBRATION_S:g} s are left"
    return replace(recording, millivolts=millivolts), [note]


def _identity(record: Any) -> dict[str, Any]:
    patient, statements = record.patient, [text for text, _ in record.interpretation.statements]
    found = {
        "patient_id": patient.patient_id,
        "patient_name": " ".join(filter(None, (patient.first_name, patient.last_name))),
        "birth_date": patient.birth_date.date().isoformat() if patient.birth_date else "",
        "statements": tuple(statements),  # free text, in which anything may stand
    }
    return {name: value for name, value in found.items() if value}
