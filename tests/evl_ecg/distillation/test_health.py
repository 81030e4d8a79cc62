"""A collapse is named once, with its step; values that are no numbers cost their sample or stop the run, and never reach the weights."""

import dataclasses
import logging
import math

import pytest
import torch

from hf_evl_ecg.distillation.health import (
    COLLAPSED_SHARE,
    BatchPlace,
    NonFiniteLossError,
    check_loss,
    collapsed_now,
    finite_samples,
)
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.rivals import PRESETS
from hf_evl_ecg.tokens import TokenFeatures


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
    with caplog.at_level(logging.WARNING, "hf_evl_ecg.distillation.health"):
        variances = train(shrink=4.0)  # the variance falls by 16 a step: below a twentieth at the third
    assert variances[1] > COLLAPSED_SHARE * variances[0] > variances[2]
    warnings = [r.getMessage() for r in caplog.records if r.name.endswith("health")]
    assert len(warnings) == 1
    assert warnings[0].startswith("step 3: the variance of the student's matched states has fallen to")


def test_a_healthy_run_does_not_warn(train, caplog):
    with caplog.at_level(logging.WARNING, "hf_evl_ecg.distillation.health"):
        assert len(train(shrink=1.2)) == 4
        assert train(shrink=9.0, alpha=0.0) == [], "nothing is matched, so nothing is watched"
    assert not [r for r in caplog.records if r.name.endswith("health")]


def test_a_resumed_run_compares_with_the_first_value_of_all():
    history = [{"student_variance": 2.0}, {"eval_student_variance": 0.0}, {"student_variance": 1.0}]
    assert not collapsed_now(history)
    assert not collapsed_now([])
    assert collapsed_now([*history, {"student_variance": 0.09}])
    assert not collapsed_now([*history, {"student_variance": 0.09}, {"eval_loss": 1.0}])
    assert not collapsed_now([*history, {"student_variance": 0.09}, {"student_variance": 0.05}])
    assert not collapsed_now([*history, {"student_variance": float("nan")}])


class PoisonedTeacher(OnlineTeacher):
    """A teacher whose states overflow for some records."""

    def __init__(self, model, *records, value=float("inf")):
        super().__init__(model)
        self.records, self.value = records, value

    def features(self, batch, request):
        features = super().features(batch, request)
        rows = [row for row, record in enumerate(batch["records"]) if record in self.records]
        for name in ("hidden", "visual", "answer_hidden", "answer_logits"):
            if getattr(features, name) is not None:
                getattr(features, name)[rows, 0, 0] = self.value
        return features


METHODS = {
    "evl_ecg": {**PRESETS["evl_ecg"], "lambda_uld": 1.0},
    **{name: PRESETS[name] for name in ("evl_ecg_paper", "dskd", "rkd", "cka", "em_kd", "feature_mse")},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_sample_of_which_the_teacher_says_no_number_is_left_out(build, tiny_vlm, ecg_examples, method, value, caplog):
    """Its answer is still learnt; the other terms are those of the batch without it, and the log names it."""
    still = {**METHODS[method], "learning_rate": 0.0, "aligner_learning_rate": 0.0, "max_steps": 1}
    logged = {}
    for name, poisoned, examples in (
        ("with", ("r1",), ecg_examples[:4]),
        ("without", (), [ecg_examples[i] for i in (0, 2, 3)]),
    ):
        teacher = PoisonedTeacher(tiny_vlm("llava_next").load(), *poisoned, value=value)
        trainer = build(teacher=teacher, examples=examples, **still)
        trainer.train()
        logged[name] = trainer.state.log_history[0]
        assert trainer.skipped == [f"{record}: the teacher's values hold NaN or infinity" for record in poisoned]
    assert [r.getMessage() for r in caplog.records if "left out r1" in r.getMessage()]
    terms = [name for name in logged["without"] if name in TEACHERS_TERMS]
    assert terms, logged
    for name in terms:
        assert logged["with"][name] == pytest.approx(logged["without"][name] * 3 / 4, rel=2e-3), name
    assert logged["with"]["ce"] != pytest.approx(logged["without"]["ce"], rel=1e-3), "the answer counts"
    assert all(math.isfinite(value) for value in logged["with"].values() if isinstance(value, float))


TEACHERS_TERMS = {
    "mhca", "ot", "relation", "anchor_ce", "uld", "dskd_t2s_ce", "dskd_t2s", "dskd_s2t", "rkd_distance", "rkd_angle", "cka", "em_kd",
    "feature_mse",
}  # fmt: skip


def test_a_batch_of_which_the_teacher_says_no_number_trains_on_its_answers(build, tiny_vlm):
    teacher = PoisonedTeacher(tiny_vlm("llava_next").load(), "r0", "r1", "r2", "r3")
    trainer = build(teacher=teacher, alpha=0.5)
    before = trainer.student.lm_head.weight.clone()
    trainer.train()
    assert len(trainer.skipped) == 8  # four samples in each of two steps
    assert trainer.state.log_history[0]["mhca"] == trainer.state.log_history[0]["ot"] == 0
    assert trainer.state.log_history[0]["ce"] > 0
    assert not torch.equal(trainer.student.lm_head.weight, before)
    assert all(p.isfinite().all() for p in trainer.student.parameters())


def test_without_answers_nothing_is_left_and_nothing_breaks(build, tiny_vlm):
    teacher = PoisonedTeacher(tiny_vlm("llava_next").load(), "r0", "r1", "r2", "r3")
    trainer = build(teacher=teacher, alpha=1.0)
    before = {name: p.clone() for name, p in trainer.student.named_parameters()}
    trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in trainer.student.named_parameters())


def test_the_run_stops_there_where_it_is_told_to(build, tiny_vlm):
    teacher = PoisonedTeacher(tiny_vlm("llava_next").load(), "r2")
    trainer = build(teacher=teacher, on_bad_example="stop")
    before = trainer.student.lm_head.weight.clone()
    with pytest.raises(NonFiniteLossError, match=r"step 1: values of the teacher .* for r2; .*bfloat16"):
        trainer.train()
    assert torch.equal(trainer.student.lm_head.weight, before)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_student_that_has_diverged_stops_before_its_weights_are_lost(build, alpha):
    trainer = build(alpha=alpha)
    with torch.no_grad():
        trainer.student.model.text_model.norm.weight[3] = float("nan")
    before = trainer.student.lm_head.weight.clone()
    with pytest.raises(
        NonFiniteLossError, match=r"step 1: .* values of the student .* for r\d, r\d, r\d, r\d; .*learning_rate"
    ):
        trainer.train()
    assert torch.equal(trainer.student.lm_head.weight, before)


def test_a_term_that_overflows_is_named():
    student = TokenFeatures(torch.zeros(2, 1, 3), torch.ones(2, 1, dtype=torch.bool), None, None)
    where = BatchPlace(7, ["a", "b"], torch.zeros(2, 4, dtype=torch.int64))
    terms = {"ce": torch.tensor(1.0), "ot": torch.tensor(float("inf"))}
    with pytest.raises(
        NonFiniteLossError, match=r"^step 7: the loss is not finite \(ot\), although all values are, for a, b"
    ):
        check_loss(terms, student, where)
    check_loss({"ce": torch.tensor(1.0)}, student, where)


def test_padding_may_hold_anything():
    features = TokenFeatures(
        torch.tensor([[[1.0], [math.nan]], [[math.nan], [1.0]]]), torch.tensor([[True, False]] * 2), None, None
    )
    assert finite_samples(features).tolist() == [True, False]
    logits = dataclasses.replace(
        features, answer_logits=torch.full((2, 1, 2), math.inf), answer_mask=torch.tensor([[False], [True]])
    )
    assert finite_samples(logits).tolist() == [True, False]


@pytest.mark.parametrize("method", METHODS)
def test_one_example_and_four_of_the_same_page_train(build, ecg_examples, method):
    """Nothing divides by the spread of a batch that has none."""
    for examples in ([ecg_examples[0]], [{**ecg_examples[0], "id": f"copy{i}"} for i in range(4)]):
        trainer = build(examples=examples, per_device_train_batch_size=len(examples), **METHODS[method])
        trainer.train()
        assert all(
            math.isfinite(v) for entry in trainer.state.log_history for v in entry.values() if isinstance(v, float)
        )
        assert all(p.isfinite().all() for p in trainer.student.parameters())


def test_the_same_seed_gives_the_same_bits(build):
    """Student and aligner, with the order of examples and the relation term's subsets in play."""
    runs = []
    for seed in (3, 3, 4):
        trainer = build(
            **METHODS["evl_ecg"], seed=seed, relation_max_tokens=2, relation_subset=2, per_device_train_batch_size=2
        )
        trainer.train()
        runs.append({**trainer.student.state_dict(), **trainer.criterion.state_dict()})
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())
    assert not all(torch.equal(value, runs[2][name]) for name, value in runs[0].items())
