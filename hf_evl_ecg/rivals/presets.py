"""Options of each method: a plain dict, which ``hf-evl-ecg distil --method NAME`` puts in place of defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS", "describe_presets"]

# The terms of EVL-ECG, off; a rival stands alone beside the answers' cross-entropy. Half of the loss each, as in DSKD.
_ALONE: dict[str, Any] = {"alpha": 0.5, "lambda_mhca": 0.0, "lambda_ot": 0.0, "lambda_relation": 0.0}
_ANSWER = {"hidden_tokens": "answer"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The recommended form of this project.
    "evl_ecg": {
        "alpha": 0.5,
        "lambda_mhca": 1.0,
        "lambda_ot": 1.0,
        "lambda_relation": 1.0,
        "mhca_mode": "anchored",
        "hidden_tokens": "answer",
        "ot_position_weight": 0.5,
    },
    # The paper's literal form (arXiv 2605.29977).
    "evl_ecg_paper": {
        "alpha": 0.5,
        "lambda_mhca": 1.0,
        "lambda_ot": 1.0,
        "lambda_relation": 1.0,
        "mhca_mode": "paper",
        "attention": "all",
        "match": "raw",
        "hidden_tokens": "all",
        "ot_position_weight": 0.0,
        "visual_weights": "uniform",
    },
    "sft": {"alpha": 0.0},  # answers alone
    "seqkd": {"alpha": 0.0},  # the same, with answers that hf-evl-ecg answer let the teacher write (arXiv 1606.07947)
    "kl": {**_ALONE, "lambda_kl": 1.0, "kl_divergence": "forward"},  # arXiv 1503.02531
    "uld": {**_ALONE, "lambda_uld": 1.5},  # arXiv 2402.12030, its weight
    "dskd": {**_ALONE, **_ANSWER, "lambda_dskd": 1.0, "dskd_temperature": 2.0},  # arXiv 2406.17328, its scripts
    "rkd": {**_ALONE, **_ANSWER, "lambda_rkd_distance": 25.0, "lambda_rkd_angle": 50.0},  # arXiv 1904.05068
    "cka": {**_ALONE, **_ANSWER, "lambda_cka": 1.0},  # arXiv 1905.00414
    "em_kd": {**_ALONE, "hidden_tokens": "visual", "lambda_em_kd": 1.0},  # arXiv 2511.21106
    "feature_mse": {**_ALONE, **_ANSWER, "lambda_feature_mse": 1.0},  # arXiv 1412.6550
}
"""Method → values of options."""


def describe_presets() -> str:
    """Every preset in full, a line each, for ``--help``.

    Example:
        >>> describe_presets().splitlines()[2]
        '  sft            --alpha 0.0'
    """
    return "\n".join(
        f"  {name:<14} {' '.join(f'--{option} {value}' for option, value in values.items())}"
        for name, values in PRESETS.items()
    )
