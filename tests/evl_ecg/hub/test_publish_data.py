"""Rendered data sets and the metric on the Hub: private, honest about simulation, loaded by a stranger."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from huggingface_hub import HfApi
from PIL import Image as PILImage

from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.hub import metric_space as publish_metric_module
from hf_evl_ecg.hub import publish
from hf_evl_ecg.hub.metric_space import publish_metric
from hf_evl_ecg.hub.publish import publish_dataset, render_dataset
from hf_evl_ecg.hub.push import PublishError
from hf_evl_ecg.sources.simulated import load_simulated

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from hub_server import go_online, run_clean, running_hub

CARD = "---\nlicense: cc0-1.0\n---\n# Drawn ECGs\n"


@pytest.fixture
def hub(monkeypatch):
    go_online(monkeypatch)
    with running_hub() as running:
        yield running


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="hf_write")


def rendered(count: int, source: str = "simulated", seed: int = 0) -> Dataset:
    """Pictures of noise with their labels, stored inside the table as `Dataset.map` does it."""
    rng = np.random.default_rng(seed)
    pictures = [PILImage.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(count)]
    columns = {"record": [f"r{i}" for i in range(count)], "source": [source] * count, "labels": [["AF"]] * count}
    features = {"record": Value("string"), "source": Value("string"), "labels": List(Value("string")), "image": Image()}
    return Dataset.from_dict(columns | {"image": pictures}, features=Features(features))


def test_a_rendered_data_set_is_published_and_loads_by_name_in_a_clean_process(hub, api, tmp_path):
    data = DatasetDict({"train": rendered(5), "test": rendered(3, seed=1)})
    card = "---\nlicense: cc0-1.0\n---\n# Drawn ECGs\nAll ECGs are simulated; no patients.\n"
    push = publish_dataset(data, "ann/drawn", card=card, tag="v1", api=api)
    repo = hub.repo("ann/drawn", "dataset")
    assert repo.private
    assert sorted(repo.files()) == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert repo.tags == {"v1": push.commit}
    assert not publish_dataset(data, "ann/drawn", card=card, tag="v1", api=api).committed
    np.save(tmp_path / "expected.npy", np.stack([np.asarray(row["image"]) for row in data["test"]]))
    code = """
import numpy as np
from datasets import load_dataset
data = load_dataset("ann/drawn", revision="v1")
assert {name: rows.num_rows for name, rows in data.items()} == {"train": 5, "test": 3}
found = np.stack([np.asarray(row["image"]) for row in data["test"]])
assert (found == np.load("expected.npy")).all()
assert data["test"]["labels"][0] == ["AF"] and data["test"]["source"][0] == "simulated"
print("same")
"""
    assert run_clean(code, hub, tmp_path) == "same"


def test_pictures_in_files_are_stored_inside_and_large_splits_are_divided(hub, api, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_SHARD_BYTES", 4000)
    paths = []
    for i, row in enumerate(rendered(6)):
        paths.append(str(tmp_path / f"{i}.png"))
        row["image"].save(paths[-1])
    data = Dataset.from_dict({"image": paths}, features=Features({"image": Image()}))
    publish_dataset(data, "ann/files", card=CARD, private=False, api=api)
    repo = hub.repo("ann/files", "dataset")
    assert not repo.private
    assert [name for name in repo.files() if "parquet" in name] == [
        f"data/train-{i:05d}-of-00003.parquet" for i in range(3)
    ]
    for i, path in enumerate(paths):
        content = Path(path).read_bytes()
        assert sum(content in file for file in repo.files().values()) == 1, f"picture {i}"


def test_questions_are_drawn_without_paths_or_patients(hub, api):
    questions = question_dataset(load_simulated(2, classes=["AF"])[0], formats=["closed"], tasks=["rhythm"])
    draw = RenderedECG(RenderConfig(width_px=112, height_px=56, footer=False))
    data = render_dataset(questions, draw)
    assert set(questions.column_names) - set(data.column_names) == {"storage", "root", "gain_per_mv", "patient"}
    assert data["question"][:] == questions["question"][:]
    assert all(np.array_equal(row["image"], draw(question)) for row, question in zip(data, questions, strict=True))
    publish_dataset(data, "ann/drawn", card=CARD + "Simulated.", api=api)
    with pytest.raises(
        ValueError, match=r"\['storage', 'root', 'gain_per_mv', 'patient'\] tell where a waveform lies or whose it is"
    ):
        publish_dataset(questions, "ann/drawn", card=CARD + "Simulated.", api=api)


def test_a_data_set_must_have_pictures_rows_and_an_honest_card(hub, api):
    with pytest.raises(ValueError, match="must say that they are simulated, not patients"):
        publish_dataset(rendered(2), "ann/drawn", card=CARD, api=api)
    with pytest.raises(ValueError, match="rows with a picture are needed"):
        publish_dataset(rendered(2).remove_columns("image"), "ann/drawn", card=CARD, api=api)
    with pytest.raises(ValueError, match="split='train': 0 rows"):
        publish_dataset(rendered(2).select([]), "ann/drawn", card=CARD, api=api)
    with pytest.raises(ValueError, match="names no license"):
        publish_dataset(rendered(2, "PTB-XL"), "ann/drawn", card="# Drawn", api=api)
    assert not hub.requests


def test_a_metric_is_published_and_evaluate_loads_it_by_name_in_a_clean_process(hub, api, tmp_path):
    push = publish_metric("ann/ecg_answers", private=False, tag="v1", api=api)
    repo = hub.repo("ann/ecg_answers", "space")
    assert repo.tags == {"v1": push.commit}
    modules = {
        "bootstrap",
        "parsing",
        "calibration",
        "grading",
        "groups",
        "labels",
        "metrics",
        "prompts",
        "scoring",
        "task_scores",
        "ecg_answers",
    }
    assert set(repo.files()) == {"README.md", "index.html", *(f"{name}.py" for name in modules)}
    code = re.search(r"```python\n(.*?)```", repo.files()["README.md"].decode(), re.DOTALL)[1]
    assert "'rhythm_closed_accuracy': 1.0" in run_clean(code, hub, tmp_path, token=None)


def test_a_metric_that_scores_differently_is_reported(hub, api, monkeypatch):
    monkeypatch.setattr(publish_metric_module, "_compute_elsewhere", lambda script: {"rhythm_closed_accuracy": 0.0})
    with pytest.raises(
        PublishError, match=r"metric on the Hub gives .*0\.0.*the one here .*1\.0.*do not use that commit"
    ):
        publish_metric("ann/ecg_answers", tag="v1", api=api)
    assert hub.repo("ann/ecg_answers", "space").private
    assert not hub.repo("ann/ecg_answers", "space").tags
