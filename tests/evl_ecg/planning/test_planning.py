"""Memory under each sharding, optimizers, caches, switches, and the command from its file to its json."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers.optimization import Adafactor

from hf_evl_ecg.commands.plan import PlanArguments
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.planning import (
    Cluster,
    Held,
    PlannedConfig,
    Setup,
    TextBudget,
    cache_bytes,
    count_setup,
    epoch_cost,
    make_plan,
    measure_budget,
    memory_per_gpu,
    plan_cache,
    plan_json,
)
from hf_evl_ecg.planning.batches import PAGE, measure_text
from hf_evl_ecg.planning.optimizers import state_bytes, step_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import run

DRAW = RenderedECG(RenderConfig(width_px=440, height_px=340))
TEXT = TextBudget(text=100, answer=20)
HELD = Held(800, 800, 1600, 800, aligner=90, aligner_gradients=30, teacher_weights=500, block=40, outside=100)
PEAK = {"activations": 1000, "logits": 50, "teacher": 20, "casts": 400, "gradients": 430, "batch": 5}


@pytest.fixture
def setup(tiny_vlm) -> Setup:
    args = PlannedConfig(
        "out", mhca_num_heads=4, per_device_train_batch_size=4, ot_max_iter=3, report_to="none", bf16=True
    )
    return Setup(tiny_vlm("idefics3").path, tiny_vlm("llava_next").path, args, DRAW, TEXT, TEXT)


def test_memory_of_one_gpu_by_hand():
    memory = memory_per_gpu(HELD, PEAK, Cluster(gpus=1))
    assert memory.moment == "backward"
    assert memory.parts == {
        **{
            "student weights": 800,
            "teacher weights": 500,
            "aligner": 90,
            "optimizer": 1600,
            "batch": 5,
            "gradients": 430,
        },
        **{"activations": 1000, "logits": 50, "teacher": 20, "weights cast": 400, "communication": 0},
    }
    step = memory_per_gpu(HELD, {"activations": 10}, Cluster(gpus=1))
    assert step.moment == "optimizer step"
    assert step.total == 800 + 500 + 90 + 1600 + (800 + 30) + 800


def test_sharding_divides_what_it_shares():
    """Twice the GPUs halve it; what is a GPU's own stays."""
    shared = {
        "ddp": set(),
        "zero2": {"optimizer"},
        "zero3": {"optimizer", "student weights"},
        "fsdp2": {"optimizer", "student weights"},
    }
    for sharding, names in shared.items():
        few, many = (memory_per_gpu(HELD, PEAK, Cluster(gpus=n, sharding=sharding)).parts for n in (4, 8))
        for name in few.keys() - {"gradients"}:
            assert many[name] == few[name] / (2 if name in names else 1), (sharding, name)
        assert few["gradients"] == (430 if sharding == "ddp" else 400 / 4 + 30)  # the aligner's 30 are whole everywhere
    totals = [memory_per_gpu(HELD, PEAK, Cluster(gpus=8, sharding=kind)).total for kind in ("ddp", "zero2", "fsdp2")]
    assert totals == sorted(totals, reverse=True)
    assert memory_per_gpu(HELD, PEAK, Cluster(gpus=2)).parts["communication"] == HELD.gradients
    assert memory_per_gpu(HELD, PEAK, Cluster(gpus=2, sharding="zero3")).parts["communication"] == 3 * 40 + 100


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"])
def test_states_of_optimizers(name):
    """Against the state that the optimizer itself makes."""
    module = nn.Sequential(nn.Linear(40, 30), nn.Conv2d(3, 5, 4), nn.Linear(30, 2)).to(torch.bfloat16)
    module[2].requires_grad_(False)
    args = PlannedConfig("out", optim=name)
    trained = [p for p in module.parameters() if p.requires_grad]
    kinds = {"adafactor": Adafactor, "sgd": torch.optim.SGD}
    optimizer = kinds.get(name, torch.optim.AdamW)(
        trained, lr=1e-3, **({"relative_step": False} if name == "adafactor" else {})
    )
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert state_bytes(args, module) == sum(v.numel() * v.element_size() for v in values if v.ndim)
    assert (step_bytes(args, module) == 0) == (name in ("adamw_torch_fused", "sgd"))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optim='lion_8bit': allowed are 'adamw_torch'"):
        state_bytes(PlannedConfig("out", optim="lion_8bit"), nn.Linear(2, 2))


def test_a_cache_has_the_size_that_was_planned(tiny_vlm, tmp_path):
    """Bytes of the tensors of an example that the writer wrote."""
    questions = tmp_path / "questions"
    simulated = ["--simulated_train", 1, "--simulated_classes", "NORM", "--formats", "closed", "--tasks", "diagnosis"]
    data = run("prepare", *simulated, "--classes", "NORM", "--output_dir", questions)["train"]
    page = ["--image_width", 440, "--image_height", 340]
    teacher = tiny_vlm("llava_next")
    layouts = {
        "all": ({"visual_pool": 4, "top_k": 8}, ["--visual_pool", 4, "--top_k", 8]),
        "answer": (
            {"tokens": "answer", "positions": True, "visual_weights": "ink", "dtype": "float32", "layers": (-1, 1)},
            ["--tokens", "answer", "--positions", "--visual_weights", "ink", "--dtype", "float32", "--layers", -1, 1],
        ),
    }
    for name, (fields, options) in layouts.items():
        run("cache", "--teacher", teacher.path, "--data", questions, *page, *options, "--output_dir", tmp_path / name)
        shard = next((tmp_path / name).glob("*.safetensors"))
        with safe_open(shard, "pt") as held:
            tensors = {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118 - no mapping
        examples = {key.split("/")[0] for key in tensors}
        budget = measure_budget(teacher.processor, DRAW)
        texts = [measure_text(teacher.processor, [item], DRAW, budget.page) for item in data]
        assert len(examples) == len(texts) > 1
        planned = [cache_bytes(CacheLayout(**fields), budget, text, width=48) for text in texts]
        assert sum(planned) == sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), name


def test_time_and_price_follow_their_options():
    base = epoch_cost(1e12, 4, 2, 800, Cluster(gpus=4, price=3))
    assert base.steps == 25
    assert base.flop == 1e12 * 200
    assert base.price == pytest.approx(3 * base.gpu_hours)
    for change, factor in (({"gpus": 8}, 0.5), ({"peak_tflops": 2 * 989.0}, 0.5), ({"share_of_peak": 0.175}, 2.0)):
        other = epoch_cost(1e12, 4, 2, 800, replace(Cluster(gpus=4, price=3), **change))
        assert other.seconds == pytest.approx(factor * base.seconds)
    slow = epoch_cost(1e12, 4, 2, 800, Cluster(gpus=4, disk=0.5), read_bytes=1e12)
    assert slow.seconds == 2000


def test_when_a_cache_pays():
    fast, shape = Cluster(gpus=1, disk=1e9), (1, 1, 10)
    for teacher in (1e12, 9e12):  # its pass is spent once, and saved in each: ahead after the second pass
        assert plan_cache(1, teacher, 1e12, *shape, fast).pays_from == 2
    slow = Cluster(gpus=1, peak_tflops=1, share_of_peak=1, disk=1e-9)
    assert plan_cache(5, 3e12, 2e12, *shape, slow).pays_from is None  # 50 s to read, 50 s without
    later = plan_cache(4, 3e12, 2e12, *shape, slow)
    assert later.pays_from == 4  # 30 s to write, 10 s saved a pass
    assert later.write.seconds + 4 * later.cached.seconds < 4 * later.online.seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 0}, "gpus=0: must be at least 1"),
        ({"memory": 0}, "memory=0: must be positive"),
        ({"headroom": 1}, "headroom=1: allowed are 0 to 0.9"),
        ({"sharding": "tensor"}, "sharding='tensor': allowed are 'ddp'"),
        ({"sharding": "zero2", "gpus": 1}, "one GPU shares nothing"),
        ({"share_of_peak": 0}, "share_of_peak=0: allowed are 0.01 to 1"),
        ({"price": -1}, "price=-1: must be at least 0"),
        ({"peak_tflops": -1}, "peak_tflops=-1: must be positive"),
        ({"disk": 0}, "disk=0: must be positive"),
    ],
)
def test_wrong_clusters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Cluster(**options)


def test_wrong_budgets_are_refused(setup):
    with pytest.raises(ValueError, match="answer_tokens=30: must be less than text_tokens=30"):
        PlanArguments(text_tokens=30, answer_tokens=30)
    with pytest.raises(ValueError, match="examples=0: must be at least 1"):
        PlanArguments(examples=0)
    with pytest.raises(
        ValueError, match=r"text_tokens=5: must be at least \d+, which the shortest chat of Idefics3Proc"
    ):
        count_setup(setup.changed(student_text=TextBudget(5, 2)))
    with pytest.raises(ValueError, match=r"teacher_max_length=30: must be at least \d+, as an image is never cut"):
        count_setup(setup.changed({"teacher_max_length": 30}))
    with pytest.raises(ValueError, match=r"lambda_dskd=1\.0: a cache holds no embeddings"):
        count_setup(setup.changed({"lambda_dskd": 1.0}, cached=True))


def test_what_does_not_fit_and_what_helps(setup):
    cluster = Cluster(gpus=2, memory=1, headroom=0)
    fits = make_plan(setup, cluster, examples=100)
    assert fits.fits
    assert fits.switches == []
    tight = replace(cluster, memory=fits.memory.total * 0.8 / 1e9)
    plan = make_plan(replace(setup, adapters=lambda model: model), tight, examples=100)
    assert not plan.fits
    options = [switch.options.split()[0] for switch in plan.switches]
    assert options[-1:] == ["--lora_rank"] or "--lora_rank" in options[-2:]
    assert {"--gradient_checkpointing", "--teacher_cache", "--sharding", "--dtype"} <= set(options)
    single = {switch.options: switch for switch in plan.switches}
    halved = single["--per_device_train_batch_size 2 --gradient_accumulation_steps 2"]
    assert halved.fits
    assert halved.bytes < tight.usable
    assert single["--gradient_checkpointing"].bytes < plan.memory.total
    assert single["--gradient_checkpointing"].seconds > plan.epoch.seconds  # it computes the forward pass again
    assert not single["--sharding zero2"].runs_here
    own = [switch for switch in plan.switches if switch.same_result and switch.runs_here]
    assert [switch.seconds for switch in own] == sorted(switch.seconds for switch in own)


def test_several_switches_where_one_is_not_enough(setup):
    cluster = Cluster(gpus=1, headroom=0, memory=1e-6)
    setup = replace(setup.changed({"alpha": 0.0}), teacher=None)
    hopeless = make_plan(setup, cluster, 10)
    assert not any(switch.fits for switch in hopeless.switches)
    *single, together = hopeless.switches
    assert all(" --" not in switch.options or "accumulation" in switch.options for switch in single)
    assert together.options.startswith("--gradient_checkpointing --per_device_train_batch_size 1")
    assert together.bytes < min(switch.bytes for switch in single)
    enough = make_plan(setup, replace(cluster, memory=1.01 * together.bytes / 1e9), 10)
    assert [switch.fits for switch in enough.switches] == [False] * len(single) + [True]


def test_the_trainer_takes_what_was_planned(setup, tiny_vlm):
    """Two steps of the real Trainer, by torch's profiler: gradients, optimizer, activations, logits, teacher."""
    processors = [tiny_vlm(name).processor for name in ("idefics3", "llava_next")]
    example = {**PAGE, "question": "Is it a sinus rhythm, or is it atrial fibrillation?", "answer": "sinus rhythm"}
    pages = [measure_budget(processor, DRAW).page for processor in processors]
    texts = [measure_text(processor, [example], DRAW, page) for processor, page in zip(processors, pages, strict=True)]
    setup = setup.changed({"gradient_accumulation_steps": 2, "optim": "adamw_torch"})
    counted = count_setup(replace(setup, student_text=texts[0], teacher_text=texts[1]))
    parts = memory_per_gpu(counted.held, counted.step.peak, Cluster(gpus=1)).parts
    aligner = counted.held.aligner_gradients  # its weights; made with the Trainer
    planned = sum(parts.values()) - parts["student weights"] - parts["teacher weights"] - aligner
    args = PlannedConfig(
        "out", mhca_num_heads=4, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=2, bf16=True,
        report_to="none", save_strategy="no", ot_max_iter=3, disable_tqdm=True, optim="adamw_torch", preflight_examples=0,
    )  # fmt: skip
    trainer = EVLECGTrainer(
        tiny_vlm("idefics3").load(),
        args,
        teacher=tiny_vlm("llava_next").load(),
        processing_class=processors[0],
        teacher_processing_class=processors[1],
        load_image=DRAW,
        train_dataset=[{**example, "id": str(number)} for number in range(16)],
    )
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        trainer.train()
    live = peak = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    print(f"planned {planned / peak:.3f} of what was measured")
    assert planned == pytest.approx(peak, rel=0.15)


@pytest.fixture
def config_file(tiny_vlm, tmp_path) -> Path:
    """A file for distil, and folders without weights."""
    lines = ["data: nowhere", f"output_dir: {tmp_path / 'out'}", "image_width: 440", "image_height: 340"]
    lines += [
        "mhca_num_heads: 4",
        "ot_max_iter: 3",
        "per_device_train_batch_size: 4",
        "num_train_epochs: 2",
        "bf16: true",
        "tf32: true",
    ]
    for side, name in (("student", "idefics3"), ("teacher", "llava_next")):
        folder = tmp_path / side
        tiny_vlm(name).processor.save_pretrained(folder)
        (folder / "config.json").write_bytes(Path(tiny_vlm(name).path, "config.json").read_bytes())
        lines.append(f"{side}: {folder}")
    path = tmp_path / "distil.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


SIZES = ["--examples", 1000, "--text_tokens", 100, "--answer_tokens", 20]


def test_the_command_from_file_to_json(config_file, tiny_vlm, capsys):
    plan = run("plan", config_file, *SIZES, "--gpus", 4, "--price", 2, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(plan_json(plan)))
    assert sum(told["parameters"]["student"]["total"].values()) == tiny_vlm("idefics3").load().num_parameters()
    assert sum(told["parameters"]["teacher"].values()) == tiny_vlm("llava_next").load().num_parameters()
    assert told["tokens"]["student"]["image"] == 20
    assert told["memory_bytes"]["total"] == pytest.approx(sum(plan.memory.parts.values()))
    assert told["epoch"]["steps"] == math.ceil(1000 / 16)
    assert told["epoch"]["flop"] == pytest.approx(sum(told["flop_per_step"].values()) * 1000 / 16)
    assert told["assumed"]["price"] == 2
    assert told["fits"] is True


def test_the_command_in_tables(config_file, capsys):
    run(
        "plan",
        config_file,
        *SIZES,
        "--gpus",
        1,
        "--memory",
        0.004,
        "--lora_rank",
        2,
        "--visual_weights",
        "ink",
        "--price",
        5,
    )
    told = capsys.readouterr().out
    for words in (
        "vision tower",
        "image tokens",
        "It does not fit",
        "--gradient_checkpointing",
        "GPU hours",
        "Teacher cache",
    ):
        assert words in told
    for words in (
        "35% of 989 TFLOP/s",
        "10% of 0.004 GB",
        "a GPU hour costs 5",
        "visual_weights=ink",
        "2 GB/s are read",
    ):
        assert words in told
    assert "--lora_rank 64" not in told  # it has adapters


def test_options_of_distil_replace_those_of_the_file(config_file, capsys):
    base = run("plan", config_file, *SIZES)
    cached = run("plan", config_file, *SIZES, "--teacher_cache", "somewhere")
    assert cached.memory.parts["teacher weights"] == 0 < base.memory.parts["teacher weights"]
    assert cached.counted.step.teacher_flop == base.counted.step.teacher_flop
    alone = run("plan", config_file, *SIZES, "--method", "sft")
    assert alone.cache is None
    assert set(alone.counted.step.flop) == {"vision tower", "projector", "decoder", "head"}
    wide = run("plan", config_file, *SIZES, "--image_width", 880, "--image_height", 200)
    assert wide.counted.student_tokens.image != base.counted.student_tokens.image
    capsys.readouterr()


def test_sizes_are_read_from_the_data(config_file, tmp_path, capsys):
    simulated = [
        "--simulated_train",
        2,
        "--simulated_classes",
        "NORM",
        "AF",
        "--formats",
        "closed",
        "--tasks",
        "diagnosis",
    ]
    data = run("prepare", *simulated, "--classes", "NORM", "AF", "--output_dir", tmp_path / "questions")["train"]
    plan = run("plan", config_file, "--data", tmp_path / "questions", "--sample", 2)
    assert plan.examples == len(data)
    assert 0 < plan.setup.student_text.answer < plan.setup.student_text.text
    assert plan.setup.student_text != plan.setup.teacher_text  # two tokenizers
    alone = ["plan", config_file, "--data", tmp_path / "questions", "--method", "sft", "--sample"]
    texts = [run(*alone, number).setup.student_text.text for number in (1, len(data))]
    assert texts[0] <= max(texts) == texts[1]
    more = run("plan", config_file, "--data", tmp_path / "questions", "--text_tokens", 200)
    assert more.setup.student_text.text == more.setup.teacher_text.text == 200
    capsys.readouterr()


def test_errors_say_what_to_do(config_file, tmp_path):
    def ask(*more):
        words = [sys.executable, "-m", "hf_evl_ecg", "plan", str(config_file), *map(str, more)]
        return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})

    done = ask()
    assert done.returncode == 2
    assert (
        "data=nowhere: is not there (give --examples, --text_tokens, --answer_tokens, or write it with" in done.stderr
    )
    done = ask(*SIZES, "--student", "no-such/student")
    assert done.returncode == 2
    assert "no-such/student cannot be loaded" in done.stderr
    assert "a local folder with config.json and the files of the processor is enough" in done.stderr
    assert "Traceback" not in done.stderr
