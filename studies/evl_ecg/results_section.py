r"""Fill a section of a markdown file with a table made from a results json.

    python studies/evl_ecg/results_section.py --results model_cards/results/ecg_small.json --markdown README.md \
        --section ecg_small --tasks real:axis_closed real:diagnosis_closed --metrics balanced_accuracy auc

The table, means over seeds, replaces what stands between <!-- results:NAME --> and <!-- /results:NAME -->.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.files import write_text
from hf_evl_ecg.results import read_results
from hf_evl_ecg.scores.tables import HEADLINES, seed_table


@dataclass
class SectionArguments:
    """Which results, and where the table goes."""

    results: str = field(metadata={"help": "Results json."})
    markdown: str = field(metadata={"help": "File that holds the two markers of the section."})
    section: str = field(metadata={"help": "Its name: <!-- results:NAME --> ... <!-- /results:NAME -->."})
    tasks: list[str] | None = field(default=None, metadata={"help": "Tasks to show; default all."})
    metrics: list[str] = field(default_factory=lambda: list(HEADLINES), metadata={"help": "Metrics to show."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, SectionArguments, description=__doc__, prog=prog))


def main(args: SectionArguments) -> str:
    """Fill the section.

    Returns:
        The text of the whole file.

    Raises:
        ValueError: The file does not hold both markers once, or the results hold no row of a task.
    """
    path, results = Path(args.markdown), read_results(args.results)
    present = {row["task"] for row in results["rows"]}
    if missing := [task for task in args.tasks or () if task not in present]:
        raise ValueError(f"{args.results} has no row of {missing}; it has {sorted(present)}.")
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- results:{args.section} -->", f"<!-- /results:{args.section} -->"
    found = re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    if len(found) != 1 or text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order.")
    table = seed_table([row for row in results["rows"] if not args.tasks or row["task"] in args.tasks], args.metrics)
    source = f"From `{Path(args.results).name}` (commit {str(results['commit'])[:12]}, {results['machine']['cpu']})."
    text = text.replace(found[0], f"{begin}\n\n{table}\n{source}\n\n{end}")
    write_text(path, text)
    return text


if __name__ == "__main__":
    command()
