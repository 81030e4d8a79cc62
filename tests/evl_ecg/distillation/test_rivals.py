"""Rivals in the trainer: every method trains from its preset, online and from a cache, and leaves nothing in the student."""

import pytest
import torch
from safetensors.torch import load_file

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.criterion import RIVAL_OPTIONS
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.rivals import PRESETS, VocabularyMismatchError
from hf_evl_ecg.rivals.divergence import common_vocabulary

TERMS = {
    "evl_ecg": {"mhca", "anchor_ce", "ot", "relation"},
    "evl_ecg_paper": {"mhca", "ot", "relation"},
    "sft": set(),
    "seqkd": set(),
    "kl": {"kl"},
    "uld": {"uld"},
    "dskd": {"dskd_t2s_ce", "dskd_t2s", "dskd_s2t"},
    "rkd": {"rkd_distance", "rkd_angle"},
    "cka": {"cka"},
    "em_kd": {"em_kd"},
    "feature_mse": {"feature_mse"},
}
ALL = set().union(*TERMS.values())
OWNING = ("evl_ecg", "dskd", "em_kd", "feature_mse")  # methods with parameters beside the student


@pytest.fixture
def build(tiny_vlm, tmp_path, ecg_examples):
    """A trainer of Idefics3 under LlavaNext, or under a larger-voiced Idefics3 for one vocabulary."""

    def make(method=None, *, teacher=None, examples=None, **options):
        small = tiny_vlm("idefics3")
        other = tiny_vlm("idefics3" if method == "kl" else "llava_next")
        if teacher is None:
            teacher = other.load()
            if method == "kl":
                teacher.config._name_or_path = "a teacher of the same family"
                with torch.no_grad():
                    teacher.lm_head.weight.mul_(1.5)
        given = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "max_steps": 2,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "mhca_num_heads": 4,
            "disable_tqdm": True,
            "use_cpu": True,
            **(PRESETS[method] if method else {}),
            **options,
        }
        return EVLECGTrainer(
            small.load(),
            EVLECGConfig(**given),
            teacher=teacher,
            processing_class=small.processor,
            teacher_processing_class=other.processor,
            train_dataset=examples or ecg_examples[:4],
        )

    return make


def test_every_method_is_tested():
    assert set(TERMS) == set(PRESETS)


@pytest.mark.parametrize("method", PRESETS)
def test_a_preset_trains_the_student_with_its_own_terms(build, method):
    trainer = build(method)
    teacher = {name: t.clone() for name, t in trainer.teacher.model.state_dict().items()}
    start = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    own = {name: t.clone() for name, t in trainer.criterion.state_dict().items()}
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in history:
        assert set(entry) & ALL == TERMS[method]
        assert entry["loss"] == pytest.approx(sum(entry[n] for n in TERMS[method] | {"ce"}), rel=1e-4)
    assert all(torch.equal(teacher[n], t) for n, t in trainer.teacher.model.state_dict().items())
    assert sum(not torch.equal(start[n], t) for n, t in trainer.model.state_dict().items()) > 0.8 * len(start)
    assert bool(own) == (method in OWNING or method == "evl_ecg_paper")
    assert all(not torch.equal(own[n], t) for n, t in trainer.criterion.state_dict().items())


@pytest.mark.parametrize("method", PRESETS)
def test_a_method_alone_brings_its_terms_down(build, method):
    trainer = build(method, max_steps=15, alpha=PRESETS[method]["alpha"] and 0.9)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    # what the teacher's states name rightly starts to count only while the projectors learn
    for name in TERMS[method] - {"dskd_t2s"} or {"ce"}:
        assert history[-1][name] < 0.9 * history[0][name], name


@pytest.mark.parametrize("method", OWNING)
def test_no_projector_is_ever_part_of_the_student(build, tmp_path, method):
    """DistillKit hangs its projectors on the student: they are saved with it and make an export that no class knows."""
    trainer = build(method, save_strategy="steps", save_steps=2)
    plain = set(trainer.model.state_dict())
    student = {id(p) for p in trainer.model.parameters()}
    trainer.train()
    own = list(trainer.criterion.parameters())
    assert own
    assert not student & {id(p) for p in own}
    assert set(trainer.model.state_dict()) == plain
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in own} <= trained
    trainer.save_model(str(tmp_path / "student"))
    saved = set(load_file(tmp_path / "student" / "model.safetensors"))
    assert saved <= plain
    assert not (tmp_path / "student" / "distillation.safetensors").exists()
    side = load_file(tmp_path / "out" / "checkpoint-2" / "distillation.safetensors")
    assert set(side) == set(trainer.criterion.state_dict())
    assert not set(side) & saved


def test_projectors_resume_as_if_uninterrupted(build, tmp_path):
    options = {"lambda_rkd_distance": 25.0, "save_strategy": "steps", "save_steps": 2}
    whole = build("feature_mse", max_steps=4, output_dir=str(tmp_path / "whole"), **options)
    whole.train()
    resumed = build("feature_mse", max_steps=4, output_dir=str(tmp_path / "parts"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for one, other in ((whole.model, resumed.model), (whole.criterion, resumed.criterion)):
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


@pytest.fixture
def cached(tiny_vlm, ecg_examples, tmp_path):
    """Function (method, layout) → the same teacher as `build` has, from a cache in float32."""

    def make(teacher, processor, **layout):
        layout = CacheLayout(**{"dtype": "float32", "top_k": 0, **layout})
        writer = TeacherCacheWriter(tmp_path / "cache", teacher, layout, fingerprint={})
        batch = EVLECGCollator(processor)(ecg_examples[:4])
        writer.write(
            [{"teacher": {n: v for n, v in batch.items() if n not in ("keys", "skipped")}, "keys": batch["keys"]}]
        )
        return CachedTeacher(tmp_path / "cache", expected={})

    return make


@pytest.mark.parametrize(
    ("method", "layout"),
    [
        ("rkd", {"tokens": "answer"}),
        ("cka", {"tokens": "answer"}),
        ("feature_mse", {"tokens": "answer"}),
        ("feature_mse", {"tokens": "all"}),
        ("em_kd", {"tokens": "all"}),
        ("evl_ecg", {"tokens": "all", "positions": True}),
        ("kl", {"top_k": 10_000, "tokens": "all"}),
    ],
)
def test_a_cache_gives_the_same_terms(build, cached, tiny_vlm, ecg_examples, method, layout):
    online = build(method)
    processor = tiny_vlm("idefics3" if method == "kl" else "llava_next").processor
    teacher = cached(online.teacher, processor, **layout)
    other = build(method, teacher=teacher)
    values = []
    for trainer in (online, other):
        trainer.model.eval()
        values.append(trainer.compute_loss(trainer.model, trainer.data_collator(ecg_examples[:4])).item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_cache_with_the_largest_probabilities_alone_is_refused(build, cached, tiny_vlm):
    teacher = cached(OnlineTeacher(tiny_vlm("idefics3").load()), tiny_vlm("idefics3").processor, top_k=8)
    with pytest.raises(ValueError, match="holds the 8 largest answer probabilities; cache every one"):
        build("kl", teacher=teacher)


def test_a_cache_cannot_stand_in_for_the_embeddings_and_the_head_of_dskd(build, cached, tiny_vlm):
    teacher = cached(OnlineTeacher(tiny_vlm("llava_next").load()), tiny_vlm("llava_next").processor, top_k=8)
    with pytest.raises(ValueError, match="a cache holds no embeddings"):
        build("dskd", teacher=teacher)


def test_two_vocabularies_are_refused_before_the_first_step(build, tiny_vlm):
    with pytest.raises(VocabularyMismatchError, match=r"of the \d+ tokens differ.*--method uld"):
        build(lambda_kl=1.0)
    build(lambda_kl=1.0, alpha=0.0)
    vocabulary = tiny_vlm("idefics3").processor.tokenizer.get_vocab()
    assert common_vocabulary(vocabulary, vocabulary | {"<more>": len(vocabulary)}) == len(vocabulary)


@pytest.mark.parametrize("method", ["kl", "rkd"])
def test_a_rival_may_train_the_student_without_the_answers_cross_entropy(build, method):
    trainer = build(method, alpha=1.0)
    start = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in history:
        assert set(entry) & (ALL | {"ce"}) == TERMS[method]
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in TERMS[method]), rel=1e-4)
    assert any(not torch.equal(start[name], t) for name, t in trainer.model.state_dict().items())


def test_an_objective_without_terms_is_refused(build):
    nothing = {"lambda_mhca": 0.0, "lambda_ot": 0.0, "lambda_relation": 0.0}
    with pytest.raises(ValueError, match=r"alpha=1 leaves out the cross-entropy .* a lambda of EVL-ECG or of a rival"):
        build(alpha=1.0, **nothing)


def test_em_kd_needs_visual_states(tmp_path):
    with pytest.raises(ValueError, match="set hidden_tokens='visual'"):
        EVLECGConfig(output_dir=str(tmp_path), lambda_em_kd=1.0)


RKD = {"lambda_rkd_distance": 25.0}
CHANGED = {  # option: another value, and what else has to be set for it to matter
    "lambda_rkd_distance": (1.0, {}),
    "lambda_rkd_angle": (1.0, {}),
    "lambda_cka": (1.0, {}),
    "lambda_em_kd": (1.0, {"hidden_tokens": "visual"}),
    "lambda_feature_mse": (1.0, {}),
    "lambda_kl": (1.0, {}),
    "lambda_dskd": (1.0, {}),
    "dskd_temperature": (4.0, {"lambda_dskd": 1.0}),
    "kl_divergence": ("reverse", {"lambda_kl": 1.0}),
    "kl_beta": (0.1, {"lambda_kl": 1.0, "kl_divergence": "jsd"}),
    "kl_temperature": (3.0, {"lambda_kl": 1.0}),
}


def test_the_effect_of_every_option_is_tested():
    assert set(CHANGED) | {"alpha"} == set(RIVAL_OPTIONS)


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_an_option_changes_the_loss(build, name, ecg_examples):
    value, given = CHANGED[name]
    results = []
    for options in (given, {**given, name: value}):
        trainer = build("kl" if "kl" in name else None, **{"lambda_kl": 0.0, **options})
        trainer.model.eval()
        results.append(trainer.compute_loss(trainer.model, trainer.data_collator(ecg_examples[:4])).item())
    assert abs(results[1] - results[0]) > 1e-5 * results[0]
