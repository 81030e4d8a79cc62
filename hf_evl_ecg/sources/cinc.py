"""PhysioNet/CinC Challenge 2020 and 2021 folders (Perez Alday et al. 2020, Reyna et al. 2021; doi 10.13026/34va-7q14).

Records are `.mat` + `.hea` with SNOMED CT codes in the `#Dx:` comment. The headers name no patient and there is no public
test set, so records are split one by one. Sources are recognised by the names of records and of folders in any spelling.
"""

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.qa.labels import CPSC_CLASSES, main_axis, main_rhythm
from hf_evl_ecg.records.comments import read_comments

from .cinc_sources import PTBXL, Recognised, SourceCount, known_labels, recognise, same_source
from .csv_fields import read_table
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group
from .wfdb_records import check_wfdb, recording_keys

__all__ = ["SNOMED_LABELS", "cpsc_labels", "load_cinc", "read_dx_mapping"]

SINUS_RHYTHM = "426783006"
# Codes that mean the same finding share a label, as bundle branch blocks and premature beats do in the Challenge's own scoring.
SNOMED_LABELS = {
    **{"164889003": "AF", "270492004": "I-AVB", "195042002": "II-AVB", "27885002": "III-AVB"},
    **{"164909002": "LBBB", "733534002": "LBBB", "59118001": "RBBB", "713427006": "RBBB", "251120003": "ILBBB"},
    **{"713426002": "IRBBB", "445118002": "LAFB", "445211001": "LPFB", "698252002": "IVCD", "74390002": "WPW"},
    **{
        "195060002": "WPW",
        "284470004": "PAC",
        "63593006": "PAC",
        "427172004": "PVC",
        "164884008": "PVC",
        "17338001": "PVC",
    },
    **{
        "429622005": "STD",
        "164931005": "STE",
        "164934002": "TAB",
        "59931005": "TINV",
        "164873001": "LVH",
        "89792004": "RVH",
    },
    **{"67741000119109": "LAE", "446813000": "LAE", "446358003": "RAE", "251146004": "LVOLT", "111975006": "LQT"},
    **{SINUS_RHYTHM: "SR", "426177001": "SBRAD", "427084000": "STACH", "427393009": "SARRH", "164890007": "AFLT"},
    **{"426761007": "SVTAC", "10370003": "PACE", "39732003": "LAD", "47665007": "RAD", "164865005": "MI"},
}
NOTES = (
    "no patients in the headers and no public test set: split by record, so a patient may be in two splits",
    "NORM means that sinus rhythm is the only code; it is the class 'normal' of CPSC-2018 and an approximation elsewhere",
)


def load_cinc(
    root: str | os.PathLike[str],
    *,
    sources: Sequence[str] | None = None,
    dx_mapping: str | os.PathLike[str] | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    missing: Literal["raise", "interpolate"] = "raise",
) -> tuple[Dataset, LoadReport]:
    """Read Challenge folders into rows: labels from SNOMED codes, among them the nine CPSC-2018 classes.

    Args:
        root: Folder that holds one folder per source (`cpsc_2018`, `WFDB_Ga` …), at any depth, or one source; the 2021
            layout with groups `g1`, `g2` … below a source is read too.
        sources: Names of sources to read, in any spelling; None reads all but PTB-XL, whose records stand there under other
            names and belong to its folds.
        dx_mapping: The Challenge's `dx_mapping.csv`; with it `diagnoses` holds names, else SNOMED codes.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: As in `check_wfdb`.
        missing: What is done with missing samples, as `nan` of `read_record`; kept in the rows.

    Returns:
        The rows, and a report that says of each source how it was recognised and what became of its codes. Of records that lie there
        twice, the first is kept.

    Raises:
        ValueError: No record is there, a source is absent, or the mapping lacks a column.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    root = Path(root).resolve()
    names = read_dx_mapping(dx_mapping) if dx_mapping is not None else {}
    found, copies = _find(root)
    present = {where.source for where, _ in found.values()}
    wanted = present - {PTBXL} if sources is None else {same_source(name) for name in sources}
    if not wanted or wanted - present:
        absent = sorted(wanted - present) or "any source but PTB-XL"
        raise ValueError(f"{root}: no records of {absent}, it has {sorted(present)}")
    # Records of one source and name share a split, wherever they lie.
    records = [(record, where, first) for record, (where, first) in found.items() if where.source in wanted]
    splits = split_by_group([first for _, _, first in records], fractions=fractions, seed=seed)
    counts = {source: SourceCount(Counter()) for source in sorted(present)}
    for where, _ in found.values():
        counts[where.source].rules[where.rule] += 1
    makers = [
        (record, partial(_row, root, where.source, record, split, names, check, missing, counts[where.source]))
        for (record, where, _), split in zip(records, splits, strict=True)
    ]
    rows, report = collect_rows(makers, "cinc", on_bad=on_bad, notes=NOTES, check=check)
    report.notes += [f"{source}: {count}" for source, count in counts.items() if source in wanted]
    if PTBXL in wanted:
        report.notes.append(f"{PTBXL}: split at random, not by PTB-XL's folds: never beside PTB-XL itself")
    elif PTBXL in counts:
        left = f"{sum(counts[PTBXL].rules.values())} records left out, as they belong to PTB-XL's folds (give PTB-XL itself)"
        report.notes.append(f"{PTBXL}: {left}; {str(counts[PTBXL]).split(';')[0]}")
    report.skipped += [(record, f"the record {kept} again") for record, kept in copies.items()]
    return rows, report


def _find(root: Path) -> tuple[dict[str, tuple[Recognised, str]], dict[str, str]]:
    """Where each record below `root` comes from and the first record of its source and name; which are others again."""
    found: dict[str, tuple[Recognised, str]] = {}
    copies: dict[str, str] = {}
    headers: dict[Hashable, str] = {}
    named: dict[tuple[str, str], str] = {}
    for path in sorted(root.rglob("*.[hH][eE][aA]")):
        record = str(path.relative_to(root).with_suffix(""))
        where = recognise([root.name, *path.relative_to(root).parts[:-1]], path.stem)
        keys = recording_keys(record, root)
        kept = next((headers[key] for key in keys if key in headers), record)
        headers.update(dict.fromkeys(keys, kept))
        if kept != record:
            copies[record] = kept
        else:
            telling = where.rule in ("record name", "both")
            found[record] = (where, named.setdefault((where.source, path.stem.lower()), record) if telling else record)
    return found, copies


def cpsc_labels(codes: Sequence[str]) -> list[str]:
    """Return the nine CPSC-2018 classes that SNOMED codes amount to, in the order of `CPSC_CLASSES`.

    Example:
        >>> cpsc_labels(["426783006"]), cpsc_labels(["164889003", "59118001"])
        (['NORM'], ['AF', 'RBBB'])
    """
    found = {SNOMED_LABELS[code] for code in codes if code in SNOMED_LABELS}
    if set(codes) == {SINUS_RHYTHM}:
        found.add("NORM")
    return [name for name in CPSC_CLASSES if name in found]


def read_dx_mapping(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the Challenge's table of SNOMED CT codes and names.

    Raises:
        ValueError: The file is missing or lacks a column.
    """
    table = read_table(Path(path), ("dx", "snomed_ct_code"))
    return {entry["snomed_ct_code"].strip(): entry["dx"].strip() for entry in table}


def _row(
    root: Path,
    source: str,
    record: str,
    split: str,
    names: dict[str, str],
    check: Literal["header", "signal", "none"],
    missing: Literal["raise", "interpolate"],
    count: SourceCount,
) -> dict[str, Any]:
    header = check_wfdb(record, root, check, nan=missing)
    notes = read_comments(header.comments)
    codes = notes.diagnoses
    labels = list(
        dict.fromkeys([*cpsc_labels(codes), *(SNOMED_LABELS[code] for code in codes if code in SNOMED_LABELS)])
    )
    known = known_labels(source, labels, codes)
    count.add(codes, SNOMED_LABELS, known)
    return make_row(
        record,
        f"cinc/{source}",
        root,
        split,
        missing=missing,
        duration_s=header.duration_s,
        age=notes.age,
        sex=notes.sex,
        labels=labels,
        known_labels=known,
        rhythm=main_rhythm(labels),
        axis=main_axis(labels),
        diagnoses=[names.get(code, code) for code in codes],
    )
