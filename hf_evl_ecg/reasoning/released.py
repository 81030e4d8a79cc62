"""The released files of ECG-Reasoning-Benchmark (Oh et al., arXiv 2603.14326): jsonl or a data set on the Hub → chains.

They name records of PTB-XL and MIMIC-IV-ECG and hold no ECG; those are read from their own folders, and drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.data.instructions import iterate_json

from .chains import Chain, Step

__all__ = ["SOURCES", "load_released"]

HUB = "hub:"
SOURCES = ("ptbxl", "mimic_iv_ecg")
_TYPES = {  # question_type → stage
    "initial_diagnostic_question": "initial",
    "criterion_selection": "criterion",
    "finding_identification": "finding",
    "lead_grounding": "lead",
    "wave_grounding": "wave",
    "measurement_grounding": "measurement",
    "diagnostic_decision": "decision",
}
_LOOP = ("criterion_selection", "finding_identification", "ecg_grounding", "diagnostic_decision")


def load_released(source: str, data: str | os.PathLike[str], records: str | os.PathLike[str]) -> list[Chain]:
    """Read the chains of one source.

    Args:
        source: "ptbxl" or "mimic_iv_ecg".
        data: Folder with ``SOURCE.jsonl``, or ``hub:OWNER/NAME`` for a data set on the Hub, which is downloaded.
        records: Folder of the source's records: that of PTB-XL, with ``records500``, or of MIMIC-IV-ECG, with ``files``.

    Raises:
        ValueError: Another source, no file or folder, or an entry that is not of the released form (0.0.2).

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> def ask(kind, options, answer):
        ...     return {"question": "…?", "options": options, "answer": answer, "question_type": kind}
        >>> loop = {
        ...     "criterion_selection": ask("criterion_selection", ["Long PR", "Short PR"], "Long PR"),
        ...     "finding_identification": ask("finding_identification", ["Yes", "No"], "No"),
        ...     "ecg_grounding": [],
        ...     "diagnostic_decision": ask("diagnostic_decision", ["Yes", "No", "Further findings"], "No"),
        ... }
        >>> about = {"id": 7, "data_source": "ptbxl", "ecg_id": "21837", "target_dx": "first_degree_av_block", "dx_label": False}
        >>> first = ask("initial_diagnostic_question", ["Yes", "No"], "No")
        >>> entry = {"metadata": about, "data": {"initial_diagnostic_question": first, "reasoning": [loop]}}
        >>> with TemporaryDirectory() as folder:
        ...     (Path(folder) / "records500").mkdir()
        ...     _ = Path(folder, "ptbxl.jsonl").write_text(json.dumps(entry))
        ...     chain = load_released("ptbxl", folder, folder)[0]
        >>> chain.place["record"], [step.stage for step in chain.steps]
        ('records500/21000/21837_hr', ['criterion', 'finding', 'decision'])
    """
    check_choice("source", source, SOURCES)
    folder = {"ptbxl": "records500", "mimic_iv_ecg": "files"}[source]
    root = Path(records).resolve()
    if not (root / folder).is_dir():
        raise ValueError(f"records={str(records)!r}: a folder {folder} in it is needed (give that of {source})")
    return [_chain(entry, source, str(root)) for entry in _entries(source, data)]


def _entries(source: str, data: str | os.PathLike[str]) -> Iterable[Mapping[str, Any]]:
    if str(data).startswith(HUB):
        from datasets import load_dataset

        return load_dataset(str(data).removeprefix(HUB), source, split="test")
    path = Path(data) / f"{source}.jsonl"
    if not path.is_file():
        raise ValueError(
            f"data={str(data)!r}: there is no {source}.jsonl in it (for the data set on the Hub write {HUB}OWNER/NAME)"
        )
    return iterate_json(path)


def _chain(entry: Mapping[str, Any], source: str, root: str) -> Chain:
    name = f"an entry of {source}"
    try:
        about, content = entry["metadata"], entry["data"]
        name = f"{source} {about['id']!s:.100}"
        initial = _step(content["initial_diagnostic_question"], -1)
        steps: list[Step] = []
        for number, loop in enumerate(content["reasoning"]):
            for part in _LOOP:
                asked: Sequence[Mapping[str, Any]] = loop[part] if part == "ecg_grounding" else [loop[part]]
                steps += [_step(one, number) for one in asked]
        record = _path(source, about)
        place = {"record": record, "source": source, "storage": "wfdb", "root": root, "gain_per_mv": None}
        return Chain(record, about["target_dx"], bool(about["dx_label"]), initial, tuple(steps), place)
    except (KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(
            f"{name} is not of the released form, version 0.0.2 ({told}); download the files again"
        ) from error


def _path(source: str, about: Mapping[str, Any]) -> str:
    ecg = str(about["ecg_id"])
    if source == "ptbxl":
        number = int(ecg)
        return f"records500/{number // 1000 * 1000:05d}/{number:05d}_hr"
    subject = str(about["subject_id"])
    return f"files/p{subject[:4]}/p{subject}/s{ecg}/{ecg}"


def _step(asked: Mapping[str, Any], loop: int) -> Step:
    options, answer = list(asked["options"]), asked["answer"]
    right = [answer] if isinstance(answer, str) else list(answer)
    return Step(
        _TYPES[asked["question_type"]],
        asked["question"],
        tuple(options),
        frozenset(options.index(one) for one in right),
        loop,
    )
