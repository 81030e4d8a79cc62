r"""Run one whole study from a YAML file: questions, teacher, cache, students with and without a teacher, scores of all of them.

    hf-evl-ecg study my_study.yaml --data_dir data/ecg

Several GPUs: run the single verbs with `accelerate launch`; this one keeps to one process, but two of them can train students of
different --methods at the same time. --smoke takes a few steps on a few simulated records, on the models of the file.

Every stage has a folder below OUTPUT_DIR and is skipped when it is done; a stage that was interrupted goes on from its last
checkpoint. A stage whose settings have changed stops the study: remove its folder to run it anew. Results:
OUTPUT_DIR/STUDY.json, .md, .png. The YAML file holds, by section, the options of the other verbs:

    study: my_study
    images:    options of every verb that draws ECGs
    questions: of prepare; folders relative to --data_dir
    teacher:   of teach, with its model; or the folder or Hub name of a teacher that is not trained
    cache:     of cache; may be left out
    student:   of distil, common to all methods, with the student to start from
    methods:   name -> what is different, such as {sft: {sft_only: true}, evl_ecg: {}}; seeds of its own, if it has any
    seeds:     training seeds of the students
    evaluate:  of evaluate
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hf_evl_ecg.files import read_mapping, write_text

from . import cache, distil, evaluate, prepare, teach
from .options import ImageOptions
from .parser import option_tokens, parse_arguments

__all__ = ["Stage", "Study", "StudyArguments", "command", "main", "shrink"]

SOURCES = ("ptbxl", "ptbxl_filtered", "ludb", "cinc", "folder", "dx_mapping")
SECTIONS = ("study", "images", "questions", "teacher", "cache", "student", "methods", "seeds", "evaluate")
SMOKE: dict[str, dict[str, Any]] = {
    "questions": {"simulated_train": 3, "simulated_validation": 0, "simulated_test": 1},
    "teacher": {"max_steps": 2, "train_records": 6},
    "cache": {"train_records": 6},
    "student": {"max_steps": 2, "train_records": 6},
    "evaluate": {"records": 3, "max_new_tokens": 8, "n_bootstrap": 20},
}
"""What --smoke puts in place of the file's settings, for sections that the file has."""
_HELD: dict[str, tuple[Any, str]] = {  # all other sections hold options
    "study": (str, "a name"),
    "seeds": (list, "a list of numbers"),
    "teacher": ((str, Mapping), "options of teach, or the name of a model"),
}


class Verb(Protocol):
    """A module of a verb."""

    def command(self, arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
        """Run the command line."""


@dataclass
class StudyArguments:
    """Which study, on which data."""

    study: str = field(
        metadata={"help": "YAML file of the study; may stand first, without --study.", "positional": True}
    )
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


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, StudyArguments, description=__doc__, prog=prog))


def main(args: StudyArguments, kind: type[Study] | None = None) -> list[dict[str, Any]]:
    """Run the study.

    Args:
        args: Which study.
        kind: `Study`, or a subclass with stages of its own.

    Returns:
        Rows of the results json.
    """
    study = (kind or Study)(read_mapping(args.study), args.output_dir, args.data_dir, smoke=args.smoke)
    return study.run(args.methods)


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
                f"{self.folder}: was made with other settings, see stage.json (remove it to run the stage anew)"
            )
        if done.is_file():
            print(f"[{self.folder.name}] is done already", flush=True)
            return
        print(f"[{self.folder.name}]", flush=True)
        # Settings are written before the work, so that a stage begun with other settings is not continued.
        started = time.monotonic()
        write_text(begun, json.dumps(self.record, indent=1, default=str) + "\n")
        work()
        write_text(done, json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")


class Study:
    """The stages of one study.

    A subclass may add sections and stages: it extends `sections`, `needed` and `small`, and overrides `prepare`, `teacher_start` or `student_start`.

    Args:
        config: Content of the YAML file.
        output: Where everything goes; None: ``outputs/STUDY``.
        data_dir: Folder that the data folders in the file lie in; without it they are taken as they are.
        smoke: A few steps on a few simulated records: the settings of `small` replace those of the file.

    Raises:
        ValueError: An unknown or missing section, or one that does not hold settings.
    """

    sections: tuple[str, ...] = SECTIONS
    small: Mapping[str, Mapping[str, Any]] = SMOKE
    needed: tuple[str, ...] = ("study", "questions", "teacher", "student", "methods")

    def __init__(
        self,
        config: Mapping[str, Any],
        output: str | Path | None = None,
        data_dir: str | None = None,
        *,
        smoke: bool = False,
    ) -> None:
        unknown, missing = sorted(set(config) - set(self.sections)), sorted(set(self.needed) - set(config))
        if unknown or missing:
            raise ValueError(
                f"unknown sections {unknown}, missing sections {missing}: allowed are {list(self.sections)}"
            )
        for name, value in config.items():
            held, expected = _HELD.get(name, (Mapping, "lines of OPTION: VALUE"))
            empty = value is None and name not in self.needed
            if not empty and not isinstance(value, held):
                raise ValueError(f"section {name}={value!r}: expected {expected}")
        self.config = shrink(config, self.small) if smoke else config
        self.output = Path(output or f"outputs/{config['study']}")
        self.data_dir = data_dir
        self.images: dict[str, Any] = dict(self.config.get("images") or {})

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
        """The questions."""
        base = Path(self.data_dir) if self.data_dir else Path()
        wanted = dict(self.config["questions"])
        wanted |= {name: str(base / wanted[name]) for name in SOURCES if wanted.get(name)}
        self.stage("questions", prepare, wanted)

    def train_teacher(self) -> None:
        """The teacher, and what it says about every training question."""
        common = {"data": self.path("questions"), **self.images}
        if not isinstance(self.config["teacher"], str):
            options = {**_training(self.config["teacher"]), "model": self.teacher_start()}
            self.stage("teacher", teach, common | options)
        if "cache" in self.config:
            self.stage("cache", cache, {"teacher": self.teacher(), **common, **(self.config["cache"] or {})})

    def train_students(self, methods: Sequence[str] | None = None) -> None:
        """One student per method and seed, all from the same start.

        Args:
            methods: Train only these.

        Raises:
            ValueError: The study has no such method.
        """
        if unknown := sorted(set(methods or ()) - set(self.config["methods"])):
            raise ValueError(f"methods={unknown}: are not in the study, {list(self.config['methods'])} are")
        common = {"data": self.path("questions"), "teacher": self.teacher(), **self.images}
        common |= {**self.config["student"], "student": self.student_start()}
        if "cache" in self.config:
            common["teacher_cache"] = self.path("cache")
        for method in methods or self.config["methods"]:
            own = {name: value for name, value in (self.config["methods"][method] or {}).items() if name != "seeds"}
            for seed in self.seeds(method):
                self.stage(f"{method}_{seed}", distil, _training({**common, **own, "seed": seed}))

    def evaluate(self) -> list[dict[str, Any]]:
        """Score teacher and students on the same questions; write results."""
        from hf_evl_ecg.scores.report import write_report

        images, options = ImageOptions(**self.images), self.config.get("evaluate") or {}
        rows = evaluate.score_models(self.models(), images, self.output, data=self.path("questions"), **options)
        text = write_report(self.output, self.config["study"], self._described(), rows)
        print(f"\n{text}\nWritten: {self.output / self.config['study']}.json, .md, .png")
        return rows

    def models(self) -> dict[str, tuple[str, int | None, str]]:
        """Name → method, training seed and folder of every model that is scored."""
        given = self.config["teacher"]
        found: dict[str, tuple[str, int | None, str]] = {}
        found["teacher"] = ("teacher", None if isinstance(given, str) else given.get("seed", 0), self.teacher())
        for method in self.config["methods"]:
            for seed in self.seeds(method):
                found[f"{method}_{seed}"] = (method, seed, self.path(f"{method}_{seed}"))
        return found

    def teacher(self) -> str:
        """The teacher that students learn from."""
        given = self.config["teacher"]
        return given if isinstance(given, str) else self.path("teacher")

    def teacher_start(self) -> str:
        """The model that the teacher is made of."""
        return _named(self.config["teacher"], "teacher", "model")

    def student_start(self) -> str:
        """The model that every student is made of."""
        return _named(self.config["student"], "student", "student")

    def seeds(self, method: str) -> list[int]:
        """Training seeds of a method: its own, or those of the study."""
        return (self.config["methods"][method] or {}).get("seeds", self.config.get("seeds", [0]))

    def path(self, stage: str) -> str:
        """Folder of a stage."""
        return str(self.output / stage)

    def stage(self, name: str, verb: Verb, options: Mapping[str, Any]) -> None:
        """Run a verb in a folder of its own, unless it is done."""
        options = {**options, "output_dir": self.path(name)}
        Stage(self.output / name, options).run(lambda: verb.command(option_tokens(options), prog=f"stage {name}"))

    def _described(self) -> dict[str, Any]:
        """The settings for the results json, with the report of the questions, and no folder of one machine."""
        # The file's own folders stand in for those that prepare read, which name places of this machine.
        report = json.loads((self.output / "questions" / "report.json").read_text(encoding="utf-8"))
        given = {name: self.config["questions"].get(name) for name in SOURCES}
        return {**self.config, "questions_report": {**report, "config": {**report["config"], **given}}}


def shrink(config: Mapping[str, Any], smoke: Mapping[str, Mapping[str, Any]] = SMOKE) -> dict[str, Any]:
    """The study with a few steps on a few records, on simulated records alone."""
    small = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for section, values in smoke.items():
        if section in small and not isinstance(small[section], str):
            small[section] = {**(small[section] or {}), **values}
    for source in SOURCES:
        small["questions"].pop(source, None)
    return small


def _training(options: Mapping[str, Any]) -> dict[str, Any]:
    # "last": a stage that was interrupted goes on; in a new folder there is no checkpoint and it starts.
    return {"report_to": "none", "resume_from_checkpoint": "last", **options}


def _named(options: Mapping[str, Any], section: str, name: str) -> str:
    if not options.get(name):
        raise ValueError(f"{section}.{name}: is missing (name a folder or a model on the Hub to start from)")
    return str(options[name])
