r"""A study with models small enough for a CPU: it builds them, and teaches their vision towers, before `hf-evl-ecg study` goes on.

    python studies/evl_ecg/small_study.py studies/configs/ecg_small.yaml --data_dir ../shared/data/ecg

CPU smoke run, a minute or two:

    python studies/evl_ecg/small_study.py studies/configs/ecg_demo.yaml --smoke --output_dir outputs/smoke_study

Everything that `hf-evl-ecg study --help` says holds here too. The YAML file has three more sections:

    build:          {teacher: ..., student: ...}, options of small_models.py
    teacher_vision: of vision_pretraining.py, for the teacher, before it learns answers; may be left out
    student_vision: of vision_pretraining.py, for the student, before it is distilled; may be left out
"""

from collections.abc import Sequence
from typing import Any

import small_models
import vision_pretraining

from hf_evl_ecg.commands import study
from hf_evl_ecg.commands.parser import parse_arguments
from hf_evl_ecg.commands.study import Study, StudyArguments

SMOKE: dict[str, dict[str, Any]] = {**study.SMOKE, "teacher_vision": {"steps": 1}, "student_vision": {"steps": 1}}


class SmallStudy(Study):
    """A study whose models are built and, where the file says so, whose vision towers are taught on simulated ECGs."""

    sections = (*Study.sections, "build", "teacher_vision", "student_vision")
    needed = (*Study.needed, "build")
    small = SMOKE

    def prepare(self) -> None:
        """The questions, and models with random weights, whose tokenizers learn the questions."""
        super().prepare()
        for kind, options in self.config["build"].items():
            options = {"kind": kind, "data": self.path("questions"), **(options or {})}
            self.stage(f"{kind}_init", small_models, options)

    def teacher_start(self) -> str:
        """The built teacher, with its vision tower taught."""
        return self._taught("teacher")

    def student_start(self) -> str:
        """The built student, with its vision tower taught."""
        return self._taught("student")

    def _taught(self, kind: str) -> str:
        name = f"{kind}_vision"
        if name not in self.config:
            return self.path(f"{kind}_init")
        self.stage(name, vision_pretraining, {"model": self.path(f"{kind}_init"), **self.images, **self.config[name]})
        return self.path(name)


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    (given,) = parse_arguments(arguments, StudyArguments, description=__doc__, prog=prog)
    study.main(given, SmallStudy)


if __name__ == "__main__":
    command()
