r"""Offline demonstration: simulated ECGs -> small teacher -> distilled student -> scores, a picture, a model that loads anywhere.

    make demo-ecg

or

    python studies/evl_ecg/demo.py --output_dir outputs/demo_ecg

Simulates ECGs of five classes that differ at sight (studies/configs/ecg_demo.yaml), draws them on ECG paper, teaches a small LlavaNext
model to answer questions about them, and distils it into an Idefics3 model of a sixth of its size with another tokenizer and a quarter of
its visual tokens; the same student trained on the same answers without a teacher stands beside it. All three are scored on simulated ECGs
that none of them has seen and, where the folder of real records is there (--data_dir, $REAL_DATA_DIR), on real ones. Writes
OUTPUT_DIR/demo_ecg.json, .md, .png (scores), example.png (an ECG with question and answers) and export/ (the student), then loads the
student in a process that cannot import hf_evl_ecg and compares its logits.

It shows that the pieces work together. Minutes of training on two cores and one seed rank nothing, and say nothing about patients.
"""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import small_study
from matplotlib.figure import Figure
from small_study import SMOKE, SmallStudy
from transformers.utils import logging

from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.commands import prepare
from hf_evl_ecg.commands.study import shrink
from hf_evl_ecg.data.load import load_ecg
from hf_evl_ecg.data.stored import limit_records, load_questions
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.files import new_file, read_mapping
from hf_evl_ecg.hub.export import export_student
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.scores.models import score_model
from hf_evl_ecg.scores.report import write_report

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ecg_demo.yaml"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CHALLENGE = Path("ecg", "cinc2021", "training")


@dataclass
class DemoArguments:
    """Where the demonstration goes, and what it reads."""

    output_dir: str = field(default="outputs/demo_ecg", metadata={"help": "Where models, results and pictures go."})
    study: str | None = field(
        default=None, metadata={"help": "YAML file of the study that is run; default: studies/configs/ecg_demo.yaml."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of real data, whose ecg/cinc2021/training is used if it is there; default: $REAL_DATA_DIR, or "
            "shared/data beside this repository."
        },
    )
    real_records: int = field(default=40, metadata={"help": "Real records to score; 0: none."})
    smoke: bool = field(default=False, metadata={"help": "A few steps, to see that all parts run."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, DemoArguments, description=__doc__, prog=prog))


def main(args: DemoArguments) -> list[dict[str, Any]]:
    """Run the demonstration.

    Returns:
        Rows of the results json.
    """
    started = time.monotonic()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    output = Path(args.output_dir)
    config = read_mapping(args.study or CONFIG)
    config = shrink(config, SMOKE) if args.smoke else config
    print(
        "Simulates ECGs, teaches a small vision-language model about them, and trains a smaller one with and without it, offline; scores "
        f"all three.\nAbout six minutes on two idle cores; writes about 80 MB to {output}.\n",
        flush=True,
    )
    study = SmallStudy(config, output)
    study.prepare()
    study.train_teacher()
    train_at_once(args, output, list(config["methods"]))
    folders = {"teacher": output / "teacher", **{m: output / f"{m}_0" for m in config["methods"]}}
    images, options = ImageOptions(**config["images"]), dict(config["evaluate"])
    limit = options.pop("records", None)
    questions = {"simulated": load_questions(output / "questions", "test", limit)}
    data = Path(args.data_dir or os.environ.get("REAL_DATA_DIR") or DATA)
    if args.real_records and (real := real_questions(data / CHALLENGE, output, config, args.real_records)):
        questions["real"] = real
    rows: list[dict[str, Any]] = []
    answers: dict[tuple[str, str], dict[str, Answer]] = {}
    for method, folder in folders.items():
        model, processor = load_model(str(folder))
        for kind, asked in questions.items():
            path = output / f"answers_{method}_{kind}.jsonl"
            scored, pairs = score_model(
                model.eval(), processor, asked, images.renderer(), method=method, seed=0, answers=path, **options
            )
            rows += scored
            answers[method, kind] = {example_key(item): answer for item, answer in pairs}
    notes = [verdict(rows, list(folders)), "Trained for minutes, one seed: a check of the pieces, no ranking."]
    print(f"\n{write_report(output, config['study'], config, rows, notes)}")
    draw_example(output / "example.png", questions["simulated"], {m: answers[m, "simulated"] for m in folders})
    export(folders["evl_ecg"], output / "export", folders["teacher"], images.config())
    print(f"Written: {output / config['study']}.json, .md, .png, {output / 'example.png'}; models beside them.")
    print(f"Took {time.monotonic() - started:.0f} s.")
    return rows


def train_at_once(args: DemoArguments, output: Path, methods: Sequence[str]) -> None:
    """Train the students of all methods at the same time, a process each.

    Raises:
        RuntimeError: A process failed; what it printed stands above.
    """
    command = [sys.executable, small_study.__file__, args.study or str(CONFIG), "--output_dir", str(output)]
    command += ["--smoke"] * args.smoke
    # One thread each: threads of several processes on the same cores wait for each other.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([*command, "--methods", method], env=alone) for method in methods]
    if failed := [method for method, process in zip(methods, running, strict=True) if process.wait() != 0]:
        raise RuntimeError(f"students of {failed}: training failed, see above")


def real_questions(folder: Path, output: Path, config: Mapping[str, Any], limit: int) -> Any:
    """The same question about real records of CPSC-2018, whose labels answer it; None where there are none.

    No model of the demonstration was trained on a real record, so all splits are used.
    """
    if not folder.is_dir():
        return None
    asked = {"formats": ["fill"], "tasks": ["diagnosis"], "classes": config["questions"]["classes"]}
    data = prepare.main(prepare.PrepareArguments(str(output / "real_questions"), cinc=str(folder), **asked))
    questions = datasets.concatenate_datasets(list(data.values()))
    return limit_records(questions.filter(lambda options: bool(options), input_columns="options"), limit)


def verdict(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> str:
    """Say of each model on how many scores it beats chance, simulated and real apart."""
    parts = []
    for real in (False, True):
        own = [row for row in rows if row["above_chance"] is not None and row["task"].startswith("simulated") != real]
        own = [row for row in own if "/" not in row["task"].split(":")[-1]]
        if own:
            counts = [
                f"{method} {sum(row['above_chance'] for row in own if row['method'] == method)} of "
                f"{sum(row['method'] == method for row in own)}"
                for method in methods
            ]
            parts.append(f"{'real' if real else 'simulated'} ECGs: {', '.join(counts)}")
    return f"Scores above chance, {'; '.join(parts)}."


def draw_example(path: Path, questions: Any, answers: Mapping[str, Mapping[str, Answer]]) -> None:
    """Draw one ECG with its question and what each model answered: the first open question about an abnormal ECG."""
    opened = [item for item in questions if item["format"] == "open"] or list(questions)
    item = next((item for item in opened if item["labels"] != ["NORM"]), opened[0])
    image = render(load_ecg(item), RenderConfig(width_px=1600, height_px=900))
    lines = [f"Question: {item['question']}", f"Truth: {item['answer']}"]
    lines += [f"{method}: {found[example_key(item)].text or '(nothing)'}" for method, found in answers.items()]
    text = "\n".join(textwrap.fill(line, 120, subsequent_indent="    ") for line in lines)
    figure = Figure(figsize=(10, 7.2))
    axis = figure.add_axes((0.01, 0.2, 0.98, 0.75))
    axis.imshow(image)
    axis.axis("off")
    axis.set_title("Simulated ECG, not a patient", fontsize=10)
    figure.text(0.03, 0.18, text, fontsize=9.5, va="top", family="monospace")
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def export(student: Path, folder: Path, teacher: Path, config: RenderConfig) -> None:
    """Write the student as anyone loads it; `export_student` checks it in a process that cannot import this package."""
    if folder.is_dir():
        print(f"{folder} is there already.")
        return
    model, processor = load_model(str(student))
    provenance = {
        "method": "EVL-ECG",
        "teacher": f"the {teacher.name} of this demonstration",
        "data": "simulated ECGs",
        "images": config.to_dict(),  # how recordings are to be drawn for this model
    }
    report = export_student(model, folder, processor=processor, provenance=provenance)
    print(
        f"Exported to {report.folder}: {report.parameters:,} parameters; loaded by AutoModelForImageTextToText in a new process "
        f"without hf_evl_ecg, its logits differ by {report.reload_difference:.1e} of the largest."
    )


if __name__ == "__main__":
    command()
