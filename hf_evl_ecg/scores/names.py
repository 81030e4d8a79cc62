"""Names for readers of what results and questions name: methods, metrics, tasks, and sources with their licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hf_evl_ecg.qa.grading import plain, task_words

__all__ = ["DataSource", "find_source", "group_name", "method_name", "metric_name", "plain", "split_task", "task_text"]


@dataclass(frozen=True)
class DataSource:
    """A source of ECG records.

    Attributes:
        title: Its name for readers.
        licence: Licence, empty if none is known.
        cite: Whom to cite, empty if nobody.
        url: Where it is published, empty if nowhere.
    """

    title: str
    licence: str = ""
    cite: str = ""
    url: str = ""


def find_source(name: str, extra: Mapping[str, DataSource] | None = None) -> DataSource:
    """Source of a name such as ``cinc/georgia``; one that is unknown bears its name and nothing else.

    Example:
        >>> find_source("cinc/georgia").licence
        'CC BY 4.0'
    """
    known = {title: DataSource(**entry) for title, entry in _names()["sources"].items()} | dict(extra or {})
    return known.get(name) or known.get(name.split("/")[0]) or DataSource(name)


def method_name(method: str) -> str:
    """Name of a method for readers.

    Example:
        >>> method_name("sft")
        'fine-tuning without teacher'
    """
    return _names()["methods"].get(method, method)


def metric_name(metric: str) -> str:
    """Name of a metric for readers.

    Example:
        >>> metric_name("macro_auc"), metric_name("balanced_accuracy")
        ('macro AUC', 'balanced accuracy')
    """
    return _names()["metrics"].get(metric, metric.replace("_", " "))


def group_name(source: str) -> str:
    """Name of a source of rows for readers: a data set, or a group of records.

    Example:
        >>> group_name("real"), group_name("ludb")
        ('all real records', 'ludb')
    """
    return _names()["groups"].get(source, source)


def task_text(name: str, source: str = "") -> str:
    """Name of a task for readers, after that of its source if one is given.

    Example:
        >>> task_text("heart_rate_closed", "real")
        'all real records: heart rate (yes/no)'
    """
    return f"{group_name(source)}: {task_words(name)}" if source else task_words(name)


def split_task(task: str) -> tuple[str, str, str | None]:
    """Source, task and class of a row's task; without a source the first is empty.

    Example:
        >>> split_task("cinc/georgia:diagnosis_closed/AF")
        ('cinc/georgia', 'diagnosis_closed', 'AF')
    """
    source, found, rest = task.rpartition(":")
    name, _, label = rest.partition("/")
    return (source if found else ""), name, label or None


@cache
def _names() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("names.yaml").read_text(encoding="utf-8"))
