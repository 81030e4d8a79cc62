"""Two processes train as one does: same losses, same weights, also when one of them leaves an example out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def two(run):
    return run("two", processes=2, batch_size=2)


@pytest.fixture(scope="module")
def one(run):
    return run("one", processes=1, batch_size=4)


def logged(report):
    return [entry for entry in report["history"] if "loss" in entry]


def assert_equal_files(first: Path, second: Path, **tolerance):
    a, b = load_file(first), load_file(second)
    assert sorted(a) == sorted(b)
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


def test_two_processes_are_one(one, two):
    assert (one[0]["processes"], two[0]["processes"]) == (1, 2)
    assert len(logged(one[0])) == 3
    for name in ("loss", "ce", "mhca", "anchor_ce", "ot", "relation", "uld", "variance_ratio"):
        alone = [entry[name] for entry in logged(one[0])]
        tolerance = 0.03 if name == "variance_ratio" else 2e-4  # a ratio of means over the local batch
        assert [entry[name] for entry in logged(two[0])] == pytest.approx(alone, rel=tolerance), name
    for name in ("final.safetensors", "criterion.safetensors"):
        assert_equal_files(one[1] / name, two[1] / name, rtol=1e-3, atol=2e-4)


def test_aligner_and_projector_stay_equal_on_all_processes(two):
    first, second = two[0]["sums"]
    assert first == second
    assert len(first) == 5


def test_left_out_examples_are_counted_over_processes(one, two):
    assert one[0]["skipped"] == [2]
    assert sorted(two[0]["skipped"]) == [0, 2]
    for report in (one[0], two[0]):
        assert any(entry.get("skipped_examples") == 2 for entry in report["history"])


def test_evaluation_is_the_same(one, two):
    for name in ("eval_ce", "eval_mhca", "eval_loss"):
        assert two[0]["metrics"][name] == pytest.approx(one[0]["metrics"][name], rel=0.05), "the last batch is padded"


def test_interrupted_is_uninterrupted_on_two_processes(run, two):
    report, output = run("resumed", processes=2, batch_size=2, resume=str(two[1] / "checkpoint-2"))
    assert logged(report)[-1]["loss"] == pytest.approx(logged(two[0])[-1]["loss"], rel=1e-6)
    for name in ("final.safetensors", "criterion.safetensors"):
        assert_equal_files(two[1] / name, output / name, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_weights_that_the_loss_does_not_need(run, alpha):
    """The last layer of LLaVA-NeXT's tower and, without cross-entropy, an untied head; with gradient checkpointing."""
    options = {"student": "llava_next", "teacher": "idefics3", "gradient_checkpointing": True, "mhca_mode": "paper"}
    options |= {"alpha": alpha, "lambda_uld": 0.0, "save_strategy": "no", "max_steps": 2}
    alone, _ = run(f"untied_one_{alpha}", processes=1, batch_size=4, **options)
    both, _ = run(f"untied_two_{alpha}", processes=2, batch_size=2, **options)
    expected = [entry["loss"] for entry in logged(alone)]
    assert [entry["loss"] for entry in logged(both)] == pytest.approx(expected, rel=2e-4)
    assert all(("ce" in entry) == (alpha < 1) for entry in logged(both))


def test_a_stream_of_examples(run):
    """Each process draws its own share of a stream, with texts and batches of different sizes beside the tensors."""
    options = {"stream": True, "max_steps": 2, "save_strategy": "no"}
    alone, _ = run("stream_one", processes=1, batch_size=4, **options)
    both, _ = run("stream_two", processes=2, batch_size=2, **options)
    expected = [entry["loss"] for entry in logged(alone)]
    assert [entry["loss"] for entry in logged(both)] == pytest.approx(expected, rel=2e-4)


def test_rivals_and_their_projectors_on_two_processes(run):
    """Two dual-space projectors, one of mean states, and weights that change; each a mean over samples."""
    options = dict.fromkeys(("lambda_mhca", "lambda_ot", "lambda_relation", "lambda_uld"), 0.0)
    options |= {"lambda_dskd": 1.0, "lambda_feature_mse": 1.0, "lambda_schedules": ["alpha=warmup:0.6"]}
    options |= {"hidden_tokens": "answer", "ot_position_weight": 0.0, "save_strategy": "no"}
    alone, one = run("rivals_one", processes=1, batch_size=4, **options)
    both, two = run("rivals_two", processes=2, batch_size=2, **options)
    for name in ("loss", "ce", "dskd_t2s_ce", "dskd_s2t", "feature_mse"):
        expected = [entry[name] for entry in logged(alone)]
        assert [entry[name] for entry in logged(both)] == pytest.approx(expected, rel=5e-4), name
    assert_equal_files(one / "criterion.safetensors", two / "criterion.safetensors", rtol=1e-3, atol=2e-4)
    assert len(load_file(two / "criterion.safetensors")) == 7
    first, second = both["sums"]
    assert first == second
