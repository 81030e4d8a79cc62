r"""The whole way on a machine that is not one's own: records from the Hub, a study, and its student back to the Hub.

    hf-evl-ecg job study.yaml --records your-name/ecg-records --convert PULSE-ECG/PULSE-7B --student evl_ecg_0 \
        --repo_id your-name/ecg-student --card card.yaml

Fetches a data set repository of waveforms, converts a teacher in LLaVA layout if there is one, runs every stage of `hf-evl-ecg study`
(questions, teacher, cache, students, scores), and publishes one of its students with the results. STUDY and CARD are files here or in that
repository; folders in STUDY are relative to it. Every step is skipped when it is done, so after an interruption, with the same
OUTPUT_DIR, the same command goes on. `hf jobs uv run` starts examples/evl_ecg/job.py on a GPU of the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.files import read_mapping

from . import convert, publish
from .study import Study

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.hub.push import Preview, Push

__all__ = ["JobArguments", "command", "main"]


@dataclass
class JobArguments:
    """What is studied, on which records, and where the student goes."""

    study: str = field(
        metadata={
            "help": "YAML file of the study, here or in --records; may stand first, without --study.",
            "positional": True,
        }
    )
    student: str = field(metadata={"help": "Which of its students is published: METHOD_SEED, such as evl_ecg_0."})
    repo_id: str = field(metadata={"help": "Repository of the student, as NAMESPACE/NAME; created if it is missing."})
    card: str = field(
        metadata={"help": "Card of the student, README.md or a description in YAML; here or in --records."}
    )
    records: str | None = field(
        default=None, metadata={"help": "Data set repository with the waveforms; not needed with --data_dir."}
    )
    records_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of --records."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder with the waveforms, instead of --records."})
    convert: str | None = field(
        default=None,
        metadata={
            "help": "Teacher in LLaVA layout, such as PULSE-7B, that is converted and takes the place of the study's."
        },
    )
    output_dir: str = field(default="outputs/job", metadata={"help": "Where everything goes."})
    private: bool = field(
        default=True,
        metadata={"help": "Make a new repository private.", "no_help": "Make a new repository public, for all to see."},
    )
    tag: str | None = field(default=None, metadata={"help": "Tag for what was published; tags are never moved."})
    smoke: bool = field(
        default=False, metadata={"help": "A few steps on a few simulated records, to see that all stages run."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Send nothing at the end: show the card and the list of files."}
    )

    def __post_init__(self) -> None:
        if self.records is not None and self.data_dir is not None:
            raise ValueError(f"records={self.records}, data_dir={self.data_dir}: one of them is allowed (not both)")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, JobArguments, description=__doc__, prog=prog))


def main(args: JobArguments) -> Push | Preview:
    """Run every step that is not done.

    Returns:
        What is on the Hub; with ``--dry_run`` what would be sent.

    Raises:
        ValueError: The study has no such student, a file is neither here nor among the records, or a step refuses its options.
    """
    data, output = _records(args), Path(args.output_dir)
    config, card = read_mapping(_file(args.study, data)), _file(args.card, data)
    study = Study(_with_teacher(config, args), output, None if data is None else str(data), smoke=args.smoke)
    names = [f"{method}_{seed}" for method in config["methods"] for seed in study.seeds(method)]
    if args.student not in names:
        raise ValueError(f"student={args.student}: is not in the study, {', '.join(names)} are")
    if args.convert is not None and not Path(_converted(args)).exists():
        convert.main(convert.ConvertArguments(args.convert, _converted(args)))
    study.run()
    exported = output / f"{args.student}_export"
    given = publish.PublishArguments(
        repo_id=args.repo_id,
        model=str(exported if exported.exists() else output / args.student),
        export_dir=None if exported.exists() else str(exported),
        card=str(card),
        results=str(output / f"{config['study']}.json"),
        private=args.private,
        tag=args.tag,
        dry_run=args.dry_run,
    )
    return publish.main(given, PageOptions(**study.images))


def _records(args: JobArguments) -> Path | None:
    """The folder of the waveforms, fetched if need be; None for a study that needs none."""
    if args.records is None:
        return None if args.data_dir is None else Path(args.data_dir)
    from huggingface_hub import snapshot_download

    # Files, not the cache's links to files elsewhere: a record may not lead out of its folder.
    where = Path(args.output_dir, "records")
    snapshot_download(args.records, repo_type="dataset", revision=args.records_revision, local_dir=where)
    return where


def _file(name: str, data: Path | None) -> Path:
    """A file that lies here, or among the records."""
    places = [Path(name), *([] if data is None else [data / name])]
    for path in places:
        if path.is_file():
            return path
    raise ValueError(f"{name}: is neither here nor among the records ({', '.join(map(str, places))})")


def _converted(args: JobArguments) -> str:
    return str(Path(args.output_dir, "converted_teacher"))


def _with_teacher(config: dict[str, Any], args: JobArguments) -> dict[str, Any]:
    """The study with the converted teacher in the place of its own: as it is, or as the model that is taught further."""
    if args.convert is None:
        return config
    given, path = config.get("teacher"), _converted(args)
    return {**config, "teacher": {**given, "model": path} if isinstance(given, dict) else path}
