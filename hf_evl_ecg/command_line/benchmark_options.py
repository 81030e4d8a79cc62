"""Options of ``evaluate --benchmarks``, and which of the verb's other options have no effect beside them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .options import PageOptions

__all__ = ["BenchmarkArguments", "refuse_unused"]

_REASONING = "reasoning"
_PAGES = tuple(option.name for option in fields(PageOptions))
_NEVER = {  # option: why it has no effect with any benchmark
    "generate": "benchmarks are answered in words",
    "min_per_class": "their classes have no rows of their own",
    "compare": "differences are for one's own questions",
}
_ECGBENCH = _NEVER | {
    "split": "its tasks are test sets",
    "records": "its tasks are scored whole",
    **dict.fromkeys(_PAGES, "its images are drawn already"),
    **dict.fromkeys(("record_dir", "history"), "it is for reasoning tasks"),
}
_CHAINS = _NEVER | {
    "likelihoods": "only words are scored",
    **dict.fromkeys(("image_dir", "allow_partial"), "it is for tasks of ECGBench"),
    **dict.fromkeys(
        ("judge_url", "judge_model", "judge_key_variable", "judge_timeout", "judge_workers"), "nothing is judged"
    ),
}


@dataclass
class BenchmarkArguments:
    """Tasks of a benchmark instead of one's own questions, and who judges them."""

    benchmarks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "ptb-test, cpsc-test, code15-test, ecgqa-test, csn-test-no-cot, g12-test-no-cot, mmmu-ecg, ptb-test-report, arena; "
            "or reasoning (about records of --data); or reasoning-ptbxl, reasoning-mimic-iv-ecg."
        },
    )
    record_dir: str | None = field(
        default=None, metadata={"help": "Folder of the records that reasoning-ptbxl or reasoning-mimic-iv-ecg name."}
    )
    history: str = field(
        default="truth",
        metadata={
            "help": "What stands before a step of reasoning: 'truth', the right answers to the steps before it, or 'own', the model's."
        },
    )
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the images; by default DATA/images."})
    allow_partial: bool = field(default=False, metadata={"help": "Score a task of which records are missing."})
    judge_url: str | None = field(default=None, metadata={"help": "Base URL of the judge of reports and the arena."})
    judge_model: str | None = field(default=None, metadata={"help": "Name of the judge there."})
    judge_key_variable: str = field(
        default="JUDGE_API_KEY", metadata={"help": "Environment variable with the judge's key, which is kept nowhere."}
    )
    judge_timeout: float = field(default=120.0, metadata={"help": "Longest wait for one verdict (s)."})
    judge_workers: int = field(default=4, metadata={"help": "Verdicts asked for at once."})

    @property
    def reasons(self) -> bool:
        """Whether the benchmarks are about reasoning."""
        return bool(self.benchmarks) and self.benchmarks[0].startswith(_REASONING)

    def __post_init__(self) -> None:
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError(f"judge_url={self.judge_url}, judge_model={self.judge_model}: both or none are needed")
        given = _given(self)
        if not self.benchmarks and given:
            raise ValueError(f"{', '.join(given)}: only for --benchmarks (name some, or leave these options out)")
        if self.judge_url is None and (idle := [name for name in given if name.startswith("judge_")]):
            raise ValueError(f"{', '.join(idle)}: without effect, as there is no judge (name one with --judge_url)")
        reasoning = [name for name in self.benchmarks if name.startswith(_REASONING)]
        if reasoning and (len(reasoning) < len(self.benchmarks) or (_REASONING in reasoning and len(reasoning) > 1)):
            raise ValueError(
                f"benchmarks={self.benchmarks}: ECGBench, reasoning and the released reasoning tasks each have another --data (give them "
                "commands of their own)"
            )
        if reasoning and (self.record_dir is None) != (reasoning == [_REASONING]):
            raise ValueError(
                f"benchmarks={self.benchmarks}, record_dir={self.record_dir}: a folder of records is needed for reasoning-ptbxl and "
                "reasoning-mimic-iv-ecg, and for nothing else"
            )


def refuse_unused(benchmark: BenchmarkArguments, *others: Any) -> None:
    """Refuse what is given and would have no effect.

    Args:
        benchmark: With at least one task.
        others: Other dataclasses of options.

    Raises:
        ValueError: An option that has none; the message names each, and why.
    """
    unused = dict(_CHAINS if benchmark.reasons else _ECGBENCH)
    if benchmark.reasons and benchmark.record_dir is not None:
        unused |= {"split": "the released files are a test set", "records": "they are scored whole"}
    given = {name: value for options in (benchmark, *others) for name, value in _given(options).items()}
    if idle := [f"{name}={given[name]!r} ({unused[name]})" for name in unused if name in given]:
        named = " ".join(benchmark.benchmarks)
        raise ValueError(f"--benchmarks {named}: without effect are {', '.join(idle)}; leave them out")


def _given(options: Any) -> dict[str, Any]:
    """Options that are not at their defaults, but for the list of benchmarks."""
    defaults = {o.name: o.default if o.default_factory is MISSING else o.default_factory() for o in fields(options)}
    values = {name: getattr(options, name) for name in defaults if name != "benchmarks"}
    return {name: value for name, value in values.items() if value != defaults[name]}
