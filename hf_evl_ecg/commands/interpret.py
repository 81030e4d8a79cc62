r"""Ask a vision-language model about one ECG: a recording of any usual format, or a picture of ECG paper.

    hf-evl-ecg interpret records/af --model ecg-student
    hf-evl-ecg interpret records/af --model ecg-student --question "What is the rhythm?" --labels AF SR --html af.html

Prints the answer and the probability of each label; --html writes a page that prints to scale on A4 landscape.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.qa.prompts import REPORT_QUESTION

if TYPE_CHECKING:  # --help must not wait for torch
    from PIL import Image

    from hf_evl_ecg.interpret.report import ECGReport
    from hf_evl_ecg.signals.ecg import ECG

__all__ = ["InterpretArguments", "command", "main"]


@dataclass
class InterpretArguments:
    """Which ECG, which model, what to ask, and where the report goes."""

    record: str = field(
        metadata={
            "help": "WFDB record (without suffix), DICOM, XML, SCP-ECG or EDF file, picture, PDF or zip; may stand first, without "
            "--record.",
            "positional": True,
        }
    )
    model: str = field(metadata={"help": "Folder of an exported model, or its name on the Hub."})
    teacher: str | None = field(
        default=None, metadata={"help": "A second model to stand beside it, such as its teacher."}
    )
    question: str = field(default=REPORT_QUESTION, metadata={"help": "What to ask."})
    labels: list[str] | None = field(
        default=None,
        metadata={"help": "Codes of labels to score, such as AF LBBB, or none. Default: those of the model."},
    )
    max_new_tokens: int = field(default=256, metadata={"help": "Longest answer in tokens."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of --model on the Hub."})
    device: str | None = field(
        default=None, metadata={"help": "Such as cpu or cuda:0; chosen automatically if not given."}
    )
    dtype: str = field(default="auto", metadata={"help": "Type of the weights: auto, float32, bfloat16 or float16."})
    quantization: str | None = field(default=None, metadata={"help": "4bit or 8bit, by bitsandbytes on a GPU."})
    missing: Literal["raise", "interpolate"] = field(
        default="raise", metadata={"help": "Missing samples of a record: raise an error, or interpolate them."}
    )
    gain_per_mv: float | None = field(
        default=None, metadata={"help": "Stored units per mV, where a record's header is known to be wrong."}
    )
    page: int | None = field(default=None, metadata={"help": "Page of a PDF, from 1; needed where it has several."})
    layout: str = field(default="3x4+rhythm", metadata={"help": "Layout of the page: 3x4+rhythm, 3x4, 6x2 or 12x1."})
    json: str | None = field(default=None, metadata={"help": "Write the interpretation as json to this file."})
    html: str | None = field(default=None, metadata={"help": "Write a one-page report to this file."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, InterpretArguments, description=__doc__, prog=prog))


def main(args: InterpretArguments) -> ECGReport:
    """Interpret one ECG, print what was found and write what was asked for.

    Raises:
        ValueError: If record, model or options do not fit (``ECGRecordError``, ``ModelLoadError`` and others).
        OSError: If a file cannot be written.
    """
    from hf_evl_ecg.files import write_text
    from hf_evl_ecg.interpret.interpreter import ECGInterpreter
    from hf_evl_ecg.interpret.page import report_page
    from hf_evl_ecg.interpret.report import ECGReport, Opinion, describe_model
    from hf_evl_ecg.signals.ecg import ECG

    _check(args)
    started = time.perf_counter()
    source, warned = _read(args)
    ecg = source if isinstance(source, ECG) else None
    read = time.perf_counter() - started
    labels = _labels(args)
    opinions = []
    for model, revision in ((args.model, args.revision), (args.teacher, None)):
        if model is not None:
            interpreter = ECGInterpreter.from_pretrained(
                model, device=args.device, dtype=args.dtype, quantization=args.quantization, revision=revision
            )
            done = interpreter(source, args.question, labels=labels, max_new_tokens=args.max_new_tokens)
            done = replace(done, seconds=done.seconds | {"read": read})
            opinions.append(Opinion(describe_model(interpreter), done))
            if ecg is not None:  # a picture is shown as it was given
                warned += [f"{opinions[-1].model['name']}: {notice}" for notice in interpreter.notices]
    report = ECGReport(args.record, opinions, ecg, warned, args.layout)
    print(_summary(report))
    if args.json:
        write_text(args.json, json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        write_text(args.html, report_page(report))
    return report


def _labels(args: InterpretArguments) -> list[str] | None:
    return [] if args.labels == ["none"] else args.labels


def _check(args: InterpretArguments) -> None:
    """Refuse what cannot work before a model is loaded, which may take minutes."""
    from hf_evl_ecg.inference.label_scores import check_labels
    from hf_evl_ecg.interpret.page import true_scale

    true_scale(args.layout)
    check_labels(_labels(args) or [])
    if not args.question.strip():
        raise ValueError("question='': must not be empty (leave it out to ask for a report)")
    check_at_least("max_new_tokens", args.max_new_tokens, 1)
    for name in filter(None, (args.json, args.html)):
        if Path(name).is_dir():
            raise ValueError(f"{name}: is a folder (give the name of a file in it)")


def _read(args: InterpretArguments) -> tuple[ECG | Image.Image, list[str]]:
    """The recording or picture, and what reading it warned of, without the folder it lies in."""
    from hf_evl_ecg.interpret.pictures import read_source
    from hf_evl_ecg.records.warned import gather_warnings

    with gather_warnings(Path(args.record).parent) as warned:
        found = read_source(args.record, nan=args.missing, gain_per_mv=args.gain_per_mv, page=args.page)
    return found, warned


def _summary(report: ECGReport) -> str:
    from hf_evl_ecg.interpret.report import DISCLAIMER
    from hf_evl_ecg.qa.labels import label_text

    lines = [*(f"Warning: {line}" for line in report.notices()), f"Question: {report.question}"]
    for opinion in report.opinions:
        done = opinion.interpretation
        lines.append(f"{opinion.model['name']}: {done.answer or '(nothing)'}")
        lines += [f"  doubtful: {doubt}" for doubt in done.doubts]
        lines += [f"  such answers on test records: {found}" for found in done.measured]
        if done.unseen_leads:
            lines.append(f"  its picture does not show in full: {', '.join(done.unseen_leads)}")
        lines += [f"  {score:.2f}  {label_text(label)}" for label, score in done.label_scores.items()]
        lines.append("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in done.seconds.items()))
    return "\n".join([*lines, DISCLAIMER])
