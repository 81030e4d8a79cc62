"""Examples without answers teach what needs none: the picture, and the states of the question."""

import json

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import MissingAnswerError
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.commands import cache, prepare
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.collation import drop_unanswered
from hf_evl_ecg.distillation.cross_entropy import answer_cross_entropy
from hf_evl_ecg.distillation.meter import count_answer_tokens
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.models.answer_attention import attend_eagerly
from hf_evl_ecg.models.features import FeatureRequest, extract_features

OT_ALONE = {"alpha": 0.5, "lambda_mhca": 0.0, "lambda_relation": 0.0, "lambda_ot": 1.0}
EVERY_TERM = {"lambda_uld": 1.0, "lambda_rkd_distance": 1.0, "lambda_rkd_angle": 1.0, "lambda_cka": 1.0}
EVERY_TERM |= {"lambda_feature_mse": 1.0, "lambda_em_kd": 1.0}


def without_answer(example):
    return {**example, "answer": None}


@pytest.fixture
def mixed(ecg_examples):
    """Two examples with an answer, two without."""
    return [ecg_examples[0], without_answer(ecg_examples[1]), ecg_examples[2], without_answer(ecg_examples[3])]


@pytest.fixture
def collate(tiny_vlm):
    def make(**options):
        processors = (tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor)
        return EVLECGCollator(*processors, unanswered="use", on_bad_example="stop", **options)

    return make


def terms_of(trainer, examples):
    """Terms of one batch and the student's gradients."""
    trainer.model.train()
    batch = trainer.data_collator(examples)
    trainer._step_counts = torch.zeros(3)
    trainer._step_counts += count_answer_tokens(batch["labels"])
    trainer.model.zero_grad(set_to_none=True)
    trainer._meter.means()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    trainer._meter.count = 1
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return trainer._meter.means(), gradients


def test_the_transport_term_alone_reaches_the_student(build, mixed):
    trainer = build(**OT_ALONE, unanswered="use")
    terms, gradients = terms_of(trainer, [mixed[1]])
    assert terms["ce"] == 0
    assert terms["ot"] > 0
    tower = {name: grad for name, grad in gradients.items() if "vision_model" in name}
    moved = [name for name, grad in tower.items() if grad.abs().sum() > 0]
    assert len(moved) > 0.8 * len(tower) > 0
    assert all(gradients[name].abs().sum() == 0 for name in gradients if "text_model.layers" in name)


def test_cross_entropy_of_a_mixed_batch_is_that_of_the_answered(build, mixed):
    trainer = build(**OT_ALONE, unanswered="use", max_steps=1, label_smoothing_factor=0.1)
    together, _ = terms_of(trainer, mixed)
    answered, _ = terms_of(trainer, [mixed[0], mixed[2]])
    assert together["ce"] == pytest.approx(answered["ce"], rel=1e-5)
    assert together["ce"] > 0.1


def test_states_of_the_question_are_matched_where_all_tokens_are(build, mixed):
    """The mean over examples: half of each group's alone."""
    trainer = build(alpha=1.0, lambda_ot=0.0, lambda_relation=0.0, unanswered="use")
    together, _ = terms_of(trainer, mixed)
    parts = [terms_of(trainer, part)[0]["mhca"] for part in ([mixed[0], mixed[2]], [mixed[1], mixed[3]])]
    assert together["mhca"] == pytest.approx(sum(parts) / 2, rel=1e-4)
    assert min(parts) > 0


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_terms_over_answers_leave_the_others_out(build, mixed, mode):
    options = {"mhca_mode": mode, "hidden_tokens": "answer", "lambda_uld": 1.0, "lambda_ot": 0.5, "unanswered": "use"}
    trainer = build(**options)
    together, _ = terms_of(trainer, mixed)
    answered, _ = terms_of(trainer, [mixed[0], mixed[2]])
    names = {"mhca", "relation", "uld", "ce"} | ({"anchor_ce"} if mode == "anchored" else set())
    assert names < set(together)
    for name in names:
        assert together[name] == pytest.approx(answered[name], rel=1e-4), name
        assert together[name] > 0
    assert together["ot"] != pytest.approx(answered["ot"], rel=1e-3)


@pytest.mark.parametrize("hidden_tokens", ["all", "answer", "visual"])
def test_a_batch_without_any_answer_is_finite_for_every_term(build, mixed, hidden_tokens):
    if hidden_tokens == "visual":
        options = {**EVERY_TERM, "lambda_cka": 0.0}
    else:
        options = {**EVERY_TERM, "lambda_em_kd": 0.0}
    trainer = build(**options, hidden_tokens=hidden_tokens, unanswered="use")
    terms, gradients = terms_of(trainer, [mixed[1], mixed[3]])
    assert all(torch.tensor(value).isfinite() for value in terms.values()), terms
    assert all(grad.isfinite().all() for grad in gradients.values())
    assert terms["ce"] == terms["uld"] == 0
    assert terms["ot"] > 0
    if hidden_tokens == "answer":
        assert terms["mhca"] == terms["relation"] == terms["rkd_distance"] == 0


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_padding_changes_no_feature(tiny_vlm, mixed, collate, padding_side):
    model = tiny_vlm("idefics3").load().eval()
    batch = collate(padding_side=padding_side)([mixed[0], {**mixed[1], "question": "Is the rhythm regular or not?"}])
    alone = collate()([{**mixed[1], "question": "Is the rhythm regular or not?"}])
    request = FeatureRequest(places=True)
    both, own = (
        extract_features(model, model_inputs(b), b["labels"], request, places=b["places"]) for b in (batch, alone)
    )
    torch.testing.assert_close(both.hidden[1][both.mask[1]], own.hidden[0][own.mask[0]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both.visual[1], own.visual[0], atol=1e-5, rtol=1e-4)
    assert both.places[1][both.mask[1]].tolist() == own.places[0][own.mask[0]].tolist()
    assert not both.answer_mask[1].any()
    assert own.answer_mask.tolist() == [[False]]
    assert answer_cross_entropy(own) == 0
    assert answer_cross_entropy(own).requires_grad


@pytest.mark.parametrize("tokens", ["all", "answer"])
def test_a_cache_says_what_the_teacher_says(tiny_vlm, tmp_path, mixed, collate, tokens):
    collator, teacher = collate(), OnlineTeacher(tiny_vlm("llava_next").load())
    layout = CacheLayout(dtype="float32", top_k=380, tokens=tokens)
    writer = TeacherCacheWriter(tmp_path, teacher, layout, fingerprint={"teacher": "tiny"}, shard_size=3)
    assert writer.write(DataLoader(mixed, batch_size=4, collate_fn=collator)) == 4
    request = FeatureRequest(tokens=tokens, places=True)
    cached_teacher = CachedTeacher(tmp_path, expected={"teacher": "tiny"})
    for examples in (mixed, [mixed[1], mixed[3]]):
        batch = collator(examples)
        cached, online = cached_teacher.features(batch, request), teacher.features(batch, request)
        for name, mask in (("hidden", "mask"), ("visual", "visual_mask"), ("places", "mask")):
            ours, theirs = (getattr(side, name)[getattr(side, mask)] for side in (cached, online))
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        assert cached.answer_ids.tolist() == online.answer_ids.tolist()
        assert cached.answer_index.tolist() == online.answer_index.tolist()
        assert cached.mask.any(1).tolist() == online.mask.any(1).tolist()
        assert cached.answer_logits.shape[:2] == cached.answer_mask.shape


def test_training_on_both_kinds_moves_the_student(build, mixed):
    """End to end, one example a step, so that half of the steps have no answer at all."""
    options = {"max_steps": 4, "per_device_train_batch_size": 1, "train_sampling_strategy": "sequential"}
    trainer = build(examples=mixed, unanswered="use", lambda_uld=1.0, **options)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["ce"] > 0 for entry in history] == [True, False, True, False]
    assert [entry["uld"] > 0 for entry in history] == [True, False, True, False]
    for entry in history:
        assert entry["ot"] > 0
        assert entry["mhca"] > 0
        names = ("ce", "mhca", "ot", "relation", "uld")
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in names), rel=1e-4)
    assert not trainer.skipped
    moved = [name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * len(before)


def test_gradient_accumulation_changes_no_term_over_answers(build, mixed):
    """A micro-batch with answers must not weigh less because others have none."""
    options = {"unanswered": "use", "hidden_tokens": "answer", "lambda_uld": 1.0, "max_steps": 1}
    whole = build(examples=mixed, **options)
    whole.train()
    parts = build(examples=mixed, **options, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    parts.train()
    first, second = whole.state.log_history[0], parts.state.log_history[0]
    for name in ("ce", "mhca", "ot", "relation", "uld", "loss"):
        assert first[name] == pytest.approx(second[name], rel=1e-3), name


def test_what_cannot_learn_without_answers_says_so(build, mixed):
    with pytest.raises(ValueError, match="no term of positive weight learns without answers"):
        build(alpha=0.0, unanswered="use", teacher=None)
    answers_only = {"lambda_ot": 0.0, "hidden_tokens": "answer", "lambda_uld": 1.0}
    with pytest.raises(ValueError, match="hidden_tokens='answer'"):
        build(**answers_only, unanswered="use")
    build(**{**answers_only, "hidden_tokens": "all"}, unanswered="use")
    with pytest.raises(ValueError, match="unanswered='use' would have no effect beside a data_collator"):
        build(unanswered="use", trainer_kwargs={"data_collator": lambda examples: {}})
    with pytest.raises(MissingAnswerError):
        build(examples=mixed).train()


def test_answers_alone_leave_the_other_examples_out_beforehand(build, mixed):
    trainer = build(examples=mixed, alpha=0.0, teacher=None, unanswered="drop", max_steps=1)
    assert len(trainer.train_dataset) == 2
    trainer.train()
    assert not trainer.skipped
    rows = [{key: value for key, value in example.items() if key != "image"} for example in mixed]
    for data in (rows, Dataset.from_list(rows), IterableDataset.from_generator(lambda: iter(rows))):
        assert [example["id"] for example in drop_unanswered(data)] == ["r0", "r2"]


def test_the_cache_command_keeps_questions_without_answers(tiny_vlm, tmp_path):
    questions = prepare.PrepareArguments(
        output_dir=str(tmp_path / "q"), simulated_train=2, simulated_classes=["NORM", "AF"], formats=["fill"],
        tasks=["rhythm"], labelled_share=0.5, turns=2,
    )  # fmt: skip
    prepare.main(questions)
    options = {"teacher": tiny_vlm("idefics3").path, "data": questions.output_dir, "top_k": 0}
    images = ImageOptions(image_width=112, image_height=56)
    written = {
        unanswered: cache.main(
            cache.CacheArguments(output_dir=str(tmp_path / unanswered), unanswered=unanswered, **options), images
        )
        for unanswered in ("refuse", "use", "drop")
    }
    assert written == {"refuse": 2, "use": 4, "drop": 2}
    again = cache.CacheArguments(output_dir=str(tmp_path / "use"), unanswered="use", **options)
    assert cache.main(again, images) == 0
    assert json.loads((tmp_path / "use" / "cache.json").read_text())["format"]


def test_attention_of_answers_leaves_pages_without_any_uniform(build, tiny_vlm, mixed):
    teacher = tiny_vlm("llava_next").load()
    attend_eagerly(teacher)
    weighted = build(teacher=teacher, visual_weights="teacher_attention", unanswered="use", **OT_ALONE)
    uniform = build(unanswered="use", **OT_ALONE)
    assert terms_of(weighted, [mixed[1]])[0]["ot"] == pytest.approx(terms_of(uniform, [mixed[1]])[0]["ot"], rel=1e-4)
    assert terms_of(weighted, [mixed[0]])[0]["ot"] != pytest.approx(terms_of(uniform, [mixed[0]])[0]["ot"], rel=1e-4)
