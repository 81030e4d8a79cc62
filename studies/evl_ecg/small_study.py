r"""A study with models small enough for a CPU: it builds them, and gives them a general start, before `hf-evl-ecg study` goes on.

    python studies/evl_ecg/small_study.py studies/configs/ecg_small.yaml --data_dir ../shared/data/ecg

CPU smoke run, a minute or two:

    python studies/evl_ecg/small_study.py studies/configs/ecg_demo.yaml --smoke --output_dir outputs/smoke_study

Everything that `hf-evl-ecg study --help` says holds here too. The YAML file has more sections:

    build:          {teacher: ..., student: ...}, options of small_models.py
    general:        options of general_start.py, and under teacher and student what differs; may be left out
    teacher_vision: of vision_pretraining.py, for the teacher, before it learns answers; may be left out
    student_vision: of vision_pretraining.py, for the student, before it is distilled; may be left out
    teacher_first:  of teach, for the teacher, before it learns with the options of teacher; may be left out
    budgets:        name -> options of prepare: what the students learn from, where that is not what the teacher learns from

    answer:         options of the verb answer, with budget: NAME, the budget whose training questions the teacher answers
    ready:          stage -> folder with its result, such as {teacher: studies/weights/teacher}: such a stage is not run; and answers ->
                    folder of packed answers: students that have some there are not trained
    compare:        {over: [METHOD-BUDGET, ...], means: {NAME: [TASK, ...]}}: paired differences, of tasks and of means of tasks
    without_image:  {methods: [METHOD-BUDGET, ...]}: students, or teacher, that are asked about white pages too

With budgets, each method is trained once per budget and seed, in a folder METHOD-BUDGET_SEED, and called METHOD-BUDGET in the results.
Each student answers the questions of validation and test as soon as it is trained, so that several processes can share the work. A
method may say, beside options of distil:

    budgets: [NAME]         the budgets that it is trained with, where not with all
    in_budget: {NAME: ...}  options of distil with this budget, such as another number of steps
    answers: taught         it learns from the teacher's answers; of a budget with labelled_share, only where no answer was given
    start: random_tower     it starts with a vision tower that was never taught
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import completed_answers
import general_start
import random_tower
import small_models
import small_results
import vision_pretraining
from PIL import Image

from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.commands import answer, prepare, study, teach
from hf_evl_ecg.commands.study import Student, Study, StudyArguments, Verb, training_options
from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.rivals.presets import PRESETS
from hf_evl_ecg.scores.report import write_report

SPLITS = ("validation", "test")
NO_IMAGE = "_no_image"
OWN = ("budgets", "answers", "start", "in_budget")  # what a method says beside options of distil
SCORED = ("n_bootstrap", "min_per_class")  # options of evaluate that concern scores; the others, answers
SMOKE: dict[str, dict[str, Any]] = {
    **study.SMOKE,
    "general": {"tower_steps": 1, "stages": ["1:1"], "eval_pages": 8},
    "teacher_vision": {"steps": 1},
    "teacher_first": study.SMOKE["teacher"],
    "student_vision": {"steps": 1},
}


class SmallStudy(Study):
    """A study whose models are built and, where the file says so, given a start; whose students may have several budgets of labels."""

    sections = (
        *(*Study.sections, "build", "general", "teacher_vision", "teacher_first", "student_vision"),
        *("budgets", "answer", "ready", "compare", "without_image"),
    )
    needed = (*Study.needed, "build")
    small = SMOKE

    def path(self, stage: str) -> str:
        """Folder of a stage, or where its result lies ready."""
        return self._ready(stage) or super().path(stage)

    def stage(self, name: str, verb: Verb, options: Mapping[str, Any], *, wait: bool = True) -> None:
        """Run a verb in a folder of its own, unless that is done or its result lies ready."""
        if self._ready(name):
            print(f"[{name}] is taken from {self.path(name)}", flush=True)
        else:
            super().stage(name, verb, options, wait=wait)

    def prepare(self) -> None:
        """The questions, and models with random weights, whose tokenizers learn the questions."""
        super().prepare()
        for budget, options in self.budgets().items():
            self.stage(f"questions_{budget}", prepare, {**self.questions(), **options})
        for kind, options in self.config["build"].items():
            options = {"kind": kind, "data": self.path("questions"), **(options or {})}
            self.stage(f"{kind}_init", small_models, options)

    def budgets(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of each budget of labels → options of prepare; empty where students learn from what the teacher learns from."""
        return self.config.get("budgets") or {}

    def cache_teacher(self, name: str, questions: str) -> None:
        """What the teacher says about the training questions, of each budget if there are any."""
        suffixes = [f"_{budget}" for budget in self.budgets()] or [""]
        for suffix in suffixes:
            super().cache_teacher(name + suffix, questions + suffix)

    def teacher_start(self) -> str:
        """The built teacher, with its start; of no use where a trained teacher lies ready."""
        if ready := self._ready("teacher"):
            return ready
        start = self._started("teacher")
        if "teacher_first" not in self.config:
            return start
        options = {**training_options(self.config["teacher_first"]), "model": start}
        self.stage("teacher_first", teach, {"data": self.path("questions"), **self.images, **options})
        return self.path("teacher_first")

    def student_start(self) -> str:
        """The built student, with its start."""
        return self._started("student")

    def students(self, methods: Sequence[str] | None = None) -> Iterator[Student]:
        """Training runs, once for each budget of a method."""
        for student in super().students(methods):
            own = dict(student.options)
            wanted, taught, start, special = (own.pop(name, None) for name in OWN)
            if start is not None:
                own["student"] = self.path(f"student_{start}")
            if PRESETS.get(own.get("method", ""), {}).get("alpha") == 0.0:
                own.pop("teacher_cache", None)  # there is no term that reads it
            if not self.budgets():
                yield replace(student, options=own)
            for budget in self.budgets() if wanted is None else wanted:
                suffix = f"_{self.answered(budget)}" if taught else f"_{budget}"
                options = {**own, "data": self.path(suffix[1:] if taught else f"questions{suffix}")}
                options |= (special or {}).get(budget, {})
                if "teacher_cache" in own:
                    options["teacher_cache"] = self.path(f"cache{suffix}")
                method = f"{student.method}-{budget}"
                yield replace(student, name=f"{method}_{student.seed}", method=method, options=options)

    def answered(self, budget: str) -> str:
        """Stage of a budget's questions with the teacher's answers."""
        return f"{'completed' if 'labelled_share' in self.budgets()[budget] else 'taught'}_{budget}"

    def train_teacher(self) -> None:
        """The teacher, its answers, and what it says about the training questions."""
        super().train_teacher()
        if self.budgets():
            self.ask("teacher")

    def train_students(self, methods: Sequence[str] | None = None) -> None:
        """What the students of these methods need beside the questions and what the teacher says about them; then the students."""
        chosen = {
            name: options or {}
            for name, options in self.config["methods"].items()
            if methods is None or name in methods
        }
        if any(options.get("start") == "random_tower" for options in chosen.values()):
            self.stage("student_random_tower", random_tower, {"model": self.student_start()})
        for options in chosen.values():
            if options.get("answers") == "taught":
                self.teach_answers(options)
        super().train_students(methods)

    def teach_answers(self, method: Mapping[str, Any]) -> None:
        """The teacher's answers for the budgets of a method, and what it says about them where a term reads that."""
        given = dict(self.config["answer"])
        asked = given.pop("budget")
        options = {**given, "teacher": self.teacher(), "data": self.path(f"questions_{asked}"), **self.images}
        self.stage(f"taught_{asked}", answer, options)
        for budget in method.get("budgets") or self.budgets():
            stage = self.answered(budget)
            if stage.startswith("completed"):
                parts = {"given": self.path(f"questions_{budget}"), "taught": self.path(f"taught_{asked}")}
                self.stage(stage, completed_answers, parts)
            if PRESETS[method["method"]]["alpha"] > 0:
                Study.cache_teacher(self, f"cache_{stage}", stage)

    def train_student(self, student: Student) -> None:
        """Train one student and ask it, unless another process does or its answers lie ready."""
        if (student.method, student.seed) in small_results.packed_runs(self._ready("answers")):
            print(f"[{student.name}] has answered already: {self._ready('answers')}", flush=True)
            return
        super().train_student(student)
        if self.budgets() and (self.output / student.name / "done.json").is_file():
            self.ask(student.name)

    def ask(self, name: str) -> None:
        """Let a model answer the questions of validation and test; its answers stay in files in the study's folder."""
        options = {k: v for k, v in (self.config.get("evaluate") or {}).items() if k not in SCORED}
        model, processor = load_model(self.path(name))
        draw = ImageOptions(**self.images).renderer()
        loaders: dict[str, Any] = {name: draw}
        if name.rsplit("_", 1)[0] in self._without_image():
            white = Image.new("RGB", (draw.config.width_px, draw.config.height_px), "white")
            loaders[name + NO_IMAGE] = lambda item: white
        for (asked, load), split in product(loaders.items(), SPLITS):
            path = self.output / f"answers_{asked}_{split}.jsonl"
            questions = small_results.asked_questions(self.path("questions"), split)
            answer_items(model.eval(), processor, questions, load_image=load, path=path, **options)

    def models(self) -> dict[str, tuple[str, int | None, str]]:
        """Teacher and students, and those that are asked without an image."""
        found = super().models()
        blind = self._without_image()
        other = {k + NO_IMAGE: (m + NO_IMAGE, s, f) for k, (m, s, f) in found.items() if m in blind}
        return found | other

    def evaluate(self) -> list[dict[str, Any]]:
        """Score teacher and students on the test questions; with budgets, from packed answers, which are kept beside the results."""
        if not self.budgets():
            return super().evaluate()
        name, options = self.config["study"], dict(self.config.get("evaluate") or {})
        models, questions = self.models(), self.path("questions")
        items, runs = small_results.pack_runs(
            self.output / f"{name}_answers", questions, "test", models, self.output, self._ready("answers")
        )
        scored = {k: v for k, v in options.items() if k in SCORED}
        rows = small_results.score_runs(items, runs, self.config.get("compare"), **scored)
        print(write_report(self.output, name, self._described(), rows))
        return rows

    def _ready(self, stage: str) -> str | None:
        return (self.config.get("ready") or {}).get(stage)

    def _without_image(self) -> Sequence[str]:
        return (self.config.get("without_image") or {}).get("methods", [])

    def _started(self, kind: str) -> str:
        name = f"{kind}_init"
        if "general" in self.config:
            common = {k: v for k, v in self.config["general"].items() if k not in ("teacher", "student")}
            size = {k: v for k, v in self.images.items() if k in ("image_width", "image_height")}
            own = {**common, **size, **(self.config["general"].get(kind) or {}), "model": self.path(name)}
            name = f"{kind}_general"
            self.stage(name, general_start, own)
        if f"{kind}_vision" in self.config:
            own = {"model": self.path(name), **self.images, **self.config[f"{kind}_vision"]}
            name = f"{kind}_vision"
            self.stage(name, vision_pretraining, own)
        return self.path(name)


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    (given,) = parse_arguments(arguments, StudyArguments, description=__doc__, prog=prog)
    study.main(given, SmallStudy)


if __name__ == "__main__":
    command()
