"""The families of docs/models.md end to end, with the processors, templates and special tokens that were released."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg import ECGInterpreter
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.patch_positions import UnknownLayoutError
from hf_evl_ecg.signals import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import PAGE, TRAIN, run, weights
from released_vlms import FAMILIES, HAVE_TORCHVISION, NEEDS_TORCHVISION, build_family

ASK = FeatureRequest(logits=False, boxes=True)
SIZES = [(112, 84), (84, 112), (160, 64)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    if FAMILIES[request.param].torchvision and not HAVE_TORCHVISION:
        pytest.skip(f"{request.param} {NEEDS_TORCHVISION}")
    return request.param


@pytest.fixture(scope="module")
def folders(family, tmp_path_factory) -> tuple[Path, Path]:
    """A student and a teacher of one family, as a user has them."""
    places = tuple(tmp_path_factory.mktemp("family") / role for role in ("student", "teacher"))
    for seed, place in enumerate(places):
        for part in build_family(family, seed):
            part.save_pretrained(place)
    return places


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "questions"
    simulated = ["--simulated_train", 2, "--simulated_test", 1, "--simulated_classes", "NORM", "LBBB"]
    asked = ["--formats", "closed", "fill", "--tasks", "diagnosis", "--classes", "NORM", "LBBB", "--turns", 2]
    run("prepare", *simulated, *asked, "--output_dir", path)
    return path


def look(model, collator: EVLECGCollator, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Visual tokens of one page, (N, D), and their boxes, (N, 4)."""
    batch = collator([{"id": "x", "image": image, "question": "q?", "answer": "a"}])
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "keys", "skipped")}
    with torch.no_grad():
        features = extract_features(model, inputs, batch["labels"], ASK)
    return features.visual[0], features.visual_boxes[0]


@pytest.mark.parametrize("size", SIZES)
def test_the_token_that_reacts_to_a_dark_square_lies_where_the_code_says(family, folders, size):
    """Every place but the middle of the page; noise, as equal tiles would not tell their order."""
    model = AutoModelForImageTextToText.from_pretrained(folders[0]).eval()
    collator = EVLECGCollator(AutoProcessor.from_pretrained(folders[0]))
    width, height = size
    paper = Image.fromarray(np.random.default_rng(0).integers(150, 256, (height, width, 3), dtype=np.uint8))
    if not FAMILIES[family].positions:
        with pytest.raises(UnknownLayoutError, match="ot_position_weight to 0"):
            look(model, collator, paper)
        return
    before, boxes = look(model, collator, paper)
    radius = 0.06 * min(size)
    for x, y in ((0.15, 0.2), (0.8, 0.2), (0.2, 0.75), (0.85, 0.8)):
        page = paper.copy()
        column, row = x * width, y * height
        ImageDraw.Draw(page).rectangle((column - radius, row - radius, column + radius, row + radius), "black")
        after, _ = look(model, collator, page)
        found = boxes[(after - before).norm(dim=1).argmax()]
        # the square may lie across the border of two patches
        allowed = found[2:] / 2 + torch.tensor([radius / width, radius / height])
        assert ((found[:2] - torch.tensor([x, y])).abs() <= allowed + 1e-3).all(), (x, y, found)


def test_training_cache_adapters_scores_export_and_interpreter(family, folders, questions, tmp_path):
    """A family teaches its own: from its cache as online; its adapters are exported and the export is asked."""
    folder, teacher = folders
    known = FAMILIES[family].positions
    common = ["--student", folder, "--teacher", teacher, "--data", questions, *PAGE, *TRAIN, "--max_steps", 2]
    common += ["--hidden_tokens", "answer", "--mhca_mode", "anchored", "--ot_position_weight", 0.5 * known]
    cache = ["--teacher", teacher, "--data", questions, *PAGE, "--positions", known, "--dtype", "float32"]
    run("cache", *cache, "--output_dir", tmp_path / "cache")
    trainers: list[EVLECGTrainer] = []
    for name, more in (("online", []), ("cached", ["--teacher_cache", tmp_path / "cache"])):
        trainers.append(run("distil", *common, *more, "--output_dir", tmp_path / name))
    online, cached = ([log["loss"] for log in t.state.log_history if "loss" in log] for t in trainers)
    assert online == pytest.approx(cached, rel=2e-3)
    terms = trainers[0].state.log_history[0]
    assert all(np.isfinite(terms[name]) and terms[name] >= 0 for name in ("ce", "mhca", "ot", "relation"))
    start, trained = weights(folder), weights(tmp_path / "online")
    moved = {name for name in start if not torch.equal(start[name], trained[name])}
    assert any("vision" in name or "visual" in name for name in moved), "no weight of the tower was trained"

    run("distil", *common, "--lora_rank", 2, "--learning_rate", 0.05, "--output_dir", tmp_path / "adapters")
    exported = tmp_path / "exported"
    report = run("export", "--model", tmp_path / "adapters", "--output_dir", exported, *PAGE)
    assert report.reload_difference < 1e-4
    assert any(not torch.equal(start[name], value) for name, value in weights(exported).items())

    scores = ["--models", f"lora={exported}", "--data", questions, "--n_bootstrap", 10, "--max_new_tokens", 4]
    rows = run("evaluate", *scores, "--output_dir", tmp_path / "scores")
    assert {"auc", "macro_auc"} & {row["metric"] for row in rows}
    interpreter = ECGInterpreter.from_pretrained(exported, device="cpu")
    found = interpreter(simulate("AF", seed=0), "Which rhythm is this?", labels=["AF", "LBBB"], max_new_tokens=4)
    assert isinstance(found.answer, str)
    assert list(found.label_scores) == ["AF", "LBBB"]
    assert all(0 < score < 1 for score in found.label_scores.values())


def test_the_table_of_the_docs_names_these_families(repo_root):
    text = (repo_root / "docs" / "models.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    columns, rows = lines[0], {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    assert list(rows) == list(FAMILIES)
    for name, family in FAMILIES.items():
        assert ("torchvision" in rows[name]["processor needs"]) == family.torchvision
        assert rows[name]["positions"] == ("yes" if family.positions else "refused")
        assert {rows[name][column] for column in columns[2:-1] if column != "positions"} == {"yes"}
