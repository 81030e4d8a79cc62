"""Diagnoses, the criteria they rest on, and what is asked about each.

Sources: Kligfield et al., Surawicz et al., Wagner et al., "AHA/ACCF/HRS Recommendations for the Standardization and Interpretation of
the Electrocardiogram", Circulation 115:1306-1324 (2007), 119:e235-e240 (bundle branch blocks) and 119:e262-e270 (ischemia), 2009;
Thygesen et al., "Fourth Universal Definition of Myocardial Infarction", Circulation 138:e618-e651, 2018 (ST elevation of 0.1 mV in two
neighbouring leads, 0.2 mV in V2 and V3). What a question asks about is defined in the question, so that its answer is no opinion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .findings import (
    WALLS,
    beyond,
    depressed,
    early_kind,
    elevated,
    ends_downwards,
    ends_upwards,
    irregular,
    negative,
    neighbours,
    no_p,
    pattern,
    premature,
)
from .truth import ECGTruth, LeadShape

__all__ = ["DIAGNOSES", "Criterion", "Diagnosis", "LeadTest", "expected"]


@dataclass(frozen=True)
class LeadTest:
    """What is asked about single leads.

    Attributes:
        question: The question.
        leads: Leads to offer.
        shows: Shape of a lead, and its name → whether it shows it; None where that is not clear.
    """

    question: str
    leads: tuple[str, ...]
    shows: Callable[[LeadShape, str], bool | None]


@dataclass(frozen=True)
class Criterion:
    """One criterion of a diagnosis.

    Attributes:
        text: What is chosen among options.
        others: What is no criterion of this diagnosis; four of them are the other options.
        question: Whether the record meets it, with every threshold named.
        met: Truth → whether it does; None where that is not known.
        leads: Where it is seen; None: nothing is asked.
        wave: Kind of time range it is seen in (`hf_evl_ecg.reasoning.grounding.time_step`).
        value: Quantity that is measured there (`hf_evl_ecg.reasoning.grounding.value_step`).
    """

    text: str
    others: tuple[str, ...]
    question: str
    met: Callable[[ECGTruth], bool | None]
    leads: LeadTest | None = None
    wave: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis and its criteria, all of which must be met.

    Attributes:
        text: Its name for readers.
        label: Code of `hf_evl_ecg.qa.labels` that a record with it has.
        criteria: In the order they are looked for.
        territory: Wall, for ST elevations.
    """

    text: str
    label: str
    criteria: tuple[Criterion, ...]
    territory: str = ""


def expected(diagnosis: Diagnosis, truth: ECGTruth) -> bool | None:
    """Whether the labels say that the diagnosis is there; None where the record was not checked for it."""
    if diagnosis.label not in truth.known:
        return None
    return diagnosis.label in truth.labels and diagnosis.territory in ("", truth.territory)


_CONDUCTED = Criterion(
    "Every P wave is followed by a QRS complex",
    (
        "P waves without a QRS complex behind them",
        "P waves and QRS complexes independent of each other",
        "A short PR interval with a delta wave",
        "ST-segment elevation in the inferior leads",
        "A sawtooth baseline between the QRS complexes",
    ),
    "Does this ECG show P waves, each of them followed by a QRS complex?",
    lambda truth: truth.has_p,
)
_PR = Criterion(
    "A prolonged PR interval",
    (
        "A shortened PR interval",
        "A PR interval that grows from beat to beat until a beat is dropped",
        "A prolonged QT interval",
        "A wide QRS complex",
        "Tall, peaked T waves",
    ),
    "Is the PR interval prolonged, that is, longer than 200 ms?",
    lambda truth: beyond(truth.pr_ms, 200.0, truth.margin_ms),
    wave="pr",
    value="pr",
)
_NOT_BLOCK = (
    "A prolonged PR interval",
    "A short PR interval",
    "Irregular RR intervals",
    "Absence of P waves",
    "ST-segment depression in the inferior leads",
    "Premature beats",
)
_WIDE = Criterion(
    "A QRS complex of at least 120 ms",
    _NOT_BLOCK,
    "Does the QRS complex of the conducted beats last 120 ms or longer?",
    lambda truth: beyond(truth.qrs_ms, 120.0, truth.margin_ms / 2),
    wave="qrs",
    value="qrs",
)
_LEFT = Criterion(
    "Broad R waves in the lateral leads and a mainly negative QRS complex in V1",
    (
        "A broad R' in V1 and broad S waves in the lateral leads",
        "A QRS complex of less than 100 ms in all leads",
        "Pathological Q waves in the inferior leads",
        "Low voltage in the limb leads",
        "A delta wave at the begin of the QRS complex",
    ),
    "Is the QRS complex mainly negative in V1, and mainly positive in I and V6, up to its end?",
    pattern(("V1", negative, True), ("I", negative, False), ("V6", negative, False), ("V6", ends_upwards, True)),
    LeadTest(
        "Which of the following leads show a mainly negative QRS complex?", ("I", "V1", "V2", "V5", "V6"), negative
    ),
)
_RIGHT = Criterion(
    "A late positive deflection (R') in V1 and a broad S wave in I and V6",
    (
        "A mainly negative QRS complex in V1 and broad R waves in I and V6",
        "A QRS complex of less than 100 ms in all leads",
        "Pathological Q waves in the anterior leads",
        "Low voltage in the limb leads",
        "Poor R wave progression from V1 to V4",
    ),
    "Does the last third of the QRS complex point upwards in V1, and downwards in I and V6?",
    pattern(("V1", ends_upwards, True), ("I", ends_downwards, True), ("V6", ends_downwards, True)),
    LeadTest("In which of the following leads does the last third of the QRS complex point upwards?",
             ("I", "V1", "V2", "V5", "V6"), ends_upwards),
)  # fmt: skip
_IRREGULAR = Criterion(
    "Irregular RR intervals",
    (
        "Regular RR intervals",
        "A prolonged PR interval",
        "A QRS complex of at least 120 ms",
        "ST-segment elevation in two neighbouring leads",
        "A prolonged QT interval",
    ),
    "Do the RR intervals differ from each other by more than 160 ms, longest against shortest?",
    irregular,
    wave="rr",
    value="rr",
)
_WITHOUT_P = Criterion(
    "Absence of P waves before the QRS complexes",
    (
        "A P wave before every QRS complex",
        "Inverted P waves in lead II",
        "Two P waves before every QRS complex",
        "Left axis deviation",
        "Tall R waves in V1",
    ),
    "Are there no P waves before the QRS complexes of the conducted beats?",
    no_p,
)
_EARLY = Criterion(
    "Premature beats",
    (
        "A prolonged PR interval",
        "Absence of P waves",
        "ST-segment elevation in two neighbouring leads",
        "A prolonged QT interval",
        "Dropped QRS complexes after a P wave",
    ),
    "Is there at least one beat that comes early, before the next one of the basic rhythm is due?",
    premature,
    wave="early",
)
_FROM_ATRIA = Criterion(
    "A premature beat with a P wave and a QRS complex like those of the other beats",
    (
        "A premature beat with a wide QRS complex and no P wave",
        "A fully compensatory pause with a QRS complex of other shape",
        "A premature beat with ST-segment elevation",
        "A QRS complex of at least 120 ms in all beats",
        "An escape beat after a long pause",
    ),
    "Does the premature beat have a P wave, and a QRS complex shaped like those of the other beats?",
    early_kind("A"),
    value="coupling",
)
_FROM_VENTRICLES = Criterion(
    "A premature beat with a wide QRS complex and no P wave before it",
    (
        "A premature beat with a P wave and a QRS complex like those of the other beats",
        "A narrow QRS complex after a P wave of other shape",
        "A premature beat that resets the sinus node",
        "A QRS complex of at least 120 ms in all beats",
        "An escape beat after a long pause",
    ),
    "Does the premature beat have a QRS complex of 120 ms or longer, of another shape than the others, and no P wave before it?",
    early_kind("V"),
    value="early_qrs",
)


def _elevation(wall: str) -> Diagnosis:
    leads = ", ".join(WALLS[wall])
    other = [name for name in WALLS if name != wall]
    criterion = Criterion(
        f"ST-segment elevation in the {wall} leads",
        (
            *(f"ST-segment elevation in the {name} leads" for name in other),
            f"ST-segment depression in the {wall} leads",
            "A QRS complex of at least 120 ms",
            "A prolonged PR interval",
            "Irregular RR intervals",
        ),
        f"Is the ST segment elevated in at least two neighbouring {wall} leads ({leads})? Elevated means: 60 ms after the end of QRS at "
        "least 0.1 mV, in V2 and V3 0.2 mV, above the line before QRS.",
        neighbours(wall, elevated),
        LeadTest(
            "Which of the following leads show ST-segment elevation, as defined above?",
            (*WALLS[wall], *(lead for name in other for lead in WALLS[name]))[:8],
            elevated,
        ),
        value="st_up",
    )
    return Diagnosis(f"ST-elevation myocardial infarction of the {wall} wall", "STE", (criterion,), wall)


_DEPRESSION = Criterion(
    "ST-segment depression in the lateral leads",
    (
        "ST-segment elevation in the lateral leads",
        "Peaked T waves in the lateral leads",
        "Irregular RR intervals",
        "A prolonged PR interval",
        "Pathological Q waves in the inferior leads",
    ),
    "Is the ST segment depressed in at least two neighbouring lateral leads (I, aVL, V5, V6)? Depressed means: 60 ms after the end of QRS "
    "more than 0.05 mV below the line before QRS.",
    neighbours("lateral", depressed),
    LeadTest(
        "Which of the following leads show ST-segment depression, as defined above?",
        ("I", "aVL", "V1", "V3", "V5", "V6", "aVR", "III"),
        depressed,
    ),
    value="st_down",
)

DIAGNOSES = {
    "first_degree_av_block": Diagnosis("first-degree AV block", "I-AVB", (_CONDUCTED, _PR)),
    "complete_left_bundle_branch_block": Diagnosis("complete left bundle branch block", "LBBB", (_WIDE, _LEFT)),
    "complete_right_bundle_branch_block": Diagnosis("complete right bundle branch block", "RBBB", (_WIDE, _RIGHT)),
    "atrial_fibrillation": Diagnosis("atrial fibrillation", "AF", (_IRREGULAR, _WITHOUT_P)),
    "premature_atrial_complex": Diagnosis("premature atrial complexes", "PAC", (_EARLY, _FROM_ATRIA)),
    "premature_ventricular_complex": Diagnosis("premature ventricular complexes", "PVC", (_EARLY, _FROM_VENTRICLES)),
    **{f"{wall}_myocardial_infarction": _elevation(wall) for wall in WALLS},
    "lateral_ischemia": Diagnosis("lateral ischemia", "STD", (_DEPRESSION,)),
}
"""Diagnoses by the benchmark's names; atrial fibrillation is not among its own."""
