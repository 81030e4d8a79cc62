r"""Turn ECG records with labels into one dataset of questions with splits.

Everything at hand, LUDB by subject, PTB-XL by fold, the Challenge by record, and simulated records for training only:

    python examples/evl_ecg/prepare_data.py --ptbxl data/ptb-xl --ludb data/ludb --cinc data/cinc2021/training \
        --simulated_train 500 --output_dir outputs/questions

One's own folder of WFDB records with a CSV (columns: record; labels, patient, split, report, heart_rate … where known):

    python examples/evl_ecg/prepare_data.py --folder my_ecgs --table my_labels.csv --output_dir outputs/my_questions

CPU smoke run, without any file:

    python examples/evl_ecg/prepare_data.py --simulated_train 5 --simulated_test 2 --output_dir outputs/smoke_questions

Writes OUTPUT_DIR (datasets.load_from_disk; splits train, validation, test; one row per question, which says where its ECG lies and
holds no samples) and OUTPUT_DIR/report.json and report.md: records and questions per source and split, what was skipped and why, and
what a reader of results must know about each source. Images are drawn from the records when they are needed. Checks every header;
takes seconds to a minute per thousand records. All options can stand in a YAML file, given first.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets
from ecg_options import parse_arguments

from hf_evl_ecg.data import (
    LoadReport,
    conversation_dataset,
    load_cinc,
    load_folder,
    load_ludb,
    load_ptbxl,
    load_ptbxl_filtered,
    load_simulated,
    question_dataset,
)
from hf_evl_ecg.data.table import SPLITS
from hf_evl_ecg.files import write_text
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.qa.prompts import FORMATS, TASKS


@dataclass
class PrepareArguments:
    """Which records, which questions."""

    output_dir: str = field(metadata={"help": "Where the question dataset goes; must be new or hold an older one."})
    ptbxl: str | None = field(
        default=None, metadata={"help": "Folder of PTB-XL; folds 1-8 train, 9 validation, 10 test."}
    )
    ptbxl_filtered: str | None = field(
        default=None,
        metadata={"help": "Folder of the filtered, z-scored PTB-XL subset (x100hz_int16.npy, labels.csv)."},
    )
    ludb: str | None = field(default=None, metadata={"help": "Folder of LUDB; split by subject."})
    cinc: str | None = field(
        default=None, metadata={"help": "Folder of the PhysioNet/CinC Challenge 2020/21; split by record."}
    )
    dx_mapping: str | None = field(
        default=None, metadata={"help": "The Challenge's dx_mapping.csv, for names of codes."}
    )
    folder: str | None = field(default=None, metadata={"help": "A folder of WFDB records of your own."})
    table: str = field(default="records.csv", metadata={"help": "Its CSV, relative to the folder."})
    simulated_train: int = field(default=0, metadata={"help": "Simulated training records of each class."})
    simulated_validation: int = field(default=0, metadata={"help": "Simulated validation records of each class."})
    simulated_test: int = field(default=0, metadata={"help": "Simulated test records of each class."})
    simulated_classes: list[str] = field(
        default_factory=lambda: list(CPSC_CLASSES), metadata={"help": "Classes to simulate, of the nine of CPSC-2018."}
    )
    formats: list[str] = field(default_factory=lambda: list(FORMATS), metadata={"help": "Formats of questions."})
    tasks: list[str] = field(default_factory=lambda: list(TASKS), metadata={"help": "What to ask about."})
    classes: list[str] | None = field(
        default=None, metadata={"help": "Also ask which of these labels apply, where all of them are known."}
    )
    per_record: int | None = field(default=None, metadata={"help": "At most this many questions per record."})
    balanced: bool = field(
        default=False,
        metadata={"help": "Ask yes/no about every known label, as often with yes as with no; excludes per_record."},
    )
    turns: int = field(
        default=1,
        metadata={
            "help": "At most this many questions per training conversation: an image is read once for all of them. "
            "Validation and test questions stay apart."
        },
    )
    report_text: str = field(
        default="labels", metadata={"help": "labels: reports made of labels; original: as written."}
    )
    stop_on_bad: bool = field(default=False, metadata={"help": "Stop at the first bad record instead of skipping it."})
    check: str = field(
        default="header", metadata={"help": "header: headers and file sizes; signal: read every sample too."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of splits, questions and simulated hearts."})


def load_sources(args: PrepareArguments) -> Iterator[tuple[Dataset, LoadReport]]:
    """Read every source that is named, one by one."""
    common: dict[str, Any] = {"on_bad": "raise" if args.stop_on_bad else "skip", "check": args.check}
    split = {**common, "seed": args.seed}
    if args.ptbxl:
        yield load_ptbxl(args.ptbxl, **common)
    if args.ptbxl_filtered:
        check = "signal" if args.check == "signal" else "none"
        yield load_ptbxl_filtered(args.ptbxl_filtered, **{**split, "check": check})
    if args.ludb:
        yield load_ludb(args.ludb, **split)
    if args.cinc:
        yield load_cinc(args.cinc, dx_mapping=args.dx_mapping, **split)
    if args.folder:
        yield load_folder(args.folder, args.table, **split)
    simulated = []
    for name in SPLITS:
        count = getattr(args, f"simulated_{name}")
        if count:
            simulated.append(load_simulated(count, classes=args.simulated_classes, split=name, seed=args.seed))
    if simulated:
        report = LoadReport("simulated", sum(r.n_rows for _, r in simulated), [], simulated[0][1].notes)
        yield concatenate_datasets([rows for rows, _ in simulated]), report


def make_questions(args: PrepareArguments, rows: Dataset, source: str) -> Dataset:
    """Ask about the records of one source; wrong options come from the same source, so they do not give it away."""
    try:
        return question_dataset(
            rows,
            formats=args.formats,
            tasks=args.tasks,
            classes=args.classes,
            per_record=args.per_record,
            balanced=args.balanced,
            report_text=args.report_text,
            seed=args.seed,
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def main(args: PrepareArguments) -> DatasetDict:
    """Read, ask, split, write.

    Returns:
        The questions by split; splits without any are left out.

    Raises:
        ValueError: No source is named, or one of them cannot be read.
        ECGRecordError: A bad record, with ``stop_on_bad``.
    """
    parts, reports = [], []
    for rows, report in load_sources(args):
        print(
            report
            if len(report.skipped) <= 20
            else f"{report.source}: {report.n_rows} records, {len(report.skipped)} skipped"
        )
        parts.append(make_questions(args, rows, report.source))
        reports.append(report)
    if not parts:
        raise ValueError("No records: name --ptbxl, --ptbxl_filtered, --ludb, --cinc, --folder or --simulated_train.")
    questions = concatenate_datasets(parts)
    kept = {name: [i for i, split in enumerate(questions["split"]) if split == name] for name in SPLITS}
    data = DatasetDict({name: questions.select(index).flatten_indices() for name, index in kept.items() if index})
    summary = summarise(args, data, reports)
    if args.turns > 1 and "train" in data:
        data["train"] = conversation_dataset(data["train"], args.turns, seed=args.seed)
    output = Path(args.output_dir)
    data.save_to_disk(str(output))
    write_text(output / "report.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_text(output / "report.md", describe(summary))
    print(f"\n{describe(summary)}\nWritten: {output}")
    return data


def summarise(args: PrepareArguments, data: DatasetDict, reports: list[LoadReport]) -> dict[str, Any]:
    """Counts per source and split, skipped records and notes, as plain data."""
    counts = []
    for split, questions in data.items():
        asked = Counter(questions["source"])
        records = Counter(source for source, _ in set(zip(questions["source"], questions["record"], strict=True)))
        counts += [
            {"split": split, "source": source, "records": records[source], "questions": asked[source]}
            for source in sorted(asked)
        ]
    return {"config": asdict(args), "counts": counts, "sources": [asdict(report) for report in reports]}


def describe(summary: dict[str, Any]) -> str:
    """The summary as markdown."""
    lines = ["| split | source | records | questions |", "| --- | --- | --: | --: |"]
    lines += ["| {split} | {source} | {records} | {questions} |".format(**row) for row in summary["counts"]]
    for source in summary["sources"]:
        lines += ["", f"**{source['source']}**: {source['n_rows']} records, {len(source['skipped'])} skipped."]
        lines += [f"- {note}" for note in source["notes"]]
        lines += [f"- skipped {record}: {reason}" for record, reason in source["skipped"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(*parse_arguments(sys.argv[1:], PrepareArguments, description=__doc__))
