"""Two processes that gather are one process with the whole batch: losses, gradients, weights after two steps."""

import json
import random
import sys

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from hf_mic import MICLoss

DIMS = [32, 16, 8]
WORDS = [
    "the",
    "patient",
    "heart",
    "rhythm",
    "rate",
    "is",
    "normal",
    "sinus",
    "fast",
    "slow",
    "wide",
    "narrow",
    "complex",
    "axis",
    "left",
    "right",
    "block",
]
TERMS = ["matryoshka", "scr", "sir", "distill"]
CASES = {
    "tokens": {"gamma": 2.0, "tau": "auto", "cv_mode": "eigen"},
    "pooled": {"gamma": 2.0, "tau": 0.05, "scope": "pooled"},
    "cached": {"gamma": 2.0, "tau": 0.05, "scope": "pooled"},
    "local": {"gamma": 2.0, "tau": 0.05},
}


def run_case(folder: str, case: str, texts: list[list[str]], wrap=lambda model: model, gather: bool = False):
    """Two SGD steps on the columns of ``texts``; the terms of each step, and the weights."""
    modules = [Transformer(folder), Pooling(32, pooling_mode="mean")]
    model = SentenceTransformer(modules=modules, device="cpu").double().train()
    wrapped = wrap(model)
    if case == "cached":
        inner = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2, gather_across_devices=gather)
    else:
        inner = MultipleNegativesRankingLoss(model, gather_across_devices=gather)
    options = {"distill": "similarity_kl", "distill_weight": 0.5, **CASES[case]}
    loss = MICLoss(model, inner, DIMS, gather_across_devices=gather and case != "local", **options)
    if case == "cached":
        inner.loss.model = wrapped
    loss.model = loss.loss.model = inner.model = wrapped  # as the trainer does
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    logs = []
    for step in range(2):
        half = len(texts[0]) // 2
        rows = slice(step * half, (step + 1) * half)
        optimizer.zero_grad()
        features = [dict(model.preprocess(column[rows])) for column in texts]  # DDP looks for tensors in plain dicts
        terms = loss(features, None)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        logs.append({name: value.item() for name, value in terms.items()})
    return logs, model.state_dict()


def worker(folder: str, output: str, texts: list[list[str]]) -> None:
    """What each of the processes does; its rows are every second one."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    share = [column[rank::2] for column in texts]
    results = {}
    for case in CASES:
        wrap = torch.nn.parallel.DistributedDataParallel
        options = {"find_unused_parameters": True}  # the pooler takes no part
        results[case] = run_case(folder, case, share, lambda model: wrap(model, **options), gather=True)
    torch.save(results, f"{output}/rank{rank}.pt")
    from two_processes import leave  # on the path of a launched process only

    leave()


@pytest.fixture(scope="module")
def texts():
    """Two columns of 16; every second row, which the second process gets, is long: other padded widths per process."""
    rng = random.Random(0)
    lengths = [(2, 5), (8, 14)] * 8
    return [[" ".join(rng.choices(WORDS, k=rng.randint(*length))) for length in lengths] for _ in range(2)]


@pytest.fixture(scope="module")
def two_processes(tiny_bert_path, texts, run_in_two_processes, tmp_path_factory):
    output = tmp_path_factory.mktemp("ranks")
    run_in_two_processes(__file__, tiny_bert_path, output, json.dumps(texts))
    return [torch.load(output / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(two_processes, tiny_bert_path, texts, case):
    (first, weights), (second, other_weights) = (ranks[case] for ranks in two_processes)
    expected, expected_weights = run_case(tiny_bert_path, case, texts)
    if case == "local":
        assert all(abs(a["scr"] - b["scr"]) > 1e-3 for a, b in zip(first, expected, strict=True))
        assert all(a["sir"] != b["sir"] for a, b in zip(first, second, strict=True))
        assert any(not torch.allclose(weights[n], expected_weights[n], atol=1e-5) for n in expected_weights)
    else:
        for a, b, whole in zip(first, second, expected, strict=True):
            mean = (a["matryoshka"] + b["matryoshka"]) / 2  # of its own queries, to the candidates of both
            assert mean == pytest.approx(whole["matryoshka"], abs=1e-9)
            for name in TERMS[1:]:
                assert a[name] == pytest.approx(whole[name], abs=1e-9), name
                assert b[name] == pytest.approx(whole[name], abs=1e-9), name
                assert abs(whole[name]) > 1e-3
        for name, weight in expected_weights.items():
            torch.testing.assert_close(weights[name], weight, rtol=1e-9, atol=1e-9, msg=name)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
