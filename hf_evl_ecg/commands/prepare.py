r"""Turn ECG records with labels into one dataset of questions with splits.

Everything at hand, LUDB by subject, PTB-XL by fold, the Challenge by record, and simulated records for training only:

    hf-evl-ecg prepare --ptbxl data/ptb-xl --ludb data/ludb --cinc data/cinc2021/training --simulated_train 500 \
        --output_dir outputs/questions

One's own folder of WFDB records with a CSV (columns: record; labels, patient, split, report, heart_rate … where known; see
docs/own_records.md):

    hf-evl-ecg prepare --folder my_ecgs --table my_labels.csv --output_dir outputs/my_questions

CPU smoke run, without any file:

    hf-evl-ecg prepare --simulated_train 5 --simulated_test 2 --output_dir outputs/smoke_questions

Writes OUTPUT_DIR (datasets.load_from_disk; splits train, validation, test; one row per question, which says where its ECG lies and
holds no samples) and OUTPUT_DIR/report.json and report.md: records and questions per source and split, answers per task and class,
what was skipped and why, and what a reader of results must know about each source. Images are drawn from the records when they are
needed. Checks every header; takes seconds to a minute per thousand records. All options can stand in a YAML file, given first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.command_line.prepare_report import describe
from hf_evl_ecg.qa.answer_counts import count_answers
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.qa.prompts import FORMATS, TASKS

if TYPE_CHECKING:  # --help must not wait for pandas
    from datasets import Dataset, DatasetDict

    from hf_evl_ecg.sources import LoadReport

__all__ = ["PrepareArguments", "command", "main"]


MOST_PRINTED = 20
"""Skipped records that are named on the terminal; report.md names all of them."""


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
        default=None,
        metadata={
            "help": "Folder of the PhysioNet/CinC Challenge 2020/21, or of Chapman-Shaoxing-Ningbo; split by record."
        },
    )
    code15: str | None = field(
        default=None, metadata={"help": "Folder of CODE-15 (exams.csv, exams_part*.hdf5); split by patient."}
    )
    mimic_iv_ecg: str | None = field(
        default=None, metadata={"help": "Folder of MIMIC-IV-ECG (record_list.csv, files/); split by patient."}
    )
    sph: str | None = field(
        default=None, metadata={"help": "Folder of SPH (metadata.csv, code.csv, records/); split by patient."}
    )
    dx_mapping: str | None = field(
        default=None, metadata={"help": "The Challenge's dx_mapping.csv, for names of codes."}
    )
    folder: str | None = field(default=None, metadata={"help": "A folder of WFDB records of your own."})
    table: str | None = field(
        default=None,
        metadata={"help": "Its CSV: a path as it is, or relative to the folder. Default: the folder's records.csv."},
    )
    gain_per_mv: float | None = field(
        default=None,
        metadata={
            "help": "Stored units per mV of all records of the folder, where their headers are known to be wrong."
        },
    )
    simulated_train: int = field(default=0, metadata={"help": "Simulated training records of each class."})
    simulated_validation: int = field(default=0, metadata={"help": "Simulated validation records of each class."})
    simulated_test: int = field(default=0, metadata={"help": "Simulated test records of each class."})
    simulated_classes: list[str] = field(
        default_factory=lambda: list(CPSC_CLASSES), metadata={"help": "Classes to simulate, of the nine of CPSC-2018."}
    )
    formats: list[str] = field(default_factory=lambda: list(FORMATS), metadata={"help": "Formats of questions."})
    tasks: list[str] = field(default_factory=lambda: list(TASKS), metadata={"help": "What to ask about."})
    classes: list[str] | None = field(
        default=None,
        metadata={
            "help": "Also ask which of these labels apply, where all of them are known; several lists as NORM,MI,STTC AF,LBBB, "
            "labels joined by commas."
        },
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
    labelled_share: float = field(
        default=1.0,
        metadata={
            "help": "Keep the answers of this share of the training records, above 0 and at most 1, drawn alike from every source; "
            "the others keep their questions (one each with turns), for unanswered 'use' of hf-evl-ecg distil."
        },
    )
    report_text: Literal["labels", "original"] = field(
        default="labels", metadata={"help": "labels: reports made of labels; original: as written."}
    )
    stop_on_bad: bool = field(default=False, metadata={"help": "Stop at the first bad record instead of skipping it."})
    check: Literal["header", "signal"] = field(
        default="header", metadata={"help": "header: headers and file sizes; signal: read every sample too."}
    )
    missing: Literal["raise", "interpolate"] = field(
        default="raise",
        metadata={
            "help": "Missing samples of records: raise an error, or interpolate them, here and where the questions are used."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of splits, questions and simulated hearts."})

    def __post_init__(self) -> None:
        for name in ("simulated_train", "simulated_validation", "simulated_test"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0")
        for name in ("table", "gain_per_mv"):
            if self.folder is None and getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)}: is of the records in folder, and none is given")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    given = parse_arguments(arguments, PrepareArguments, description=__doc__, prog=prog)
    from datasets import disable_progress_bars

    disable_progress_bars()  # saving takes a second
    main(*given)


def main(args: PrepareArguments) -> DatasetDict:
    """Read, ask, split, write.

    Returns:
        The questions by split; splits without any are left out.

    Raises:
        ValueError: No source is named, one of them cannot be read, or a recording or patient is in two splits.
        ECGRecordError: A bad record, with ``stop_on_bad``.
    """
    from datasets import DatasetDict, concatenate_datasets

    from hf_evl_ecg.data.labelled import check_share, keep_answers, training_conversations
    from hf_evl_ecg.data.stored import save_questions
    from hf_evl_ecg.sources.table import SPLITS, SplitCheck

    check_share(args.labelled_share)  # before hours of reading
    parts, reports, one_split = [], [], SplitCheck()
    for rows, report in _load_sources(args):
        for row in rows.select_columns(["record", "recording", "source", "storage", "root", "split", "patient"]):
            one_split.add(row)  # tables of two sources may name the same recording
        print(report.describe(MOST_PRINTED))
        parts.append(_make_questions(args, rows, report.source))
        reports.append(report)
    if not parts:
        raise ValueError(
            "no records: name ptbxl, ptbxl_filtered, ludb, cinc, code15, mimic_iv_ecg, sph, folder, or simulated_train, _validation or _test"
        )
    questions = concatenate_datasets(parts)
    kept = {name: [i for i, split in enumerate(questions["split"]) if split == name] for name in SPLITS}
    data = DatasetDict({name: questions.select(index).flatten_indices() for name, index in kept.items() if index})
    if args.labelled_share < 1 and "train" in data:
        data["train"] = keep_answers(data["train"], args.labelled_share, seed=args.seed)
    summary = _summarise(args, data, reports)
    # Counts above are of single questions, which is what is learnt and scored.
    if args.turns > 1 and "train" in data:
        data["train"] = training_conversations(data["train"], args.turns, seed=args.seed)
    output = Path(args.output_dir)
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    save_questions(data, output, {"report.json": text, "report.md": describe(summary)})
    print(f"\n{describe(summary)}\nWritten: {output}")
    return data


def _load_sources(args: PrepareArguments) -> Iterator[tuple[Dataset, LoadReport]]:
    """Read every source that is named, one by one."""
    from datasets import concatenate_datasets

    from hf_evl_ecg.sources import (
        LoadReport,
        load_cinc,
        load_code15,
        load_folder,
        load_ludb,
        load_mimic_iv_ecg,
        load_ptbxl,
        load_ptbxl_filtered,
        load_simulated,
        load_sph,
    )
    from hf_evl_ecg.sources.table import SPLITS

    common: dict[str, Any] = {"on_bad": "raise" if args.stop_on_bad else "skip", "check": args.check}
    split = {**common, "seed": args.seed}
    read: dict[str, Any] = {"missing": args.missing}
    if args.ptbxl:
        yield load_ptbxl(args.ptbxl, **common, **read)
    if args.ptbxl_filtered:
        # z-scored samples have no headers to check
        check = "signal" if args.check == "signal" else "none"
        yield load_ptbxl_filtered(args.ptbxl_filtered, **{**split, "check": check})
    if args.ludb:
        yield load_ludb(args.ludb, **split, **read)
    if args.cinc:
        yield load_cinc(args.cinc, dx_mapping=args.dx_mapping, **split, **read)
    if args.code15:
        yield load_code15(args.code15, **split)
    if args.mimic_iv_ecg:
        yield load_mimic_iv_ecg(args.mimic_iv_ecg, **split, **read)
    if args.sph:
        yield load_sph(args.sph, **split)
    if args.folder:
        yield load_folder(args.folder, args.table, gain_per_mv=args.gain_per_mv, **split, **read)
    simulated = []
    for name in SPLITS:
        count = getattr(args, f"simulated_{name}")
        if count:
            simulated.append(load_simulated(count, classes=args.simulated_classes, split=name, seed=args.seed))
    if simulated:
        report = LoadReport("simulated", sum(r.n_rows for _, r in simulated), [], simulated[0][1].notes)
        yield concatenate_datasets([rows for rows, _ in simulated]), report


def _make_questions(args: PrepareArguments, rows: Dataset, source: str) -> Dataset:
    """Ask about the records of one source; wrong options come from the same source, so they do not give it away."""
    from hf_evl_ecg.data.questions import question_dataset

    try:
        return question_dataset(
            rows,
            formats=args.formats,
            tasks=args.tasks,
            classes=_class_lists(args.classes),
            per_record=args.per_record,
            balanced=args.balanced,
            report_text=args.report_text,
            seed=args.seed,
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _class_lists(classes: Sequence[str] | None) -> Sequence[str] | list[list[str]] | None:
    """One list of labels as it is, or several where commas join labels."""
    if classes is None or not any("," in name for name in classes):
        return classes
    return [[label for label in name.split(",") if label] for name in classes]


def _summarise(args: PrepareArguments, data: DatasetDict, reports: Sequence[LoadReport]) -> dict[str, Any]:
    """Counts per source and split, answers per task, skipped records and notes, as plain data."""
    counts, answers = [], []
    labelled: dict[str, list[int]] = {}  # source -> records with answers, records
    for split, questions in data.items():
        asked = Counter(questions["source"])
        records = Counter(source for source, _ in set(zip(questions["source"], questions["record"], strict=True)))
        counts += [
            {"split": split, "source": source, "records": records[source], "questions": asked[source]}
            for source in sorted(asked)
        ]
        answered = questions.filter(lambda answer: answer is not None, input_columns="answer")
        answers += [{"split": split, "task": task, **found} for task, found in count_answers(answered).items()]
        if split == "train" and args.labelled_share < 1:
            kept = Counter(source for source, _ in set(zip(answered["source"], answered["record"], strict=True)))
            labelled = {source: [kept[source], records[source]] for source in sorted(asked)}
    sources = [asdict(report) for report in reports]
    return {"config": asdict(args), "counts": counts, "labelled": labelled, "answers": answers, "sources": sources}
