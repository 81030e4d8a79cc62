"""What a plan counts without values is what runs with values: parameters, FLOP, bytes that torch's profiler saw."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from hf_evl_ecg.command_line.options import LoraOptions
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.criterion import build_criterion
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.planning import DryRun, PlannedConfig, count_parameters, load_shape, measure_budget
from hf_evl_ecg.planning.batches import TextBudget, example_batch
from hf_evl_ecg.planning.networks import empty_network, module_parts
from hf_evl_ecg.planning.step import ValueDependentError, count_step, training_step

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.test_more_families import CASES, prepare
from released_vlms import FAMILIES, HAVE_TORCHVISION, NEEDS_TORCHVISION, build_family

PAGE = RenderedECG(RenderConfig(width_px=440, height_px=340))
TEXT = TextBudget(text=140, answer=20)


def config(**options) -> PlannedConfig:
    return PlannedConfig("out", report_to="none", **{"mhca_num_heads": 4, "ot_max_iter": 3, **options})


def page_batch(processor, size=2, **options):
    return example_batch(processor, PAGE, measure_budget(processor, PAGE), TEXT, size, **options)


def measured_flop(student, teacher, criterion, args, batch) -> int:
    """With values, by torch's counter, which knows no fused attention of the CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        training_step(student, teacher, criterion, args, batch)
    student.zero_grad()
    criterion.zero_grad()
    return counter.get_total_flops()


def measured_peak(work) -> int:
    """Bytes above those at the start, by torch's profiler, from what the allocator gave and took back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert peak > 0
    return peak


def planned_peak(count) -> int:
    return sum(count.peak.values()) - count.peak["batch"]  # which is there before


@pytest.fixture(params=FAMILIES)
def family(request):
    if FAMILIES[request.param].torchvision and not HAVE_TORCHVISION:
        pytest.skip(f"{request.param} {NEEDS_TORCHVISION}")
    return build_family(request.param)


def test_families_with_their_processors(family, tmp_path):
    """Each as a student of itself: parameters exactly, FLOP too, peak memory within 15 %."""
    model, processor = family
    for part in family:
        part.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    empty, _ = load_shape(tmp_path)
    assert sum(count_parameters(empty).total.values()) == model.num_parameters() == empty.num_parameters()
    for (name, shape), (other, real) in zip(empty.named_parameters(), model.named_parameters(), strict=True):
        assert (name, shape.shape, shape.dtype) == (other, real.shape, real.dtype)
    args, teacher = config(), copy.deepcopy(model)
    batch = page_batch(processor)
    batch["teacher"] = dict(batch)
    criterion = build_criterion(model, OnlineTeacher(teacher), args)
    measured = measured_flop(model.train(), OnlineTeacher(teacher), criterion, args, batch)
    peak = measured_peak(lambda: training_step(model, OnlineTeacher(teacher), criterion, args, batch))
    count = count_step(empty, copy.deepcopy(empty), criterion, args, batch)
    assert sum(count.flop.values()) == measured
    print(f"planned {planned_peak(count) / peak:.3f} of the bytes that were measured")
    assert planned_peak(count) == pytest.approx(peak, rel=0.15)
    assert count.flop["teacher"] == count.teacher_flop > 0
    assert count.flop["losses"] > 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_more_families(name):
    """From inputs made by hand, where a processor needs torchvision."""
    build, given = CASES[name]
    torch.manual_seed(0)
    model, args = build(), config(alpha=0.0)
    inputs, labels, _ = prepare(model, given)
    criterion = build_criterion(model, None, args)
    batch = {**inputs, "labels": labels}
    measured = measured_flop(model.train(), None, criterion, args, batch)
    empty = empty_network(model.config)
    count = count_step(empty, None, criterion, args, batch)
    assert sum(count.flop.values()) == measured
    assert sum(count_parameters(empty).total.values()) == empty.num_parameters() == model.num_parameters()
    assert all(count.flop[part] > 0 for part in ("vision tower", "decoder", "head"))


WAYS = {
    "mixed precision": {"bf16": True},
    "checkpointing": {"gradient_checkpointing": True},
    "checkpointing, mixed precision": {"gradient_checkpointing": True, "bf16": True},
    "accumulation": {"gradient_accumulation_steps": 2},
    "accumulation, checkpointing": {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "bf16": True},
    "reentrant checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "logits": {"lambda_uld": 1.0},
    "anchored on answers": {"mhca_mode": "anchored", "hidden_tokens": "answer", "ot_position_weight": 0.5},
    "turns": {"attention": "turn"},
    "rivals": {"lambda_dskd": 1.0, "lambda_cka": 1.0, "lambda_rkd_angle": 1.0, "lambda_feature_mse": 1.0},
    "frozen tower": {"freeze_vision_tower": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_train(way, tiny_vlm):
    args = config(**WAYS[way])
    student, taught = tiny_vlm("idefics3").load().train(), tiny_vlm("llava_next").load()
    if args.gradient_checkpointing:
        student.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    if args.freeze_vision_tower:
        student.get_encoder(modality="image").requires_grad_(False)
    batch = page_batch(tiny_vlm("idefics3").processor, 4)
    batch["teacher"] = page_batch(tiny_vlm("llava_next").processor, 4)
    teacher = OnlineTeacher(taught)
    criterion = build_criterion(student, teacher, args)
    measured = measured_flop(student, teacher, criterion, args, batch)

    def micro_batches():
        for _ in range(args.gradient_accumulation_steps):
            training_step(student, teacher, criterion, args, batch)

    peak = measured_peak(micro_batches)
    student.zero_grad()
    criterion.zero_grad()
    count = count_step(student, taught, criterion, args, batch)
    assert sum(count.flop.values()) == measured
    print(f"planned {planned_peak(count) / peak:.3f} of the bytes that were measured")
    assert planned_peak(count) == pytest.approx(peak, rel=0.15)


def test_parts_add_up(tiny_vlm):
    """A part's FLOP are those of the part alone: forward once, backward twice; the projector and the head by hand."""
    student, processor = tiny_vlm("idefics3").load(), tiny_vlm("idefics3").processor
    args, batch = config(alpha=0.0), page_batch(processor)
    count = count_step(student, None, build_criterion(student, None, args), args, batch)
    tokens, answers, merged, width, words = 2 * 20, 2 * 20, 24 * 4, 32, 330
    assert count.flop["projector"] == 3 * 2 * tokens * merged * width
    assert count.flop["head"] == 3 * 2 * answers * width * words
    assert set(count.flop) == {"vision tower", "projector", "decoder", "head"}


def test_a_frozen_tower_is_only_read(tiny_vlm):
    """A third of the work, but for the convolution over pixels, which has no gradient of its input."""
    args, batch = config(alpha=0.0), page_batch(tiny_vlm("idefics3").processor)
    flop = []
    for frozen in (False, True):
        student = tiny_vlm("idefics3").load()
        student.get_encoder(modality="image").requires_grad_(not frozen)
        flop.append(count_step(student, None, build_criterion(student, None, args), args, batch).flop)
    patches, convolution = 2 * 5 * 16, 2 * (3 * 4 * 4) * 24
    assert flop[0]["vision tower"] == 3 * flop[1]["vision tower"] - patches * convolution
    assert flop[1]["decoder"] == flop[0]["decoder"]


def test_adapters(tiny_vlm):
    """Counted by hand, and their work by torch."""
    args, batch = config(alpha=0.0), page_batch(tiny_vlm("idefics3").processor)
    options = LoraOptions(lora_rank=2)
    student = options.wrap(tiny_vlm("idefics3").load())
    criterion = build_criterion(student, None, args)
    measured = measured_flop(student.train(), None, criterion, args, batch)
    empty = options.wrap(load_shape(tiny_vlm("idefics3").path)[0])
    # two layers: q, o 32 -> 32; k, v 32 -> 16; gate, up 32 -> 48; down 48 -> 32; rank 2
    by_hand = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert count_parameters(empty).total["adapters"] == sum(count_parameters(empty).trained.values()) == by_hand
    assert sum(count_step(empty, None, criterion, args, batch).flop.values()) == measured


def test_a_cache_leaves_the_teacher_out(tiny_vlm):
    args = config()
    student, teacher = tiny_vlm("idefics3").load(), tiny_vlm("llava_next").load()
    batch = page_batch(tiny_vlm("idefics3").processor)
    batch["teacher"] = page_batch(tiny_vlm("llava_next").processor)
    models = [(copy.deepcopy(student), copy.deepcopy(teacher)) for _ in range(2)]
    online, cached = (
        count_step(*pair, build_criterion(pair[0], OnlineTeacher(pair[1]), args), args, batch, cache=layout)
        for pair, layout in zip(models, (None, CacheLayout()), strict=True)
    )
    assert "teacher" not in cached.flop
    assert cached.teacher_flop == online.teacher_flop == online.flop["teacher"]
    assert {**cached.flop, "teacher": cached.teacher_flop} == online.flop
    # at least its hidden states and visual tokens of width 48, in two bytes
    shape = batch["teacher"]["input_ids"].shape
    assert cached.peak["teacher"] >= 2 * 48 * shape.numel()


def test_accumulated_gradients_are_there_from_the_start(tiny_vlm):
    processor, held = tiny_vlm("idefics3").processor, []
    for number in (1, 2):
        args = config(alpha=0.0, gradient_accumulation_steps=number)
        student = tiny_vlm("idefics3").load()
        count = count_step(student, None, build_criterion(student, None, args), args, page_batch(processor))
        held.append(count.peak.get("gradients", 0))
    trained = sum(p.numel() * 4 for p in student.parameters())
    assert held[0] < held[1] <= trained
    assert held[1] > 0.9 * trained


def test_twice_the_batch_is_twice_the_work(tiny_vlm):
    student, processor = tiny_vlm("idefics3").load(), tiny_vlm("idefics3").processor
    args, counts = config(alpha=0.0), []
    for size in (2, 4, 6):
        model = copy.deepcopy(student)
        criterion = build_criterion(model, None, args)
        counts.append(count_step(model, None, criterion, args, page_batch(processor, size)))
    first, second, third = (count.flop for count in counts)
    assert {part: second[part] - flop for part, flop in first.items()} == {
        part: third[part] - second[part] for part in first
    }
    # older versions of transformers turn positions into angles once for the whole batch, later ones do nothing once
    once = {part: 2 * flop - second[part] for part, flop in first.items()}
    assert all(0 <= flop < 1e-4 * first[part] for part, flop in once.items())
    if Version(transformers.__version__) >= Version("5.23"):
        assert not any(once.values())
    # the fullest moment may be another one, and gradients of weights do not grow
    assert 1.6 < planned_peak(counts[1]) / planned_peak(counts[0]) <= 2


def test_what_values_decide_is_refused(tiny_vlm):
    student, teacher = tiny_vlm("idefics3").load(), tiny_vlm("llava_next").load()
    args = config(lambda_em_kd=1.0, hidden_tokens="visual")
    criterion = build_criterion(student, OnlineTeacher(teacher), args)
    with pytest.raises(ValueDependentError, match="lambda_em_kd"):
        count_step(student, teacher, criterion, args, {})


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_leaves_its_gradients_and_nothing_else(checkpointing, tiny_vlm):
    """What is computed again is freed again: a second micro-batch must not find the first."""
    student, args = tiny_vlm("idefics3").load().train(), config(alpha=0.0, gradient_checkpointing=checkpointing)
    if checkpointing:
        student.gradient_checkpointing_enable()
    criterion = build_criterion(student, None, args)
    batch = page_batch(tiny_vlm("idefics3").processor)
    run, before = DryRun(module_parts(student)), hooks(student)
    run.forget_values(student)
    run.know(batch.values())
    with run:
        for _ in range(2):
            training_step(student, None, criterion, args, batch, run)
            gradients = sum(p.grad.numel() * 4 for p in student.parameters() if p.grad is not None)
            assert run.live["gradients"] == gradients > 0
            assert sum(run.live.values()) - gradients < 100  # a loop's last number
    assert hooks(student) == before


def test_where_layers_make_the_peak(tiny_vlm):
    """Deep models, whose peak checkpointing decides: what it computes again must be freed layer by layer."""
    shape = tiny_vlm("idefics3").load().config
    shape.text_config.num_hidden_layers = shape.vision_config.num_hidden_layers = 12
    shape.text_config.hidden_size, shape.text_config.intermediate_size = 64, 256
    batch, peaks = page_batch(tiny_vlm("idefics3").processor, 4), []
    for checkpointing in (False, True):
        args = config(alpha=0.0, gradient_checkpointing=checkpointing)
        student = type(tiny_vlm("idefics3").load())(copy.deepcopy(shape)).train()
        if checkpointing:
            student.gradient_checkpointing_enable()
        criterion = build_criterion(student, None, args)
        peak = measured_peak(lambda: training_step(student, None, criterion, args, batch))
        student.zero_grad()
        count = count_step(student, None, criterion, args, batch)
        print(f"planned {planned_peak(count) / peak:.3f} of the bytes that were measured")
        assert planned_peak(count) == pytest.approx(peak, rel=0.15)
        peaks.append(peak)
    assert peaks[1] < peaks[0] / 2


def hooks(model) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_logits_are_told_by_the_size_of_the_vocabulary():
    layer = nn.Linear(4, 7, bias=False)
    run = DryRun({layer: "head"}, frozenset({7}))
    run.forget_values(layer)
    with run:
        out = layer(torch.ones(3, 4))
        assert run.live["logits"] == out.numel() * 4 == 84


def test_nothing_is_left_behind(tiny_vlm):
    """Parameters have no memory; what was made is released when it is gone."""
    layer = nn.Linear(2**15, 2**15, device="meta")
    run = DryRun({layer: "layer"})
    run.forget_values(layer)
    with run:
        out = layer(torch.ones(1, 2**15))
        assert run.live["activations"] >= out.numel() * 4
        out.sum().backward()
        del out
    assert run.flop == {"layer": 2 * 2 * 2**30}
    assert run.live["gradients"] == 4 * (2**30 + 2**15)
    assert run.live["activations"] < 4 * 2**15


def test_a_hub_name_without_a_network_says_what_to_give():
    with pytest.raises(ValueError, match=r"no-such/model cannot be loaded: .*To plan, a local folder with config.json"):
        load_shape("no-such/model")


def test_what_is_no_vision_language_model_is_named(tmp_path, tiny_bert_path):
    with pytest.raises(UnsupportedModelError, match="takes no images"):
        load_shape(tiny_bert_path)
    with pytest.raises(ValueError, match="dtype='float8': allowed are 'auto', 'float32'"):
        load_shape(tmp_path, "float8")


def test_types_are_those_of_loading(tiny_vlm):
    """The configuration's type, or the one that is asked for; tables of positions keep theirs."""
    folder = tiny_vlm("llava_next").path
    for dtype in ("auto", "bfloat16"):
        empty, _ = load_shape(folder, dtype)
        loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        assert {n: p.dtype for n, p in empty.named_parameters()} == {n: p.dtype for n, p in loaded.named_parameters()}
        assert {n: b.dtype for n, b in empty.named_buffers()} == {n: b.dtype for n, b in loaded.named_buffers()}
