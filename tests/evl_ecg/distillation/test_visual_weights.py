"""Weighted visual tokens in training: from the drawn page to the loss, online and from a cache."""

import pytest
import torch

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout, CacheMismatchError
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.criterion import student_request, teacher_request
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.models.answer_attention import attend_eagerly
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.visual_weights import mix_uniform, read_map
from hf_evl_ecg.ot import ot_matching_loss
from hf_evl_ecg.sources.simulated import load_simulated

PAGE = RenderConfig(width_px=448, height_px=224, grid="thick")


@pytest.fixture(scope="module")
def examples():
    rows, _ = load_simulated(2, classes=["AF", "NORM"])
    return [{**row, "question": "What is the rhythm?", "answer": row["labels"][0]} for row in rows]


@pytest.fixture
def build(tiny_vlm, tmp_path, examples):
    """A trainer of Idefics3 under LlavaNext on four drawn pages; keyword arguments go to EVLECGConfig."""

    def make(*, teacher=None, load_image=RenderedECG(PAGE), trained=examples, **options):
        small, large = tiny_vlm("idefics3"), tiny_vlm("llava_next")
        config = EVLECGConfig(
            str(tmp_path / "out"), per_device_train_batch_size=4, max_steps=3, learning_rate=5e-3, logging_steps=1,
            lr_scheduler_type="constant", report_to="none", save_strategy="no", mhca_num_heads=4, disable_tqdm=True,
            use_cpu=True, **options,
        )  # fmt: skip
        return EVLECGTrainer(
            small.load(), config, teacher=teacher or large.load(), processing_class=small.processor,
            teacher_processing_class=large.processor, load_image=load_image, train_dataset=trained,
        )  # fmt: skip

    return make


def history(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_the_transport_term_is_that_of_the_ink(build, examples):
    """By hand: masses from the map of the page at each model's own boxes, a tenth of them spread evenly."""
    trainer = build(visual_weights="ink")
    batch = trainer.data_collator(examples)
    student = extract_features(trainer.model, model_inputs(batch), None, FeatureRequest(logits=False, boxes=True))
    teacher = trainer.teacher.features(batch, FeatureRequest(logits=False, visual_weights="ink"))
    masses = [
        mix_uniform(read_map(batch["ink"], student.visual_boxes), student.visual_mask, 0.1),
        mix_uniform(teacher.visual_weights, teacher.visual_mask, 0.1),
    ]
    for mass in masses:
        torch.testing.assert_close(mass.sum(1), torch.ones(4))
    projected = trainer.criterion.evl_ecg.projector(student.visual)
    tokens = (teacher.visual, projected, teacher.visual_mask, student.visual_mask)
    weighted = ot_matching_loss(*tokens, student_masses=masses[0], teacher_masses=masses[1])
    trainer.train()
    assert history(trainer, "ot")[0] == pytest.approx(0.5 * weighted.item(), rel=1e-4)
    assert weighted.item() != pytest.approx(ot_matching_loss(*tokens).item(), rel=1e-3)
    assert history(trainer)[-1] < history(trainer)[0]


@pytest.mark.parametrize("tokens", ["all", "visual", "answer"])
def test_the_relation_term_weighs_image_tokens_where_it_covers_them(build, examples, tokens):
    values = {}
    for source in ("uniform", "ink"):
        trainer = build(visual_weights=source, hidden_tokens=tokens)
        trainer.train()
        values[source] = history(trainer, "relation")[0]
    assert (values["ink"] == pytest.approx(values["uniform"], rel=1e-4)) == (tokens == "answer")


def test_weights_are_read_where_a_term_needs_them_only(build):
    with pytest.raises(ValueError, match="visual_weights='ink' has no effect without lambda_ot"):
        build(visual_weights="ink", lambda_ot=0.0, hidden_tokens="answer")
    trainer = build(visual_weights="ink", lambda_ot=0.0)
    request = student_request(trainer.criterion, trainer.args, several_processes=False)
    assert (request.visual, request.boxes) == (True, True)
    assert teacher_request(trainer.criterion, trainer.args).visual_weights == "ink"
    trainer.train()
    plain = build()
    assert not student_request(plain.criterion, plain.args, several_processes=False).boxes
    assert teacher_request(plain.criterion, plain.args).visual_weights == "uniform"
    assert "ink" not in plain.data_collator(plain.train_dataset)


@pytest.mark.parametrize("source", ["ink", "teacher_contrast", "teacher_attention"])
def test_training_from_a_cache_is_training_online(build, tmp_path, examples, source, tiny_vlm):
    teacher = tiny_vlm("llava_next").load()
    if source == "teacher_attention":
        attend_eagerly(teacher)
    online = build(visual_weights=source, visual_weight_floor=0.2, teacher_visual_pool=2, teacher=teacher)
    layout = CacheLayout(dtype="float32", visual_pool=2, visual_weights=source)
    batch = online.data_collator(examples)
    TeacherCacheWriter(tmp_path / "cache", online.teacher, layout, fingerprint={}).write([batch])
    cache = CachedTeacher(tmp_path / "cache", expected={})
    request = teacher_request(online.criterion, online.args)
    fresh, kept = online.teacher.features(batch, request), cache.features(batch, request)
    torch.testing.assert_close(kept.visual_weights, fresh.visual_weights)
    torch.testing.assert_close(kept.visual_map, fresh.visual_map)
    cached = build(visual_weights=source, visual_weight_floor=0.2, teacher_visual_pool=2, teacher=cache)
    assert "ink" not in cached.data_collator(examples), "the cache holds it"
    for trainer in (online, cached):
        trainer.train()
    assert history(cached) == pytest.approx(history(online), rel=1e-3)


def test_a_cache_of_other_weights_is_refused(build, tmp_path, examples, tiny_vlm):
    online = build()
    layout = CacheLayout(dtype="float32", visual_weights="teacher_contrast")
    TeacherCacheWriter(tmp_path / "cache", online.teacher, layout, fingerprint={}).write(
        [online.data_collator(examples)]
    )
    cache = CachedTeacher(tmp_path / "cache", expected={})
    with pytest.raises(
        CacheMismatchError, match=r"visual_weights='ink' wanted, but .* holds visual_weights='teacher_contrast'"
    ):
        build(visual_weights="ink", teacher=cache).train()
    build(teacher=cache).train()  # who wants none need not care


def test_photographs_have_no_known_ink(build, ecg_examples):
    with pytest.raises(ValueError, match=r"load_image=ImageFile.*use visual_weights='teacher_contrast'"):
        build(visual_weights="ink", load_image=None, trained=ecg_examples)
    trainer = build(visual_weights="teacher_contrast", load_image=None, trained=ecg_examples[:4])
    trainer.train()
    assert history(trainer)[-1] < history(trainer)[0]


def test_ink_of_pages_with_artefacts_comes_with_the_same_picture(examples):
    for load in (RenderedECG(PAGE), RenderedECG(PAGE, AugmentConfig(probability=1.0), seed=3)):
        image, ink = load.with_ink(examples[0])
        assert image.tobytes() == load(examples[0]).tobytes()
        assert 0 < ink.mean() < 0.2
    anew = RenderedECG(PAGE, AugmentConfig(probability=1.0), seed=None)
    torch.manual_seed(0)
    drawn = anew(examples[0]).tobytes()
    torch.manual_seed(0)
    assert anew.with_ink(examples[0])[0].tobytes() == drawn


def test_remembered_pages_have_their_ink(build):
    for trainer in (runs := [build(visual_weights="ink"), build(visual_weights="ink", remember_pages=10)]):
        trainer.train()
    assert history(runs[1]) == pytest.approx(history(runs[0]), rel=1e-5)


def test_a_page_is_drawn_once_for_picture_and_ink(build, examples, monkeypatch):
    from hf_evl_ecg.drawing import rendering

    drawn = []
    draw = rendering._draw
    monkeypatch.setattr(rendering, "_draw", lambda *args: drawn.append(1) or draw(*args))
    build(visual_weights="ink").data_collator(examples)
    assert len(drawn) == 4


def test_batches_without_ink_say_so(build, tiny_vlm, examples):
    teacher = OnlineTeacher(tiny_vlm("llava_next").load())
    batch = build().data_collator(examples)
    with pytest.raises(ValueError, match="the batch holds no ink"):
        teacher.features(batch, FeatureRequest(visual_weights="ink"))
