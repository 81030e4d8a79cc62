"""studies/mic/bytes_study.py: its plan is sound, texts and runs are kept, differences are to the best rival, reports are whole."""

import csv
import gzip
import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from hf_mic.evaluation.tasks import RetrievalTask
from hf_mic.results import write_results

WORDS = [f"w{i}" for i in range(64)]


@pytest.fixture
def scripts(repo_root, monkeypatch):
    """The three scripts of the study, which import each other as files of one folder."""
    monkeypatch.syspath_prepend(repo_root / "studies" / "mic")
    import bytes_report
    import bytes_study
    import bytes_texts

    return bytes_study, bytes_report, bytes_texts


def test_the_reported_plan(scripts, repo_root):
    study, _, _ = scripts
    plan = study.read_plan(repo_root / "studies" / "configs" / "mic_bytes.yaml")
    assert plan["sizes"] == [2, 4, 8, 16, 32, 48, 64, 128, 1536]
    assert plan["methods"]["mic"]["config"]["sir_weight"] > 0
    assert plan["methods"]["distillation"]["config"]["sir_weight"] == 0
    assert "seed" not in plan["methods"]["mic"]["config"]
    runs = study.runs(plan["methods"], 2)
    assert len(runs) == len(set(runs))
    assert ("pca", None) in runs
    assert ("mic", 1) in runs
    assert ("mic", 2) not in runs
    assert [seed for _, seed in runs] == sorted(
        (seed for _, seed in runs), key=lambda seed: -1 if seed is None else seed
    )


def row(method, task, value, seed=None, metric="spearman", **other):
    return {"method": method, "seed": seed, "task": task, "metric": metric, "value": value, "bytes": 8, "dim": 64, "bits": 1,
            "turned": False, "n": 10, "ci_low": value - 0.1, "ci_high": value + 0.1, **other}  # fmt: skip


METHODS = {
    "pca": {"type": "pca", "text": "task", "about": "axes"},
    "opq": {"type": "opq", "text": "task", "about": "codes"},
    "other": {"type": "pca", "text": "general", "about": "axes"},
    "mic": {"type": "map", "text": "task", "about": "map"},
}
ROWS = [
    row("pca", "stsb", 0.70), row("pca", "scifact", 0.30, metric="ndcg@10"),
    row("opq", "stsb", 0.60), row("opq", "scifact", 0.50, metric="ndcg@10"),
    row("other", "stsb", 0.99), row("other", "scifact", 0.99, metric="ndcg@10"),
    row("mic", "stsb", 0.71, 0), row("mic", "scifact", 0.45, 0, metric="ndcg@10"),
    row("mic", "stsb", 0.75, 1), row("mic", "scifact", 0.47, 1, metric="ndcg@10"),
]  # fmt: skip


def test_differences_are_to_the_best_rival_of_the_same_text(scripts):
    _, report, _ = scripts
    noise = np.random.default_rng(0).normal(
        scale=0.01, size=200
    )  # the same resamples for all: differences have no noise

    def resampled(name, seed):
        own = {r["task"]: r for r in ROWS if (r["method"], r["seed"]) == (name, seed)}
        return {f"8/{task}/{r['metric']}": r["value"] + noise for task, r in own.items()}

    found = {r["task"]: r for r in report.differences(ROWS, METHODS, resampled)}
    assert {task: r["rival"] for task, r in found.items()} == {"stsb": "pca", "scifact": "opq", "mean": "opq"}
    assert found["stsb"]["value"] == pytest.approx(0.03)
    assert found["scifact"]["value"] == pytest.approx(-0.04)
    assert found["mean"]["value"] == pytest.approx(0.595 - 0.55)
    for r in found.values():
        assert r["ci_low"] == pytest.approx(r["value"])
        assert r["ci_high"] == pytest.approx(r["value"])


def test_tables_and_picture(scripts, tmp_path):
    _, report, _ = scripts
    differences = [row("mic", "stsb", 0.03, metric="difference_to_best_rival", rival="pca")]
    probes = [row("pca", "banking77", 0.9, metric="accuracy"), row("pca", "banking77", 0.8, metric="accuracy_few_shot")]
    results = write_results(tmp_path / "x.json", "x", {}, [*ROWS, *differences, *probes])
    plan = {"methods": METHODS, "table": ["pca", "opq", "mic"], "plot": ["pca", "opq", "mic"], "sizes": [8]}
    report.write_reports(results, plan, tmp_path / "x.json")
    text = (tmp_path / "x.md").read_text()
    assert "| mic | **73.0** | 46.0 | **59.5** |" in text
    assert "| opq | 60.0 | **50.0** | 55.0 |" in text
    assert "73.0 ± 2.8" in text
    assert "+3.0 [-7.0, +13.0] pca" in text
    assert "| method | stsb | scifact | mean |\n| --- | --: | --: | --: |" in text
    assert "90.0 / 80.0" in text
    assert (tmp_path / "x.png").stat().st_size > 10_000
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:x -->old<!-- /results:x -->\nafter\n")
    report.fill(page, "x", "new")
    assert page.read_text() == "before\n<!-- results:x -->\n\nnew\n\n<!-- /results:x -->\nafter\n"
    with pytest.raises(ValueError, match="once each"):
        report.fill(page, "y", "new")


def sentence(random):
    return " ".join(random.choice(WORDS, size=8))


@pytest.fixture
def folder(tmp_path, scripts, monkeypatch):
    """Data in the layout of the study, small."""
    made, random = tmp_path / "texts", np.random.default_rng(0)

    def write_csv(path, header, rows):
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        with (made / path).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.endswith("tsv") else ",").writerows([header, *rows])

    for name, count in (("train", 2200), ("dev", 20), ("test", 20)):
        rows = [(sentence(random), sentence(random), 5 * random.random()) for _ in range(count)]
        write_csv(f"stsb/{name}.csv", ("sentence1", "sentence2", "score"), rows)
    for name, count in (("train", 100), ("test", 20)):
        rows = [(sentence(random), f"c{i % 2}") for i in range(count)]
        write_csv(f"classification/banking77/{name}.csv", ("text", "category"), rows)
    documents = [{"_id": str(i), "title": "", "text": sentence(random)} for i in range(30)]
    queries = [{"_id": f"q{i}", "text": sentence(random)} for i in range(10)]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (made / "retrieval/scifact").mkdir(parents=True, exist_ok=True)
        (made / f"retrieval/scifact/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("train", "test"):
        write_csv(
            f"retrieval/scifact/qrels/{name}.tsv",
            ("query-id", "corpus-id", "score"),
            [(f"q{i}", i, 1) for i in range(10)],
        )
    (made / "pairs").mkdir()
    for name in ("medquad_qa", "wordnet_glosses"):
        lines = [json.dumps({"anchor": sentence(random), "positive": sentence(random)}) for _ in range(60)]
        with gzip.open(made / f"pairs/{name}.pairs.jsonl.gz", "wt") as file:
            file.write("\n".join(lines))
    _, _, texts = scripts
    monkeypatch.setattr(texts, "MEDQUAD", {**texts.MEDQUAD, "answers": 20, "queries": 5, "fit": 20})
    monkeypatch.setattr(texts, "WORDNET", {**texts.WORDNET, "synsets": 20, "queries": 5, "fit": 20})
    return made


def test_nothing_is_fitted_on_what_is_scored_or_indexed(scripts, folder):
    _, _, texts = scripts
    found = texts.read_study_texts(folder)
    fits = {text for group in found.fits.values() for text in group}
    scored = {text for task in found.tasks for text in texts.texts_of(task)} - set(found.tasks[1].train_texts)
    assert len(fits) > 4000
    assert not fits & scored
    large = found.tasks[-1]
    assert isinstance(large, RetrievalTask)
    assert len(large.corpus) == 30 + 20 + 40  # documents, answers, definitions but those that are fitted on
    assert list(large.corpus)[:30] != [str(i) for i in range(30)], "shuffled: equal codes are ranked by their place"
    groups = found.groups()
    assert len({text for group in groups.values() for text in group}) == sum(map(len, groups.values()))


def test_runs_resume(scripts, folder, tmp_path, repo_root):
    study, _, _ = scripts
    encoder = tmp_path / "encoder"
    SentenceTransformer(modules=[BoW(WORDS)], device="cpu").save(str(encoder))
    text = (repo_root / "studies" / "configs" / "mic_bytes.yaml").read_text()
    path = tmp_path / "plan.yaml"
    lines = [line for line in text.splitlines() if not line.startswith(("plot", "table", "tasks", "sizes"))]
    lines = [line for line in lines if not line.startswith("  ") or line.split(":")[0].strip() in KEPT]
    lines += ["plot: [pca, mic]", "table: [pca, mic]", "tasks: [stsb, banking77, scifact]", "sizes: [4, 8, 256]"]
    path.write_text("\n".join(lines).replace("[16, 32, 64, 128]", "[16, 32]").replace("steps: 400", "steps: 3"))
    args = study.StudyArguments(
        str(path),
        str(folder),
        model=str(encoder),
        num_seeds=1,
        output_dir=str(tmp_path / "out"),
        tasks=["stsb"],
        sizes=[8],
    )
    first = study.main(args, study.read_plan(path))
    args.tasks = args.sizes = None
    args.num_seeds = 2
    calls = []
    run = study.Study.run
    study.Study.run = lambda self, name, seed, wanted: (
        calls.append((name, seed, {size: [task.name for task in tasks] for size, tasks in wanted.items()})),
        run(self, name, seed, wanted),
    )[1]
    try:
        second = study.main(args, study.read_plan(path))
    finally:
        study.Study.run = run
    others = {4: ["stsb", "banking77", "scifact"], 8: ["banking77", "scifact"]}
    whole = {size: ["stsb", "banking77", "scifact"] for size in (4, 8)}
    assert calls == [("pca", None, others), ("mic", 0, others), ("mic", 1, whole)]
    values = {(r["method"], r["seed"], r["bytes"], r["task"], r["metric"]): r["value"] for r in second["rows"]}
    assert len(values) == len(second["rows"])
    for r in first["rows"]:
        if r["task"] == "stsb" and "rival" not in r:
            assert values[r["method"], r["seed"], r["bytes"], r["task"], r["metric"]] == r["value"]
    assert not list((tmp_path / "out" / "embeddings").glob("*.*.[0-9][0-9][0-9][0-9].npy")), (
        "parts are gone once the whole is there"
    )


KEPT = {"kind", "dims", "distill_weight", "sir_weight", "scr_weight", "batch_size", "steps", "pca", "mic"}


def test_docs_show_the_results(scripts, repo_root):
    study, report, _ = scripts
    results = json.loads((repo_root / "model_cards" / "results" / "mic_bytes.json").read_text())
    plan = study.read_plan(repo_root / "studies" / "configs" / "mic_bytes.yaml")
    tables = report.report(results, plan)
    assert len(tables) > 2000
    assert tables in (repo_root / "docs" / "results.md").read_text(encoding="utf-8")
    published = results["config"]["methods"]
    assert {name: plan["methods"][name]["type"] for name in published} == {n: m["type"] for n, m in published.items()}
