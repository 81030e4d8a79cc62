"""The YAML file of a study: read, checked, completed, and the settings on which the rows of a run depend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_mic.files import read_mapping
from hf_mic.options import check_choice

__all__ = ["read_plan", "settings_of"]

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
