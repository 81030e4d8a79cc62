"""What is found in a record: True, False, or None where its truth cannot say, or lies too close to a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .truth import ECGTruth, LeadShape

__all__ = [
    "WALLS",
    "beyond",
    "depressed",
    "early_kind",
    "elevated",
    "ends_downwards",
    "ends_upwards",
    "irregular",
    "negative",
    "neighbours",
    "no_p",
    "pattern",
    "premature",
]

WALLS = {"anterior": ("V1", "V2", "V3", "V4"), "inferior": ("II", "III", "aVF"), "lateral": ("I", "aVL", "V5", "V6")}
# On the chest, and in the limb leads' order aVL, I, (-aVR), II, aVF, III.
_NEIGHBOURS = (("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V5", "V6"), ("aVL", "I"), ("II", "aVF"), ("aVF", "III"))
_ST_MARGIN_MV = 0.025  # a quarter of a small square: closer to a threshold nobody reads a lead for certain
_RR_SPREAD_S, _RR_MARGIN_S = 0.16, 0.04


def beyond(value: float | None, threshold: float, margin: float) -> bool | None:
    """Whether a value exceeds a threshold; None where it is not known, or closer to it than the margin."""
    return None if value is None or abs(value - threshold) < margin else value > threshold


def _all(answers: Sequence[bool | None]) -> bool | None:
    return False if False in answers else None if None in answers or not answers else True


def irregular(truth: ECGTruth) -> bool | None:
    """Whether the longest RR interval exceeds the shortest by 160 ms."""
    lengths = [end - begin for begin, end in truth.rr_s]
    if len(lengths) < 4:
        return None
    spread = beyond(max(lengths) - min(lengths), _RR_SPREAD_S, _RR_MARGIN_S)
    # Beats that nobody marked may be the irregular ones, unless the rhythm is said to be regular.
    unsure = not truth.complete and (not truth.has_p or truth.labels & {"PAC", "PVC", "SARRH"})
    return None if spread is False and unsure else spread


def no_p(truth: ECGTruth) -> bool | None:
    """Whether conducted beats have no P wave."""
    return None if truth.has_p is None else not truth.has_p


def premature(truth: ECGTruth) -> bool | None:
    """Whether there are premature beats in a rhythm with P waves."""
    return truth.premature if truth.has_p else None  # where all intervals differ, none is early


def early_kind(kind: str) -> Callable[[ECGTruth], bool | None]:
    """Whether all premature beats are of a kind, "A" or "V"."""

    def met(truth: ECGTruth) -> bool | None:
        kinds = {beat.kind for beat in truth.beats} - {"N"}
        return None if not kinds or "?" in kinds or len(kinds) > 1 else kinds == {kind}

    return met


def negative(shape: LeadShape, _: str) -> bool | None:
    """Whether QRS is mainly negative."""
    return None if abs(shape.net) < 0.4 else shape.net < 0


def ends_upwards(shape: LeadShape, _: str) -> bool | None:
    """Whether the last third of QRS points upwards."""
    return True if shape.terminal > 0.2 else False if shape.terminal < -0.05 else None


def ends_downwards(shape: LeadShape, _: str) -> bool | None:
    """Whether the last third of QRS points downwards."""
    return True if shape.terminal < -0.1 else False if shape.terminal > 0.05 else None


def elevated(shape: LeadShape, lead: str) -> bool | None:
    """Whether the ST segment is elevated: 0.1 mV, in V2 and V3 0.2 mV."""
    return beyond(shape.st_mv, 0.2 if lead in ("V2", "V3") else 0.1, _ST_MARGIN_MV)


def depressed(shape: LeadShape, _: str) -> bool | None:
    """Whether the ST segment is depressed by more than 0.05 mV."""
    return beyond(-shape.st_mv, 0.05, _ST_MARGIN_MV)


def pattern(*wanted: tuple[str, Callable[[LeadShape, str], bool | None], bool]) -> Callable[[ECGTruth], bool | None]:
    """Whether leads show, or do not show, something."""

    def met(truth: ECGTruth) -> bool | None:
        answers = []
        for lead, shows, right in wanted:
            found = shows(truth.shapes[lead], lead) if lead in truth.shapes else None
            answers.append(None if found is None else found == right)
        return _all(answers)

    return met


def neighbours(wall: str, shows: Callable[[LeadShape, str], bool | None]) -> Callable[[ECGTruth], bool | None]:
    """Whether two neighbouring leads of a wall show something."""

    def met(truth: ECGTruth) -> bool | None:
        found = {lead: shows(truth.shapes[lead], lead) for lead in WALLS[wall] if lead in truth.shapes}
        pairs = [(found.get(a), found.get(b)) for a, b in _NEIGHBOURS if a in WALLS[wall] and b in WALLS[wall]]
        if (True, True) in pairs:
            return True
        return False if all(False in pair for pair in pairs) else None

    return met
