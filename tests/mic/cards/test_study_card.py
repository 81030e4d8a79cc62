"""The card of a study's model: every number is in the results, nothing is invented, the Hub's library reads it."""

import copy
import json
import re
from dataclasses import replace
from statistics import mean, stdev

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_mic import MICLoss, MICTrainingArguments
from hf_mic.__main__ import main
from hf_mic.cards.loss_text import loss_settings
from hf_mic.cards.study_card import (
    CardSpec,
    MissingResultsError,
    evaluation_entries,
    read_spec,
    render_card,
    write_card,
)
from hf_mic.losses import MIC_BIBTEX
from hf_mic.results import read_results

DIMS = (8, 16, 32)
FIXED = {"4.0", "95", "100", "1", "2605.29987", "2026", "2"}  # numbers of the card's own sentences


def row(method, dim, value, *, task="stsb", metric="spearman", seed=0, n=137):
    interval = (
        {"ci_low": value - 0.0312, "ci_high": value + 0.0287}
        if task != "geometry"
        else dict.fromkeys(("ci_low", "ci_high"))
    )
    known = {
        "method": method,
        "seed": seed,
        "task": task,
        "dim": dim,
        "precision": "float32",
        "bytes_per_vector": 4 * dim,
    }
    return known | {"metric": metric, "value": value, "n": n} | interval


def make_rows():
    rows = []
    for method, seeds, base in (("truncation", [None], 0.61), ("mrl", [0, 1], 0.633), ("mic", [0, 1], 0.6571)):
        for seed in seeds:
            for i, dim in enumerate(DIMS):
                value = base + 0.07 * i + 0.0114 * (seed or 0) - 0.2 * (method != "truncation" and dim == 32)
                rows.append(row(method, dim, value, seed=seed))
                rows.append(
                    row(method, dim, value - 0.11, seed=seed, task="banking77", metric="accuracy_standardised", n=249)
                )
                rows.append(row(method, dim, 0.987, seed=seed, task="geometry", metric="eigen_cv"))
    return rows


CONFIG = {
    "data": {
        "unsupervised": [{"file": "banking77/train.csv", "kind": "single"}],
        "supervised": [{"file": "a", "kind": "pairs"}],
    },
    "head": "orthogonal",
    "head_learning_rate": 0.0123,
    "max_seq_length": {"train": 48, "score": 128},
    "training": {
        "matryoshka_dims": [8, 16, 32],
        "max_steps": 357,
        "per_device_train_batch_size": 64,
        "learning_rate": 3e-05,
    },
    "methods": [
        {"name": "mrl", "method": "mrl", "seeds": 2, "data": "supervised"},
        {
            "name": "mic",
            "method": "mic",
            "seeds": 2,
            "training": {"scope": "pooled", "gamma": 0.7, "tau": 0.2, "var_weight": 0.0},
        },
    ],
    "runs": {"mic-0": {"train_seconds": 1215.3}, "mic-1": {"train_seconds": 1333.3}},
}
RESULTS = {
    "study": "mic_test",
    "config": CONFIG,
    "commit": "0123456789abcdef",
    "machine": {"cpu": "a processor", "gpu": None, "sentence-transformers": "6.2.0", "torch": "2.13.0"},
    "rows": make_rows(),
}
SPEC = CardSpec("MIC-test", "mic", seed=0, baselines=["truncation", "mrl"], base_model="me/encoder", truncate_dim=16,
    data={"banking77/train.csv": {"name": "Banking77", "licence": "CC BY 4.0", "url": "https://example.org"}, "a": {"name": "unused"}})  # fmt: skip


def numbers(text):
    return set(re.findall(r"\d+(?:[.,]\d+)*(?:e-\d+)?", text))


def written_forms(value):
    """All ways a card may write the numbers of a json."""
    if isinstance(value, dict):
        return set().union(*map(written_forms, [*value, *value.values()]), set())
    if isinstance(value, list | tuple):
        return set().union(*map(written_forms, value), set())
    if isinstance(value, str):
        return numbers(value)
    if isinstance(value, bool) or value is None:
        return set()
    forms = {
        f"{value:g}",
        f"{value:,}",
        f"{value:,.0f}",
        f"{100 * value:.1f}",
        f"{100 * value:.2f}",
        str(round(value, 6)),
    }
    return forms | {str(value)}


def test_every_number_is_in_the_results():
    text = render_card(RESULTS, SPEC, picture="p.png")
    allowed = written_forms(RESULTS) | FIXED | {"256"}
    for method in ("mrl", "mic"):
        for task in ("stsb", "banking77"):
            for dim in DIMS:
                found = [
                    r["value"] for r in RESULTS["rows"] if (r["method"], r["task"], r["dim"]) == (method, task, dim)
                ]
                allowed |= written_forms([mean(found), stdev(found)])
    defaults = {name: field.default for name, field in MICTrainingArguments.__dataclass_fields__.items()}
    allowed |= written_forms([defaults[name] for name in ("scr_weight", "sir_weight", "t")])
    strange = numbers(re.sub(r"## Citation.*|\(https?://\S+\)", "", text, flags=re.DOTALL)) - allowed
    assert not strange, strange
    assert "| stsb | spearman | 137 | 65.7 [62.6, 68.6] | 72.7 [69.6, 75.6] | 59.7 [56.6, 62.6] |" in text
    assert "| mic | **66.28 ± 0.81** |" in text
    assert "1,215 seconds" in text
    assert "98.7" not in text, "geometry is no score"


def test_the_text_says_what_is_right():
    text = render_card(RESULTS, SPEC)
    assert "| stsb | spearman | 8, 16 | all |" in text, "below truncation at 32"
    assert "This model is `mic`, seed 0." in text
    assert (
        "each sentence with itself under another dropout (SimCSE): 357 steps, batch size 64, learning rate 3e-05"
        in text
    )
    assert "at learning rate 0.0123" in text
    assert "γ = 0.7, on the sentence embeddings, prefixes 16 and 8." in text
    assert "beyond τ = 0.2, without a variance floor" in text
    assert "w_distill" not in text
    assert "`truncation`: the untouched encoder, truncated." in text
    assert MIC_BIBTEX in text
    assert "| [Banking77](https://example.org) | CC BY 4.0 | – |" in text
    assert "unused" not in text
    wild = {"banking77/train.csv": {"name": "a|b\n# c"}}
    assert r"| a\|b # c | – | – |" in render_card(RESULTS, replace(SPEC, data=wild)), "a name cannot break the table"
    other = render_card(RESULTS, CardSpec("MRL", "mrl", seed=1, baselines=["truncation"]))
    assert "Contrastive, on pairs of sentences: 357 steps" in other
    assert "| a | – | – |" in other, "nothing is known of that file"
    assert "Loss: `mrl`." in other
    assert "2605.29987" not in other
    assert "| mic |" not in other


def test_what_was_not_measured_is_absent():
    bare = copy.deepcopy(RESULTS) | {"config": {}}
    bare["rows"] = [r for r in bare["rows"] if r["method"] == "mic" and r["seed"] == 0]
    text = render_card(bare, CardSpec("MIC-test", "mic", baselines=[]))
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert not {"Training", "Training data", "Cost", "Citation"} & set(headings)
    assert {"How to use", "Scores by dimension", "Limits"} <= set(headings)
    assert "one seed" in text
    for given in (text, render_card(RESULTS, SPEC)):
        prose = re.sub(r"```.*?```", "", given.lower(), flags=re.DOTALL)
        for nothing in ("more information needed", "todo", "placeholder", "none", "nan", "{", "<!--"):
            assert not re.search(rf"(?<!\w){re.escape(nothing)}(?!\w)", prose), nothing


def test_the_metadata_are_valid_for_the_hub_library():
    data = ModelCard(render_card(RESULTS, SPEC)).data
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert data.base_model == "me/encoder"
    found = {(r.dataset_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert len(found) == 2 * len(DIMS)
    assert found["stsb", "spearman at 16 dimensions"] == 0.7271
    name, back = model_index_to_eval_results(eval_results_to_model_index("MIC-test", data.eval_results))
    assert name == data.model_name
    assert back == data.eval_results
    json.dumps(data.to_dict(), allow_nan=False)


def test_the_settings_are_those_of_the_loss(make_model):
    arguments = {
        "matryoshka_dims": [8, 32, 16],
        "scope": "pooled",
        "cv_mode": "eigen",
        "gamma": 3.0,
        "scr_weight": 10.0,
    }
    arguments |= {"distill": "similarity_kl", "distill_weight": 10.0, "distill_temperature": 0.1, "t": 3.0}
    model = make_model()
    args = MICTrainingArguments("unused", **arguments)
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), args.dims_for(32), **args.mic_options())
    own = loss.get_config_dict()
    found = loss_settings(arguments, 32)
    assert {name: own[name] for name in found if name != "reg_dims"} == {
        n: v for n, v in found.items() if n != "reg_dims"
    }
    assert sorted(own["reg_dims"]) == sorted(found["reg_dims"])
    assert loss.citation.strip() == MIC_BIBTEX


def write_study(folder, **values):
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "mic_test.json").write_text(json.dumps(RESULTS))
    benchmark = {
        "task": "stsb",
        "metric": "spearman",
        "dim": 32,
        "dataset_id": "mteb/stsbenchmark-sts",
        "task_id": "default",
    }
    known = {"name": "MIC-test", "method": "mic", "seed": 0, "baselines": ["truncation", "mrl"]}
    path = folder / "mic_test.yaml"
    path.write_text(yaml.safe_dump(known | {"results": "results/mic_test.json", "benchmarks": [benchmark]} | values))
    return path


def test_a_card_is_written_with_its_picture_and_evaluation_results(tmp_path):
    path = write_study(tmp_path)
    assert main(["card", str(path)]) == 0
    text = (tmp_path / "mic_test.md").read_text()
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text) == ["mic_test_scores.png"]
    assert (tmp_path / "mic_test_scores.png").read_bytes()[:4] == b"\x89PNG"
    (entry,) = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "mic_test.yaml").read_text()))
    assert (entry.dataset_id, entry.value, entry.notes) == (
        "mteb/stsbenchmark-sts",
        0.5971,
        "spearman at 32 dimensions",
    )
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    write_card(path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert write_card(path, tmp_path / "hub" / "README.md").read_text() == text


def test_a_description_without_results_or_with_wrong_ones_is_refused(tmp_path, capsys):
    path = write_study(tmp_path, command="run the study")
    (tmp_path / "results" / "mic_test.json").unlink()
    with pytest.raises(MissingResultsError, match="run `run the study` first"):
        write_card(path)
    assert main(["card", str(path)]) == 2
    assert "measured results only" in capsys.readouterr().err
    assert not (tmp_path / "mic_test.md").exists()
    with pytest.raises(ValueError, match=r"no 'licence' \(did you mean 'license'\?\)"):
        read_spec(write_study(tmp_path, licence="mit"))
    with pytest.raises(ValueError, match="give the seed"):
        render_card(RESULTS, CardSpec("x", "mic", baselines=[]))
    with pytest.raises(ValueError, match=r"baselines=\['pca'\]: the results hold no row"):
        render_card(RESULTS, CardSpec("x", "mic", seed=0))
    benchmark = {"task": "stsb", "metric": "spearman", "dim": 7, "dataset_id": "a/b", "task_id": "c"}
    with pytest.raises(ValueError, match="is no score of 'mic'"):
        evaluation_entries(RESULTS["rows"], CardSpec("x", "mic", seed=0, benchmarks=[benchmark]))


def test_the_committed_card_is_the_one_of_its_results(repo_root, tmp_path):
    path = repo_root / "model_cards" / "mic_minilm.yaml"
    spec, results = read_spec(path)
    assert (path.with_suffix(".md")).read_text() == render_card(
        read_results(results), spec, picture="mic_minilm_scores.png"
    )
