r"""Train methods from one encoder with several seeds, score every dimension, collect all runs in one results json.

    hf-mic study plan.yaml --data_dir data/text --output_dir outputs/my_study
    hf-mic study plan.yaml --data_dir data/text --output_dir outputs/my_study --collect

The plan names encoder, data and methods; a method replaces single settings of the training:

    model: sentence-transformers/all-MiniLM-L6-v2
    tasks: [stsb, banking77, sts=my_pairs.csv]
    data: {pairs: [{file: my_training.csv, kind: pairs}]}
    training: {max_steps: 100, per_device_train_batch_size: 64, learning_rate: 2.0e-5}
    dims: [16, 32, 64, 384]
    methods: [{name: mrl, method: mrl, seeds: 3}, {name: eigen, method: mic, seeds: 3, training: {cv_mode: eigen}}]

Further keys: head (none, linear or orthogonal, see --dense_head of the verb train) and head_learning_rate; max_seq_length {train, score};
plot (the methods of the picture); validation_tasks; bf16_scores. A method with short: true is scored at short_dims and on no retrieval,
and only the first retrieval_seeds seeds are scored on retrieval, whose corpus takes longest to embed.

Each run writes its rows to OUTPUT_DIR/runs/NAME-SEED.json when it is done, and is not repeated: stop and start again at will, on
several cores or machines with --shard 0/2 and --shard 1/2. A run that was made with other settings is refused, not kept. --collect
joins them, with the rows of plain truncation and of PCA fitted on the first training data. Texts that are scored are not trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_mic.command_line.options import parse_options
from hf_mic.files import read_json, read_mapping
from hf_mic.options import check_choice

REQUIRED = {"data", "training", "methods", "dims"}
DEFAULTS: dict[str, Any] = {
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "tasks": ["stsb", "banking77", "scifact"],
    "head": "none",
    "head_learning_rate": 1e-3,
    "max_seq_length": {},
    "bf16_scores": False,
    "retrieval_seeds": 1000,
}


@dataclass
class StudyArguments:
    """Where plan, data and results are."""

    plan: str = field(metadata={"help": "YAML file of the study; the word --plan may be left out."})
    model: str | None = field(
        default=None, metadata={"help": "Encoder, a folder or a name on the Hub, instead of the plan's."}
    )
    data_dir: str = field(
        default=".",
        metadata={
            "help": "Folder of the training files, and of stsb/, classification/banking77/ and retrieval/scifact/."
        },
    )
    tasks_from_hub: bool = field(default=False, metadata={"help": "Read STS-B, Banking77 and SciFact from the Hub."})
    validation: bool = field(
        default=False,
        metadata={"help": "Score data that may be used for choosing settings: validation_tasks of the plan."},
    )
    only: list[str] | None = field(default=None, metadata={"help": "Names of the methods to run. Default: all."})
    num_seeds: int | None = field(default=None, metadata={"help": "Most seeds per method, below what the plan says."})
    shard: str = field(default="0/1", metadata={"help": "i/n: take every n-th run, from the i-th on."})
    collect: bool = field(
        default=False, metadata={"help": "Join the runs that are done into the results, train nothing."}
    )
    study: str | None = field(
        default=None, metadata={"help": "Name of the study and of the files. Default: the plan's file."}
    )
    output_dir: str = field(default="outputs/study", metadata={"help": "Where STUDY.json, .md, .png and runs/ go."})

    def __post_init__(self) -> None:
        index, _, count = self.shard.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise ValueError(f"shard={self.shard!r}: must be i/n with 0 <= i < n, such as 0/2")


def parse(words: Sequence[str]) -> tuple[StudyArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([StudyArguments], words, __doc__, prog="hf-mic study", positional="plan", yaml_first=False)
    return (args,)


def main(args: StudyArguments) -> dict[str, Any] | None:
    """Run the part of the study that belongs to this shard, or collect.

    Returns:
        The results that were collected, None otherwise.

    Raises:
        ValueError: If the plan is not sound, or a run was made with other settings.
    """
    plan = read_plan(args.plan)
    plan["model"] = args.model or plan["model"]
    if args.collect:
        return collect(args, plan)
    from hf_mic.evaluation.tasks import RetrievalTask
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.runs.study_runs import encode_with, geometry_texts, held_out_texts, score, train, untrained_rows

    names = plan["validation_tasks" if args.validation else "tasks"]
    every_task = load_tasks(names, None if args.tasks_from_hub else args.data_dir, validation=args.validation)
    short = [task for task in every_task if not isinstance(task, RetrievalTask)]
    data: dict[str, Any] = {"data_dir": args.data_dir, "held_out": held_out_texts(every_task)}
    for method, seed in wanted_runs(args, plan):
        name = "untrained" if method is None else method["name"]
        path, settings = run_path(args, name, seed), settings_of(plan, method, args.validation)
        if is_done(path, settings):
            continue
        random.seed(seed)
        if method is None:
            about: dict[str, Any] = {}
            rows = untrained_rows(plan, every_task, **data)
        else:
            encoder, about = train(plan, method, seed, output_dir=args.output_dir, **data)
            tasks = short if method.get("short") or seed >= plan["retrieval_seeds"] else every_task
            dims = plan["short_dims"] if method.get("short") else plan["dims"]
            rows = score(name, seed, encode_with(encoder, plan), tasks, dims, geometry_texts(every_task))
        write_run(
            path,
            {
                "name": name,
                "seed": None if method is None else seed,
                "about": about,
                "settings": settings,
                "rows": rows,
            },
        )
        print(f"{name}, seed {seed}: done, {about}", flush=True)
    return None


def wanted_runs(args: StudyArguments, plan: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any] | None, int]]:
    """The runs of this shard: the untrained encoder, then seed after seed, short ones last."""
    methods = [m for m in plan["methods"] if args.only is None or m["name"] in args.only]
    most = args.num_seeds or max((m["seeds"] for m in methods), default=0)
    wanted: list[tuple[Mapping[str, Any] | None, int]] = [(None, 0)]
    for short in (False, True):
        for seed in range(most):
            wanted += [(m, seed) for m in methods if bool(m.get("short")) == short and seed < m["seeds"]]
    index, _, count = args.shard.partition("/")
    yield from wanted[int(index) :: int(count)]


def run_path(args: StudyArguments, name: str, seed: int) -> Path:
    """Where the rows of a run lie."""
    return Path(args.output_dir) / "runs" / f"{name}-{seed}.json"


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Write the rows of a run, whole or not at all."""
    from hf_mic.files import write_text

    write_text(path, json.dumps(run))


def is_done(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run is there.

    Raises:
        ValueError: If it is one with other settings.
    """
    if not path.exists():
        return False
    run = read_json(path)
    # Runs of older versions name no settings, or not these; nothing tells whether they were others.
    unnamed = {name: settings[name] for name in ("model", "tasks", "bf16_scores")}
    made_with, now = unnamed | run.get("settings", settings), json.loads(json.dumps(settings))
    if different := sorted(name for name in made_with | now if made_with.get(name) != now.get(name)):
        raise ValueError(
            f"{path} was made with another {', '.join(different)}: name another --output_dir or remove it."
        )
    return True


def collect(args: StudyArguments, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Join the rows of all finished runs; write json, markdown and picture.

    Raises:
        ValueError: If no run is done.
    """
    from hf_mic.reports.score_report import write_score_report
    from hf_mic.reports.score_tables import markdown_report

    folder, study = Path(args.output_dir), args.study or Path(args.plan).stem
    runs = [read_json(path) for path in sorted((folder / "runs").glob("*.json"))]
    order = ["untrained", *(method["name"] for method in plan["methods"])]
    if left := sorted({run["name"] for run in runs} - set(order)):
        raise ValueError(f"{folder / 'runs'} holds runs of {left}, which the plan does not name: remove them.")
    runs.sort(key=lambda run: (order.index(run["name"]), run["seed"] or 0))
    about = {f"{run['name']}-{run['seed']}": run["about"] for run in runs}
    config = {**plan, "validation": args.validation, "runs": about}
    rows = [row for run in runs for row in run["rows"]]
    drawn = [row for row in rows if row["method"] in plan["plot"] and row["task"] != "geometry"]
    metrics = ("spearman", "accuracy_standardised", "ndcg@10")
    results = write_score_report(rows, folder, study, config, drawn=drawn, metrics=metrics)
    print(f"{markdown_report(results)}\n\nWritten: {folder / study}.json, .md, .png")
    return results


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read a plan; ``hf-mic study --help`` says what it holds.

    Returns:
        The plan with all of its keys; each method has a name, a method, data and seeds.

    Raises:
        ValueError: If it is not YAML, a key is unknown or missing, or a method names data that are not there.
    """
    known = REQUIRED | DEFAULTS.keys() | {"short_dims", "validation_tasks", "plot"}
    return completed(read_mapping(path, known, REQUIRED), path)


def completed(given: Mapping[str, Any], path: str | Path = "plan") -> dict[str, Any]:
    """A plan with the defaults of the keys it lacks."""
    plan = {**DEFAULTS, **given}
    check_choice("head", plan["head"], ("none", "linear", "orthogonal"))
    if not isinstance(plan["data"], Mapping) or not plan["data"]:
        raise ValueError(
            f"{path}: data must map names to lists of files, such as {{pairs: [{{file: a.csv, kind: pairs}}]}}."
        )
    if not isinstance(plan["training"], Mapping):
        raise ValueError(f"{path}: training must map options to values, such as {{max_steps: 100}}.")
    if not isinstance(plan["methods"], list) or not all(isinstance(method, Mapping) for method in plan["methods"]):
        raise ValueError(f"{path}: methods must be a list such as [{{name: mrl, method: mrl}}].")
    plan["short_dims"] = given.get("short_dims", plan["dims"])
    plan["validation_tasks"] = given.get("validation_tasks", plan["tasks"])
    first = next(iter(plan["data"]))
    plan["methods"] = [{"method": m.get("name"), "data": first, "seeds": 1, **m} for m in plan["methods"]]
    for method in plan["methods"]:
        if "name" not in method:
            raise ValueError(f"{path}: a method has no name: {method}.")
        if method["data"] not in plan["data"]:
            raise ValueError(
                f"{path}: {method['name']} trains on {method['data']!r}, which is not in {sorted(plan['data'])}."
            )
    names = [method["name"] for method in plan["methods"]]
    plan["plot"] = given.get("plot", ["truncation", "pca", *names])
    if unknown := sorted(set(plan["plot"]) - {"truncation", "pca", *names}):
        raise ValueError(f"{path}: plot names {unknown}, which are no methods.")
    return plan


def settings_of(plan: Mapping[str, Any], method: Mapping[str, Any] | None, validation: bool) -> dict[str, Any]:
    """All settings on which the rows of a run depend; ``None`` stands for the untrained encoder."""
    common = {name: plan[name] for name in ("model", "max_seq_length", "dims", "bf16_scores")}
    common |= {"validation": validation, "tasks": plan["validation_tasks" if validation else "tasks"]}
    if method is None:
        return common | {"data": next(iter(plan["data"].values()))}
    own = {name: value for name, value in method.items() if name not in ("seeds", "training", "data")}
    head = {name: plan[name] for name in ("head", "head_learning_rate", "short_dims", "retrieval_seeds")}
    training = {**plan["training"], **method.get("training", {})}
    return common | head | own | {"data": plan["data"][method["data"]], "training": training}
