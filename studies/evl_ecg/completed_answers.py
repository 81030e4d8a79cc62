r"""The questions of a hospital that labelled some of its records: its own answers for these, a teacher's for the others.

    python studies/evl_ecg/completed_answers.py --given outputs/questions_tenth --taught outputs/taught_all --output_dir outputs/completed

A teacher may be asked as much as one likes about a page that nobody has read, so the questions of such a page are all those of --taught
(from `hf-evl-ecg answer`), and those of a labelled page are its own. Runs on one process, in seconds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk

from hf_evl_ecg.chat.examples import is_answered, record_name
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.data.stored import load_questions, save_questions
from hf_evl_ecg.inference.taught_answers import GIVEN_COLUMNS


@dataclass
class CompletedArguments:
    """Which questions, and who answered them."""

    given: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare, some pages without an answer."})
    taught: str = field(metadata={"help": "Question dataset from hf-evl-ecg answer, of the same records."})
    output_dir: str = field(metadata={"help": "Folder of the new question dataset."})


def complete(given: Dataset, taught: Dataset) -> Dataset:
    """Rows of the first that have an answer, and of the second those whose record has none in the first.

    Raises:
        ValueError: A record without an answer has none of the teacher either.
    """
    labelled = given.filter(is_answered)
    known = {record_name(row) for row in labelled}
    wanted = {record_name(row) for row in given} - known
    others = taught.filter(lambda row: record_name(row) in wanted)
    if missing := wanted - {record_name(row) for row in others}:
        raise ValueError(f"taught: has no answer about {len(missing)} records, such as {sorted(missing)[0]!r}")
    given_as = {kept: name for name, kept in GIVEN_COLUMNS.items() if kept in others.column_names}
    # The columns of what was given stay, by which the answers of a teacher are known; where nobody wrote another, it is the same.
    labelled = labelled.map(
        lambda row: {kept: row[name] for kept, name in given_as.items()}, load_from_cache_file=False
    )
    return concatenate_datasets([labelled.cast(others.features), others])


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, CompletedArguments, description=__doc__, prog=prog))


def main(args: CompletedArguments) -> Dataset:
    """Put the two together and save them.

    Returns:
        The training rows.
    """
    given, taught = (load_questions(folder, "train") for folder in (args.given, args.taught))
    rows = complete(given, taught)
    splits = load_from_disk(args.given)
    assert isinstance(splits, DatasetDict)
    report = {"rows": len(rows), "labelled": len(given.filter(is_answered))}
    save_questions({**splits, "train": rows}, args.output_dir, {"report.json": json.dumps(report, indent=1) + "\n"})
    print(f"{len(rows)} rows: {args.output_dir}")
    return rows


if __name__ == "__main__":
    command()
