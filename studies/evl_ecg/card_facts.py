"""A model and its answers → what the card says beside scores: architecture, token counts, reliability, failure cases."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig

from hf_evl_ecg.chat.conversations import Turn, chat_messages
from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.inference.answer_file import read_answers as read_answer_file
from hf_evl_ecg.models.loading import load_processor
from hf_evl_ecg.models.weights import checkpoint_shards
from hf_evl_ecg.qa.calibration import option_probabilities, reliability_bins
from hf_evl_ecg.qa.grading import candidate_answers, grade, item_kind, label_family, task_name
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.qa.prompts import RHYTHM_QUESTION

__all__ = ["describe_model", "failure_cases", "read_answers", "reliability_tables"]

Pairs = Sequence[tuple[Mapping[str, Any], Answer]]


def describe_model(folder: str | Path, *, image_width: int, image_height: int) -> dict[str, Any]:
    """Architecture, size and token counts of a saved vision-language model, without loading its weights.

    Args:
        folder: A folder with ``config.json``, weights and processor.
        image_width: Width of the pages it is asked about (px).
        image_height: Their height (px).

    Returns:
        ``architecture``, ``parameters`` (as stored: tied weights once), ``text`` and ``vision`` (width, layers …),
        ``visual_tokens`` of one page, and ``prompt_tokens`` of one page with a short question.

    Example:
        >>> describe_model("ecg-student", image_width=448, image_height=224)["architecture"]
        'Idefics3ForConditionalGeneration'
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    text, vision = (getattr(config, part).to_dict() for part in ("text_config", "vision_config"))
    processor = load_processor(folder)
    page = Image.new("RGB", (image_width, image_height), "white")
    prompt = processor.apply_chat_template(chat_messages([Turn(RHYTHM_QUESTION, "-")])[:1], add_generation_prompt=True)
    tokens = np.asarray(processor(text=[prompt], images=[[page]])["input_ids"][0])
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "parameters": _count_parameters(folder),
        "text": {
            "model_type": text["model_type"],
            "width": text["hidden_size"],
            "layers": text["num_hidden_layers"],
            "vocabulary": text["vocab_size"],
        },
        "vision": {
            "model_type": vision["model_type"],
            "width": _first(vision, "embed_dim", "hidden_size"),
            "layers": _first(vision, "depth", "num_hidden_layers"),
            "patch_px": vision["patch_size"],
        },
        "page_px": [image_width, image_height],
        "visual_tokens": int((tokens == config.image_token_id).sum()),
        "prompt_tokens": len(tokens),
    }


def read_answers(path: str | Path, items: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Answer]]:
    """Pair questions with the answers that a file holds; those without one are left out.

    Args:
        path: The jsonl file.
        items: The questions.

    Raises:
        ValueError: The file is damaged, or none of the questions is answered in it.
    """
    answers = read_answer_file(path).answers
    keys = [example_key(item) for item in items]
    pairs = [(item, answers[key]) for item, key in zip(items, keys, strict=True) if key in answers]
    if not pairs:
        raise ValueError(f"{path} answers none of the {len(items)} questions; give the questions it was made from")
    return pairs


def reliability_tables(pairs: Pairs, *, n_bins: int = 10) -> list[dict[str, Any]]:
    """Confidence against accuracy by source and task, for questions with one right answer among given ones.

    Confidence is the softmax over the log-likelihoods of the possible answers, as in the row
    ``calibration_error`` of `hf_evl_ecg.qa.scoring.score_answers` without temperatures.

    Args:
        pairs: Questions with their answers.
        n_bins: Bins of equal width.

    Returns:
        ``{"source", "task", "n", "bins"}`` each, bins as from `hf_evl_ecg.qa.calibration.reliability_bins`.
    """
    groups: defaultdict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
    mixed = set()
    for item, answer in pairs:
        group = str(item["source"]), task_name(item)
        target = _target(item)
        if target is None or not answer.scores:
            mixed.add(group)
            continue
        probability = option_probabilities([answer.scores])[0]
        groups[group].append((float(probability.max()), int(probability.argmax()) == target))
    tables = []
    for (source, task), found in sorted(groups.items()):
        if (source, task) not in mixed:
            confidence, correct = zip(*found, strict=True)
            bins = reliability_bins(confidence, correct, n_bins)
            tables.append({"source": source, "task": task, "n": len(found), "bins": bins})
    return tables


def failure_cases(pairs: Pairs, *, limit: int = 6) -> list[dict[str, Any]]:
    """The worst failures by the rule that cards state; about simulated records only where there are no others.

    The rule: for each kind of question, the wrong answer that the model was surest of, surest first; for numbers, the one
    furthest from the truth.

    Args:
        pairs: Questions with their answers.
        limit: At most this many, the most confident first, one of each kind of question.

    Returns:
        ``{"index", "source", "record", "task", "question", "expected", "answered", "probability"}`` each, where ``index``
        counts `pairs` and ``probability`` is None for numbers.
    """
    real = [i for i, (item, _) in enumerate(pairs) if item["source"] != "simulated"]
    worst: dict[str, tuple[float, int]] = {}
    for index in real or range(len(pairs)):
        item, answer = pairs[index]
        if answer.text is None or grade(item, answer.text).correct == 1:
            continue
        badness = _badness(item, answer)
        if badness is not None and badness > worst.get(task_name(item), (-math.inf, 0))[0]:
            worst[task_name(item)] = badness, index
    ordered = sorted(worst.values(), key=lambda found: (item_kind(pairs[found[1]][0]) == "number", -found[0], found[1]))
    cases = []
    for badness, index in ordered[:limit]:
        item, answer = pairs[index]
        number = item_kind(item) == "number"
        cases.append(
            {
                "index": index,
                **{key: item[key] for key in ("source", "record")},
                "task": task_name(item),
                "question": item["question"],
                "expected": _expected(item),
                "answered": answer.text,
                "probability": None if number else round(badness, 4),
            }
        )
    return cases


def _expected(item: Mapping[str, Any]) -> str:
    """The right answer as it was written, or the findings it names."""
    if item.get("answer"):
        return str(item["answer"])
    return ", ".join(label_text(code) for code in item["labels"])


def _badness(item: Mapping[str, Any], answer: Answer) -> float | None:
    """How wrong a wrong answer is: probability of the likeliest answer, error of a number; None where neither is known."""
    if item_kind(item) == "number":
        predicted = grade(item, answer.text or "").predicted
        return None if predicted is None else abs(predicted - item["value"])
    target = _target(item)
    if target is None or not answer.scores:
        return None
    probability = option_probabilities([answer.scores])[0]
    return None if int(probability.argmax()) == target else float(probability.max())


def _target(item: Mapping[str, Any]) -> int | None:
    """Index of the one right candidate; None where there is none, or several."""
    kind, candidates = item_kind(item), candidate_answers(item)
    if kind in ("yes_no", "option"):
        return candidates.index(item["answer"])
    if kind == "labels" and candidates and len(item["labels"]) == 1:
        return label_family(item).index(item["labels"][0])
    return None


def _count_parameters(folder: str | Path) -> int:
    total = 0
    for path in checkpoint_shards(folder):
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is no safetensors file; export the model with hf_evl_ecg.hub.export first")
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next(values[name] for name in names if values.get(name) is not None)
