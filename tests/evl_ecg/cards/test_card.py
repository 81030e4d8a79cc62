"""The ECG model card: every number is measured, what was not measured is absent, and the Hub's library reads it."""

import copy
import json
import re
from statistics import mean, stdev

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from jinja2 import UndefinedError
from PIL import Image

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.cards import card
from hf_evl_ecg.cards.card import CardSpec, MissingResultsError, read_spec, render_card, write_card
from hf_evl_ecg.cards.markdown import fill_template, inline
from hf_evl_ecg.cards.pictures import plot_reliability, pool_reliability
from hf_evl_ecg.cards.scores import above_chance, class_lines, intervals_apart
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.qa.calibration import reliability_bins
from hf_evl_ecg.results import read_results, write_results
from hf_evl_ecg.scores.lines import headline_lines

FIXED = "20 95 97.5 100 12 2.0 1.0 2605.29977 4 2020 2021 2026 1"  # numbers of the card's own sentences and names
SPEC = CardSpec("ECG-small", "evl_ecg", seed=0)


def row(method, task, metric, value, *, seed=0, n=120, chance=0.5, width=0.05):
    low = value - width
    beats = None if chance is None else low > chance
    known = {"method": method, "seed": seed, "task": task, "dim": None, "metric": metric, "value": value, "n": n}
    return known | {"ci_low": low, "ci_high": value + width, "chance": chance, "above_chance": beats}


def make_rows():
    rows = []
    for method, seed, base in (
        ("teacher", 0, 0.81),
        ("sft", 0, 0.61),
        ("sft", 1, 0.65),
        ("evl_ecg", 0, 0.7234),
        ("evl_ecg", 1, 0.69),
    ):
        own = {"seed": seed}
        rows += [
            row(method, "ludb:rhythm_closed", "balanced_accuracy", base, **own),
            row(method, "ludb:rhythm_closed", "accuracy", base + 0.01, **own),
            row(method, "ludb:rhythm_closed", "auc", base + 0.02, **own),
            row(method, "ludb:rhythm_closed", "calibration_error", 0.0831, chance=None, **own),
            row(method, "ludb:rhythm_closed", "unparsed", 0.017, chance=None, **own),
            row(method, "ludb:heart_rate_fill", "within_tolerance", base - 0.33, chance=0.27, **own),
            row(method, "ludb:heart_rate_fill", "mean_absolute_error", 14.37, chance=16.2, width=1.26, **own),
            row(method, "simulated:diagnosis_classes", "macro_f1", base - 0.04, n=45, chance=0.31, **own),
            row(method, "simulated:diagnosis_classes/AF", "auc", base + 0.07, n=45, **own),
        ]
    return rows


CONFIG = {
    "images": {"image_width": 448, "image_height": 224, "grid": "thick", "footer": False},
    "questions": {"tasks": ["rhythm", "heart_rate"], "formats": ["closed", "fill"]},
    "student": {"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 0.002},
    "methods": {
        "sft": {"sft_only": True},
        "evl_ecg": {"alpha": 0.6, "mhca_mode": "anchored", "ot_position_weight": 0.3},
    },
    "seeds": [0, 1],
    "evaluate": {"max_new_tokens": 17},
    "questions_report": {
        "counts": [
            {"split": "train", "source": "ludb", "records": 1103, "questions": 5207},
            {"split": "test", "source": "ludb", "records": 31, "questions": 153},
            {"split": "test", "source": "simulated", "records": 45, "questions": 90},
        ],
        "sources": [{"source": "ludb", "n_rows": 1134, "skipped": [["8", "damaged"]], "notes": ["split by subject"]}],
    },
}
RESULTS = {
    "study": "ecg_test",
    "config": CONFIG,
    "commit": "0123456789abcdef",
    "machine": {"cpu": "a processor", "threads": 2, "gpu": None, "torch": "2.13.0", "transformers": "5.23.0"},
    "rows": make_rows(),
}
TOWERS = {"text": {"model_type": "llama", "width": 80, "layers": 2, "vocabulary": 647}}
TOWERS |= {
    "vision": {"model_type": "clip_vision_model", "width": 192, "layers": 5, "patch_px": 28},
    "page_px": [448, 224],
}
FACTS = {
    "study": "ecg_test",
    "method": "evl_ecg",
    "seed": 0,
    "models": {
        "student": {"architecture": "Idefics3", "parameters": 395264, **TOWERS, "visual_tokens": 48, "prompt_tokens": 78},
        "teacher": {"architecture": "LlavaNext", "parameters": 2254720, **TOWERS, "visual_tokens": 200, "prompt_tokens": 215},
    },
    "stages": [
        {"stage": "teacher", "seconds": 1034.2},
        {"stage": "sft_0", "seconds": 777.7},
        {"stage": "evl_ecg_0", "seconds": 321.4},
    ],
    "reliability": {},
    "failures": [
        {"source": "ludb", "record": "data/13", "task": "rhythm_closed", "question": "Is it paced?", "expected": "no",
         "answered": "yes", "probability": 0.9312, "image": "ecg_test_failure_1.png"}
    ],
}  # fmt: skip


def headings(text):
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def numbers(text):
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


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
        f"{value:.1f}",
        f"{100 * value:.1f}",
        f"{value:.2f}",
        f"{value:,.0f}",
        f"{value:.6f}",
    }
    return forms | {str(value), str(round(value, 6))}


def test_every_number_is_in_the_results():
    text = render_card(RESULTS, SPEC, facts=FACTS, pictures={"scores": "s.png", "reliability": "r.png"})
    allowed = written_forms(RESULTS) | written_forms(FACTS) | set(FIXED.split())
    allowed |= written_forms(
        [f.default for f in EVLECGConfig.__dataclass_fields__.values() if isinstance(f.default, float)]
    )
    for method in ("sft", "evl_ecg"):  # the table over seeds
        for task, metric in {(r["task"], r["metric"]) for r in RESULTS["rows"]}:
            found = [
                r["value"] for r in RESULTS["rows"] if (r["method"], r["task"], r["metric"]) == (method, task, metric)
            ]
            allowed |= written_forms([mean(found), stdev(found), len(found)])
    body = re.sub(r"## Citation.*", "", text, flags=re.DOTALL)
    body = re.sub(r"\(https?://\S+\)|bnb_4bit\w*|4bit|bfloat16", "", body)
    strange = numbers(body) - allowed
    assert not strange, strange
    for shown in (
        "72.3 [67.3, 77.3]",
        "81.0 [76.0, 86.0]",
        "8.3 [3.3, 13.3]",
        "14.4 [13.1, 15.6]",
        "395,264",
        "1,034",
        "0.93",
    ):
        assert shown in text, shown
    assert "| ludb: rhythm (yes/no) | balanced accuracy | 120 | 50.0 | **72.3 [67.3, 77.3]** |" in text
    assert "777" not in text, "seconds of another method"


def test_the_text_says_what_is_right():
    text = render_card(RESULTS, SPEC, facts=FACTS)
    assert "L = (1 − α) CE + α (1 MHCA + 1 OT + 1 REL),   α = 0.6" in text
    assert "0.3 of the cost that decides the plan" in text
    assert "Not a medical device" in text
    table = text.split("## Results")[1].split("Values ×")[0]
    assert table.count("answers that could not be read") == 1, "once for the task that was answered in words"
    assert "| ludb: rhythm (yes/no) | answers that could not be read | 120 | – | 1.7 [" in table
    assert "| ludb: rhythm (yes/no) | balanced accuracy | 70.7 ± 2.4 (2/2) | 81.0 (1/1) | 63.0 ± 2.8 (2/2) |" in text
    assert (
        "On real records it is above chance in ludb: rhythm (yes/no), by balanced accuracy and AUC; ludb: heart rate (fill in), by within tolerance."
        in text
    )
    assert "Against teacher, all intervals overlap." in text, "0.7734 > 0.76"
    assert (
        "Against fine-tuning without teacher, intervals lie apart: better in ludb: rhythm (yes/no), balanced accuracy; "
        in text
    )
    assert (
        "| [LUDB (Lobachevsky University)](https://doi.org/10.13026/eegm-h675) | ODC-By 1.0 | 1,103 / 5,207 | 31 / 153 |"
        in text
    )
    assert "split by subject; 1 record skipped" in text
    assert (
        "LUDB (Lobachevsky University), record `data/13`, ODC-By 1.0. “Is it paced?” Right: **no**. Answered: “yes” (probability 0.93)."
        in text
    )
    assert "| atrial fibrillation | simulated: diagnosis (classes) | AUC | 45 | 50.0 | **79.3 [74.3, 84.3]** |" in text
    assert "Kalyakulina" in text
    assert "Wagner" not in text, "PTB-XL was not used"
    alone = render_card(RESULTS, CardSpec("SFT", "sft", seed=1))
    assert "by cross-entropy of the answer's tokens, without a teacher." in alone
    assert "MHCA" not in alone
    assert "**65.0 [60.0, 70.0]**" in alone


def test_what_was_not_measured_is_absent():
    full = ["Reliability", "Failure cases", "Architecture", "Cost", "Data", "Training", "Results by class"]
    assert set(full) <= set(headings(render_card(RESULTS, SPEC, facts=FACTS)))
    bare = copy.deepcopy(RESULTS)
    bare["config"] = {}
    bare["rows"] = [r for r in bare["rows"] if r["method"] == "evl_ecg" and r["seed"] == 0 and "/" not in r["task"]]
    bare["rows"] = [r for r in bare["rows"] if r["metric"] != "calibration_error"]
    text = render_card(bare, CardSpec("Bare", "evl_ecg"))
    assert not set(full) & set(headings(text))
    assert "teacher" not in text.split("## Results")[1].split("## Limits")[0]
    for given in (text, render_card(RESULTS, SPEC, facts=FACTS)):
        lower = given.lower()
        for nothing in ("more information needed", "todo", "placeholder", "nan", "null", "{", "}"):
            prose = re.sub(r"```.*?```", "", lower, flags=re.DOTALL)
            assert not re.search(rf"(?<!\w){re.escape(nothing)}(?!\w)", prose), nothing


def test_the_metadata_are_valid_for_the_hub_library():
    data = ModelCard(render_card(RESULTS, SPEC, facts=FACTS)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "image-text-to-text", "apache-2.0")
    found = {(r.dataset_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert found == {
        ("ludb", "balanced accuracy, rhythm (yes/no)"): 0.7234,
        ("ludb", "within tolerance, heart rate (fill in)"): 0.3934,
        ("simulated", "macro F1, diagnosis (classes)"): 0.6834,
    }, "the main metric of each task, no classes"
    index = eval_results_to_model_index("ECG-small", data.eval_results)
    name, back = model_index_to_eval_results(index)
    assert name == data.model_name == "ECG-small"
    assert all(isinstance(result, EvalResult) for result in back)
    assert back == data.eval_results
    json.dumps(data.to_dict(), allow_nan=False)


def test_the_same_arguments_give_the_same_text():
    first = render_card(RESULTS, SPEC, facts=FACTS)
    assert render_card(json.loads(json.dumps(RESULTS)), SPEC, facts=json.loads(json.dumps(FACTS))) == first


def test_provenance_of_the_exported_model_is_shown():
    text = render_card(RESULTS, SPEC, model_config={PROVENANCE_KEY: {"teacher": "PULSE-7B", "steps": 12345}})
    assert "- teacher: PULSE-7B\n- steps: 12345" in text


def test_wrong_seeds_methods_and_facts_are_refused():
    with pytest.raises(ValueError, match=r"method='evl_ecg', seed=None: the results hold seeds \[0, 1\]"):
        render_card(RESULTS, CardSpec("x", "evl_ecg"))
    with pytest.raises(ValueError, match=r"method='uld', seed=0: the results hold seeds \[\]"):
        render_card(RESULTS, CardSpec("x", "uld", seed=0))
    with pytest.raises(ValueError, match=r"baselines=\['uld'\]: the results hold no row"):
        render_card(RESULTS, CardSpec("x", "evl_ecg", seed=0, baselines=["uld"]))
    with pytest.raises(ValueError, match="the facts are about evl_ecg, seed 0"):
        render_card(RESULTS, CardSpec("x", "evl_ecg", seed=1), facts=FACTS)


def write_spec(folder, **values):
    (folder / "results").mkdir(exist_ok=True)
    values = {"name": "ECG-small", "method": "evl_ecg", "seed": 0, "results": "results/ecg_test.json", **values}
    (folder / "ecg_test.yaml").write_text(yaml.safe_dump(values))
    return folder / "ecg_test.yaml"


def test_a_card_is_written_with_its_pictures_and_evaluation_results(tmp_path):
    benchmark = {"task": "ludb:rhythm_closed", "metric": "auc", "dataset_id": "me/ecg-questions", "task_id": "rhythm"}
    path = write_spec(tmp_path, facts="results/facts.json", benchmarks=[benchmark])
    write_results(tmp_path / "results" / "ecg_test.json", "ecg_test", CONFIG, RESULTS["rows"])
    table = {"source": "ludb", "task": "rhythm_closed", "n": 1, "bins": reliability_bins([0.62], [False])}
    facts = FACTS | {"reliability": {"evl_ecg": [table], "teacher": [table]}}
    (tmp_path / "results" / "facts.json").write_text(json.dumps(facts))
    Image.new("RGB", (8, 8)).save(tmp_path / "ecg_test_failure_1.png")
    assert write_card(path) == tmp_path / "ecg_test.md"
    text = (tmp_path / "ecg_test.md").read_text()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures == ["ecg_test_scores.png", "ecg_test_reliability.png", "ecg_test_failure_1.png"]
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)
    (entry,) = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "ecg_test.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/ecg-questions", "rhythm", 0.7434)
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "config.json").write_text(json.dumps({PROVENANCE_KEY: {"method": "EVL-ECG"}}))
    main(["card", str(path), "--output", str(exported / "README.md"), "--model", str(exported)])
    assert {path.name for path in exported.glob("*.png")} == set(pictures)
    assert "- method: EVL-ECG" in (exported / "README.md").read_text()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    write_card(path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_what_a_model_wrote_cannot_break_the_card():
    wild = "one\n\n# Heading\n<img src=x> `a` | **b** [c](d) " + "long " * 200
    facts = copy.deepcopy(FACTS)
    facts["failures"][0]["answered"] = wild
    text = render_card(RESULTS, SPEC, facts=facts)
    assert headings(text) == headings(render_card(RESULTS, SPEC, facts=FACTS))
    assert r"“one # Heading \<img src=x\> \`a\` \| \*\*b\*\* \[c\](d) long long" in text
    assert "long…” (probability" in text
    assert "long " * 100 not in text


def test_names_cannot_break_the_card():
    wild = "x|y\n\n# Heading"
    rows = [r | {"method": r["method"].replace("sft", wild)} for r in RESULTS["rows"]]
    rows += [r | {"task": f"simulated:diagnosis_classes/{wild}"} for r in rows if "/" in r["task"]]
    text = render_card(RESULTS | {"rows": rows}, SPEC, facts=FACTS)
    assert headings(text) == headings(render_card(RESULTS, SPEC, facts=FACTS))
    assert not re.search("^# Heading", text, re.MULTILINE)
    assert text.count(r"x\|y # Heading") > 3
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")


def test_a_picture_of_a_card_lies_beside_its_description(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "cards").mkdir()
    path = write_spec(tmp_path / "cards", facts="facts.json")
    write_results(tmp_path / "cards" / "results" / "ecg_test.json", "ecg_test", CONFIG, RESULTS["rows"])
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        facts = copy.deepcopy(FACTS)
        facts["failures"][0]["image"] = name
        (tmp_path / "cards" / "facts.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match="allowed is the name of a file in"):
            write_card(path, tmp_path / "out" / "README.md")
        assert not (tmp_path / "out" / "secret.png").exists()


def test_a_template_refuses_to_render_without_results(tmp_path, repo_root, capsys):
    path = write_spec(tmp_path, command="make the results")
    with pytest.raises(
        MissingResultsError, match=r"ecg_test\.json: there is no such file.*run `make the results` first"
    ):
        write_card(path)
    assert main(["card", str(path)]) == 2
    assert "measured results only" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ecg_test.yaml", "results"]
    for name in ("evl_ecg_2b", "ecg_small"):
        spec, results, _ = read_spec(repo_root / "model_cards" / f"{name}.yaml")
        assert results.is_file() or spec.command
    with pytest.raises(MissingResultsError, match=r"ecg_2b\.json"):
        write_card(repo_root / "model_cards" / "evl_ecg_2b.yaml", tmp_path / "README.md")


def test_bad_descriptions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown fields \['licence'\]"):
        read_spec(write_spec(tmp_path, licence="mit"))
    (tmp_path / "ecg_test.yaml").write_text("name: x\n")
    with pytest.raises(ValueError, match=r"missing fields \['method', 'results'\]"):
        read_spec(tmp_path / "ecg_test.yaml")
    spec = CardSpec(
        "x", "evl_ecg", seed=0, benchmarks=[{"task": "none", "metric": "auc", "dataset_id": "a/b", "task_id": "c"}]
    )
    (tmp_path / "ecg_test.yaml").write_text("- name\n")
    with pytest.raises(ValueError, match="expected lines of NAME: VALUE, got list"):
        read_spec(tmp_path / "ecg_test.yaml")
    with pytest.raises(ValueError, match="sources need title"):
        read_spec(write_spec(tmp_path, sources={"ours": {"name": "x"}}))
    with pytest.raises(ValueError, match="0 rows of"):
        card.evaluation_entries(RESULTS["rows"], spec)


def test_all_real_records_lead_where_they_are_scored_together():
    rows = [r for r in RESULTS["rows"] if r["method"] == "evl_ecg"]
    together = [r | {"task": r["task"].replace("ludb:", "real:")} for r in rows if r["task"].startswith("ludb:")]
    small = row("evl_ecg", "real:axis_closed", "auc", 0.9, n=19)
    text = render_card(RESULTS | {"rows": [*rows, *together, small]}, SPEC)
    assert text.count("<details>") == text.count("</details>") == 1
    assert "is above chance in rhythm (yes/no), by balanced accuracy and AUC; heart rate (fill in)" in text
    per_class = row("evl_ecg", "real:rhythm_closed/AF", "auc", 0.7), row("evl_ecg", "ludb:rhythm_closed/AF", "auc", 0.6)
    assert [line.task for line in class_lines(per_class, [("evl_ecg", 0)])] == ["all real records: rhythm (yes/no)"]
    assert class_lines([r for r in rows if "/" not in r["task"]], [("evl_ecg", 0)]) == []


def test_an_error_is_better_when_it_is_lower():
    runs = [("evl_ecg", 0), ("sft", 0)]
    rows = [
        row("evl_ecg", "ludb:heart_rate_fill", "mean_absolute_error", 5.0, width=1.0),
        row("sft", "ludb:heart_rate_fill", "mean_absolute_error", 9.0, width=1.0),
    ]
    task = ["ludb: heart rate (fill in), mean absolute error"]
    assert intervals_apart(headline_lines(rows, runs), *runs) == (task, [])
    assert intervals_apart(headline_lines(rows, runs[::-1]), *runs[::-1]) == ([], task)
    assert above_chance(headline_lines(rows, runs), runs[0]) == [
        ("real", {"ludb: heart rate (fill in)": ["mean absolute error"]})
    ]


def test_a_template_names_no_fact_that_is_missing():
    with pytest.raises(UndefinedError, match="models"):
        fill_template("card.md", {})
    assert inline(" a\n|b| ") == r"a \|b\|"


def test_pooled_reliability_leaves_simulated_records_out(tmp_path):
    bins = [
        {"low": 0.0, "high": 0.5, "n": 2, "confidence": 0.3, "accuracy": 0.5},
        {"low": 0.5, "high": 1.0, "n": 0, "confidence": None, "accuracy": None},
    ]
    tables = [
        {"source": source, "task": "rhythm_closed", "n": 2, "bins": bins} for source in ("ludb", "cinc", "simulated")
    ]
    pooled = pool_reliability(tables)
    assert pooled["rhythm_closed"][0]["n"] == 4
    assert pooled["rhythm_closed"][0]["confidence"] == pytest.approx(0.3)
    assert pooled["rhythm_closed"][1] == bins[1]
    assert plot_reliability({"this model": tables}, tmp_path / "a.png")
    assert not plot_reliability({}, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_the_committed_card_is_the_one_of_its_results(repo_root):
    path = repo_root / "model_cards" / "ecg_small.yaml"
    spec, results, facts = read_spec(path)
    pictures = {name: f"ecg_small_{name}.png" for name in ("scores", "reliability")}
    text = render_card(read_results(results), spec, facts=json.loads(facts.read_text()), pictures=pictures)
    assert path.with_suffix(".md").read_text() == text
    assert len(text.split("---")[1].splitlines()) < 120, "front matter that a reader can survey"


def test_published_results_name_no_folder_of_one_machine(repo_root):
    published = list((repo_root / "model_cards").rglob("*.json"))
    assert len(published) >= 6
    for path in published:
        assert not re.search(r'": "(/|~|[A-Z]:\\)', path.read_text(encoding="utf-8")), path.name


def test_intervals_far_to_one_side_and_few_records_are_explained():
    rows = make_rows()
    assert "near one end" not in render_card(RESULTS, SPEC)
    assert "Few records" not in render_card(RESULTS, SPEC)
    for entry in rows:
        if entry["metric"] == "balanced_accuracy":
            entry["ci_high"] = entry["value"] + 0.3
        entry["records"] = 7
    text = render_card(RESULTS | {"rows": rows}, SPEC)
    assert "Trust its near end more than its far one in ludb: rhythm (yes/no), balanced accuracy." in text
    assert "**Few records: 7 (ludb:rhythm_closed, ludb:heart_rate_fill, simulated:diagnosis_classes)." in text


def test_the_two_rates_of_a_class_stand_in_its_table():
    rows = [*make_rows(), row("evl_ecg", "ludb:rhythm_closed/AF", "sensitivity", 0.9, n=17, chance=None)]
    rows.append(row("evl_ecg", "ludb:rhythm_closed/AF", "specificity", 0.6, n=44, chance=None))
    text = render_card(RESULTS | {"rows": rows}, SPEC)
    assert re.search(r"\| atrial fibrillation \|.*\| sensitivity \| 17 \| – \| 90\.0 \[85\.0, 95\.0\] \|", text)
    assert re.search(r"\| atrial fibrillation \|.*\| specificity \| 44 \| – \| 60\.0 \[55\.0, 65\.0\] \|", text)
    assert "n of a sensitivity are the positive records" in text
    assert "n of a sensitivity" not in render_card(RESULTS, SPEC)


def test_a_commit_with_changes_is_said_to_be_one():
    assert "commit `0123456789abcdef` (torch" in render_card(RESULTS, SPEC)
    text = render_card(RESULTS | {"commit": "0123456789abcdef-dirty"}, SPEC)
    assert (
        "commit `0123456789abcdef` with changes that are in no commit, so it cannot be repeated exactly (torch" in text
    )
    assert "-dirty" not in text
