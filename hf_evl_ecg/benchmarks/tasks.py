"""The nine tasks of ECGBench (PULSE, arXiv 2410.19008): how each is answered and how many questions it has."""

from dataclasses import dataclass

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.qa.ecgbench import SUBSETS

__all__ = ["ECGBENCH", "BenchmarkTask", "benchmark_task"]


@dataclass(frozen=True)
class BenchmarkTask:
    """One test set.

    Attributes:
        name: Its name in ECGBench.
        kind: "labels" (several of a few), "choice" (a letter), "options" (some of the texts in the question) or "judged" (a text
            that a language model compares with the right one).
        size: Number of records in the released file.
        labels: Label names, as the answers write them.
        aspects: What a judge gives marks for.
    """

    name: str
    kind: str
    size: int
    labels: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()


ECGBENCH = {name: BenchmarkTask(name, subset.kind, subset.size, subset.labels) for name, subset in SUBSETS.items()} | {
    "ptb-test-report": BenchmarkTask("ptb-test-report", "judged", 500, aspects=("diagnosis", "form", "rhythm")),
    "arena": BenchmarkTask("arena", "judged", 50, aspects=("accuracy", "completeness", "instruction_adherence")),
}


def benchmark_task(name: str) -> BenchmarkTask:
    """A task by its name.

    Raises:
        ValueError: There is no such task.

    Example:
        >>> benchmark_task("mmmu-ecg").kind
        'choice'
    """
    check_choice("benchmark", name, ECGBENCH)
    return ECGBENCH[name]
