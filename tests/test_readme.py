"""The README: short, its Python blocks run as they stand (with the encoder of a package), its numbers are those of the results."""

import json
import re
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import doc_pages

README = doc_pages.ROOT / "README.md"
BLOCKS = [block for block in doc_pages.read_blocks(README) if block.language == "python"]
MIC_ROWS = {  # → method of the study of bytes, and bytes
    "truncation": ("truncation_general", 8),
    "random rotation": ("random_rotation_general", 8),
    "PCA, then a rotation": ("pca_general", 8),
    "OPQ": ("opq_general", 8),
    "map: distillation": ("distillation_general", 8),
    "map: distillation + SIR": ("mic_general", 8),
    "map: distillation + SIR, neighbours": ("mic_neighbours_general", 8),
    "all 1,536 bytes": ("float32", 1536),
}
MIC_TASKS = {
    "stsb": "spearman",
    "banking77": "accuracy_10nn",
    **dict.fromkeys(("scifact", "medquad", "wordnet", "scifact_100k"), "ndcg@10"),
}
ECG_ROWS = {  # → method, and what its gain is over
    "teacher": ("teacher", None),
    "no teacher, all labels": ("sft-all", None),
    "EVL-ECG, all labels": ("evl_ecg-all", "sft-all"),
    "RKD, all labels": ("rkd-all", "sft-all"),
    "no teacher, a tenth of the labels": ("sft-tenth", None),
    "EVL-ECG, a tenth of the labels": ("evl_ecg-tenth", "sft-tenth"),
    "the teacher's answers (SeqKD), a tenth of the labels": ("seqkd-tenth", "sft-tenth"),
    "EVL-ECG on the teacher's answers, a tenth of the labels": ("evl_ecg_taught-tenth", "sft-tenth"),
}
ECG_TASKS = (
    "real:rhythm_fill",
    "real:axis_fill",
    "ptb-xl-filtered:diagnosis_classes",
    "ptb-xl-filtered:diagnosis_superclasses",
)
ECG_MEAN = "real:fixed_wording"


def test_there_is_a_block_per_package():
    assert any("hf_mic" in block.code for block in BLOCKS)
    assert any("hf_evl_ecg" in block.code for block in BLOCKS)


def test_it_is_short_and_starts_with_the_clone():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert text.index("git clone") < text.index("make demo")
    assert len(text[: text.index("git clone")].splitlines()) <= 4


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doc_pages.run_blocks([block], doc_pages.local_names()) == 1
    assert any(tmp_path.rglob("model.safetensors")) or (tmp_path / "af.png").stat().st_size > 10_000


def table(name: str) -> dict[str, list[str]]:
    """Rows of one marked table: first cell → the others."""
    part = re.search(rf"<!-- numbers:{name} -->\n(.*?)<!-- /numbers:{name} -->", README.read_text("utf-8"), re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in part[1].splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def value(study: str, **wanted: object) -> float:
    """Mean over seeds of one result, × 100."""
    rows = json.loads((doc_pages.ROOT / "model_cards" / "results" / f"{study}.json").read_text("utf-8"))["rows"]
    found = [row["value"] for row in rows if all(row.get(key) == given for key, given in wanted.items())]
    assert found, wanted
    return 100 * statistics.mean(found)


def test_mic_numbers_are_those_of_the_results():
    printed = table("mic")
    assert set(printed) == set(MIC_ROWS)
    for name, (method, size) in MIC_ROWS.items():
        found = [value("mic_bytes", method=method, bytes=size, task=t, metric=m) for t, m in MIC_TASKS.items()]
        assert printed[name] == [f"{score:.1f}" for score in (*found, statistics.mean(found))], name
    wanted = {"method": "mic_neighbours_general", "bytes": 8, "task": "mean", "metric": "difference_to_best_rival"}
    rows = json.loads((doc_pages.ROOT / "model_cards" / "results" / "mic_bytes.json").read_text("utf-8"))["rows"]
    (row,) = [row for row in rows if all(row.get(key) == given for key, given in wanted.items())]
    ahead, low, high = (f"{100 * row[key]:.1f}" for key in ("value", "ci_low", "ci_high"))
    said = " ".join(README.read_text("utf-8").split())
    assert row["rival"] == "truncation_general"
    assert f"ahead of truncation, the best rival, by {ahead} [{low}, {high}]" in said


def gain(method: str, over: str | None) -> str:
    """Difference of two methods with its interval, as the README prints it."""
    if over is None:
        return "–"
    rows = json.loads((doc_pages.ROOT / "model_cards" / "results" / "ecg_rivals.json").read_text("utf-8"))["rows"]
    wanted = (method, ECG_MEAN, f"mean_macro_auc_gain_over_{over}")
    (row,) = [row for row in rows if (row["method"], row["task"], row["metric"]) == wanted]
    low, value, high = (f"{100 * row[key]:+.1f}" for key in ("ci_low", "value", "ci_high"))
    return f"{value} [{low}, {high}]"


def test_ecg_numbers_are_those_of_the_results():
    printed = table("ecg")
    assert set(printed) == set(ECG_ROWS)
    for name, (method, over) in ECG_ROWS.items():
        tasks = [value("ecg_rivals", method=method, task=task, metric="macro_auc") for task in ECG_TASKS]
        whole = value("ecg_rivals", method=method, task=ECG_MEAN, metric="mean_macro_auc")
        assert printed[name] == [*(f"{score:.1f}" for score in (*tasks, whole)), gain(method, over)], name
