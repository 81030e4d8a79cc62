"""What `prepare` writes beside the questions for people: counts, answers, what was left out and why, as markdown."""

from collections.abc import Mapping
from typing import Any

from hf_evl_ecg.qa.answer_counts import one_sided

__all__ = ["describe"]


def describe(summary: Mapping[str, Any]) -> str:
    """The report as markdown."""
    lines = ["| split | source | records | questions |", "| --- | --- | --: | --: |"]
    lines += ["| {split} | {source} | {records} | {questions} |".format(**row) for row in summary["counts"]]
    if summary["labelled"]:
        kept, total = (sum(found[side] for found in summary["labelled"].values()) for side in (0, 1))
        each = ", ".join(f"{source} {found[0]} of {found[1]}" for source, found in summary["labelled"].items())
        lines += [
            "",
            f"Answers are kept for {kept} of {total} training records ({each}); the others have questions only.",
        ]
    lines += ["", "| split | task | questions | right answers |", "| --- | --- | --: | --- |"]
    lines += [
        f"| {row['split']} | {row['task']} | {row['questions']} | {_answers(row)} |" for row in summary["answers"]
    ]
    if asked := [row for row in summary["answers"] if row.get("classes")]:
        lines += ["", "| split | task | class asked about | yes | no |", "| --- | --- | --- | --: | --: |"]
        lines += [
            f"| {row['split']} | {row['task']} | {label} | {found['yes']} | {found['no']} |"
            for row in asked
            for label, found in row["classes"].items()
        ]
    if always := [f"{row['split']} {line}" for row in asked for line in one_sided({row["task"]: row})]:
        lines += ["", f"Questions with one answer only, which can be learnt without an ECG: {'; '.join(always)}."]
    for source in summary["sources"]:
        lines += ["", f"**{source['source']}**: {source['n_rows']} records, {len(source['skipped'])} skipped."]
        lines += [f"- {note}" for note in source["notes"]]
        lines += [f"- skipped {record}: {reason}" for record, reason in source["skipped"]]
    return "\n".join(lines) + "\n"


def _answers(row: Mapping[str, Any]) -> str:
    if "range" in row:
        low, middle, high = row["range"]
        return f"{low:g} to {high:g} {row['unit']}, median {middle:g}"
    return ", ".join(f"{answer} {count}" for answer, count in row.get("answers", {}).items())
