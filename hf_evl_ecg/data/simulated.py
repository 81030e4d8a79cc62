"""Simulated records as rows, with the truth about their labels and intervals; never mixed up with patients."""

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset

from hf_evl_ecg.qa.labels import AXIS_LABELS, CPSC_CLASSES
from hf_evl_ecg.signals.simulation import simulate

from .rows import SPLITS, LoadReport, collect_rows, make_row

__all__ = ["load_simulated"]

RHYTHMS = ("SR", "SBRAD", "STACH", "AF")


def load_simulated(
    per_class: int, *, classes: Sequence[str] = CPSC_CLASSES, split: str = "train", seed: int = 0
) -> tuple[Dataset, LoadReport]:
    """Describe simulated records: classes, rate, PR, QRS and QT as drawn; the signal is simulated when it is loaded.

    Splits take disjoint seeds: record i of a class has seed 3 · (i + seed · 1,000,000) + the split's number.

    Args:
        per_class: Records of each class, at most 1,000,000.
        classes: Of the nine CPSC-2018 classes.
        split: Split of all rows.
        seed: Another seed gives other hearts.

    Raises:
        ValueError: An unknown class or split, or a number out of range.

    Example:
        >>> rows, report = load_simulated(2, classes=["AF"])
        >>> rows["record"][:]
        ['AF/0', 'AF/3']
    """
    unknown = [name for name in classes if name not in CPSC_CLASSES]
    if unknown or not 1 <= per_class <= 1_000_000 or split not in SPLITS or seed < 0:
        allowed = f"{CPSC_CLASSES}, 1 to 1,000,000, {SPLITS}, 0 or more"
        raise ValueError(
            f"classes={list(classes)}, per_class={per_class}, split={split!r}, seed={seed}; allowed: {allowed}"
        )

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(per_class):
            number = 3 * (i + seed * 1_000_000) + SPLITS.index(split)
            for label in classes:
                truth = simulate(label, seed=number, fs_hz=100.0, duration_s=10.0).metadata
                axis = _axis(truth["axis_deg"])
                rhythm = "AF" if label == "AF" else _sinus(truth["heart_rate_bpm"])
                labels = [name for name in (label, axis, rhythm) if name is not None]
                yield make_row(
                    f"{label}/{number}",
                    "simulated",
                    "",
                    split,
                    storage="simulated",
                    patient=f"simulated-{label}-{number}",
                    labels=list(dict.fromkeys(labels)),
                    known_labels=list(dict.fromkeys([*CPSC_CLASSES, *RHYTHMS, *AXIS_LABELS])),
                    rhythm=rhythm,
                    axis=axis,
                    heart_rate=truth["heart_rate_bpm"],
                    pr_interval=truth["pr_ms"],
                    qrs_duration=truth["qrs_ms"],
                    qt_interval=truth["qt_ms"],
                )

    return collect_rows(rows(), "simulated", check="none", notes=("simulated signals, not patients",))


def _sinus(rate_bpm: float) -> str:
    if rate_bpm < 60:
        return "SBRAD"
    return "SR" if rate_bpm <= 100 else "STACH"


def _axis(degrees: float | None) -> str | None:
    """Label a frontal QRS axis: normal from -30 to 90 degrees, left to -90, right to 180."""
    if degrees is None:
        return None
    degrees = (degrees + 180.0) % 360.0 - 180.0
    if -30 <= degrees <= 90:
        return "AXN"
    return "LAD" if -90 <= degrees < -30 else ("RAD" if degrees > 90 else None)
