r"""Ask a vision-language model about one ECG: a recording of any usual format, or a picture of ECG paper.

    hf-evl-ecg interpret records/af --model ecg-student
    hf-evl-ecg interpret records/af --model ecg-student --question "What is the rhythm?" --labels AF SR --html af.html

Prints the answer and the probability of each label; --html writes a page that prints to scale on A4 landscape, --fhir resources for a
clinic's other systems. Of a long recording --start names the second to begin at, and --every asks again so many seconds later, to its
end, on one page of HTML:

    hf-evl-ecg interpret records/holter --model ecg-student --start 3600 --every 600 --html holter.html
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_evl_ecg.arguments import check_at_least, check_between
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.qa.prompts import REPORT_QUESTION

if TYPE_CHECKING:  # --help must not wait for torch
    from PIL import Image

    from hf_evl_ecg.interpret.interpreter import ECGInterpreter
    from hf_evl_ecg.interpret.report import ECGReport
    from hf_evl_ecg.signals.ecg import ECG

__all__ = ["InterpretArguments", "command", "main"]

PAGE_S = 10.0  # of a recording that a page shows
LEAST_PAGE_S = 1.0  # less than a beat would be left of a page


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
    start: float = field(default=0.0, metadata={"help": "Second of a recording at which its page begins."})
    every: float | None = field(
        default=None,
        metadata={
            "help": "A further page every so many seconds, to the recording's end; all in one --html, one --json."
        },
    )
    layout: str = field(default="3x4+rhythm", metadata={"help": "Layout of the page: 3x4+rhythm, 3x4, 6x2 or 12x1."})
    json: str | None = field(default=None, metadata={"help": "Write the interpretation as json to this file."})
    html: str | None = field(default=None, metadata={"help": "Write a one-page report to this file."})
    fhir: str | None = field(
        default=None,
        metadata={"help": "Write a FHIR R4 bundle to this file: reports, observations, models; no patient."},
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, InterpretArguments, description=__doc__, prog=prog))


def main(args: InterpretArguments) -> list[dict[str, Any]]:
    """Interpret one ECG, print what was found and write what was asked for.

    Returns:
        `hf_evl_ecg.interpret.report.ECGReport.to_dict` of each page.

    Raises:
        ValueError: If record, model or options do not fit (``ECGRecordError``, ``ModelLoadError`` and others).
        OSError: If a file cannot be written.
    """
    from hf_evl_ecg.files import new_file, write_text
    from hf_evl_ecg.interpret.fhir import fhir_bundle, fhir_entries
    from hf_evl_ecg.interpret.interpreter import ECGInterpreter
    from hf_evl_ecg.interpret.page import strip_page

    _check(args)
    started = time.perf_counter()
    first = _read(args, args.start)  # before a model is loaded, which may take minutes
    read_s = time.perf_counter() - started
    interpreters = [
        ECGInterpreter.from_pretrained(
            model, device=args.device, dtype=args.dtype, quantization=args.quantization, revision=revision
        )
        for model, revision in ((args.model, args.revision), (args.teacher, None))
        if model is not None
    ]
    found: list[dict[str, Any]] = []
    resources: list[dict[str, Any]] = []

    def reports() -> Iterator[ECGReport]:
        for source, warned, seconds in chain([(*first, read_s)], _further(args, first[0])):
            report = _ask(args, interpreters, source, warned, seconds)
            print(_summary(report), flush=True)
            found.append(report.to_dict())
            if args.fhir:
                resources.extend(fhir_entries(report))
            yield report

    pages = reports()
    if args.html:
        with new_file(args.html) as temporary, temporary.open("w", encoding="utf-8") as file:
            # A day's pages are hundreds of megabytes of pictures: each is written and forgotten.
            file.writelines(strip_page(pages, f"ECG interpretation: {Path(args.record).name}"))
    else:
        deque(pages, maxlen=0)
    if args.json:
        content = found[0] if args.every is None else {"pages": found}
        write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if args.fhir:
        write_text(args.fhir, json.dumps(fhir_bundle(resources), indent=1, ensure_ascii=False) + "\n")
    return found


def _ask(
    args: InterpretArguments,
    interpreters: Sequence[ECGInterpreter],
    source: ECG | Image.Image,
    warned: list[str],
    read_s: float,
) -> ECGReport:
    """What all models make of one page."""
    from hf_evl_ecg.interpret.report import ECGReport, Opinion, describe_model
    from hf_evl_ecg.signals.ecg import ECG

    ecg, opinions = (source if isinstance(source, ECG) else None), []
    for interpreter in interpreters:
        done = interpreter(source, args.question, labels=_labels(args), max_new_tokens=args.max_new_tokens)
        done = replace(done, seconds=done.seconds | {"read": read_s})
        opinions.append(Opinion(describe_model(interpreter), done))
        if ecg is not None:  # a picture is shown as it was given
            warned = [*warned, *(f"{opinions[-1].model['name']}: {notice}" for notice in interpreter.notices)]
    return ECGReport(args.record, opinions, ecg, warned, args.layout)


def _further(
    args: InterpretArguments, first: ECG | Image.Image
) -> Iterator[tuple[ECG | Image.Image, list[str], float]]:
    """Later pages of a recording; one that cannot be read, as in a gap, is named and passed over."""
    from hf_evl_ecg.records.header import ECGRecordError
    from hf_evl_ecg.signals.ecg import ECG

    if args.every is None or not isinstance(first, ECG):
        return
    for number in count(1):
        start_s = args.start + number * args.every
        if start_s + LEAST_PAGE_S > first.recorded_s:
            return
        started = time.perf_counter()
        try:
            source, warned = _read(args, start_s)
        except ECGRecordError as error:
            print(f"No page at {start_s:g} s: {error}", flush=True)
            continue
        yield source, warned, time.perf_counter() - started


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
    if not 0 <= args.start < math.inf:
        raise ValueError(f"start={args.start}: allowed is 0 or a positive number of seconds")
    if args.every is not None:
        check_between("every", args.every, LEAST_PAGE_S, math.inf, "s")
    for name in filter(None, (args.json, args.html, args.fhir)):
        if Path(name).is_dir():
            raise ValueError(f"{name}: is a folder (give the name of a file in it)")


def _read(args: InterpretArguments, start_s: float) -> tuple[ECG | Image.Image, list[str]]:
    """The recording or picture, and what reading it warned of, without the folder it lies in."""
    from hf_evl_ecg.interpret.pictures import READ_S, read_source
    from hf_evl_ecg.records.warned import gather_warnings
    from hf_evl_ecg.signals.ecg import ECG

    with gather_warnings(Path(args.record).parent) as warned:
        seconds = READ_S if args.every is None and not start_s else PAGE_S
        found = read_source(
            args.record,
            nan=args.missing,
            gain_per_mv=args.gain_per_mv,
            page=args.page,
            start_s=start_s,
            duration_s=seconds,
        )
    if args.every is not None and not isinstance(found, ECG):
        raise ValueError(f"every={args.every:g}: {args.record} is a picture (start and every are for recordings)")
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
