r"""Say what a distillation will need before a GPU is paid for: memory, FLOP, time, cache, and what would make it fit.

    hf-evl-ecg plan examples/configs/ecg_distill.yaml --gpus 8 --memory 80
    hf-evl-ecg plan examples/configs/ecg_distill.yaml --gpus 1 --memory 24 --lora_rank 64 --examples 100000 --text_tokens 120 --answer_tokens 40

The file and all options are those of hf-evl-ecg distil, so that a plan is of the run itself; options given here replace those of the
file. Student and teacher are read from config.json and their processors alone: no weights are needed, and no GPU. Everything is
computed by the models' own code on tensors with shapes and no values; a 7B teacher with a 2B student takes about half a minute and 2 GB
of memory, and as long again for each change that is tried where a run does not fit.

Memory is said by part, at the moment when a GPU is fullest; FLOP by part; time and price at a share of the GPUs' peak that is assumed
(--share_of_peak of --peak_tflops, --price). Where the questions (--data) are not there yet, --examples, --text_tokens and --answer_tokens
are needed; where they are, these three replace what was measured.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.options import ImageOptions, LoraOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.planning.cluster import Cluster
from hf_evl_ecg.rivals.presets import PRESETS

from .distil import DistillArguments

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.data.rendered import RenderedECG
    from hf_evl_ecg.planning.batches import TextBudget
    from hf_evl_ecg.planning.plan import Plan
    from hf_evl_ecg.planning.setup import PlannedConfig

__all__ = ["PlanArguments", "command", "main"]


@dataclass
class PlanArguments:
    """What an epoch consists of, and how the plan is printed."""

    examples: int | None = field(
        default=None, metadata={"help": "Training examples of an epoch; default: as many as --data holds."}
    )
    text_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of an example beside its page (template, question, answer), in both models; default: the most among the first "
            "--sample questions of --data, in each."
        },
    )
    answer_tokens: int | None = field(
        default=None, metadata={"help": "Of these, tokens of the answer; default: as for --text_tokens."}
    )
    sample: int = field(default=8, metadata={"help": "Questions of --data that tokens are counted of."})
    json: bool = field(default=False, metadata={"help": "Print json, in bytes, FLOP and s, instead of tables."})

    def __post_init__(self) -> None:
        for name in ("examples", "text_tokens", "answer_tokens", "sample"):
            if getattr(self, name) is not None:
                check_at_least(name, getattr(self, name), 1)
        if self.text_tokens is not None and self.answer_tokens is not None and self.answer_tokens >= self.text_tokens:
            raise ValueError(
                f"answer_tokens={self.answer_tokens}: must be less than text_tokens={self.text_tokens}, of which they are a part"
            )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    kinds = (PlanArguments, Cluster, DistillArguments, ImageOptions, LoraOptions)
    main(*parse_arguments(arguments, *kinds, description=__doc__, prog=prog, training=_training, presets=PRESETS))


def main(
    plan: PlanArguments,
    cluster: Cluster,
    script: DistillArguments,
    images: ImageOptions,
    lora: LoraOptions,
    training: PlannedConfig,
) -> Plan:
    """Plan the run and print it.

    Returns:
        The plan.

    Raises:
        ModelLoadError: A model cannot be found.
        ValueError: The data is not there and its size is not given, or budgets do not fit.
    """
    from hf_evl_ecg.planning.plan import make_plan
    from hf_evl_ecg.planning.report import plan_json, plan_text
    from hf_evl_ecg.planning.setup import Setup

    if script.sft_only:
        training.alpha = 0.0
    with contextlib.redirect_stdout(sys.stderr):  # it says whose pages it draws, which is no part of a json
        draw = images.training_renderer(script.teacher)
    examples, budgets = _sizes(plan, script, draw, training)
    setup = Setup(
        student=script.student,
        teacher=script.teacher,
        args=training,
        load_image=draw,
        student_text=budgets[0],
        teacher_text=budgets[1],
        dtype=script.dtype,
        teacher_dtype=script.teacher_dtype,
        cached=script.teacher_cache is not None,
        wrap=lora.wrap,
        adapters=replace(lora, lora_rank=64).wrap if lora.lora_rank == 0 else None,
    )
    made = make_plan(setup, cluster, examples)
    print(json.dumps(plan_json(made), indent=1) if plan.json else plan_text(made))
    return made


def _sizes(
    plan: PlanArguments, script: DistillArguments, draw: RenderedECG, training: PlannedConfig
) -> tuple[int, tuple[TextBudget, TextBudget]]:
    """Examples of an epoch, and tokens of text in student and teacher: as given, or as the data has them."""
    from hf_evl_ecg.planning.batches import TextBudget
    from hf_evl_ecg.planning.networks import load_shape

    wanted = {name: getattr(plan, name) for name in ("examples", "text_tokens", "answer_tokens")}
    missing = [f"--{name}" for name, value in wanted.items() if value is None]
    if not missing:
        given = TextBudget(wanted["text_tokens"], wanted["answer_tokens"])
        return wanted["examples"], (given, given)
    if not Path(script.data).exists():
        raise ValueError(f"data={script.data}: is not there (give {', '.join(missing)}, or write it with prepare)")
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.distillation.collation import drop_unanswered

    questions: Any = load_questions(script.data, "train", script.train_records)
    answered = questions if training.unanswered == "refuse" else drop_unanswered(questions)
    if training.unanswered == "drop":
        questions = answered
    sampled = [answered[number] for number in range(min(plan.sample, len(answered)))]
    if not sampled:
        raise ValueError(f"data={script.data}: holds no question with an answer (give {', '.join(missing)})")
    budgets: list[TextBudget] = []
    for model, prompt in ((script.student, training.system_prompt), (script.teacher, training.teacher_system_prompt)):
        if model is None:  # what is not there reads what the other reads
            budgets.append(budgets[0])
            continue
        budgets.append(_measured(load_shape(model)[1], sampled, draw, prompt, wanted))
    return wanted["examples"] or len(questions), (budgets[0], budgets[1])


def _measured(
    processor: Any, questions: list[Any], draw: RenderedECG, prompt: str | None, wanted: dict[str, int | None]
) -> TextBudget:
    from hf_evl_ecg.planning.batches import TextBudget, measure_budget, measure_text

    page = measure_budget(processor, draw, prompt).page
    found = measure_text(processor, questions, draw, page, prompt)
    return TextBudget(wanted["text_tokens"] or found.text, wanted["answer_tokens"] or found.answer)


def _training() -> type:
    from hf_evl_ecg.planning.setup import PlannedConfig

    return PlannedConfig
