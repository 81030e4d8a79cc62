r"""Ask a model about every ECG in a folder; what is done is not done again.

    hf-evl-ecg interpret-folder exams --model ecg-student --output_dir answers --html --fhir

Finds WFDB records by their headers and DICOM, XML, SCP-ECG, EDF, PDF pages, pictures and zip archives by their content, also in folders
below. Writes for each ECG a json (and a page, and a FHIR bundle) under its own name, and summary.csv and failures.json for all. A file that
cannot be read is named there, and the rest goes on; the command then ends with status 2. Started again, it asks only about what is new:
another picture, model or question is new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.qa.prompts import REPORT_QUESTION

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.interpret.interpreter import ECGInterpreter

__all__ = ["FolderFailuresError", "InterpretFolderArguments", "command", "main"]


class FolderFailuresError(ValueError):
    """Some ECGs of a folder could not be interpreted; the others are done."""


@dataclass
class InterpretFolderArguments:
    """Which ECGs, which model, what to ask, and where the answers go."""

    folder: str = field(metadata={"help": "Folder with ECGs; may stand first, without --folder.", "positional": True})
    model: str = field(metadata={"help": "Folder of an exported model, or its name on the Hub."})
    output_dir: str = field(metadata={"help": "Where answers go; it may hold those of a former run."})
    question: str = field(default=REPORT_QUESTION, metadata={"help": "What to ask."})
    labels: list[str] | None = field(
        default=None,
        metadata={"help": "Codes of labels to score, such as AF LBBB, or none. Default: those of the model."},
    )
    max_new_tokens: int = field(default=256, metadata={"help": "Longest answer in tokens."})
    html: bool = field(default=False, metadata={"help": "Also write a page for each ECG."})
    fhir: bool = field(default=False, metadata={"help": "Also write a FHIR R4 bundle for each ECG."})
    missing: Literal["raise", "interpolate"] = field(
        default="raise", metadata={"help": "Missing samples of a recording: a failure, or interpolate them."}
    )
    layout: str = field(default="3x4+rhythm", metadata={"help": "Layout of the pages: 3x4+rhythm, 3x4, 6x2 or 12x1."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of --model on the Hub."})
    device: str | None = field(
        default=None, metadata={"help": "Such as cpu or cuda:0; chosen automatically if not given."}
    )
    dtype: str = field(default="auto", metadata={"help": "Type of the weights: auto, float32, bfloat16 or float16."})
    quantization: str | None = field(default=None, metadata={"help": "4bit or 8bit, by bitsandbytes on a GPU."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, InterpretFolderArguments, description=__doc__, prog=prog))


def main(args: InterpretFolderArguments) -> dict[str, int]:
    """Interpret every ECG of a folder.

    Returns:
        How many were ``"asked"`` about, ``"kept"`` from a former run, and ``"other"`` files that hold no ECG.

    Raises:
        FolderFailuresError: Some could not be interpreted; raised when all others are done.
        FolderInUseError: Another process writes to the same folder.
        ValueError: There is no ECG, or options do not fit.
    """
    from tqdm.auto import tqdm

    from hf_evl_ecg.files import held_folder, write_json, write_text
    from hf_evl_ecg.interpret.folder import find_sources, summary_table
    from hf_evl_ecg.interpret.interpreter import ECGInterpreter
    from hf_evl_ecg.models.fingerprints import model_fingerprint, processor_fingerprint

    _check(args)
    content = find_sources(args.folder, args.output_dir)
    others = ", ".join(f"{count} {what}" for what, count in content.others.items())
    if not content.sources:
        raise ValueError(f"{args.folder}: holds no ECG that can be read{f' (but {others})' if others else ''}")
    found: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    with held_folder(args.output_dir):
        interpreter = ECGInterpreter.from_pretrained(
            args.model, device=args.device, dtype=args.dtype, quantization=args.quantization, revision=args.revision
        )
        about = {
            "model": model_fingerprint(interpreter.model),
            "processor": processor_fingerprint(interpreter.processor),
            "temperatures": interpreter.temperatures,
            "question": args.question,
            "labels": interpreter.labels if args.labels is None else args.labels,
            "max_new_tokens": args.max_new_tokens,
            "layout": args.layout,
        }
        try:
            for source in tqdm(content.sources, desc="ECGs", unit=" ECGs", delay=3.0):
                try:
                    found.append(_interpret(args, interpreter, source, about))
                except ValueError as error:  # also ECGRecordError and UnreadableImageError
                    failures[source.as_posix()] = str(error).replace(f"{Path(args.folder)}{os.sep}", "")
        finally:
            write_text(Path(args.output_dir, "summary.csv"), summary_table(found))
            write_json(Path(args.output_dir, "failures.json"), failures)
    asked = sum(entry.pop("new") for entry in found)
    counts = {"asked": asked, "kept": len(found) - asked, "other": sum(content.others.values())}
    print(f"{asked} ECGs asked about, {counts['kept']} kept from before{f'; no ECGs: {others}' if others else ''}")
    if failures:
        first = next(iter(failures.items()))
        raise FolderFailuresError(
            f"{len(failures)} of {len(content.sources)} ECGs could not be interpreted, the others are done; the first is {first[0]}: "
            f"{first[1]} (all: {Path(args.output_dir, 'failures.json')})"
        )
    return counts


def _interpret(
    args: InterpretFolderArguments, interpreter: ECGInterpreter, source: Path, about: dict[str, Any]
) -> dict[str, Any]:
    """What the model says of one ECG, now or before; the json is written last, so that it stands for all of its files."""
    from hf_evl_ecg.files import write_json, write_text
    from hf_evl_ecg.interpret.fhir import fhir_bundle, fhir_entries
    from hf_evl_ecg.interpret.folder import answer_key, kept_answer
    from hf_evl_ecg.interpret.page import report_page
    from hf_evl_ecg.interpret.pictures import load_picture, read_source
    from hf_evl_ecg.interpret.report import ECGReport, Opinion, describe_model
    from hf_evl_ecg.records.warned import gather_warnings
    from hf_evl_ecg.signals.ecg import ECG

    started = time.perf_counter()
    path = Path(args.folder, source)
    with gather_warnings(path.parent) as warned:
        read = _of_kind(read_source, path, args.missing)
    ecg = read if isinstance(read, ECG) else None
    key = answer_key(load_picture(read, interpreter.render).image, about)
    written = Path(args.output_dir, f"{source}.json")
    page, bundle = written.with_suffix(".html"), written.with_suffix(".fhir.json")
    whole = all(file.is_file() for file, wanted in ((page, args.html), (bundle, args.fhir)) if wanted)
    if whole and (kept := kept_answer(written, key)):
        return kept | {"new": False}
    seconds = {"read": time.perf_counter() - started}
    labels = [] if args.labels == ["none"] else args.labels
    said = interpreter(read, args.question, labels=labels, max_new_tokens=args.max_new_tokens)
    said.seconds.update(seconds)
    notices = () if ecg is None else interpreter.notices  # a picture is shown as it was given
    report = ECGReport(source.name, [Opinion(describe_model(interpreter), said)], ecg, [*warned, *notices], args.layout)
    if args.html:
        write_text(page, report_page(report))
    if args.fhir:
        write_json(bundle, fhir_bundle(fhir_entries(report)))
    content = report.to_dict() | {"source": source.as_posix(), "key": key}
    write_json(written, content)
    return content | {"new": True}


def _of_kind(read_source: Any, path: Path, missing: str) -> Any:
    """Read a recording with its missing samples treated as asked for, or a picture, to which that does not apply."""
    from hf_evl_ecg.clinical.content import recognise
    from hf_evl_ecg.clinical.pages import PAGE_KINDS
    from hf_evl_ecg.interpret.pictures import is_image_file

    picture = path.is_file() and (recognise(path) in (*PAGE_KINDS, "a picture") or is_image_file(path))
    return read_source(path) if picture else read_source(path, nan=missing)


def _check(args: InterpretFolderArguments) -> None:
    """Refuse what cannot work before a model is loaded, which may take minutes."""
    from hf_evl_ecg.inference.label_scores import check_labels
    from hf_evl_ecg.interpret.page import true_scale

    true_scale(args.layout)
    check_labels([] if args.labels in (None, ["none"]) else args.labels)
    if not args.question.strip():
        raise ValueError("question='': must not be empty (leave it out to ask for a report)")
    check_at_least("max_new_tokens", args.max_new_tokens, 1)
