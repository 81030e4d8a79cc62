"""Teachers: frozen online, and from a cache that says the same, survives a kill and notices damage."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from torch.utils.data import DataLoader

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.distillation import cache as teacher_cache
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout, CacheMismatchError, DamagedShardError
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.teacher import OnlineTeacher, SameModelError, check_not_same_model
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.models.features import FeatureRequest
from hf_evl_ecg.models.fingerprints import model_fingerprint, processor_fingerprint
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.tokens import PADDING_PLACE

EVERYTHING = FeatureRequest()
FINGERPRINT = {"teacher": "tiny", "render": "plain", "seed": 0}


@pytest.fixture
def collator(tiny_vlm):
    return EVLECGCollator(tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor)


@pytest.fixture
def teacher(tiny_vlm):
    return OnlineTeacher(tiny_vlm("llava_next").load())


def write(folder, teacher, collator, examples, layout=CacheLayout(dtype="float32", top_k=380), **kwargs):
    writer = TeacherCacheWriter(folder, teacher, layout, fingerprint=FINGERPRINT, shard_size=2, **kwargs)
    todo = [e for e in examples if example_key(e) not in writer.done]
    return writer.write(DataLoader(todo, batch_size=3, collate_fn=collator)), writer


def assert_same(cached, online, names=("hidden", "visual", "answer_logits"), **tolerance):
    """Equal where a token is; masks and answers equal everywhere."""
    for name, mask in (("hidden", "mask"), ("visual", "visual_mask"), ("answer_logits", "answer_mask")):
        if name in names:
            a, b = getattr(cached, name)[getattr(cached, mask)], getattr(online, name)[getattr(online, mask)]
            if name == "answer_logits":
                b = b.log_softmax(-1)  # every one is cached, so they stand in the vocabulary's order
            torch.testing.assert_close(a.float(), b, **tolerance)
    assert cached.answer_ids.tolist() == online.answer_ids.tolist()
    assert cached.mask.sum(1).tolist() == online.mask.sum(1).tolist()
    assert cached.answer_index.tolist() == online.answer_index.tolist()


def test_the_online_teacher_is_frozen_and_deterministic(tiny_vlm, collator, ecg_examples):
    model = tiny_vlm("llava_next").load().train()
    teacher = OnlineTeacher(model)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert not isinstance(teacher, torch.nn.Module)
    assert teacher.hidden_dim == 48
    batch = collator(ecg_examples)
    first, second = (teacher.features(batch, EVERYTHING) for _ in range(2))
    assert torch.equal(first.hidden, second.hidden)
    assert not first.hidden.requires_grad
    assert first.visual_mask.sum(1).tolist() == [14] * 6


def test_one_model_cannot_teach_itself(tiny_vlm):
    tiny = tiny_vlm("llava_next")
    model = tiny.load()
    with pytest.raises(SameModelError, match="the same object"):
        check_not_same_model(model, model)
    with pytest.raises(SameModelError, match="both loaded from"):
        check_not_same_model(model, tiny.load())
    check_not_same_model(model, tiny_vlm("idefics3").load())


def test_a_teacher_needs_image_tokens_and_inputs(tiny_vlm, teacher, ecg_examples):
    with pytest.raises(UnsupportedModelError, match="no image_token_id"):
        OnlineTeacher(tiny_vlm("llava_next").load().model.language_model)
    batch = EVLECGCollator(tiny_vlm("idefics3").processor)(ecg_examples[:1])
    with pytest.raises(ValueError, match="no teacher inputs"):
        teacher.features(batch, EVERYTHING)


@pytest.mark.parametrize(("tokens", "pool"), [("all", 1), ("visual", 3), ("answer", 1)])
def test_cached_features_are_the_online_ones(tmp_path, teacher, collator, ecg_examples, tokens, pool):
    layout = CacheLayout(layers=(-1, 1), tokens=tokens, visual_pool=pool, top_k=380, dtype="float32", positions=True)
    written, _ = write(tmp_path, teacher, collator, ecg_examples, layout)
    assert written == 6
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT)
    assert (len(cached), cached.hidden_dim) == (6, 48)
    batch = collator([ecg_examples[i] for i in (4, 0, 5)])
    for layer in (-1, 1):
        request = FeatureRequest(tokens=tokens, layer=layer, visual_pool=pool, positions=True, places=True)
        online = teacher.features(batch, request)
        assert torch.equal(cached.features(batch, request).places, online.places)
        assert online.places.shape == (*online.mask.shape, 2)
        assert torch.equal(online.places.ne(PADDING_PLACE).all(2), online.mask)
        assert cached.features(batch, replace(request, places=False)).places is None
        assert torch.equal(cached.features(batch, request).visual_positions, online.visual_positions)
        assert_same(cached.features(batch, request), online, rtol=1e-4, atol=1e-5)
    assert online.visual_mask.sum(1).tolist() == [14 if pool == 1 else 5] * 3


@pytest.mark.parametrize("tokens", ["answer", "visual"])
def test_a_cache_of_all_tokens_serves_every_scope(tmp_path, teacher, collator, ecg_examples, tokens):
    write(tmp_path, teacher, collator, ecg_examples)
    batch = collator([ecg_examples[i] for i in (4, 0, 5)])
    request = FeatureRequest(tokens=tokens, places=True)
    cached, online = CachedTeacher(tmp_path, expected={}).features(batch, request), teacher.features(batch, request)
    assert_same(cached, online, rtol=1e-4, atol=1e-5)
    assert cached.mask.tolist() == online.mask.tolist()
    assert torch.equal(cached.places, online.places)
    torch.testing.assert_close(cached.answer_hidden, online.answer_hidden, rtol=1e-4, atol=1e-5)


def test_left_padding_is_cached_without_padding(tmp_path, tiny_vlm, teacher, collator, ecg_examples):
    left = EVLECGCollator(collator.student_processor, collator.teacher_processor, padding_side="left")
    write(tmp_path, teacher, left, ecg_examples)
    batch = collator(ecg_examples)
    everything = replace(EVERYTHING, places=True)
    cached, online = (
        CachedTeacher(tmp_path, expected={}).features(batch, everything),
        teacher.features(batch, everything),
    )
    assert_same(cached, online, rtol=1e-4, atol=1e-5)
    assert torch.equal(cached.places, online.places)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 5e-3), ("bfloat16", 2e-2)])
def test_cached_and_online_losses_agree(tmp_path, tiny_vlm, teacher, collator, ecg_examples, dtype, tolerance):
    """Relative difference of each term; 64 log-probabilities are kept, and 64 ranks are compared."""
    write(tmp_path, teacher, collator, ecg_examples, CacheLayout(dtype=dtype, top_k=64))
    student = OnlineTeacher(tiny_vlm("idefics3").load())
    batch = collator(ecg_examples)
    features = student.features({**batch, "teacher": {k: batch[k] for k in STUDENT_KEYS}}, EVERYTHING)
    torch.manual_seed(0)
    loss = EVLECGLoss(32, 48, lambda_uld=1.0, mhca_num_heads=4, uld_top_k=64)
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT).features(batch, EVERYTHING)
    ce = torch.tensor(1.0)
    expected = loss(features, teacher.features(batch, EVERYTHING), ce)
    found = loss(features, cached, ce)
    assert sorted(found) == ["ce", "mhca", "ot", "relation", "uld"]
    for name in ("mhca", "ot", "relation"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=tolerance)
    assert found["uld"].item() == pytest.approx(expected["uld"].item(), rel=1e-4), "log-probabilities are float32"


STUDENT_KEYS = ("input_ids", "attention_mask", "labels", "pixel_values", "pixel_attention_mask")


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_a_killed_writer_goes_on(tmp_path, teacher, collator, ecg_examples):
    """Killed for real, by SIGKILL, before its second shard: what is whole stays, what is missing is written."""

    def dying():
        loader = iter(DataLoader(ecg_examples, batch_size=2, collate_fn=collator))
        yield next(loader)
        os.kill(os.getpid(), signal.SIGKILL)

    writer = TeacherCacheWriter(
        tmp_path, teacher, CacheLayout(dtype="float32", top_k=380), fingerprint=FINGERPRINT, shard_size=2
    )
    process = get_context("fork").Process(target=lambda: writer.write(dying()))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (first,) = shards(tmp_path)
    half = first.with_name("000-00001-0123abcd.safetensors")
    half.write_bytes(b"half a shard, killed before the .json was written")
    half.with_name(f".{half.name}.77").write_bytes(b"")
    before = first.stat().st_mtime_ns
    written, writer = write(tmp_path, teacher, collator, ecg_examples)
    assert written == 4
    assert len(writer.done) == 6
    assert first.stat().st_mtime_ns == before
    assert write(tmp_path, teacher, collator, ecg_examples)[0] == 0
    batch = collator(ecg_examples)
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT).features(batch, EVERYTHING)
    assert_same(cached, teacher.features(batch, EVERYTHING), rtol=1e-4, atol=1e-5)


def test_a_removed_shard_is_written_again_beside_the_others(tmp_path, teacher, collator, ecg_examples):
    """As the message about a damaged shard advises; the shards after it must stay."""
    write(tmp_path, teacher, collator, ecg_examples)
    damaged = shards(tmp_path)[1]
    kept = [path for path in shards(tmp_path) if path != damaged]
    before = [path.read_bytes() for path in kept]
    damaged.unlink()
    damaged.with_suffix(".json").unlink()
    assert write(tmp_path, teacher, collator, ecg_examples)[0] == 2
    assert [path.read_bytes() for path in kept] == before
    assert write(tmp_path, teacher, collator, ecg_examples)[0] == 0
    batch = collator(ecg_examples)
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT).features(batch, EVERYTHING)
    assert_same(cached, teacher.features(batch, EVERYTHING), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [(0, 1), (0, 0)])
def test_two_writers_share_a_folder_at_the_same_time(tmp_path, teacher, collator, ecg_examples, ranks):
    """Also where both believe to be the first process, as two jobs do that were started apart."""
    torch.set_num_threads(1)
    batches = [[collator([example]) for example in ecg_examples[number::2]] for number in (0, 1)]

    def job(number):
        layout = CacheLayout(dtype="float32", top_k=380)
        writer = TeacherCacheWriter(
            tmp_path, teacher, layout, fingerprint=FINGERPRINT, shard_size=1, rank=ranks[number]
        )
        assert writer.write(batches[number]) == 3

    jobs = [get_context("fork").Process(target=job, args=(number,)) for number in (0, 1)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(120)
    assert [process.exitcode for process in jobs] == [0, 0]
    assert len(shards(tmp_path)) == 6
    assert not list(tmp_path.glob(".*")), "a temporary file is left"
    batch = collator(ecg_examples)
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT)
    assert cached.keys == set(batch["keys"])
    assert_same(cached.features(batch, EVERYTHING), teacher.features(batch, EVERYTHING), rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_is_read(tmp_path, teacher, collator, ecg_examples, monkeypatch):
    """A shard is opened, not read: bytes of other examples are touched neither for checking nor for features."""
    write(tmp_path, teacher, collator, ecg_examples, CacheLayout(layers=(-1, 1), dtype="float32", top_k=8))
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT)
    read = []
    opened = teacher_cache.safe_open

    class Spy:
        def __init__(self, *args, **kwargs):
            self.file = opened(*args, **kwargs)

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(teacher_cache, "safe_open", Spy)
    batch = collator(ecg_examples[:1])
    key = batch["keys"][0]
    request = FeatureRequest(visual=False, logits=False)
    first = cached.features(batch, request)
    assert sorted(read) == sorted(f"{key}/{name}" for name in cached.layout.tensors()), "all of one, to check it"
    read.clear()
    assert torch.equal(cached.features(batch, request).hidden, first.hidden)
    assert sorted(read) == sorted(f"{key}/{name}" for name in ("hidden.-1", "answer_ids", "answer_index"))


def test_a_cache_of_something_else_is_refused(tmp_path, teacher, collator, ecg_examples):
    write(tmp_path, teacher, collator, ecg_examples[:2])
    with pytest.raises(CacheMismatchError, match="made with render='plain', expected is 'augmented'"):
        CachedTeacher(tmp_path, expected={"render": "augmented"})
    with pytest.raises(CacheMismatchError, match="processor=None"):
        CachedTeacher(tmp_path, expected={"processor": "abc"})
    with pytest.raises(CacheMismatchError, match="seed=0, expected is 1"):
        TeacherCacheWriter(
            tmp_path, teacher, CacheLayout(dtype="float32", top_k=380), fingerprint={**FINGERPRINT, "seed": 1}
        )
    with pytest.raises(CacheMismatchError, match="dtype='float32', expected is 'bfloat16'"):
        TeacherCacheWriter(tmp_path, teacher, CacheLayout(top_k=380), fingerprint=FINGERPRINT)
    with pytest.raises(CacheMismatchError, match="no readable teacher cache"):
        CachedTeacher(tmp_path / "nowhere", expected={})
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT)
    batch = collator(ecg_examples)
    with pytest.raises(CacheMismatchError, match="not among the 2"):
        cached.features(batch, EVERYTHING)
    batch = collator(ecg_examples[:2])
    header = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "cache.json").write_text(json.dumps({**header, "format": 2}))
    with pytest.raises(CacheMismatchError, match="has format 2; this version reads format 3: write the cache anew"):
        CachedTeacher(tmp_path / "old", expected={})
    for request, text in (
        (FeatureRequest(layer=1), r"layer 1 wanted.*holds layers \[-1\]"),
        (FeatureRequest(embeddings=True), "embeddings of answers wanted.*run the teacher itself"),
        (FeatureRequest(positions=True), "visual positions wanted"),
        (FeatureRequest(visual_pool=2), "visual_pool=2 wanted.*visual_pool=1"),
    ):
        with pytest.raises(CacheMismatchError, match=text):
            cached.features(batch, request)
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", teacher, collator, ecg_examples[:1], CacheLayout(visual=False, top_k=0, tokens="answer"))
    bare = CachedTeacher(tmp_path / "b", expected={})
    with pytest.raises(CacheMismatchError, match="visual tokens wanted"):
        bare.features(collator(ecg_examples[:1]), FeatureRequest(tokens="answer"))
    with pytest.raises(CacheMismatchError, match="answer logits wanted"):
        bare.features(collator(ecg_examples[:1]), FeatureRequest(tokens="answer", visual=False))
    for tokens in ("all", "visual"):
        with pytest.raises(CacheMismatchError, match=f"tokens='{tokens}' wanted.*'answer'"):
            bare.features(collator(ecg_examples[:1]), FeatureRequest(tokens=tokens, visual=False, logits=False))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_named(tmp_path, teacher, collator, ecg_examples, damage):
    write(tmp_path, teacher, collator, ecg_examples)
    path = shards(tmp_path)[1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[:-100])
    cached = CachedTeacher(tmp_path, expected=FINGERPRINT)
    cached.features(collator(ecg_examples[:2]), EVERYTHING)
    with pytest.raises(DamagedShardError, match=rf"{path.name} is damaged.*delete"):
        cached.features(collator(ecg_examples[2:4]), EVERYTHING)
    path.with_suffix(".json").write_text(json.dumps({"file": "../other.safetensors", "examples": {"k": "0"}}))
    with pytest.raises(DamagedShardError, match="lists another file"):
        CachedTeacher(tmp_path, expected=FINGERPRINT)


def test_layouts_and_infinities_are_refused(tmp_path, teacher, collator, ecg_examples):
    for wrong in ({"layers": ()}, {"top_k": -1}, {"dtype": "int8"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CacheLayout(**wrong)
    with pytest.raises(ValueError, match="shard_size=0"):
        TeacherCacheWriter(tmp_path, teacher, fingerprint={}, shard_size=0)
    with torch.no_grad():
        teacher.model.model.language_model.norm.weight.mul_(1e6)
    with pytest.raises(ValueError, match="not finite in float16; use dtype='bfloat16'"):
        write(tmp_path, teacher, collator, ecg_examples, CacheLayout(dtype="float16"))
    assert not shards(tmp_path)


def test_fingerprints_follow_weights_and_processors(tiny_vlm):
    tiny = tiny_vlm("llava_next")
    model = tiny.load()
    first = model_fingerprint(model)
    assert model_fingerprint(tiny.load()) == first
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    assert model_fingerprint(model) != first
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny.path)
    same = processor_fingerprint(processor)
    assert processor_fingerprint(AutoProcessor.from_pretrained(tiny.path)) == same
    processor.tokenizer(["yes", "no, never"], padding=True, truncation=True, max_length=2)
    assert processor_fingerprint(processor) == same
    processor.chat_template += " "
    assert processor_fingerprint(processor) != same
