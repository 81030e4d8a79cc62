"""Weights that change over a run: by hand, what they may be, accumulation, and resuming as if uninterrupted."""

import math

import pytest
import torch

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.schedules import Schedules, read_schedules, schedule_factor
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.rivals import PRESETS

WEIGHTS = {"ce": 0.6, "mhca": 0.4, "ot": 0.0, "relation": 0.8, "anchor": 0.4, "dskd": 0.2}
SCHEDULES = ["alpha=warmup:0.5", "relation=cosine:-0.5"]


def test_a_warm_up_is_a_line_and_a_cosine_half_a_wave():
    assert [schedule_factor(p / 8, "warmup", 0.25) for p in range(4)] == [0, 0.5, 1, 1]
    for p in (0.0, 0.1, 0.5, 0.9, 1.0):
        half_wave = 0.5 + 0.5 * math.cos(p * math.pi)
        assert schedule_factor(p, "cosine", -0.5) == pytest.approx(-0.5 + 1.5 * half_wave)
        assert schedule_factor(p, "cosine", 1.0) == 1


def test_entries_are_read_as_the_options_they_stand_for():
    """An end value is a lambda, not a factor: 0.8 is 0.4 times the lambda 2."""
    found = read_schedules(["relation=cosine:-1", "relation=warmup:0.1", "alpha=cosine:0.1"], WEIGHTS)
    assert found.alpha == pytest.approx(0.4)
    assert found.parts == {
        "relation": [("cosine", pytest.approx(-0.5)), ("warmup", 0.1)],
        "alpha": [("cosine", pytest.approx(0.25))],
    }
    assert found.factor("relation", 0.05) == pytest.approx(
        schedule_factor(0.05, "cosine", -0.5) * 0.5 * schedule_factor(0.05, "cosine", 0.25)
    )


def test_alpha_moves_weight_between_the_answers_and_all_else():
    found = read_schedules(["alpha=cosine:0.9"], WEIGHTS)
    for progress in (0, 0.3, 1):
        share = 0.4 * found.factor("mhca", progress)
        assert 0.6 * found.factor("ce", progress) == pytest.approx(1 - share)
    assert 0.4 * found.factor("relation", 1) == pytest.approx(0.9)


def test_what_trains_aligner_and_projectors_alone_keeps_its_weight():
    found = read_schedules(["alpha=warmup:0.5", "dskd=warmup:1.0"], WEIGHTS)
    assert found.factor("anchor_ce", 0) == found.factor("dskd_t2s_ce", 0) == 1
    assert found.factor("dskd_s2t", 0.25) == found.factor("dskd_t2s", 0.25) == pytest.approx(0.5 * 0.25)


def test_without_entries_nothing_changes():
    found = read_schedules([], WEIGHTS)
    assert {found.factor(name, p) for name in ("ce", "mhca", "relation", "dskd_t2s") for p in (0, 0.5, 1)} == {1.0}
    assert Schedules(1.0).factor("mhca", 0.5) == 1


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("relation", "allowed are NAME=warmup:SHARE"),
        ("relation=linear:0.5", "allowed are NAME=warmup"),
        ("relation=cosine", "allowed are"),
        ("relation=cosine:x", "allowed are"),
        ("relation=cosine:nan", "allowed are"),
        ("relation=cosine:-inf", "allowed are"),
        ("ot=cosine:1", "whose weight is above 0: alpha, dskd, mhca, relation"),
        ("anchor=cosine:1", "allowed are"),
        ("ce=cosine:1", "allowed are"),
        ("mhca=cosine:-0.1", "only relation may end below 0"),
        ("alpha=cosine:1.5", "that of alpha at most 1"),
        ("alpha=warmup:0", "a share is above 0"),
        ("mhca=warmup:1.1", "at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(entry, text):
    with pytest.raises(ValueError, match=text) as caught:
        read_schedules([entry], WEIGHTS)
    assert entry in str(caught.value)


@pytest.mark.parametrize("weights", [{"ce": 0.0, "mhca": 1.0}, {"ce": 1.0, "mhca": 0.0}])
def test_alpha_needs_both_sides(weights):
    with pytest.raises(ValueError, match="alpha needs a cross-entropy"):
        read_schedules(["alpha=warmup:0.1"], weights)


@pytest.fixture
def build(tiny_vlm, tmp_path, ecg_examples):
    """A trainer of Idefics3 under LlavaNext on four examples; a rate of zero shows the weights alone."""

    def make(output="out", **options):
        small, large = tiny_vlm("idefics3"), tiny_vlm("llava_next")
        given = {
            **PRESETS["evl_ecg_paper"],
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "mhca_num_heads": 4,
            "disable_tqdm": True,
            "use_cpu": True,
            "lambda_schedules": SCHEDULES,
        }
        return EVLECGTrainer(
            small.load(),
            EVLECGConfig(str(tmp_path / output), **{**given, **options}),
            teacher=large.load(),
            processing_class=small.processor,
            teacher_processing_class=large.processor,
            train_dataset=ecg_examples[:4],
            eval_dataset=ecg_examples[:4],
        )

    return make


def history(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_each_step_has_the_weights_of_its_progress(build):
    still = {"learning_rate": 0.0, "aligner_learning_rate": 0.0}
    plain, changing = build(**still, lambda_schedules=None), build(**still)
    plain.train()
    changing.train()
    for step, (one, other) in enumerate(zip(history(plain), history(changing), strict=True)):
        progress = step / 4
        share = min(1.0, progress / 0.5)
        factors = {"ce": (1 - 0.5 * share) / 0.5, "mhca": share, "ot": share}
        factors["relation"] = share * (-0.5 + 1.5 * (1 + math.cos(math.pi * progress)) / 2)
        for name, factor in factors.items():
            assert other[name] == pytest.approx(factor * one[name], rel=1e-4, abs=1e-7)
        assert other["loss"] == pytest.approx(sum(other[name] for name in factors), rel=1e-4)
    assert history(changing)[3]["relation"] < 0 < history(changing)[2]["relation"]
    end = changing.evaluate()
    assert end["eval_relation"] == pytest.approx(-0.5 * history(plain)[0]["relation"], rel=1e-3)


def test_accumulation_counts_steps_not_micro_batches(build):
    whole, parts = build("a"), build("b", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    whole.train()
    parts.train()
    for one, other in zip(history(whole), history(parts), strict=True):
        for name in ("ce", "mhca", "ot", "relation"):
            assert other[name] == pytest.approx(one[name], rel=2e-3, abs=1e-6)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], tensor, rtol=1e-3, atol=2e-4, msg=name)


def test_a_resumed_run_goes_on_with_the_weights_it_would_have_had(build, tmp_path):
    whole = build("whole", save_strategy="steps", save_steps=2)
    whole.train()
    resumed = build("parts", save_strategy="steps", save_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert [entry["step"] for entry in history(resumed)] == [1, 2, 3, 4]
    for one, other in zip(history(whole), history(resumed), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, msg=name)
    other = build("constant", lambda_schedules=None)
    other.train()
    assert history(other)[3]["loss"] != pytest.approx(history(whole)[3]["loss"], rel=1e-3), "the schedules matter"


def test_a_schedule_without_effect_is_refused_before_training(build):
    with pytest.raises(ValueError, match="uld=cosine:0"):
        build(lambda_schedules=["uld=cosine:0"])
