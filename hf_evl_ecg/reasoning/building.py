"""Records with a known truth → chains whose every answer follows from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from typing import Any

from hf_evl_ecg.sources.ludb import load_ludb

from .chains import Chain, Step, yes_no
from .criteria import DIAGNOSES, Criterion, Diagnosis, expected
from .grounding import lead_step, time_step, value_step
from .truth import ECGTruth, ludb_truth, simulated_truth

__all__ = ["build_chain", "build_chains", "chains_of_record"]


def build_chain(name: str, truth: ECGTruth, record: str, place: Mapping[str, Any], seed: int = 0) -> Chain | None:
    """The questions about one diagnosis; the chain ends with the first criterion that is not met.

    Args:
        name: Of `hf_evl_ecg.reasoning.criteria.DIAGNOSES`.
        truth: What is known of the record.
        record: Its name.
        place: What ``load_image`` needs to draw it.
        seed: Of the options that are offered.

    Returns:
        None where the truth does not answer every question, or where criteria and labels disagree.

    Example:
        >>> from hf_evl_ecg.reasoning.truth import simulated_truth
        >>> chain = build_chain("atrial_fibrillation", simulated_truth("AF/1"), "AF/1", {})
        >>> chain.present, [step.stage for step in chain.steps][:3], chain.steps[-1].answer_text
        (True, ['criterion', 'finding', 'wave'], 'Yes')
    """
    diagnosis = DIAGNOSES[name]
    present = expected(diagnosis, truth)
    if present is None:
        return None
    # Not hash(), which Python salts: the same record must be asked the same each time.
    rng = random.Random(hashlib.sha256(f"{seed}:{record}:{name}".encode()).digest())
    steps: list[Step] = []
    for loop, criterion in enumerate(diagnosis.criteria):
        met = criterion.met(truth)
        if met is None:
            return None
        last = loop == len(diagnosis.criteria) - 1
        steps.append(_criterion_step(diagnosis, criterion, rng, loop))
        steps.append(yes_no("finding", criterion.question, met, loop))
        steps += _grounding_steps(criterion, truth, rng, loop) if met else []
        decided = False if not met else True if last else None
        steps.append(yes_no("decision", _decision_question(diagnosis), decided, loop))
        if decided is not None:
            break
    if decided != present:
        return None
    asked = yes_no("initial", f"Does this ECG suggest the presence of {diagnosis.text}?", present)
    return Chain(record, name, present, asked, tuple(steps), place)


def chains_of_record(truth: ECGTruth, record: str, place: Mapping[str, Any], seed: int = 0) -> list[Chain]:
    """A chain about each diagnosis that the record has, and as many, at least one, about diagnoses that it does not have.

    Example:
        >>> from hf_evl_ecg.reasoning.truth import simulated_truth
        >>> [chain.present for chain in chains_of_record(simulated_truth("LBBB/2"), "LBBB/2", {})]
        [True, False]
    """
    found = [build_chain(name, truth, record, place, seed) for name in DIAGNOSES]
    there = [chain for chain in found if chain is not None and chain.present]
    absent = [chain for chain in found if chain is not None and not chain.present]
    rng = random.Random(hashlib.sha256(f"{seed}:{record}".encode()).digest())
    return there + rng.sample(absent, min(len(absent), max(1, len(there))))


def build_chains(rows: Iterable[Mapping[str, Any]], seed: int = 0) -> list[Chain]:
    """Chains about the records of a question dataset that are simulated or of LUDB; of others the truth is not known.

    Args:
        rows: With ``record``, ``source``, ``storage`` and ``root``; rows of the same record count once.
        seed: Of what is asked.

    Raises:
        ValueError: There is no record of that kind.

    Example:
        >>> row = {"record": "STE/5", "source": "simulated", "storage": "simulated", "root": "", "gain_per_mv": None}
        >>> [chain.diagnosis for chain in build_chains([row]) if chain.present]
        ['anterior_myocardial_infarction']
    """
    chains: list[Chain] = []
    ludb: dict[str, dict[str, Mapping[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        record, source = row["record"], row["source"]
        if (source, record) in seen or source not in ("simulated", "ludb"):
            continue
        seen.add((source, record))
        named = ("record", "source", "storage", "root", "gain_per_mv", "missing")
        place = {key: row[key] for key in named if key in row}
        if source == "simulated":
            chains += chains_of_record(simulated_truth(record), record, place, seed)
            continue
        if row["root"] not in ludb:  # a question does not say what a record is labelled with
            ludb[row["root"]] = {found["record"]: found for found in load_ludb(row["root"])[0]}
        chains += chains_of_record(ludb_truth(ludb[row["root"]][record]), record, place, seed)
    if not chains:
        raise ValueError(
            "there is no record whose truth is known: simulated ones and LUDB's are needed (hf-evl-ecg prepare --simulated_test, --ludb)"
        )
    return chains


def _criterion_step(diagnosis: Diagnosis, criterion: Criterion, rng: random.Random, loop: int) -> Step:
    options = [criterion.text, *rng.sample(criterion.others, 4)]
    rng.shuffle(options)
    asked = (
        f"Which of the following criteria should be looked for to diagnose {diagnosis.text}?"
        if loop == 0
        else f"Which of the following criteria should be looked for next to diagnose {diagnosis.text}?"
    )
    return Step("criterion", asked, tuple(options), frozenset({options.index(criterion.text)}), loop)


def _grounding_steps(criterion: Criterion, truth: ECGTruth, rng: random.Random, loop: int) -> list[Step]:
    leads = lead_step(criterion.leads, truth, loop) if criterion.leads else None
    waves = time_step(criterion.wave, truth, rng, loop) if criterion.wave else None
    value = value_step(criterion.value, truth, rng, loop, leads) if criterion.value else None
    return [step for step in (leads, waves, value) if step is not None]


def _decision_question(diagnosis: Diagnosis) -> str:
    return f"Based on all that was found so far, does this ECG suggest the presence of {diagnosis.text}?"
