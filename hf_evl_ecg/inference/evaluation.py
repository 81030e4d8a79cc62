"""One evaluator for teacher, baselines and student: ask, write each answer down, score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.examples import example_key, record_name
from hf_evl_ecg.models.fingerprints import model_fingerprint, processor_fingerprint
from hf_evl_ecg.qa.grading import candidate_answers, item_kind
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.scoring import score_answers

from .answer_file import AnswerFile, AnswerFileError
from .asking import Asker
from .digests import FingerprintedImages, changed_picture
from .pictures import OncePerPicture, PictureBatch, PictureCollator, gather_by_picture

__all__ = ["Evaluation", "answer_items", "evaluate_model"]

logger = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """Answers of one model.

    Attributes:
        items: The questions that were answered, in their order.
        answers: One for each.
        skipped: What was left out, and why.
        rows: Rows for a results json; empty from `answer_items`.
    """

    items: list[Mapping[str, Any]]
    answers: list[Answer]
    skipped: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def evaluate_model(
    model: nn.Module,
    processor: Any,
    items: Sequence[Mapping[str, Any]],
    *,
    method: str,
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    seed: int | None = None,
    temperatures: Mapping[str, float] | None = None,
    min_per_class: int = 10,
    n_bootstrap: int = 1000,
    bootstrap_seed: int = 0,
    **options: Any,
) -> Evaluation:
    """Answer questions with a model and score the answers; teacher, baselines and student go through this alike.

    Args:
        model: Any native vision-language model, or a PEFT model around one.
        processor: Its processor.
        items: Questions, from `hf_evl_ecg.data.questions.question_dataset` or your own.
        method: Name of the method in the rows, in lower case such as ``evl_ecg``.
        load_image: Item → PIL image.
        seed: Training seed in the rows.
        temperatures: See `hf_evl_ecg.qa.scoring.score_answers`, as the next three.
        min_per_class: See there.
        n_bootstrap: See there.
        bootstrap_seed: See there.
        options: Further options of `answer_items`.

    Returns:
        Answers and rows; `hf_evl_ecg.results.write_results` takes the rows.

    Example:
        >>> from hf_evl_ecg.inference.label_scores import label_question
        >>> def blank(item):
        ...     return Image.new("RGB", (56, 40), "white")
        >>> options = {"load_image": blank, "max_new_tokens": 4, "n_bootstrap": 0}
        >>> done = evaluate_model(student, processor, [label_question("AF")], method="evl_ecg", **options)
        >>> len(done.answers[0].scores), done.rows[0]["task"]  # log-likelihoods of yes and no
        (2, 'rhythm_closed')
    """
    done = answer_items(model, processor, items, load_image=load_image, **options)
    done.rows = score_answers(
        done.items,
        done.answers,
        method=method,
        seed=seed,
        temperatures=temperatures,
        min_per_class=min_per_class,
        n_bootstrap=n_bootstrap,
        bootstrap_seed=bootstrap_seed,
    )
    return done


def answer_items(
    model: nn.Module,
    processor: Any,
    items: Sequence[Mapping[str, Any]],
    *,
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    path: str | Path | None = None,
    generate: bool = True,
    likelihoods: bool = True,
    max_new_tokens: int = 64,
    system_prompt: str | None = None,
    max_length: int | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    on_bad_example: str = "skip",
    progress_bar: bool = True,
) -> Evaluation:
    """Ask a model every question: greedy text, and the likelihood of the answers a question can have.

    Args:
        model: Any native vision-language model, or a PEFT model around one, on the device it runs on.
        processor: Its processor.
        items: Questions; two that are equal are asked once.
        load_image: Item → PIL image, the same for all questions about one picture: those whose items differ in nothing but
            question, answer and grading. It is drawn once for them and, for likelihoods, read once.
        path: A jsonl file that each answer is added to as it comes; answers that stand there already are not asked again. It is
            of one model, one way of drawing (``load_image.fingerprint()`` where there is one, and the pixels of some
            records) and one set of the options that follow up to ``max_length``.
        generate: Generate texts.
        likelihoods: Compute likelihoods of `hf_evl_ecg.qa.grading.candidate_answers`.
        max_new_tokens: Longest text.
        system_prompt: System message.
        max_length: Longest prompt with answer, in tokens.
        batch_size: Pictures at once, and then questions about them, and then answers.
        num_workers: Processes that draw and preprocess images.
        on_bad_example: "skip" leaves a record out that cannot be read, counts and names it; "stop" raises.
        progress_bar: Show progress.

    Raises:
        AnswerFileError: The file was written with another model, processor, setting or other pictures.
        ValueError: Nothing to ask or to compute, or an item that lacks what its format needs.
        ExampleError: A bad record, with ``on_bad_example="stop"``.
    """
    if not len(items) or not (generate or likelihoods):
        raise ValueError(f"{len(items)} items, generate={generate}, likelihoods={likelihoods}: there is nothing to do")
    items = list(items)
    by_key: dict[str, Mapping[str, Any]] = {}
    for item in items:
        item_kind(item)
        by_key.setdefault(example_key(item), item)
    settings: dict[str, Any] = {"generate": generate, "likelihoods": likelihoods, "max_new_tokens": max_new_tokens}
    settings |= {"system_prompt": system_prompt, "max_length": max_length}
    store = _open_answers(path, settings, model, processor, by_key, load_image)
    images = OncePerPicture(load_image, keep=batch_size)
    collator = EVLECGCollator(
        processor,
        load_image=images,
        system_prompt=system_prompt,
        max_length=max_length,
        on_bad_example=on_bad_example,  # type: ignore[arg-type]
    )
    ask = Asker(model, processor, system_prompt, max_new_tokens if generate else None)
    groups = gather_by_picture(item for key, item in by_key.items() if key not in store.answers)
    collate = PictureCollator(collator, images, share=likelihoods, alone=generate, batch_size=batch_size)
    skipped: list[str] = []
    loader: DataLoader = DataLoader(groups, batch_size, collate_fn=collate, num_workers=num_workers)  # type: ignore[arg-type]
    with tqdm(total=sum(map(len, groups)), desc="answers", delay=3.0, disable=not progress_bar) as bar:
        for batch in loader:
            skipped += batch.skipped
            new = _answers(ask, batch, by_key, generate, likelihoods, batch_size)
            store.add(new, {key: batch.digests[key] for key in new})
            bar.update(batch.asked)
    if skipped:
        logger.warning("%d questions were left out: %s", len(skipped), "; ".join(skipped[:20]))
    answered = [item for item in items if example_key(item) in store.answers]
    return Evaluation(answered, [store.answers[example_key(item)] for item in answered], skipped)


def _open_answers(
    path: str | Path | None,
    settings: Mapping[str, Any],
    model: nn.Module,
    processor: Any,
    by_key: Mapping[str, Mapping[str, Any]],
    load_image: Callable[[Mapping[str, Any]], Image.Image],
) -> AnswerFile:
    """The answers that are there, of this model to these questions about these pictures."""
    if path is None:
        return AnswerFile(None, settings)
    made_from = {
        "model": model_fingerprint(model),
        "processor": processor_fingerprint(processor),
        "images": load_image.fingerprint() if isinstance(load_image, FingerprintedImages) else None,
    }
    store = AnswerFile(path, {**settings, **made_from})
    if record := changed_picture(store.pictures, list(by_key.values()), load_image):
        raise AnswerFileError(f"{path} answers about another picture of {record}; choose another file or remove it")
    for key in store.answers.keys() & by_key.keys() if settings["likelihoods"] else ():
        # The key of an item holds its question and its answer; the options may stand beside them.
        if len(store.answers[key].scores) != len(candidate_answers(by_key[key])):
            record = record_name(by_key[key])
            raise AnswerFileError(f"{path} scores other options for {record}; choose another file or remove it")
    return store


def _answers(
    ask: Asker,
    batch: PictureBatch,
    by_key: Mapping[str, Mapping[str, Any]],
    generate: bool,
    likelihoods: bool,
    rows: int,
) -> dict[str, Answer]:
    """Answers to the questions of one batch by their keys."""

    def candidates(key: str) -> tuple[str, ...]:
        return candidate_answers(by_key[key]) if likelihoods else ()

    texts: dict[str, str | None] = {} if generate else dict.fromkeys(batch.words)
    scores: dict[str, tuple[float, ...]] = {}
    if batch.pictures is not None:
        wanted = [candidates(key) for key in batch.words]
        found = ask.after_images(batch.pictures, list(batch.words.values()), wanted, rows)
        scores.update(zip(batch.words, found, strict=True))
    for questions in batch.questions:
        keys = questions["keys"]
        new = ask(questions, [() if key in scores else candidates(key) for key in keys])
        for key, (text, values) in zip(keys, new, strict=True):
            texts[key] = text
            scores.setdefault(key, values)
    return {key: Answer(record_name(by_key[key]), text, scores[key]) for key, text in texts.items()}
