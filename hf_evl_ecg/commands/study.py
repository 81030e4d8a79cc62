r"""Run one whole study from a YAML file: questions, teacher, cache, students with and without a teacher, scores of all of them.

    hf-evl-ecg study my_study.yaml --data_dir data/ecg

Several GPUs: run the single verbs with `accelerate launch`; this one keeps to one process, but several of them may share a study: each
takes the students that no other is training. --smoke takes a few steps on a few simulated records, on the models of the file.

Every stage has a folder below OUTPUT_DIR and is skipped when it is done; a stage that was interrupted goes on from its last
checkpoint. A stage whose settings, models, questions or cache are others than it was made from stops the study: remove its folder.
Results: OUTPUT_DIR/STUDY.json, .md, .png. The YAML file holds, by section, the options of the other verbs:

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import option_tokens, parse_arguments
from hf_evl_ecg.command_line.stages import Stage
from hf_evl_ecg.files import read_mapping
from hf_evl_ecg.json_text import read_json

from . import cache, distil, evaluate, prepare, teach

__all__ = ["Student", "Study", "StudyArguments", "Verb", "command", "main", "shrink", "training_options"]

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
            "help": "Train the students of these methods only, and score nothing. Start it without this option at the end."
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


@dataclass(frozen=True)
class Student:
    """One training run of a study.

    Attributes:
        name: Its folder.
        method: Its method in the results.
        seed: Its training seed.
        options: Options of `distil`, without the folder.
    """

    name: str
    method: str
    seed: int
    options: dict[str, Any]


class Study:
    """The stages of one study.

    A subclass may add sections and stages: it extends `sections`, `needed` and `small`, and overrides what prepares or names them.

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
        self.stage("questions", prepare, self.questions())

    def questions(self) -> dict[str, Any]:
        """Options of `prepare`, with the folders of the sources."""
        base, wanted = Path(self.data_dir or ""), dict(self.config["questions"])
        return wanted | {name: str(base / wanted[name]) for name in SOURCES if wanted.get(name)}

    def train_teacher(self) -> None:
        """The teacher, and what it says about every training question."""
        if not isinstance(self.config["teacher"], str):
            options = {**training_options(self.config["teacher"]), "model": self.teacher_start()}
            self.stage("teacher", teach, {"data": self.path("questions"), **self.images, **options})
        if "cache" in self.config:
            self.cache_teacher("cache", "questions")

    def cache_teacher(self, name: str, questions: str) -> None:
        """What the teacher says about the training questions of a folder."""
        options = {"teacher": self.teacher(), "data": self.path(questions), **self.images}
        self.stage(name, cache, options | (self.config["cache"] or {}))

    def train_students(self, methods: Sequence[str] | None = None) -> None:
        """One student per method and seed, all from the same start.

        Raises:
            ValueError: The study has none of one of ``methods``.
        """
        if unknown := sorted(set(methods or ()) - set(self.config["methods"])):
            raise ValueError(f"methods={unknown}: are not in the study, {list(self.config['methods'])} are")
        for student in self.students(methods):
            self.train_student(student)

    def students(self, methods: Sequence[str] | None = None) -> Iterator[Student]:
        """Training runs of ``methods`` (None: all), in the order of seeds: a study that is stopped early has whole rows."""
        common = {"data": self.path("questions"), "teacher": self.teacher(), **self.images}
        common |= {**self.config["student"], "student": self.student_start()}
        if "cache" in self.config:
            common["teacher_cache"] = self.path("cache")
        for seed in sorted({seed for method in self.config["methods"] for seed in self.seeds(method)}):
            for method in self.config["methods"]:
                if seed in self.seeds(method) and (methods is None or method in methods):
                    own = {**common, **(self.config["methods"][method] or {}), "seed": seed}
                    own.pop("seeds", None)
                    yield Student(f"{method}_{seed}", method, seed, own)

    def train_student(self, student: Student) -> None:
        """Train one student, unless that is done or another process does it."""
        self.stage(student.name, distil, training_options(student.options), wait=False)

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
        return found | {s.name: (s.method, s.seed, self.path(s.name)) for s in self.students()}

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

    def stage(self, name: str, verb: Verb, options: Mapping[str, Any], *, wait: bool = True) -> None:
        """Run a verb in a folder of its own, unless it is done.

        ``wait=False`` goes on without it while another process runs it.
        """
        # Published data sets do not change under a study, and are too many files to read each time.
        read = {option: value for option, value in options.items() if option not in SOURCES and isinstance(value, str)}
        options = {**options, "output_dir": self.path(name)}
        stage = Stage(self.output / name, options, {k: v for k, v in read.items() if v and Path(v).is_dir()})
        stage.run(lambda: verb.command(option_tokens(options), prog=f"stage {name}"), wait=wait)

    def _described(self) -> dict[str, Any]:
        """The settings for the results json, with the report of the questions, and no folder of one machine."""
        # The file's own folders stand in for those that prepare read, which name places of this machine.
        report = read_json(self.output / "questions" / "report.json")
        given = {name: self.config["questions"].get(name) for name in SOURCES} | {"output_dir": "questions"}
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


def training_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training stage, which goes on where it was interrupted; in a new folder "last" finds nothing."""
    return {"report_to": "none", "resume_from_checkpoint": "last", **options}


def _named(options: Mapping[str, Any], section: str, name: str) -> str:
    if not options.get(name):
        raise ValueError(f"{section}.{name}: is missing (name a folder or a model on the Hub to start from)")
    return str(options[name])
