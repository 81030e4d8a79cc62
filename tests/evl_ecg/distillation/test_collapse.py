"""A collapse is named once, with its step, and a run without one says nothing."""

import logging

import pytest
import torch

from hf_evl_ecg.distillation.collapse import COLLAPSED_SHARE, collapsed_now


@pytest.fixture
def train(build):
    """Four steps of a student whose final norm is divided by a factor after each; the log's variances."""

    def run(shrink, **more):
        trainer = build(max_steps=4, learning_rate=0.0, lambda_ot=0.0, **more)
        step = trainer.training_step

        def shrinking(model, *args, **kwargs):
            loss = step(model, *args, **kwargs)
            with torch.no_grad():
                model.model.text_model.norm.weight.div_(shrink)
            return loss

        trainer.training_step = shrinking
        trainer.train()
        return [entry["student_variance"] for entry in trainer.state.log_history if "student_variance" in entry]

    return run


def test_a_collapse_warns_once_with_its_step(train, caplog):
    with caplog.at_level(logging.WARNING, "hf_evl_ecg.distillation.collapse"):
        variances = train(shrink=4.0)  # the variance falls by 16 a step: below a twentieth at the third
    assert variances[1] > COLLAPSED_SHARE * variances[0] > variances[2]
    warnings = [r.getMessage() for r in caplog.records if r.name.endswith("collapse")]
    assert len(warnings) == 1
    assert warnings[0].startswith("step 3: the variance of the student's matched states has fallen to")


def test_a_healthy_run_does_not_warn(train, caplog):
    with caplog.at_level(logging.WARNING, "hf_evl_ecg.distillation.collapse"):
        assert len(train(shrink=1.2)) == 4
        assert train(shrink=9.0, alpha=0.0) == [], "nothing is matched, so nothing is watched"
    assert not [r for r in caplog.records if r.name.endswith("collapse")]


def test_a_resumed_run_compares_with_the_first_value_of_all():
    history = [{"student_variance": 2.0}, {"eval_student_variance": 0.0}, {"student_variance": 1.0}]
    assert not collapsed_now(history)
    assert not collapsed_now([])
    assert collapsed_now([*history, {"student_variance": 0.09}])
    assert not collapsed_now([*history, {"student_variance": 0.09}, {"eval_loss": 1.0}])
    assert not collapsed_now([*history, {"student_variance": 0.09}, {"student_variance": 0.05}])
    assert not collapsed_now([*history, {"student_variance": float("nan")}])
