r"""One whole study from a YAML file: questions, teacher, cache, students with and without a teacher, scores of all of them.

    python examples/evl_ecg/study.py examples/configs/ecg_small.yaml --data_dir ../shared/data/ecg

Several GPUs: run the single scripts with `accelerate launch`; this one keeps to one process, but two of them can train students of
different --methods at the same time. CPU smoke run:

    python examples/evl_ecg/study.py examples/configs/ecg_demo.yaml --smoke --output_dir outputs/smoke_study

Every stage has a folder below OUTPUT_DIR and is skipped when it is done; a stage that was interrupted goes on from its last
checkpoint. A stage whose settings have changed stops the study: remove its folder to run it anew. Results:
OUTPUT_DIR/STUDY.json, .md, .png. The YAML file holds, by section, the options of the scripts beside this one:

    study: ecg_small
    images:      options of every script that draws ECGs
    questions:   of prepare_data.py; folders relative to --data_dir
    build:       {teacher: …, student: …} of small_models.py; left out where model and student name models of one's own
    teacher:     of train_teacher.py
    student_vision: of vision_pretraining.py, for the student; may be left out
    cache:       of cache_teacher.py; may be left out
    student:     of distill.py, common to all methods
    methods:     name → what is different, such as {sft: {sft_only: true}, evl_ecg: {}}; seeds of its own, if it has any
    seeds:       training seeds of the students
    evaluate:    of evaluate.py
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cache_teacher
import distill
import prepare_data
import small_models
import train_teacher
import vision_pretraining
import yaml
from ecg_options import ImageOptions, LoraOptions, load_questions, option_tokens, parse_arguments
from ecg_scores import score_model, write_report

from hf_evl_ecg import EVLECGConfig
from hf_evl_ecg.files import write_text

SECTIONS = (
    *("study", "images", "questions", "build", "teacher", "student_vision", "cache", "student", "methods", "seeds"),
    "evaluate",
)
SOURCES = ("ptbxl", "ptbxl_filtered", "ludb", "cinc", "folder", "dx_mapping")
SMOKE: dict[str, dict[str, Any]] = {
    "questions": {"simulated_train": 3, "simulated_validation": 0, "simulated_test": 1},
    "teacher": {"max_steps": 2, "pretrain_vision_steps": 1, "train_records": 6},
    "student_vision": {"steps": 1},
    "cache": {"train_records": 6},
    "student": {"max_steps": 2, "train_records": 6},
    "evaluate": {"records": 3, "max_new_tokens": 8, "n_bootstrap": 20},
}


@dataclass
class StudyArguments:
    """Which study, on which data."""

    study: str = field(metadata={"help": "YAML file of the study; the word --study may be left out."})
    output_dir: str | None = field(default=None, metadata={"help": "Default: outputs/STUDY."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder that the data folders in the file lie in."})
    methods: list[str] | None = field(
        default=None,
        metadata={
            "help": "Train the students of these methods only, and score nothing: several processes can share a study once its "
            "teacher (and cache) is there. Start it without this option at the end."
        },
    )
    smoke: bool = field(default=False, metadata={"help": "A few steps on a few records, to see that all stages run."})


class Stage:
    """A folder whose work is done once."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(settings, sort_keys=True, default=str)
        self.record = {"settings": dict(settings), "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def run(self, work: Callable[[], Any]) -> None:
        """Do the work unless it is done.

        Raises:
            ValueError: The folder holds, finished or begun, the work of other settings.
        """
        begun, done = self.folder / "stage.json", self.folder / "done.json"
        if begun.is_file() and json.loads(begun.read_text(encoding="utf-8"))["sha256"] != self.record["sha256"]:
            raise ValueError(
                f"{self.folder} was made with other settings (stage.json); remove it to run the stage anew."
            )
        if done.is_file():
            print(f"[{self.folder.name}] is done already", flush=True)
            return
        print(f"[{self.folder.name}]", flush=True)
        started = time.monotonic()
        write_text(begun, json.dumps(self.record, indent=1, default=str) + "\n")
        work()
        write_text(done, json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")


class Study:
    """The stages of one study.

    Args:
        config: Content of the YAML file.
        output: Where everything goes.
        data_dir: Folder that the data folders in the file lie in; without it they are taken as they are.

    Raises:
        ValueError: An unknown or missing section.
    """

    def __init__(self, config: Mapping[str, Any], output: Path, data_dir: str | None = None) -> None:
        unknown, missing = (
            set(config) - set(SECTIONS),
            {"study", "questions", "teacher", "student", "methods"} - set(config),
        )
        if unknown or missing:
            raise ValueError(
                f"sections {sorted(unknown)} are unknown, {sorted(missing)} are missing; known: {SECTIONS}"
            )
        self.config = config
        self.output = output
        self.data_dir = data_dir
        self.images: dict[str, Any] = dict(config.get("images", {}))

    def run(self, methods: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Run every stage that is not done.

        Args:
            methods: Train the students of these methods only, and score nothing.

        Returns:
            Rows of the results json.
        """
        self.prepare()
        self.train_teacher()
        self.train_students(methods)
        return self.evaluate() if methods is None else []

    def prepare(self) -> None:
        """Questions, and models with random weights."""
        base = Path(self.data_dir) if self.data_dir else Path()
        wanted = dict(self.config["questions"])
        wanted |= {name: str(base / wanted[name]) for name in SOURCES if wanted.get(name)}
        self._stage("questions", prepare_data.PrepareArguments, wanted, prepare_data.main)
        for kind, options in self.config.get("build", {}).items():
            options = {"kind": kind, "data": self._path("questions"), **(options or {})}
            self._stage(f"{kind}_init", small_models.BuildArguments, options, small_models.main)

    def train_teacher(self) -> None:
        """The teacher, and what it says about every training question."""
        kinds = (train_teacher.TeacherArguments, ImageOptions, LoraOptions, train_teacher.TeacherConfig)
        options = {"model": self._path("teacher_init"), "data": self._path("questions"), **self.images}
        self._stage("teacher", kinds, options | self._training(self.config["teacher"]), train_teacher.main)
        if "cache" in self.config:
            options = {"teacher": self._path("teacher"), "data": self._path("questions"), **self.images}
            kinds = (cache_teacher.CacheArguments, ImageOptions)
            self._stage("cache", kinds, options | (self.config["cache"] or {}), cache_teacher.main)

    def train_students(self, methods: Sequence[str] | None = None) -> None:
        """One student per method and seed, all from the same start.

        Args:
            methods: Train only these.

        Raises:
            ValueError: The study has no such method.
        """
        if unknown := set(methods or ()) - set(self.config["methods"]):
            raise ValueError(f"methods {sorted(unknown)} are not in the study; it has {list(self.config['methods'])}.")
        start = self._path("student_init")
        if "student_vision" in self.config:
            options = {"model": start, **self.images, **self.config["student_vision"]}
            kinds = (vision_pretraining.VisionArguments, ImageOptions)
            self._stage("student_vision", kinds, options, vision_pretraining.main)
            start = self._path("student_vision")
        common = {"student": start, "data": self._path("questions"), "teacher": self._path("teacher"), **self.images}
        if "cache" in self.config:
            common["teacher_cache"] = self._path("cache")
        kinds = (distill.DistillArguments, ImageOptions, LoraOptions, EVLECGConfig)
        for method in methods or self.config["methods"]:
            own = {name: value for name, value in (self.config["methods"][method] or {}).items() if name != "seeds"}
            for seed in self.seeds(method):
                options = {**common, **self.config["student"], **own, "seed": seed}
                self._stage(f"{method}_{seed}", kinds, self._training(options), distill.main)

    def evaluate(self) -> list[dict[str, Any]]:
        """Score teacher and students on the same questions; write results."""
        options = dict(self.config.get("evaluate", {}))
        split, records = options.pop("split", "test"), options.pop("records", None)
        questions = load_questions(self._path("questions"), split, records)
        models = {("teacher", self.config["teacher"].get("seed", 0)): "teacher"}
        models |= {
            (method, seed): f"{method}_{seed}" for method in self.config["methods"] for seed in self.seeds(method)
        }
        rows: list[dict[str, Any]] = []
        for (method, seed), folder in models.items():
            answers = self.output / f"answers_{folder}_{split}.jsonl"
            scored, _ = score_model(
                self._path(folder),
                questions,
                ImageOptions(**self.images),
                method=method,
                seed=seed,
                answers=answers,
                **options,
            )
            rows += scored
        report = json.loads((self.output / "questions" / "report.json").read_text(encoding="utf-8"))
        given = {
            name: self.config["questions"].get(name) for name in SOURCES
        }  # as in the file: no folder of one machine
        config = {**self.config, "questions_report": {**report, "config": {**report["config"], **given}}}
        text = write_report(self.output, self.config["study"], config, rows)
        print(f"\n{text}\nWritten: {self.output / self.config['study']}.json, .md, .png")
        return rows

    def seeds(self, method: str) -> list[int]:
        """Training seeds of a method: its own, or those of the study."""
        return (self.config["methods"][method] or {}).get("seeds", self.config.get("seeds", [0]))

    def _path(self, stage: str) -> str:
        return str(self.output / stage)

    def _training(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"report_to": "none", "resume_from_checkpoint": "last", **options}

    def _stage(self, name: str, kinds: Any, options: Mapping[str, Any], work: Callable[..., Any]) -> None:
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        options = {**options, "output_dir": self._path(name)}
        stage = Stage(self.output / name, options)
        stage.run(lambda: work(*parse_arguments(option_tokens(options), *kinds, description=None)))


def shrink(config: Mapping[str, Any]) -> dict[str, Any]:
    """The study with a few steps on a few records, on simulated records alone."""
    small = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for section, values in SMOKE.items():
        if section in small:
            small[section] = {**(small[section] or {}), **values}
    for source in SOURCES:
        small["questions"].pop(source, None)
    return small


def main(args: StudyArguments) -> list[dict[str, Any]]:
    """Run the study.

    Returns:
        Rows of the results json.
    """
    config = yaml.safe_load(Path(args.study).read_text(encoding="utf-8"))
    output = Path(args.output_dir or f"outputs/{config['study']}")
    return Study(shrink(config) if args.smoke else config, output, args.data_dir).run(args.methods)


if __name__ == "__main__":
    given = sys.argv[1:]
    given = ["--study", *given] if given and not given[0].startswith("-") else given
    main(*parse_arguments(given, StudyArguments, description=__doc__))
