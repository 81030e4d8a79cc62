"""LUDB (Kalyakulina et al., IEEE Access 8:186181, 2020; doi 10.13026/eegm-h675): diagnoses and cardiologists' delineations.

One record per subject, so a split by record is a split by patient. The headers' gains scale every lead to a range of 1 mV;
the stored unit is 1 µV (III = II − I holds for it exactly, and the leads' typical sizes agree with other databases), so
records are read with `gain_per_mv=1000`.
"""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.qa.labels import main_axis, main_rhythm
from hf_evl_ecg.records.comments import read_comments
from hf_evl_ecg.records.delineations import measure, read_delineation
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.signals.ecg import STANDARD_LEADS

from .report import LoadReport
from .table import collect_rows, make_row, split_by_group
from .wfdb_records import check_wfdb

__all__ = ["GAIN_PER_MV", "load_ludb"]

GAIN_PER_MV = 1000.0
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


def load_ludb(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    missing: Literal["raise", "interpolate"] = "raise",
) -> tuple[Dataset, LoadReport]:
    """Read LUDB into rows: diagnoses as labels, rhythm, axis, and heart rate, PR, QRS and QT from the delineations.

    Args:
        root: Folder with `data/<n>.hea`, or that folder itself.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`; a damaged annotation file makes a record bad.
        check: As in `check_wfdb`.
        missing: What is done with missing samples, as `nan` of `read_record`; kept in the rows.

    Raises:
        ValueError: No record is there.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    root = Path(root).resolve()
    folder = root / "data" if (root / "data").is_dir() else root
    names = sorted((path.stem for path in folder.glob("*.hea")), key=lambda name: (len(name), name))
    if not names:
        raise ValueError(f"{folder}: no .hea file in it (give LUDB's folder)")
    splits = split_by_group(names, fractions=fractions, seed=seed)
    records = [str((folder / name).relative_to(root)) for name in names]
    makers = [
        (record, partial(_row, root, record, name, split, check, missing))
        for record, name, split in zip(records, names, splits, strict=True)
    ]
    return collect_rows(makers, "ludb", on_bad=on_bad, notes=NOTES, check=check)


def _row(
    root: Path,
    record: str,
    name: str,
    split: str,
    check: Literal["header", "signal", "none"],
    missing: Literal["raise", "interpolate"],
) -> dict[str, Any]:
    header = check_wfdb(record, root, check, GAIN_PER_MV, missing)
    notes = read_comments(header.comments)
    # In some headers the record line is repeated at the end of the last statement.
    statements = [re.sub(r"\s+\d+ 12 500 5000$", "", text) for text in notes.diagnoses]
    labels = list(
        dict.fromkeys(
            label for text in statements for pattern, label in LABEL_PATTERNS if re.search(pattern, text.lower())
        )
    )
    waves = {}
    for lead in STANDARD_LEADS:
        path = resolve_inside(f"{record}.{lead.lower()}", root)
        if path.is_file():
            waves[lead] = read_delineation(path)
    measured = measure(waves, header.fs_hz)
    if "AF" in labels or "AFLT" in labels:  # what was marked as P is a flutter or fibrillation wave
        measured["pr_interval"] = None
    return make_row(
        record,
        "ludb",
        root,
        split,
        gain_per_mv=GAIN_PER_MV,
        missing=missing,
        duration_s=header.duration_s,
        patient=f"ludb-{name}",
        labels=labels,
        known_labels=list(KNOWN_LABELS),
        rhythm=main_rhythm(labels),
        axis=main_axis(labels),
        diagnoses=statements,
        report=" ".join(statements) or None,
        age=notes.age,
        sex=notes.sex,
        **measured,
    )
