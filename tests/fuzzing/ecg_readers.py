"""Results, options, answers, caches, weights and pictures that hf_evl_ecg reads: how a valid file is made, and by what it is read."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from safetensors.torch import save_file

from fuzzing.harness import Reader
from fuzzing.mutations import LINES, STRUCTURE, TENSORS, YAML, compressed
from fuzzing.valid import a_json, a_picture
from hf_evl_ecg.cards.spec import read_spec
from hf_evl_ecg.chat.question_kinds import KINDS_FILE, read_kinds
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import FORMAT
from hf_evl_ecg.distillation.checkpoints import newest_checkpoint
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.drawing.trained_pages import PAGES_FILE, read_pages, write_pages
from hf_evl_ecg.inference.answer_file import AnswerFile
from hf_evl_ecg.interpret.pictures import read_source
from hf_evl_ecg.llava.layout import read_settings
from hf_evl_ecg.models.features import FeatureRequest
from hf_evl_ecg.models.fingerprints import tensors_sha256
from hf_evl_ecg.models.weights import iterate_tensors
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.results import read_results
from hf_evl_ecg.scores.archive import pack_answers, pack_questions, unpack_answers

ROW = {
    "method": "m",
    "seed": 0,
    "task": "t",
    "dim": None,
    "metric": "f1",
    "value": 0.8,
    "n": 9,
    "ci_low": 0.7,
    "ci_high": 0.9,
}
RESULTS = {
    "study": "s",
    "config": {"seed": 0},
    "commit": None,
    "machine": {"cpu": "x"},
    "rows": [ROW, {**ROW, "task": "u"}],
}
CARD = {"name": "n", "method": "m", "results": "r.json", "facts": "f.json", "seed": 1, "baselines": ["a"], "datasets": ["d"],
        "sources": {"mine": {"title": "Mine", "licence": "CC0"}}, "benchmarks": [{"task": "t", "metric": "f1"}]}  # fmt: skip
LLAVA = {"mm_projector_type": "mlp2x_gelu", "model_type": "llava_llama", "vocab_size": 10, "mm_vision_tower": "clip", "image_grid_pinpoints": [[336, 672]],
         "mm_patch_merge_type": "spatial_unpad", "mm_vision_select_feature": "patch", "image_aspect_ratio": "anyres"}  # fmt: skip
CACHED = {f"hidden.{-1}": torch.ones(3, 4), "answer_ids": torch.ones(2, dtype=torch.int32), "answer_index": torch.tensor([0, 1], dtype=torch.int32),
          "places": torch.zeros(3, 2, dtype=torch.int32)}  # fmt: skip
SHARD = "000-00000-deadbeef"
ITEMS = [
    {"source": "s", "record": f"r{i}", "task": "axis", "format": "closed", "answer": "no", "labels": ["LAD"]}
    for i in range(3)
]


@dataclass
class _Options:
    """Options of every kind that a command has."""

    data: str
    layers: list[int] = field(default_factory=lambda: [-1])
    alpha: float = 0.1
    kind: Literal["a", "b"] = "a"
    bf16: bool = False
    steps: int | None = None


def _answers(folder: Path) -> Path:
    file = AnswerFile(folder / "answers.jsonl", {"model": "m"})
    file.add({f"k{i}": Answer(f"r{i}", "AF", (0.5, -1.0)) for i in range(3)}, {f"k{i}": "digest" for i in range(3)})
    return folder / "answers.jsonl"


def _packed(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pack_questions(folder, ITEMS)
        pack_answers(folder, "m", 0, [Answer(f"r{i}", "no", (-0.5, -1.0)) for i in range(3)])
        return folder / name

    return make


def _cache(name: str) -> Callable[[Path], Path]:
    layout = {"layers": [-1], "visual": False, "top_k": 0, "dtype": "float32"}
    header = {"format": FORMAT, "fingerprint": {"seed": 0}, "layout": layout, "hidden_dim": 4, "vocab_size": 9}

    def make(folder: Path) -> Path:
        (folder / "cache.json").write_text(json.dumps(header))
        save_file({f"k/{name}": tensor for name, tensor in CACHED.items()}, folder / f"{SHARD}.safetensors")
        listed = {"file": f"{SHARD}.safetensors", "examples": {"k": tensors_sha256(CACHED)}}
        (folder / f"{SHARD}.json").write_text(json.dumps(listed))
        return folder / name

    return make


def _cached(path: Path) -> Any:
    teacher = CachedTeacher(path.parent, expected={"seed": 0})
    batch = {"keys": list(teacher.keys), "input_ids": torch.zeros(1, 1)}
    return teacher.hidden_dim, teacher.exact_ranks, teacher.features(batch, FeatureRequest(visual=False, logits=False))


def _checkpoint(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        kept = folder / "checkpoint-5"
        kept.mkdir()
        (kept / "trainer_state.json").write_text(json.dumps({"global_step": 5, "log_history": [{"loss": 1.0}]}))
        save_file({"w": torch.ones(2)}, kept / "model.safetensors")
        return kept / name

    return make


def _weights(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_file({"w": torch.ones(2)}, folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
        return folder / name

    return make


def _left(path: Path) -> None:
    """What a run goes on from: damaged or not, an answer is given."""
    found = newest_checkpoint(path.parents[1])
    assert found in (None, str(path.parent))


def _resumed(path: Path) -> AnswerFile:
    return AnswerFile(path, {"model": "m"})


def _image(path: Path) -> Image.Image:
    return ImageFile(path.parent)({"image": path.name})


OPTIONS = {"data": "a", "layers": [-1, 4], "alpha": 0.3, "kind": "b", "bf16": True, "steps": 5}

READERS = [
    Reader("ECG results", a_json("results.json", RESULTS), read_results, STRUCTURE),
    Reader("ECG options in YAML", a_json("run.yaml", OPTIONS), lambda path: parse_arguments(["--config", str(path)], _Options, description="", prog="fuzz"), YAML, (ValueError, OSError, SystemExit, argparse.ArgumentTypeError)),
    Reader("ECG card in YAML", a_json("card.yaml", CARD), read_spec, YAML),
    Reader("answer file", _answers, _resumed, LINES),
    Reader("packed answers", _packed("m_0.jsonl.xz"), lambda path: unpack_answers(path.parent, "m_0"), compressed("xz", LINES)),
    Reader("packed questions", _packed("questions.jsonl.xz"), lambda path: unpack_answers(path.parent, "m_0"), compressed("xz", LINES)),
    Reader("teacher cache", _cache("cache.json"), _cached, STRUCTURE),
    Reader("list of a shard", _cache(f"{SHARD}.json"), _cached, STRUCTURE),
    Reader("shard", _cache(f"{SHARD}.safetensors"), _cached, TENSORS),
    Reader("checkpoint's state", _checkpoint("trainer_state.json"), _left, STRUCTURE, refuses=False),
    Reader("checkpoint's weights", _checkpoint("model.safetensors"), _left, TENSORS, refuses=False),
    Reader("index of weights", _weights("model.safetensors.index.json"), lambda path: list(iterate_tensors(path.parent)), STRUCTURE),
    Reader("weights", _weights("model-1.safetensors"), lambda path: list(iterate_tensors(path.parent)), TENSORS),
    Reader("LLaVA settings", a_json("config.json", LLAVA), lambda path: read_settings(path.parent), STRUCTURE),
    Reader("pages of a model", lambda folder: (write_pages(folder, RenderConfig()), folder / PAGES_FILE)[1], lambda path: read_pages(path.parent), STRUCTURE),
    Reader("kinds of questions", a_json(KINDS_FILE, {"rhythm_open": 3, "axis_closed": 1}), lambda path: read_kinds(path.parent), STRUCTURE, refuses=False),
    *(Reader(f"picture {name}", a_picture(f"p.{name}"), _image, sound=name != "png") for name in ("png", "jpg", "tif", "webp", "bmp", "gif", "ppm")),
    Reader("picture to interpret", a_picture("p.jpg"), read_source),
]  # fmt: skip
