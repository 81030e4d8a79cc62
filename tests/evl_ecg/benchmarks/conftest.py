"""Answers to benchmarks, made by hand."""

import pytest

from hf_evl_ecg.benchmarks import BenchmarkAnswer, BenchmarkQuestion
from hf_evl_ecg.chat.conversations import Turn


@pytest.fixture
def answered():
    """Texts, references and questions → answers of a benchmark, each about an ECG of its own."""

    def make(texts, references, questions=None, scores=None):
        return [
            BenchmarkAnswer(
                BenchmarkQuestion(
                    f"r{number}", (Turn(question, reference),), {"image": f"r{number}.png"}, f"r{number}"
                ),
                (text,),
                () if scores is None else tuple(scores[number]),
            )
            for number, (text, reference, question) in enumerate(
                zip(texts, references, questions or ["?"] * len(texts), strict=True)
            )
        ]

    return make
