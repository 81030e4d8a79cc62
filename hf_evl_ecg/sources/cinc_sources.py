"""Which source of the PhysioNet/CinC Challenges a record comes from, whatever its folder is called.

The Challenges, their mirrors and people's own copies spell the folders differently; the names of the records stay.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hf_evl_ecg.qa.labels import CPSC_CLASSES, RHYTHM_LABELS

__all__ = ["PTBXL", "Recognised", "SourceCount", "known_labels", "recognise", "same_source"]

PTBXL = "ptb-xl"
# Names of records in each source, as published; PTB-XL's own spelling beside the Challenge's.
RECORD_NAMES = {
    "cpsc_2018": r"a\d{4}",
    "cpsc_2018_extra": r"q\d{4}",
    "st_petersburg_incart": r"i\d{4}",
    "ptb": r"s\d{4}",
    PTBXL: r"hr\d{5}|\d{5}_[hl]r",
    "georgia": r"e\d{5}",
    "chapman_ningbo": r"js\d{5}",
}
# Names of folders in lower case, letters and digits only; the words around them that all may carry are optional.
FOLDER_NAMES = {
    PTBXL: r".*ptbxl.*",
    "cpsc_2018_extra": r"~cpsc(2018)?(extra|unused|2)~|training2",
    # "Training_WFDB" of 2020 was CPSC-2018; "WFDB" alone may hold any source.
    "cpsc_2018": r"~(cpsc|cpsc2018|chinaphysiologicalsignalchallenge.*)~|trainingwfdb",
    "st_petersburg_incart": r"~((st)?petersburg(incart)?|incart(db)?)~",
    "ptb": r"~(ptb|ptbdb|ptbdiagnostic.*)~",
    "georgia": r"~georgia.*|wfdbga|traininge",
    "chapman_shaoxing": r"~(chapman|shaoxing|chapmanshaoxing)~",
    "ningbo": r"~ningbo(firsthospital)?~",
    "chapman_ningbo": r"wfdbrecords|~chapman(shaoxing)?ningbo~|~ecgarrhythmia.*|largescale12leadelectrocardiogram.*",
}
_OPTIONAL = r"(?:wfdb|training|physionet|challenge|cinc|2020|2021|data|records)*"

# What each source's annotators labelled at all; elsewhere the absence of a code says nothing.
COMMON_KNOWN = ("AF", "I-AVB", "LBBB", "RBBB", "SBRAD", "STACH", "SR")
# Their codes are diagnoses of patients, such as why one was admitted, and not a reading of the tracing.
CLINICAL = ("ptb", "st_petersburg_incart")
# Codes that are less exact than a label, or a form of it: beside them its absence is not "not there".
UNSURE = {
    **dict.fromkeys(
        ("195080001", "426749004", "282825002", "314208002"), ("AF",)
    ),  # and flutter, chronic, paroxysmal, rapid
    **dict.fromkeys(("233917008", "204384007"), ("I-AVB",)),  # AV block of no stated degree, incomplete heart block
    **{"6374002": ("LBBB", "RBBB"), "426627000": ("SBRAD",), "60423000": ("SBRAD",)},
}


class Recognised(NamedTuple):
    """Where a record comes from.

    Attributes:
        source: Name as in the Challenge of 2021, or the folder's own where nothing was recognised.
        rule: "record name", "folder name", "both", or "" where neither says it.
    """

    source: str
    rule: str


@dataclass
class SourceCount:
    """What was read of one source, for the report.

    Attributes:
        rules: How its records were recognised.
        known: Labels whose absence is taken as "not there", with the records of which that is known.
        labels: Labels that its codes are.
        unknown: Codes that are no label of this package.
        without: Records without a code.

    Example:
        >>> count = SourceCount(Counter({"both": 2}))
        >>> count.add(["426783006", "55827005"], {"426783006": "SR"}, ["AF"])
        >>> str(count).split("; ")[:2]
        ['recognised by record and folder name (2 records)', '1 codes are labels (SR 1)']
    """

    rules: Counter[str]
    known: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    without: int = 0

    def add(self, codes: Sequence[str], names: Mapping[str, str], known: Sequence[str]) -> None:
        """Count one record's codes, `names` saying which label each is, and the labels known of it."""
        self.labels.update(names[code] for code in codes if code in names)
        self.unknown.update(code for code in codes if code not in names)
        self.known.update(known)
        self.without += not codes

    def __str__(self) -> str:
        words = {"both": "record and folder name", "": "no name"}
        rules = ", ".join(f"{words.get(rule, rule)} ({n} records)" for rule, n in self.rules.most_common())
        found, other = sum(self.labels.values()), sum(self.unknown.values())
        parts = [
            f"recognised by {rules}",
            f"{found} codes are labels ({_listed(self.labels)})",
            f"{other} are none ({_listed(self.unknown, 10)})",
            f"{self.without} records have no code",
            f"absence is known of {_listed(self.known)}",
        ]
        return "; ".join(parts)


def recognise(folders: Sequence[str], record: str) -> Recognised:
    """The source of a record: its own name decides where it is one of a source, else the nearest folder that is named after one.

    Args:
        folders: Names of the folders that it lies in, outermost first.
        record: Its bare name, without suffix.

    Example:
        >>> recognise(["cinc", "Training_PTB-XL", "g1"], "x"), recognise(["download"], "HR00599").source
        (Recognised(source='ptb-xl', rule='folder name'), 'ptb-xl')
    """
    named = next((found for folder in reversed(folders) if (found := _of_folder(folder))), None)
    for source, pattern in RECORD_NAMES.items():
        if re.fullmatch(pattern, record.lower()):
            # JS records are numbered through Chapman-Shaoxing and Ningbo: the folder says which.
            finer = source == "chapman_ningbo" and named in ("chapman_shaoxing", "ningbo")
            agreed = finer or named == source
            return Recognised(named if finer and named else source, "both" if agreed else "record name")
    if named is not None:
        return Recognised(named, "folder name")
    own = [folder for folder in folders if not _is_group(folder)]
    return Recognised(own[-1] if own else folders[-1], "")


def same_source(name: str) -> str:
    """The Challenge's name of a source given in any spelling; what is not recognised stays as it is.

    Example:
        >>> same_source("WFDB_CPSC2018"), same_source("my_hospital")
        ('cpsc_2018', 'my_hospital')
    """
    return _of_folder(name) or name


def known_labels(source: str, labels: Sequence[str], codes: Sequence[str]) -> list[str]:
    """Labels whose absence from a record means "not there".

    CPSC-2018 was labelled with its nine classes. Elsewhere sinus rhythm is known where a rhythm is named, as many annotators wrote
    no rhythm beside another finding. Of a record without any code nothing is known, nor of PTB and St. Petersburg. A code such as "AV block"
    leaves open whether the block is of first degree.

    Args:
        source: As recognised.
        labels: The record's labels.
        codes: Its SNOMED CT codes.

    Example:
        >>> known_labels("georgia", ["TAB"], ["164934002"]), known_labels("ptb", ["MI"], ["164865005"])
        (['AF', 'I-AVB', 'LBBB', 'RBBB', 'SBRAD', 'STACH'], [])
    """
    if not codes or source in CLINICAL:
        return []
    if source == "cpsc_2018":
        return list(CPSC_CLASSES)
    unsure = {label for code in codes for label in UNSURE.get(code, ())} - set(labels)
    if not any(label in RHYTHM_LABELS for label in labels):
        unsure.add("SR")
    return [label for label in COMMON_KNOWN if label not in unsure]


def _of_folder(folder: str) -> str | None:
    """The source that a folder is named after."""
    name = re.sub(r"[^a-z0-9]", "", folder.lower())
    named = (s for s, pattern in FOLDER_NAMES.items() if re.fullmatch(pattern.replace("~", _OPTIONAL), name))
    return next(named, None)


def _is_group(folder: str) -> bool:
    return re.fullmatch(r"g\d+", folder) is not None


def _listed(counts: Counter[str], most: int = 40) -> str:
    """Names with their counts, most frequent first."""
    more = [f"{len(counts) - most} more"] if len(counts) > most else []
    return ", ".join([f"{name} {n}" for name, n in counts.most_common(most)] + more) or "nothing"
