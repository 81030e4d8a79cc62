"""The corpus of the demo: clinical ECG statements in four phrasings each, generated from ``ecg_findings.yaml``.

A statement is one finding or a rhythm with a second finding. Statements are held out whole: no phrasing of a held-out
statement is trained on, nor is a held-out finding part of a training statement.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask, STSTask, Task

__all__ = ["Statement", "build_tasks", "load_findings", "make_corpus", "training_pairs"]

FINDINGS = Path(__file__).with_name("ecg_findings.yaml")
SINUS = ("sinus rhythm", "sinus bradycardia", "sinus tachycardia")
WITH_SINUS = ("ectopy", "axis", "repolarisation", "infarction", "hypertrophy")
WITH_FIBRILLATION = ("left axis deviation", "right axis deviation", "low voltage", "ST elevation", "ST depression",
                     "T-wave inversion", "acute infarction", "old infarction", "left ventricular hypertrophy",
                     "right bundle branch block", "left bundle branch block")  # fmt: skip
JOINTS = ("{0}. {1}.", "{1}; {0}.", "{0}, {1}", "{1}. {0}.")


@dataclass(frozen=True)
class Statement:
    """What an ECG shows.

    Args:
        family: Kind of the finding; of the second one in a combined statement.
        category: Group of kinds.
        phrasings: Ways of saying it.
    """

    family: str
    category: str
    phrasings: tuple[str, ...]


def load_findings(path: Path = FINDINGS) -> list[Statement]:
    """Spell out every finding of the vocabulary in its phrasings, family by family."""
    vocabulary = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [statement for family in vocabulary["families"] for statement in _spell_out(family, vocabulary)]


def _spell_out(family: dict[str, Any], vocabulary: dict[str, Any]) -> Iterator[Statement]:
    slots = {name: _forms(slot, vocabulary) for name, slot in family["slots"].items()}
    for values in itertools.product(*slots.values()):
        chosen = dict(zip(slots, values, strict=True))
        phrasings = []
        for i, template in enumerate(family["templates"]):
            text = template.format(**{name: forms[i] for name, forms in chosen.items()})
            phrasings.append(text[0].upper() + text[1:])
        yield Statement(family["name"], family["category"], tuple(phrasings))


def _forms(slot: Any, vocabulary: dict[str, Any]) -> list[list[str]]:
    if isinstance(slot, str):
        slot = vocabulary["shared"][slot]
    if "unit" not in slot:
        return list(slot.values())
    unit = vocabulary["units"][slot["unit"]]
    return [[form.format(v=v, s=v / 1000, mv=v / 10, uv=100 * v) for form in unit] for v in slot["values"]]


def make_corpus(
    *, held_out: float = 0.2, combined: int = 800, seed: int = 0
) -> tuple[list[Statement], list[Statement]]:
    """Split the findings within each family, then combine rhythms with other findings within each part.

    Args:
        held_out: Share of the findings of a family that is held out, at least one of each.
        combined: Number of combined statements over both parts.
        seed: Seed of the split and of the combinations.

    Returns:
        Statements for training and for evaluation, single findings first.
    """
    rng = random.Random(seed)
    parts: tuple[list[Statement], list[Statement]] = ([], [])
    for _, members in itertools.groupby(load_findings(), key=lambda statement: statement.family):
        shuffled = list(members)
        rng.shuffle(shuffled)
        cut = max(1, round(held_out * len(shuffled)))
        parts[1].extend(shuffled[:cut])
        parts[0].extend(shuffled[cut:])
    for part, share in zip(parts, (1 - held_out, held_out), strict=True):
        possible = [_combine(a, b) for a in part for b in part if _compatible(a, b)]
        part.extend(rng.sample(possible, min(len(possible), round(share * combined))))
    return parts


def _compatible(rhythm: Statement, finding: Statement) -> bool:
    """Whether a rhythm and a second finding can stand in one report."""
    if rhythm.family == "atrial fibrillation":
        return finding.family in WITH_FIBRILLATION
    return rhythm.family in SINUS and (finding.category in WITH_SINUS or finding.family in WITH_FIBRILLATION)


def _combine(rhythm: Statement, finding: Statement) -> Statement:
    both = zip(JOINTS, rhythm.phrasings, finding.phrasings, strict=True)
    return Statement(finding.family, finding.category, tuple(joint.format(a, b) for joint, a, b in both))


def training_pairs(statements: Sequence[Statement], *, per_statement: int = 3, seed: int = 0) -> Dataset:
    """Pair phrasings of the same statement: columns ``anchor`` and ``positive``, shuffled.

    Args:
        statements: What to draw from.
        per_statement: Pairs of each statement, drawn from the six possible ones.
        seed: Seed of the draws.
    """
    rng = random.Random(seed)
    pairs = [
        pair
        for statement in statements
        for pair in rng.sample(list(itertools.combinations(statement.phrasings, 2)), per_statement)
    ]
    rng.shuffle(pairs)
    return Dataset.from_dict({"anchor": [first for first, _ in pairs], "positive": [second for _, second in pairs]})


def build_tasks(training: Sequence[Statement], held_out: Sequence[Statement], *, seed: int = 0) -> list[Task]:
    """Three tasks on held-out statements.

    - ``ecg_retrieval``: find a statement among all held-out ones by another phrasing of it.
    - ``ecg_finding``: tell the kind of a single finding; the probe learns from two phrasings of the training findings and is
      scored on the other two of the held-out ones.
    - ``ecg_similarity``: similarity of two held-out findings in different phrasings against 3 (same finding), 2 (same kind),
      1 (same category), 0 (other category).

    Args:
        training: Training statements of :func:`make_corpus`.
        held_out: Its held-out statements.
        seed: Seed of the pairs of ``ecg_similarity``.
    """
    documents = {f"d{i}": statement.phrasings[0] for i, statement in enumerate(held_out)}
    queries = {f"q{i}": statement.phrasings[3] for i, statement in enumerate(held_out)}
    retrieval = RetrievalTask(
        "ecg_retrieval", documents, queries, {f"q{i}": {f"d{i}": 1} for i in range(len(held_out))}
    )
    findings = set(load_findings())
    train, test = ([s for s in part if s in findings] for part in (training, held_out))
    classification = ClassificationTask(
        "ecg_finding",
        [text for s in train for text in s.phrasings[:2]],
        [s.family for s in train for _ in range(2)],
        [text for s in test for text in s.phrasings[2:]],
        [s.family for s in test for _ in range(2)],
    )
    pairs = list(_graded_pairs(test, random.Random(seed)))
    first, second, scores = zip(*pairs, strict=True)
    return [retrieval, classification, STSTask("ecg_similarity", first, second, scores)]


def _graded_pairs(findings: Sequence[Statement], rng: random.Random) -> Iterator[tuple[str, str, float]]:
    for one in findings:
        others = {
            3: [one],
            2: [s for s in findings if s.family == one.family and s is not one],
            1: [s for s in findings if s.category == one.category and s.family != one.family],
            0: [s for s in findings if s.category != one.category],
        }
        for score, candidates in others.items():
            if candidates:
                i, j = rng.sample(range(4), 2)
                yield one.phrasings[i], rng.choice(candidates).phrasings[j], float(score)
