"""LUDB (Kalyakulina et al., IEEE Access 8:186181, 2020; doi 10.13026/eegm-h675): diagnoses and cardiologists' delineations.

One record per subject, so a split by record is a split by patient. The headers' gains scale every lead to a range of 1 mV;
the stored unit is 1 µV (III = II − I holds for it exactly, and the leads' typical sizes agree with other databases), so
records are read with `gain_per_mv=1000`.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from hf_evl_ecg.qa.labels import AXIS_LABELS, main_rhythm
from hf_evl_ecg.qa.prompts import MEASUREMENTS
from hf_evl_ecg.records.comments import read_diagnoses, read_person
from hf_evl_ecg.records.reader import ECGRecordError, read_header, resolve_inside
from hf_evl_ecg.signals.ecg import STANDARD_LEADS

from .rows import LoadReport, collect_rows, make_row, split_by_group

__all__ = ["GAIN_PER_MV", "Wave", "load_ludb", "measure", "read_delineation"]

GAIN_PER_MV = 1000.0
MAX_ANNOTATION_BYTES = 1 << 20
LABEL_PATTERNS = (
    (r"rhythm: sinus rhythm", "SR"),
    (r"rhythm: sinus bradycardia", "SBRAD"),
    (r"rhythm: sinus tachycardia", "STACH"),
    (r"rhythm: (sinus arrhythmia|irregular sinus)", "SARRH"),
    (r"rhythm: atrial fibrillation", "AF"),
    (r"rhythm: atrial flutter", "AFLT"),
    (r"axis of the heart: (normal|vertical|horizontal)", "AXN"),
    (r"axis of the heart: left", "LAD"),
    (r"axis of the heart: right", "RAD"),
    (r"^(unipolar|bipolar|biventricular).*pacing", "PACE"),
    (r"^i degree av", "I-AVB"),
    (r"^iii degree av", "III-AVB"),
    (r"^complete right bundle", "RBBB"),
    (r"^incomplete right bundle", "IRBBB"),
    (r"^complete left bundle", "LBBB"),
    (r"^incomplete left bundle", "ILBBB"),
    (r"^left anterior hemiblock", "LAFB"),
    (r"^non-specific intravintricular", "IVCD"),
    (r"^atrial extrasystole", "PAC"),
    (r"^ventricular extrasystole", "PVC"),
    (r"^left ventricular hypertrophy", "LVH"),
    (r"^right ventricular hypertrophy", "RVH"),
    (r"^left atrial (hypertrophy|overload)", "LAE"),
    (r"^right atrial (hypertrophy|overload)", "RAE"),
    (r"^stemi", "STE"),
)
KNOWN_LABELS = tuple(dict.fromkeys(label for _, label in LABEL_PATTERNS if label != "STE"))
NOTES = (
    "split by subject (LUDB has no official split and one record per subject)",
    f"voltages: stored unit / {GAIN_PER_MV:g} (1 uV), because the headers' gains scale each lead to a range of 1 mV",
    "intervals: median over leads of each lead's median over beats, from cardiologists' boundaries",
)

# Codes of the MIT annotation format: https://physionet.org/physiotools/wag/annot-5.htm
_SYMBOLS = {1: "N", 24: "p", 27: "t", 39: "(", 40: ")"}
_SKIP, _AUX = 59, 63


@dataclass(frozen=True)
class Wave:
    """One delineated wave in one lead, in samples.

    Attributes:
        kind: "p", "N" (QRS) or "t".
        onset: First sample.
        peak: Sample of the peak.
        offset: Last sample.
    """

    kind: str
    onset: int
    peak: int
    offset: int


def load_ludb(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
) -> tuple[Dataset, LoadReport]:
    """Read LUDB into rows: diagnoses as labels, rhythm, axis, and heart rate, PR, QRS and QT from the delineations.

    Args:
        root: Folder with `data/<n>.hea`, or that folder itself.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`; a damaged annotation file makes a record bad.
        check: As in `collect_rows`.

    Raises:
        ValueError: No record is there.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    root = Path(root).resolve()
    folder = root / "data" if (root / "data").is_dir() else root
    names = sorted((path.stem for path in folder.glob("*.hea")), key=lambda name: (len(name), name))
    if not names:
        raise ValueError(f"{folder} holds no .hea file; give LUDB's folder")
    splits = split_by_group(names, fractions=fractions, seed=seed)
    failed: list[tuple[str, str]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for name, split in zip(names, splits, strict=True):
            record = str((folder / name).relative_to(root))
            try:
                yield _row(root, record, name, split)
            except ECGRecordError as error:
                if on_bad == "raise":
                    raise
                failed.append((record, str(error)))

    dataset, report = collect_rows(rows(), "ludb", on_bad=on_bad, check=check, notes=NOTES)
    report.skipped += failed
    return dataset, report


def read_delineation(path: str | os.PathLike[str]) -> list[Wave]:
    """Read one lead's annotation file (`1.ii` …) into complete waves, in order; incomplete ones are left out.

    Args:
        path: The annotation file.

    Raises:
        ECGRecordError: The file is missing, too large or cut short.
    """
    path = Path(path)
    marks = _read_marks(path)
    waves = []
    for i in range(1, len(marks) - 1):
        (before, onset), (kind, peak), (after, offset) = marks[i - 1 : i + 2]
        if kind in "pNt" and before == "(" and after == ")" and onset <= peak <= offset:
            waves.append(Wave(kind, onset, peak, offset))
    return waves


def measure(waves_by_lead: Mapping[str, Sequence[Wave]], fs_hz: float) -> dict[str, float | None]:
    """Measure heart rate (beats per minute), PR, QRS and QT (ms) from delineated waves.

    Per lead: rate from the mean interval between neighbouring QRS peaks; PR from P onset to QRS onset where nothing lies
    between; QRS from onset to offset; QT from QRS onset to the offset of the T wave before the next QRS; the median over
    beats. Then the median over leads. None where no lead has the waves, or where the value is not plausible.

    Args:
        waves_by_lead: Waves of each lead in order of time.
        fs_hz: Sampling rate in Hz.

    Example:
        >>> qrs = [Wave("N", 100, 120, 140), Wave("N", 600, 620, 640)]
        >>> measure({"II": qrs}, 500.0)["heart_rate"], measure({"II": qrs}, 500.0)["qrs_duration"]
        (60.0, 80.0)
    """
    collected: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    for waves in waves_by_lead.values():
        ms = 1000.0 / fs_hz
        qrs = [wave for wave in waves if wave.kind == "N"]
        pairs = list(pairwise(waves))
        per_lead = {
            "heart_rate": [60.0 * fs_hz * (len(qrs) - 1) / (qrs[-1].peak - qrs[0].peak)] if len(qrs) > 1 else [],
            "pr_interval": [(b.onset - a.onset) * ms for a, b in pairs if (a.kind, b.kind) == ("p", "N")],
            "qrs_duration": [(wave.offset - wave.onset) * ms for wave in qrs],
            "qt_interval": [(b.offset - a.onset) * ms for a, b in pairs if (a.kind, b.kind) == ("N", "t")],
        }
        for name, values in per_lead.items():
            if values:
                collected[name].append(median(values))
    measured: dict[str, float | None] = {}
    for name, values in collected.items():
        low, high = MEASUREMENTS[name].plausible
        value = median(values) if values else None
        measured[name] = value if value is not None and low <= value <= high else None
    return measured


def _row(root: Path, record: str, name: str, split: str) -> dict[str, Any]:
    header = read_header(root / record, root=root)
    statements = [re.sub(r"\s+\d+ 12 500 5000$", "", text) for text in read_diagnoses(header.comments)]
    labels = list(
        dict.fromkeys(
            label for text in statements for pattern, label in LABEL_PATTERNS if re.search(pattern, text.lower())
        )
    )
    axis = [label for label in labels if label in AXIS_LABELS]
    waves = {}
    for lead in STANDARD_LEADS:
        path = resolve_inside(f"{record}.{lead.lower()}", root)
        if path.is_file():
            waves[lead] = read_delineation(path)
    measured = measure(waves, header.fs_hz)
    if "AF" in labels or "AFLT" in labels:
        measured["pr_interval"] = None
    return make_row(
        record,
        "ludb",
        root,
        split,
        gain_per_mv=GAIN_PER_MV,
        patient=f"ludb-{name}",
        labels=labels,
        known_labels=list(KNOWN_LABELS),
        rhythm=main_rhythm(labels),
        axis=axis[0] if len(axis) == 1 else None,
        diagnoses=statements,
        report=" ".join(statements) or None,
        **read_person(header.comments),
        **measured,
    )


def _read_marks(path: Path) -> list[tuple[str, int]]:
    """Read (symbol, sample) of every annotation whose code is in `_SYMBOLS`."""
    try:
        if path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ECGRecordError(path, "annotation size", path.stat().st_size, f"at most {MAX_ANNOTATION_BYTES} bytes")
        words = np.frombuffer(path.read_bytes()[: path.stat().st_size // 2 * 2], dtype="<u2").tolist()
    except OSError as error:
        raise ECGRecordError(path, "annotation file", error.strerror, "an existing, readable file") from error
    marks: list[tuple[str, int]] = []
    time, i = 0, 0
    while i < len(words):
        code, step = words[i] >> 10, words[i] & 0x3FF
        i += 1
        if code == 0 and step == 0:
            return marks
        if code == _SKIP:
            if i + 2 > len(words):
                break
            jump = (words[i] << 16) + words[i + 1]
            time += jump - (1 << 32 if jump >= 1 << 31 else 0)
            i += 2
        elif code == _AUX:
            i += (step + 1) // 2
        elif code < _SKIP:
            time += step
            if code in _SYMBOLS:
                marks.append((_SYMBOLS[code], time))
    raise ECGRecordError(path, "annotations", f"{len(words)} words without an end mark", "a complete annotation file")
