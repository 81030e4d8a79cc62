from .answering import BenchmarkAnswer, answer_benchmark
from .judge import Judge, JudgeError
from .questions import Benchmark, BenchmarkQuestion, load_benchmark
from .rows import benchmark_table, score_benchmark, score_verdicts
from .runner import run_benchmarks, write_benchmarks
from .strict import strict_scores
from .tasks import ECGBENCH, BenchmarkTask, benchmark_task
from .verdicts import Verdict, ask_judge, verdict_scores

__all__ = [
    "ECGBENCH",
    "Benchmark",
    "BenchmarkAnswer",
    "BenchmarkQuestion",
    "BenchmarkTask",
    "Judge",
    "JudgeError",
    "Verdict",
    "answer_benchmark",
    "ask_judge",
    "benchmark_table",
    "benchmark_task",
    "load_benchmark",
    "run_benchmarks",
    "score_benchmark",
    "score_verdicts",
    "strict_scores",
    "verdict_scores",
    "write_benchmarks",
]
