"""Names of ECG findings: one code, one text and the synonyms that answers and other datasets use for each."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "AXIS_LABELS",
    "CPSC_CLASSES",
    "FINDING_LABELS",
    "LABELS",
    "PTBXL_SUPERCLASSES",
    "RHYTHM_LABELS",
    "Label",
    "label_names",
    "label_text",
    "main_axis",
    "main_rhythm",
]


@dataclass(frozen=True)
class Label:
    """One finding.

    Attributes:
        code: Canonical short name, as in ECGBench where it has one.
        text: Wording used in questions and answers, lower case.
        synonyms: Other wordings that mean the same.
    """

    code: str
    text: str
    synonyms: tuple[str, ...] = ()


_TABLE = (
    Label("NORM", "normal ECG", ("normal ecg", "normal electrocardiogram")),
    Label("MI", "myocardial infarction", ("infarction",)),
    Label("STTC", "ST/T change", ("st-t change", "st/t changes", "repolarization abnormality")),
    Label("CD", "conduction disturbance", ("conduction abnormality", "conduction defect")),
    Label("HYP", "hypertrophy"),
    Label("AF", "atrial fibrillation", ("afib", "a-fib")),
    Label("I-AVB", "first-degree AV block", ("1st degree av block", "first degree av block", "1davb", "iavb")),
    Label("II-AVB", "second-degree AV block", ("2nd degree av block", "second degree av block")),
    Label("III-AVB", "third-degree AV block", ("3rd degree av block", "third degree av block", "complete heart block")),
    Label("LBBB", "left bundle branch block", ("complete left bundle branch block", "clbbb")),
    Label("RBBB", "right bundle branch block", ("complete right bundle branch block", "crbbb")),
    Label("ILBBB", "incomplete left bundle branch block"),
    Label("IRBBB", "incomplete right bundle branch block"),
    Label("LAFB", "left anterior fascicular block", ("left anterior hemiblock", "lanfb")),
    Label("LPFB", "left posterior fascicular block", ("left posterior hemiblock",)),
    Label("IVCD", "nonspecific intraventricular conduction delay", ("intraventricular conduction disturbance", "nsivcb")),
    Label("WPW", "Wolff-Parkinson-White pattern", ("wpw syndrome", "ventricular pre-excitation")),
    Label("PAC", "premature atrial contraction", ("atrial premature complex", "atrial extrasystole", "premature atrial beat")),
    Label("PVC", "premature ventricular contraction", ("ventricular premature complex", "ventricular extrasystole", "ventricular ectopics")),
    Label("STD", "ST depression", ("st-segment depression", "st segment depression")),
    Label("STE", "ST elevation", ("st-segment elevation", "st segment elevation")),
    Label("TAB", "T-wave abnormality", ("t wave abnormality", "abnormal t wave")),
    Label("TINV", "T-wave inversion", ("t wave inversion", "inverted t waves")),
    Label("LVH", "left ventricular hypertrophy"),
    Label("RVH", "right ventricular hypertrophy"),
    Label("LAE", "left atrial enlargement", ("left atrial hypertrophy", "left atrial overload")),
    Label("RAE", "right atrial enlargement", ("right atrial hypertrophy", "right atrial overload")),
    Label("LVOLT", "low QRS voltage", ("low voltage",)),
    Label("LQT", "prolonged QT interval", ("long qt interval",)),
    Label("SR", "sinus rhythm", ("normal sinus rhythm",)),
    Label("SBRAD", "sinus bradycardia"),
    Label("STACH", "sinus tachycardia"),
    Label("SARRH", "sinus arrhythmia", ("irregular sinus rhythm",)),
    Label("AFLT", "atrial flutter"),
    Label("SVTAC", "supraventricular tachycardia"),
    Label("PACE", "paced rhythm", ("pacemaker rhythm", "cardiac pacing", "pacing rhythm")),
    Label("AXN", "normal axis", ("normal electrical axis",)),
    Label("LAD", "left axis deviation"),
    Label("RAD", "right axis deviation"),
)  # fmt: skip

LABELS: dict[str, Label] = {label.code: label for label in _TABLE}
PTBXL_SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
CPSC_CLASSES = ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
RHYTHM_LABELS = ("SR", "SBRAD", "STACH", "SARRH", "AF", "AFLT", "SVTAC", "PACE")
AXIS_LABELS = ("AXN", "LAD", "RAD")
FINDING_LABELS = tuple(code for code in LABELS if code not in (*PTBXL_SUPERCLASSES, *RHYTHM_LABELS, *AXIS_LABELS))


def label_text(code: str) -> str:
    """Return the wording of a label.

    Raises:
        ValueError: The code is unknown; the message lists codes with their wordings, and the code of one that was spelled out.

    Example:
        >>> label_text("I-AVB")
        'first-degree AV block'
    """
    if code not in LABELS:
        spelled = {name.lower(): label for label in LABELS for name in label_names(label)}
        meant = spelled.get(code.strip().lower())
        hint = f"write {meant}; " if meant else ""
        listed = ", ".join(f"{label.code} ({label.text})" for label in _TABLE)
        raise ValueError(f"unknown label {code!r}: {hint}allowed are {listed}")
    return LABELS[code].text


def label_names(code: str) -> tuple[str, ...]:
    """Return every wording of a label, its text first, its code and synonyms after.

    Raises:
        ValueError: The code is unknown.

    Example:
        >>> label_names("AF")
        ('atrial fibrillation', 'AF', 'afib', 'a-fib')
    """
    return (label_text(code), code, *LABELS[code].synonyms)


def main_rhythm(codes: Sequence[str]) -> str | None:
    """Return the one rhythm among the labels; sinus rhythm yields to a more specific one, two others give None.

    Example:
        >>> main_rhythm(["SR", "SARRH", "LVH"]), main_rhythm(["AF", "PACE"])
        ('SARRH', None)
    """
    rhythms = [code for code in dict.fromkeys(codes) if code in RHYTHM_LABELS]
    if len(rhythms) > 1:
        rhythms = [code for code in rhythms if code != "SR"]
    return rhythms[0] if len(rhythms) == 1 else None


def main_axis(codes: Sequence[str]) -> str | None:
    """Return the axis among the labels; several contradict each other and give None.

    Example:
        >>> main_axis(["SR", "LAD"]), main_axis(["LAD", "RAD"])
        ('LAD', None)
    """
    axes = [code for code in dict.fromkeys(codes) if code in AXIS_LABELS]
    return axes[0] if len(axes) == 1 else None
