"""Distillation end to end at tiny size: it learns, leaves the teacher alone, resumes, exports and reports."""

import logging
from collections import Counter
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError, MissingAnswerError
from hf_evl_ecg.chat.encoding import TruncatedImageError
from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.criterion import LOSS_OPTIONS, RIVAL_OPTIONS, student_request, teacher_request
from hf_evl_ecg.distillation.teacher import SameModelError
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.models.features import extract_features
from hf_evl_ecg.models.native import UnsupportedModelError


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_equal_weights(first, second, **tolerance):
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


def test_twenty_steps_overfit_a_batch_and_leave_the_teacher_alone(build):
    trainer = build(max_steps=20, lambda_uld=1.0)
    teacher = weights(trainer.teacher.model)
    aligner, student = weights(trainer.criterion), weights(trainer.model)
    trainer.train()
    history = [e for e in trainer.state.log_history if "loss" in e]
    assert history[-1]["ce"] < 0.5 * history[0]["ce"]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    names = ("ce", "mhca", "ot", "relation", "uld")
    for entry in history:
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in names), rel=1e-4)
        assert entry["variance_ratio"] > 0
    assert all(torch.equal(teacher[n], t) for n, t in weights(trainer.teacher.model).items())
    assert not trainer.teacher.model.training
    for before, after in ((aligner, weights(trainer.criterion)), (student, weights(trainer.model))):
        moved = [n for n in before if not torch.equal(before[n], after[n])]
        assert len(moved) > 0.9 * len(before)


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_one_step_is_the_loss_by_hand(build, mode):
    """The logged terms equal EVLECGLoss on features read from the two models."""
    layer = 1 if mode == "paper" else -1
    trainer = build(mhca_mode=mode, max_steps=1, teacher_layer=1, student_layer=layer, lambda_ot=0.5)
    batch = trainer.data_collator(trainer.train_dataset)
    request = student_request(trainer.criterion, trainer.args, several_processes=False)
    student = extract_features(trainer.model, model_inputs(batch), batch["labels"], request)
    teacher = trainer.teacher.features(batch, teacher_request(trainer.criterion, trainer.args))
    assert student.answer_logits.shape[-1] == 330
    assert teacher.answer_logits is None, "no term reads the teacher's logits"
    own = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "pixel_values", "labels")}
    own["pixel_attention_mask"] = batch["pixel_attention_mask"]
    ce = trainer.model(**own).loss
    expected = trainer.criterion(student, teacher, ce, lm_head=trainer.model.lm_head)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert "anchor_ce" in expected if mode == "anchored" else "anchor_ce" not in expected
    for name, value in expected.items():
        assert entry[name] == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [("llava_next", "qwen2_vl"), ("llava_next", "qwen3_vl"), ("llava_next", "internvl"), ("qwen2_vl", "idefics3")],
)
def test_other_pairs_learn_too(tiny_vlm, hand_made_inputs, tmp_path, teacher, student):
    """Processors that need torchvision are replaced by the tensors they make."""
    small, large = tiny_vlm(student).load(), tiny_vlm(teacher).load()
    inputs, labels = hand_made_inputs(student, small)
    taught, taught_labels = hand_made_inputs(teacher, large, seed=1)
    batch = {**inputs, "labels": labels, "teacher": {**taught, "labels": taught_labels}}
    config = EVLECGConfig(
        str(tmp_path), max_steps=20, learning_rate=5e-3, lr_scheduler_type="constant", logging_steps=1,
        report_to="none", save_strategy="no", mhca_num_heads=4, lambda_uld=1.0, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = EVLECGTrainer(
        small, config, teacher=large, train_dataset=[{"id": 0}, {"id": 1}], data_collator=lambda _: batch
    )
    before = weights(large)
    trainer.train()
    history = [e for e in trainer.state.log_history if "loss" in e]
    assert history[-1]["ce"] < 0.6 * history[0]["ce"]
    for name in ("mhca", "ot", "relation", "uld"):
        assert history[0][name] > 0
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert all(torch.equal(before[n], t) for n, t in weights(large).items())


@pytest.mark.parametrize(("teacher", "student"), [("llava_next", "gemma3"), ("gemma3", "idefics3")])
def test_pairs_with_gemma_through_its_own_processor(tiny_vlm, tmp_path, ecg_examples, teacher, student):
    """Its chats and its inputs hold different image tokens, and its image tokens see each other."""
    small, large = tiny_vlm(student), tiny_vlm(teacher)
    config = EVLECGConfig(
        str(tmp_path / "out"), max_steps=20, learning_rate=5e-3, lr_scheduler_type="constant", logging_steps=1,
        report_to="none", save_strategy="no", mhca_num_heads=4, lambda_uld=1.0, disable_tqdm=True, use_cpu=True,
        per_device_train_batch_size=4, eval_predictions="generate", max_new_tokens=8,
    )  # fmt: skip
    trainer = EVLECGTrainer(
        small.load(), config, teacher=large.load(), processing_class=small.processor,
        teacher_processing_class=large.processor, train_dataset=ecg_examples[:4], eval_dataset=ecg_examples[:4],
        compute_metrics=lambda prediction: {"read": float(prediction.predictions.shape[0])},
    )  # fmt: skip
    trainer.train()
    history = [e for e in trainer.state.log_history if "loss" in e]
    assert history[-1]["ce"] < 0.6 * history[0]["ce"]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert all(history[0][name] > 0 for name in ("mhca", "ot", "relation", "uld"))
    assert trainer.evaluate()["eval_read"] == 4


def test_gradient_accumulation_changes_nothing(build):
    whole = build(max_steps=3)
    whole.train()
    parts = build(max_steps=3, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    parts.train()
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)
    for key in ("ce", "mhca", "ot", "relation"):
        assert parts.state.log_history[1][key] == pytest.approx(whole.state.log_history[1][key], rel=1e-4)
    assert_equal_weights(weights(whole.criterion), weights(parts.criterion), rtol=1e-3, atol=1e-4)
    assert_equal_weights(weights(whole.model), weights(parts.model), rtol=1e-3, atol=1e-4)


def test_an_incomplete_last_step_of_an_epoch_counts_what_it_has(build, ecg_examples):
    """Five examples in steps of four: the fifth makes a step alone, however the steps are cut into micro-batches."""
    runs = []
    for size, steps in ((4, 1), (1, 4)):
        trainer = build(
            examples=ecg_examples[:5], per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=-1,
            num_train_epochs=2, train_sampling_strategy="sequential", lambda_uld=1.0,
        )  # fmt: skip
        trainer.train()
        runs.append(losses(trainer))
    assert len(runs[0]) == 4
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


def test_label_smoothing_is_that_of_the_host(build):
    """Equal to `transformers.trainer_pt_utils.LabelSmoother` on the same logits; other terms do not know it."""
    trainer = build(label_smoothing_factor=0.3, max_steps=1)
    plain = build(max_steps=1)
    batch = trainer.data_collator(trainer.train_dataset)
    own = {k: v for k, v in batch.items() if k.startswith(("input", "attention", "pixel"))}
    smoother = LabelSmoother(epsilon=0.3)
    expected = smoother(trainer.model(**own), batch["labels"].clone(), shift_labels=True).item()
    trainer.train()
    plain.train()
    entry, other = trainer.state.log_history[0], plain.state.log_history[0]
    assert entry["ce"] == pytest.approx(0.5 * expected, rel=1e-5)
    assert abs(entry["ce"] - other["ce"]) > 0.01
    assert entry["mhca"] == pytest.approx(other["mhca"], rel=1e-5)


def test_a_compiled_student_learns_the_same(build):
    """The hooks of one step must not be compiled into the next."""
    plain = build(max_steps=2)
    plain.train()
    compiled = build(max_steps=2, torch_compile=True, torch_compile_backend="eager")
    compiled.train()
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)


def test_the_best_student_is_loaded_at_the_end(build, ecg_examples):
    """Best is here the largest cross-entropy, so it is not the last."""
    trainer = build(
        max_steps=6, eval_strategy="steps", eval_steps=2, save_strategy="best", load_best_model_at_end=True,
        metric_for_best_model="eval_ce", greater_is_better=True, trainer_kwargs={"eval_dataset": ecg_examples[:2]},
    )  # fmt: skip
    trainer.train()
    values = [e["eval_ce"] for e in trainer.state.log_history if "eval_ce" in e]
    assert values.index(max(values)) == 0
    assert trainer.evaluate()["eval_ce"] == pytest.approx(values[0], rel=1e-5)
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-2"
    assert set(load_file(best / "distillation.safetensors")) == set(trainer.criterion.state_dict())


@pytest.mark.parametrize("lora", [False, True])
def test_interrupted_is_uninterrupted(build, tiny_vlm, tmp_path, lora):
    def student():
        model = tiny_vlm("idefics3").load()
        if not lora:
            return model
        torch.manual_seed(5)
        return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))

    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    straight = build(student=student(), **options)
    straight.train()
    checkpoint = Path(straight.args.output_dir) / "checkpoint-2"
    resumed = build(student=student(), **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert losses(resumed)[-2:] == pytest.approx(losses(straight)[-2:], rel=1e-6)
    assert_equal_weights(weights(straight.model), weights(resumed.model), rtol=0, atol=1e-7)
    assert_equal_weights(weights(straight.criterion), weights(resumed.criterion), rtol=0, atol=1e-7)
    assert set(load_file(checkpoint / "distillation.safetensors")) == set(straight.criterion.state_dict())
    (checkpoint / "distillation.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no distillation\.safetensors"):
        build(student=student(), **options).train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="other terms or other models"):
        build(student=student(), **options, lambda_ot=0.0).train(
            resume_from_checkpoint=str(checkpoint.with_name("checkpoint-4"))
        )


def test_the_exported_student_is_a_plain_model(build, tiny_vlm, tmp_path):
    trainer = build(max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model(tmp_path / "student")
    for folder in (tmp_path / "student", tmp_path / "out" / "checkpoint-2"):
        names = set(load_file(folder / "model.safetensors"))
        assert names == set(load_file(Path(tiny_vlm("idefics3").path) / "model.safetensors"))
        assert not any("aligner" in n or "projector" in n or "teacher" in n for n in names)
    assert not (tmp_path / "student" / "distillation.safetensors").exists()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "student")
    batch = trainer.data_collator(trainer.train_dataset)
    inputs = {k: v for k, v in batch.items() if k.startswith(("input", "attention", "pixel"))}
    trainer.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, trainer.model(**inputs).logits, rtol=0, atol=0)
    assert (
        AutoProcessor.from_pretrained(tmp_path / "student").chat_template
        == tiny_vlm("idefics3").processor.chat_template
    )


def test_the_teacher_rests_when_no_term_needs_it(build, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = build(alpha=0.0)
    assert "the teacher is not run" in caplog.text
    trainer.teacher.model.forward = None  # any call would fail
    trainer.train()
    assert not list(trainer.criterion.parameters())
    assert len(trainer.optimizer.param_groups) == 2
    assert "teacher" not in trainer.data_collator(trainer.train_dataset)
    assert losses(trainer)[0] == trainer.state.log_history[0]["ce"]
    alone = build(alpha=0.0, teacher=None)
    alone.train()
    assert losses(alone) == losses(trainer)


def test_aligner_and_projector_have_their_own_rate(build):
    trainer = build(max_steps=1, aligner_learning_rate=0.25, aligner_weight_decay=0.125, weight_decay=0.01)
    before = weights(trainer.criterion)
    trainer.train()
    group = trainer.optimizer.param_groups[-1]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.criterion.parameters()}
    assert [g["lr"] for g in trainer.optimizer.param_groups[:-1]] == [5e-3, 5e-3]
    step = (trainer.criterion.evl_ecg.projector.weight - before["evl_ecg.projector.weight"]).abs().max()
    assert 0.2 < step < 0.35, "the first AdamW step is as large as the rate"
    frozen = build(max_steps=1, aligner_learning_rate=0.0)
    before = weights(frozen.criterion)
    frozen.train()
    assert_equal_weights(before, weights(frozen.criterion), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["lora", "lora_frozen_tower", "frozen_tower", "checkpointing", "bf16"])
def test_ways_to_train(build, tiny_vlm, kind):
    student = tiny_vlm("idefics3").load()
    options = {"max_steps": 6}
    if kind.startswith("lora"):
        student = get_peft_model(
            student, LoraConfig(r=4, target_modules=r".*(text_model|vision_model).*\.(q_proj|v_proj)")
        )
    options |= {"freeze_vision_tower": "frozen" in kind, "bf16": kind == "bf16"}
    options |= {"gradient_checkpointing": kind == "checkpointing"}
    trainer = build(student=student, **options)
    before = weights(trainer.model)
    trainer.train()
    history = losses(trainer)
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    moved = [n for n, t in weights(trainer.model).items() if not torch.equal(t, before[n])]
    assert moved
    assert any("vision_model" in n for n in moved) != ("frozen" in kind)
    if kind.startswith("lora"):
        assert all("lora_" in n for n in moved)
    if kind == "checkpointing":
        plain = build(max_steps=6)
        plain.train()
        assert history == pytest.approx(losses(plain), rel=1e-3)


def test_training_from_a_cache_is_training_online(build, tiny_vlm, tmp_path, ecg_examples):
    online = build(max_steps=4)
    writer = TeacherCacheWriter(
        tmp_path / "cache", online.teacher, CacheLayout(dtype="float32", top_k=16), fingerprint={"teacher": "tiny"}
    )
    writer.write([online.data_collator(ecg_examples[:4])])
    online.train()
    cached = build(max_steps=4, teacher=CachedTeacher(tmp_path / "cache", expected={"teacher": "tiny"}))
    assert "pixel_values" not in cached.data_collator(ecg_examples[:4])["teacher"]
    cached.train()
    assert losses(cached) == pytest.approx(losses(online), rel=1e-3)
    with pytest.raises(ValueError, match="set uld_top_k=16 or less"):
        build(teacher=CachedTeacher(tmp_path / "cache", expected={}), lambda_uld=1.0)
    with pytest.raises(ValueError, match="probabilities at temperature 1"):
        build(teacher=CachedTeacher(tmp_path / "cache", expected={}), lambda_uld=1.0, uld_top_k=16, uld_temperature=2.0)
    online = build(lambda_uld=1.0, uld_top_k=16)
    cached = build(teacher=CachedTeacher(tmp_path / "cache", expected={}), lambda_uld=1.0, uld_top_k=16)
    for trainer in (online, cached):
        trainer.train()
    assert losses(cached) == pytest.approx(losses(online), rel=1e-3)
    missing = build(teacher=CachedTeacher(tmp_path / "cache", expected={}), examples=ecg_examples[2:6])
    with pytest.raises(ExampleError, match="record 'r4': the teacher's cache does not hold it"):
        missing.train()
    late = build(
        teacher=CachedTeacher(tmp_path / "cache", expected={}), eval_strategy="steps",
        trainer_kwargs={"eval_dataset": ecg_examples[4:6]},
    )  # fmt: skip
    with pytest.raises(ExampleError, match="record 'r4': the teacher's cache does not hold it"):
        late.train()
    assert late.state.global_step == 0


CONVERSATION = {
    "conversations": [
        {"from": "human", "value": "What is the rhythm?"},
        {"from": "gpt", "value": "atrial fibrillation"},
        {"from": "human", "value": "And the axis?"},
        {"from": "gpt", "value": "left axis, as it was before"},
    ]
}


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cache_of_conversations_with_cut_answers(build, tiny_vlm, tmp_path, ecg_examples, side):
    """The cache saw shorter answers than a chat without an image would show: groups are cut to what it saw."""
    examples = [{"id": e["id"], "image": e["image"], **CONVERSATION} for e in ecg_examples[:2]] + ecg_examples[2:4]
    student, teacher = (tiny_vlm(name).processor for name in ("idefics3", "llava_next"))
    full = EVLECGCollator(teacher, padding_side=side)(examples)
    limit = int(full["attention_mask"].sum(1).max()) - 4
    collator = EVLECGCollator(student, teacher, teacher_max_length=limit, padding_side=side)
    online = build(examples=examples, lambda_uld=1.0, uld_top_k=8, trainer_kwargs={"data_collator": collator})
    batch = collator(examples)
    counts = [(batch["teacher"]["labels"] != -100).sum().item(), (full["labels"] != -100).sum().item()]
    assert counts[1] - counts[0] == 8, "two answers lose four tokens each"
    layout = CacheLayout(dtype="float32", top_k=8)
    TeacherCacheWriter(tmp_path / "cache", online.teacher, layout, fingerprint={}).write([batch])
    cached_collator = EVLECGCollator(
        student, teacher, teacher_images=False, teacher_max_length=limit, padding_side=side
    )
    cached = build(
        examples=examples, lambda_uld=1.0, uld_top_k=8, teacher=CachedTeacher(tmp_path / "cache", expected={}),
        trainer_kwargs={"data_collator": cached_collator},
    )  # fmt: skip
    for trainer in (online, cached):
        trainer.train()
    assert losses(cached) == pytest.approx(losses(online), rel=1e-4)


def test_conversations_teach_every_answer_and_are_scored_by_the_first(build, ecg_examples, tiny_vlm):
    seen = {}

    def keep(prediction):
        seen.update(predictions=prediction.predictions, labels=prediction.label_ids)
        return {}

    examples = [{"id": e["id"], "image": e["image"], **CONVERSATION} for e in ecg_examples[:2]] + ecg_examples[2:4]
    trainer = build(
        examples=examples, max_steps=60, alpha=0.0, eval_predictions="generate", max_new_tokens=24,
        trainer_kwargs={"eval_dataset": examples, "compute_metrics": keep},
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    tokenizer = tiny_vlm("idefics3").processor.tokenizer
    expected = ["atrial fibrillation"] * 2 + [e["answer"] for e in ecg_examples[2:4]]
    for ids in (np.where(seen["labels"] == -100, tokenizer.pad_token_id, seen["labels"]), seen["predictions"]):
        assert [t.strip() for t in tokenizer.batch_decode(ids, skip_special_tokens=True)] == expected


def test_evaluation_by_loss_generation_and_likelihood(build, ecg_examples, tiny_vlm):
    seen = {}

    def keep(prediction):
        seen["shapes"] = [np.asarray(prediction.predictions).shape, np.asarray(prediction.label_ids).shape]
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"counted": float(len(prediction.predictions))}

    kwargs = {"eval_dataset": ecg_examples[:5], "compute_metrics": keep}
    plain = build(trainer_kwargs={"eval_dataset": ecg_examples[:5]})
    metrics = plain.evaluate()
    terms = [metrics[f"eval_{name}"] for name in ("ce", "mhca", "ot", "relation")]
    assert metrics["eval_loss"] == pytest.approx(sum(terms), rel=1e-3)
    trainer = build(
        max_steps=60, alpha=0.0, eval_predictions="generate", max_new_tokens=24, examples=ecg_examples[:5],
        per_device_train_batch_size=5, trainer_kwargs=kwargs,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_counted"] == 5
    tokenizer = tiny_vlm("idefics3").processor.tokenizer
    texts = [t.strip() for t in tokenizer.batch_decode(seen["predictions"], skip_special_tokens=True)]
    answers = [e["answer"] for e in ecg_examples[:5]]
    assert texts == answers, "sixty steps are enough to learn five images by heart"
    labels = np.where(seen["labels"] == -100, tokenizer.pad_token_id, seen["labels"])
    assert [t.strip() for t in tokenizer.batch_decode(labels, skip_special_tokens=True)] == answers
    judge = build(
        student=trainer.model,
        alpha=0.0,
        eval_predictions="likelihood",
        candidate_answers=answers,
        trainer_kwargs=kwargs,
    )
    judge.evaluate()
    assert seen["shapes"][0] == (5, 5)
    assert seen["predictions"].argmax(1).tolist() == [0, 1, 2, 3, 4]
    bad = [{**ecg_examples[0], "answer": ""}, *ecg_examples[1:3]]
    with pytest.raises(ExampleError, match="metrics need every example"):
        judge.evaluate(bad)


def test_bad_examples_stop_training_before_it_starts(build, ecg_examples):
    bad = {**ecg_examples[1], "answer": ""}
    trainer = build(examples=[ecg_examples[0], bad])
    with pytest.raises(MissingAnswerError, match="record 'r1'"):
        trainer.train()
    assert trainer.state.global_step == 0
    with pytest.raises(TruncatedImageError, match="of 14 image tokens"):
        build(teacher_max_length=8).train()


def test_a_record_that_cannot_be_read_does_not_end_a_run_that_leaves_such_out(build, ecg_examples, caplog):
    """Wherever it stands: among the first as later. Where all of the first are so, and in evaluation, the run does not start."""
    bad = {**ecg_examples[1], "id": "broken", "image": None}
    trainer = build(examples=[bad, *ecg_examples[2:5]], max_steps=2, train_sampling_strategy="sequential")
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "record 'broken'" in caplog.text
    assert "it will be left out" in caplog.text
    assert [reason for reason in trainer.skipped if "broken" in reason]
    assert trainer.state.global_step == 2
    for given in (
        {"examples": [bad, bad, bad, ecg_examples[0]], "preflight_examples": 3},
        {"examples": [bad, *ecg_examples[2:5]], "on_bad_example": "stop"},
    ):
        refused = build(**given)
        with pytest.raises(UnreadableImageError, match="broken"):
            refused.train()
        assert refused.state.global_step == 0


def test_a_bad_example_later_is_skipped_counted_and_named(build, ecg_examples, caplog):
    bad = {**ecg_examples[4], "id": "broken", "image": None}
    examples = [*ecg_examples[:3], bad]
    trainer = build(examples=examples, preflight_examples=2, max_steps=2, train_sampling_strategy="sequential")
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert len(trainer.skipped) == 2
    assert "record 'broken'" in trainer.skipped[0]
    assert "2 examples were left out" in caplog.text
    assert any(e.get("skipped_examples") == 2 for e in trainer.state.log_history)
    three = build(examples=ecg_examples[:3], max_steps=2, train_sampling_strategy="sequential")
    three.train()
    assert losses(trainer) == pytest.approx(losses(three), rel=1e-5)
    with pytest.raises(ExampleError, match="broken"):
        build(examples=examples, preflight_examples=0, on_bad_example="stop").train()


def test_remembered_pages_are_loaded_once_in_several_epochs(build, ecg_examples):
    images = {e["id"]: e["image"] for e in ecg_examples[:4]}
    losses, loaded = [], []
    for kept in (0, 4):
        names: list[str] = []

        def load(example, names=names):
            names.append(example["id"])
            return images[example["id"]]

        examples = [{k: e[k] for k in ("id", "question", "answer")} for e in ecg_examples[:4]]
        options = {"max_steps": 3, "remember_pages": kept, "preflight_examples": 0}
        trainer = build(examples=examples, trainer_kwargs={"load_image": load}, **options)
        losses.append(trainer.train().training_loss)
        loaded.append(Counter(names))
    assert loaded == [dict.fromkeys(images, 3), dict.fromkeys(images, 1)]
    assert losses[0] == losses[1]


def test_what_is_refused(build, tiny_vlm, tmp_path):
    small = tiny_vlm("idefics3")
    with pytest.raises(SameModelError, match="both loaded from"):
        build(teacher=small.load())
    with pytest.raises(ValueError, match="need a teacher"):
        build(teacher=None)
    with pytest.raises(ValueError, match="teacher's processor"):
        build(trainer_kwargs={"teacher_processing_class": None})
    with pytest.raises(ValueError, match="student's processor"):
        build(trainer_kwargs={"processing_class": None})
    with pytest.raises(ValueError, match="compute_metrics would never be called"):
        build(trainer_kwargs={"compute_metrics": len})
    with pytest.raises(ValueError, match="needs the student's processor"):
        build(eval_predictions="generate", trainer_kwargs={"processing_class": None, "data_collator": list})
    with pytest.raises(ValueError, match="takes an EVLECGConfig"):
        EVLECGTrainer(small.load(), TrainingArguments(str(tmp_path)))
    with pytest.raises(UnsupportedModelError, match="no image_token_id"):
        build(student=small.load().model.text_model)
    other = small.load()
    other.config.image_token_id = 77
    with pytest.raises(UnsupportedModelError, match="student's configuration has image token 77"):
        build(student=other)
    collator = EVLECGCollator(small.processor, tiny_vlm("llava_next").processor)
    with pytest.raises(ValueError, match="max_length would have no effect"):
        build(max_length=500, trainer_kwargs={"data_collator": collator})
    build(trainer_kwargs={"data_collator": collator}).train()


WRONG = {
    "alpha": 1.5,
    "lambda_mhca": -1.0,
    "mhca_mode": "free",
    "ot_epsilon": 0.0,
    "ot_backend": "jax",
    "uld_top_k": 0,
    "hidden_tokens": "text",
    "relation_subset": 5000,
    "eval_predictions": "likelihood",
    "candidate_answers": ["a"],
    "remove_unused_columns": True,
    "aligner_learning_rate": float("nan"),
    "preflight_examples": -1,
    "max_length": 3,
    "visual_weights": "edges",
    "visual_weight_floor": 1.5,
    "on_bad_example": "hide",
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_config_ranges(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        EVLECGConfig(output_dir=str(tmp_path), **{name: WRONG[name]})


def test_an_anchored_aligner_needs_answers(tmp_path):
    with pytest.raises(ValueError, match="choose hidden_tokens='all' or 'answer'"):
        EVLECGConfig(output_dir=str(tmp_path), mhca_mode="anchored", hidden_tokens="visual")


def test_anchored_states_are_those_the_head_reads(tmp_path):
    with pytest.raises(ValueError, match="set student_layer=-1 or mhca_mode='paper'"):
        EVLECGConfig(output_dir=str(tmp_path), mhca_mode="anchored", student_layer=1)


def own_fields():
    inherited = {f.name: f.default for f in fields(TrainingArguments)}
    return [f for f in fields(EVLECGConfig) if inherited.get(f.name, ...) != f.default]


def test_every_option_of_the_loss_is_a_field_with_its_default():
    fields = EVLECGConfig.__dataclass_fields__
    options = [p for p in signature(EVLECGLoss).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [option.name for option in options] == list(LOSS_OPTIONS)
    assert len(options) > 15
    assert {option.name: option.default for option in options} == {o.name: fields[o.name].default for o in options}


def test_every_field_has_help():
    for f in own_fields():
        assert len(f.metadata["help"]) > 15, f.name


ANCHORED, ULD, OT = {"mhca_mode": "anchored"}, {"lambda_uld": 1.0}, {"lambda_mhca": 0.0, "lambda_relation": 0.0}
CHANGED = {  # field: another value, and what else has to be set for it to matter
    "alpha": (0.3, {}),
    "lambda_mhca": (2.0, {}),
    "lambda_ot": (2.0, {}),
    "lambda_relation": (2.0, {}),
    "lambda_uld": (1.0, {}),
    "lambda_anchor": (2.0, ANCHORED),
    "mhca_mode": ("anchored", {}),
    "mhca_num_heads": (8, {}),
    "mhca_channel_mean": (False, {}),
    "attention": ("aligned", {}),
    "match": ("normalised", {}),
    "ot_epsilon": (0.5, OT),
    "ot_max_iter": (1, OT),
    "ot_tol": (0.5, OT),
    "ot_position_weight": (0.5, OT),
    "relation_max_tokens": (8, {"relation_subset": 4}),
    "relation_subset": (6, {"relation_max_tokens": 8, "relation_subset": 4}),
    "uld_merge": ("mean", ULD),
    "uld_temperature": (2.0, ULD),
    "uld_top_k": (2, ULD),
    "hidden_tokens": ("answer", {}),
    "student_layer": (1, {}),
    "teacher_layer": (1, {}),
    "teacher_visual_pool": (2, {}),
    "visual_weights": ("teacher_contrast", {}),
    "visual_weight_floor": (0.9, {"visual_weights": "teacher_contrast"}),
    "max_length": (75, {}),
    "teacher_max_length": (50, {}),
    "system_prompt": ("You are a cardiologist.", {}),
    "teacher_system_prompt": ("You are a cardiologist.", {}),
}
TESTED_ABOVE = {
    "ddp_find_unused_parameters",  # in test_trainer_distributed
    "unanswered",  # in test_unanswered
    *set(RIVAL_OPTIONS) - {"alpha"},  # in test_rivals
    "lambda_schedules",  # in test_schedules
    *("remove_unused_columns", "aligner_learning_rate", "aligner_weight_decay", "freeze_vision_tower"),
    *(
        "remember_pages",
        "on_bad_example",
        "preflight_examples",
        "eval_predictions",
        "max_new_tokens",
        "candidate_answers",
    ),
}
SAME_VALUE = {"ot_backend"}


def test_the_effect_of_every_field_is_tested():
    assert {f.name for f in own_fields()} == set(CHANGED) | TESTED_ABOVE | SAME_VALUE


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_field_changes_the_loss(build, name, ecg_examples):
    examples = [{**e, "answer": e["answer"] * 2} for e in ecg_examples[:2]]
    value, given = CHANGED[name]
    results = []
    for options in (given, {**given, name: value}):
        trainer = build(examples=examples, **options)
        torch.manual_seed(3)
        batch = trainer.data_collator(examples)
        trainer.model.eval()
        results.append(trainer.compute_loss(trainer.model, batch).item())
    assert abs(results[1] - results[0]) > 1e-5 * results[0]


def test_the_transport_backend_reaches_the_loss(build, ecg_examples):
    values = []
    for backend in ("torch", "pot"):
        trainer = build(ot_backend=backend, ot_max_iter=200)
        assert trainer.criterion.evl_ecg._match_visual.keywords["backend"] == backend
        trainer.model.eval()
        values.append(trainer.compute_loss(trainer.model, trainer.data_collator(ecg_examples[:2])).item())
    assert values[0] == pytest.approx(values[1], rel=1e-3)
