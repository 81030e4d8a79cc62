"""How often each answer occurs among questions: whether a set can be learnt from, and whether its scores will mean anything."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from .grading import item_kind, task_name
from .prompts import NO, YES

__all__ = ["count_answers", "one_sided"]


def count_answers(items: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count the right answers of each task.

    Args:
        items: Questions with the columns of `hf_evl_ecg.data.questions.QUESTION_FEATURES`.

    Returns:
        Task → ``questions``, and by its kind: ``answers`` (answer or label → count); for yes/no questions also ``classes``
        (label asked about → ``{"yes": …, "no": …}``); for numbers ``range`` (lowest, median, highest).

    Example:
        >>> asked = {"format": "closed", "task": "rhythm", "labels": ["AF"]}
        >>> count_answers([{**asked, "answer": "yes"}, {**asked, "answer": "no"}])["rhythm_closed"]["classes"]
        {'AF': {'yes': 1, 'no': 1}}
    """
    tasks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item in items:
        tasks[task_name(item)].append(item)
    return {task: _count(tasks[task]) for task in sorted(tasks)}


def one_sided(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Yes/no tasks and classes that have one answer only: a model learns to give it without looking.

    Args:
        counts: From `count_answers`.

    Example:
        >>> one_sided({"rhythm_closed": {"classes": {"AF": {"yes": 3, "no": 0}}}})
        ['rhythm_closed AF: always yes']
    """
    return [
        f"{task} {label}: always {YES if found[YES] else NO}"
        for task, count in counts.items()
        for label, found in count.get("classes", {}).items()
        if not (found[YES] and found[NO])
    ]


def _count(items: list[Mapping[str, Any]]) -> dict[str, Any]:
    kind = item_kind(items[0])
    count: dict[str, Any] = {"questions": len(items)}
    if kind == "number":
        values = [float(item["value"]) for item in items]
        return count | {"range": [min(values), median(values), max(values)], "unit": items[0]["unit"]}
    if kind == "yes_no":
        answers = Counter(str(item["answer"]).lower() for item in items)
        classes: dict[str, dict[str, int]] = {}
        for item in items:
            for label in item.get("labels") or ():
                found = classes.setdefault(label, {YES: 0, NO: 0})
                found[str(item["answer"]).lower()] += 1
        return count | {"answers": {YES: answers[YES], NO: answers[NO]}, "classes": dict(sorted(classes.items()))}
    if kind in ("classes", "labels", "report"):
        labels = Counter(label for item in items for label in item.get("labels") or ())
        return count | {"answers": dict(labels.most_common())}
    if kind == "option":  # A, B, C, D
        return count | {"answers": dict(sorted(Counter(str(item["answer"])[:1] for item in items).items()))}
    return count
