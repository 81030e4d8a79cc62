"""A trained model as a tool: an ECG and a question in, an answer, label probabilities and the picture out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.chat.question_kinds import read_kinds
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.trained_pages import read_pages, stored_pages
from hf_evl_ecg.inference.generation import generate_answers
from hf_evl_ecg.inference.label_scores import LabelScorer, check_labels
from hf_evl_ecg.inference.streaming import stream_answer
from hf_evl_ecg.models.loading import PROVENANCE_KEY, load_vlm
from hf_evl_ecg.models.native import base_model, image_token_id, move_batch
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.qa.prompts import REPORT_QUESTION
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.ecg import ECG

from .doubts import KnownKinds, answer_conflicts, read_measured
from .pictures import ECGPicture, load_picture

__all__ = ["ECGInterpreter", "Interpretation"]

logger = logging.getLogger(__name__)

UNKNOWN_PAGES = "the model does not say how its ECGs were drawn, so recordings are drawn as by default: it may never have seen such a page"

ECGInput = str | Path | ECG | Image.Image


@dataclass(frozen=True)
class Interpretation:
    """What a model makes of one ECG.

    Attributes:
        question: What it was asked.
        answer: Its answer, greedy.
        label_scores: Label → probability of "yes" against "no" to the closed question about it (see
            `hf_evl_ecg.inference.label_scores`), in the order asked. Each stands for itself: they do not sum to 1.
        image: The picture it saw, RGB.
        seconds: Time for ``"read"``, ``"render"``, ``"generate"`` and ``"score"``; in a batch the latter two are the batch's
            time divided by its size.
        unseen_leads: Leads that the picture does not show in full: cut at its edge, or beyond a short recording's end.
        doubts: Why to doubt the answer: it contradicts the label scores, or no such questions were in training or measured.
        measured: What the model's card says of such questions on test records.
    """

    question: str
    answer: str
    label_scores: dict[str, float]
    image: Image.Image
    seconds: dict[str, float]
    unseen_leads: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()


class ECGInterpreter:
    """A native vision-language model that answers questions about ECGs.

    Args:
        model: The model, on the device it runs on.
        processor: Its processor.
        render: How recordings are drawn; None: as the model's folder or config says its training pictures were
            (see `hf_evl_ecg.drawing.trained_pages.read_pages`), else the default, with a notice.
        labels: Labels to score unless a call says otherwise; None: the config's ``"labels"``, or the nine CPSC-2018 classes.
        system_prompt: System message of the chat; None: the config's ``"system_prompt"``, or none.
        temperatures: Task → temperature of the label scores; None: the config's ``"temperatures"``, or 1.
        kinds: Which kinds of questions the model was trained and measured on; None: the config's ``"question_kinds"``.

    Raises:
        UnsupportedModelError: The model takes no images.
        ChatTemplateError: The processor cannot encode a question about an image.
        ValueError: An unknown label, or settings in the config that cannot be used.

    Example:
        >>> interpreter = ECGInterpreter.from_pretrained("ecg-student", device="cpu")
        >>> found = interpreter("records/af", "What is the rhythm?", labels=["AF", "LBBB"], max_new_tokens=8)
        >>> found.question, list(found.label_scores), found.image.size
        ('What is the rhythm?', ['AF', 'LBBB'], (1100, 850))
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        render: RenderConfig | None = None,
        labels: Sequence[str] | None = None,
        system_prompt: str | None = None,
        temperatures: Mapping[str, float] | None = None,
        kinds: KnownKinds | None = None,
    ) -> None:
        image_token_id(model)
        self.model = model.eval()
        self.processor = processor
        self.provenance: dict[str, Any] = dict(getattr(base_model(model).config, PROVENANCE_KEY, None) or {})
        render = render or stored_pages(self.provenance)
        self.notices = () if render else (UNKNOWN_PAGES,)
        self.render = render or RenderConfig()
        for notice in self.notices:
            logger.warning(notice)
        self.labels = check_labels(self.provenance.get("labels", CPSC_CLASSES) if labels is None else labels)
        system = self.provenance.get("system_prompt") if system_prompt is None else system_prompt
        stored = self.provenance.get("temperatures") if temperatures is None else temperatures
        self.temperatures: dict[str, float] = dict(stored or {})
        self.kinds = kinds or KnownKinds(self.provenance.get("question_kinds") or {}, {})
        self._collate = EVLECGCollator(processor, system_prompt=system, on_bad_example="stop")
        self._score = LabelScorer(model, processor, system_prompt=system, temperatures=self.temperatures)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
        render: RenderConfig | None = None,
        labels: Sequence[str] | None = None,
        system_prompt: str | None = None,
        temperatures: Mapping[str, float] | None = None,
        revision: str | None = None,
        **hub_options: Any,
    ) -> ECGInterpreter:
        """Load a model from a folder or the Hub.

        Args:
            model: Folder of an exported model, or its name on the Hub.
            device: Where it runs; None: a GPU if there is one.
            dtype: Type of its weights; ``"auto"``: as they are stored.
            quantization: ``"4bit"`` (NF4) or ``"8bit"``, by bitsandbytes on a GPU; None: as stored.
            render: As in the class, like the next three.
            labels: See there.
            system_prompt: See there.
            temperatures: See there.
            revision: Branch, tag or commit on the Hub.
            hub_options: Further options of transformers' ``from_pretrained``: token, cache_dir, subfolder, local_files_only.

        Raises:
            ModelLoadError: There is no such model, it is damaged, or it cannot be quantized here.
            UnsupportedModelError: The model takes no images.
        """
        network, processor = load_vlm(
            model, device=device, dtype=dtype, quantization=quantization, revision=revision, **hub_options
        )
        hub = {**({"revision": revision} if revision else {}), **hub_options}
        render = render or read_pages(model, **hub)
        made = cls(
            network, processor, render=render, labels=labels, system_prompt=system_prompt, temperatures=temperatures
        )
        made.kinds = KnownKinds(read_kinds(model) or made.kinds.trained, read_measured(model, **hub))
        return made

    def __call__(
        self,
        ecg: ECGInput,
        question: str | None = None,
        *,
        labels: Sequence[str] | None = None,
        max_new_tokens: int = 256,
    ) -> Interpretation:
        """Interpret one ECG.

        Args:
            ecg: Path of what `hf_evl_ecg.interpret.pictures.read_source` takes, an `ECG`, or a picture.
            question: The question; None asks for a report.
            labels: Codes to score; None: those of the interpreter; an empty list: none, which is faster.
            max_new_tokens: Longest answer in tokens.

        Raises:
            ECGRecordError: The record cannot be read.
            UnreadableImageError: The picture cannot be read.
            ValueError: An empty question, an unknown label, or no room for an answer.
        """
        questions = None if question is None else [question]
        return self.batch([ecg], questions, labels=labels, max_new_tokens=max_new_tokens, batch_size=1)[0]

    def batch(
        self,
        ecgs: Sequence[ECGInput],
        questions: str | Sequence[str] | None = None,
        *,
        batch_size: int = 8,
        labels: Sequence[str] | None = None,
        max_new_tokens: int = 256,
        on_bad_ecg: Callable[[int, ValueError], None] | None = None,
    ) -> list[Interpretation]:
        """Interpret several ECGs; answers do not depend on what else is in the batch, up to rounding.

        Args:
            ecgs: As in a single call.
            questions: One for all, one for each, or None: reports.
            batch_size: ECGs at once.
            labels: As in a single call.
            max_new_tokens: As in a single call.
            on_bad_ecg: Called with the index and the error of each ECG that cannot be read, which is then left out of the
                result; None: the first one raises.

        Raises:
            ValueError: Another number of questions than ECGs, a batch size below 1; and as in a single call.
            TypeError: One ECG instead of several.
        """
        if isinstance(ecgs, ECGInput):
            raise TypeError(f"ecgs is one {type(ecgs).__name__}; give a list, or call the interpreter itself")
        asked = self._questions(questions, len(ecgs))
        wanted = self.labels if labels is None else check_labels(labels)
        check_at_least("batch_size", batch_size, 1)
        check_at_least("max_new_tokens", max_new_tokens, 1)
        done: list[Interpretation] = []
        for start in range(0, len(ecgs), batch_size):
            pictures, own = [], []
            for index in range(start, min(start + batch_size, len(ecgs))):
                try:
                    pictures.append(load_picture(ecgs[index], self.render))
                except (ECGRecordError, UnreadableImageError) as error:
                    if on_bad_ecg is None:
                        raise
                    on_bad_ecg(index, error)
                else:
                    own.append(asked[index])
            if not pictures:
                continue
            answers, scores, seconds = self._ask(pictures, own, wanted, max_new_tokens)
            done += [
                Interpretation(
                    *(question, answer, found, picture.image, picture.seconds | seconds, picture.unseen_leads),
                    doubts=self.doubts(question, answer, found),
                    measured=tuple(self.kinds.results(question)),
                )
                for picture, question, answer, found in zip(pictures, own, answers, scores, strict=True)
            ]
        return done

    def stream(self, ecg: ECGInput, question: str | None = None, *, max_new_tokens: int = 256) -> Iterator[str]:
        """Answer in pieces of text as they are generated; joined they are the `Interpretation.answer` of a call.

        Bad input raises here, not at the first piece. Closing the iterator ends the generation.

        Args:
            ecg: As in a call.
            question: As in a call.
            max_new_tokens: As in a call.

        Raises:
            ECGRecordError: As in a call, like the others there.
        """
        check_at_least("max_new_tokens", max_new_tokens, 1)
        asked = self._questions(None if question is None else [question], 1)
        batch = self._encode([load_picture(ecg, self.render)], asked)
        return stream_answer(self.model, batch, self.processor.tokenizer, max_new_tokens=max_new_tokens)

    def doubts(self, question: str, answer: str, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Why an answer of this model should be doubted, as in `Interpretation.doubts`."""
        return (*answer_conflicts(question, answer, scores), *self.kinds.doubts(question))

    def _questions(self, questions: str | Sequence[str] | None, count: int) -> list[str]:
        if questions is None or isinstance(questions, str):
            questions = [REPORT_QUESTION if questions is None else questions] * count
        if len(questions) != count:
            raise ValueError(f"{len(questions)} questions for {count} ECGs; give one for each, one for all, or none")
        if not all(question.strip() for question in questions):
            raise ValueError("a question is empty; leave it out to ask for a report")
        return list(questions)

    def _ask(
        self, pictures: Sequence[ECGPicture], questions: Sequence[str], labels: Sequence[str], max_new_tokens: int
    ) -> tuple[list[str], list[dict[str, float]], dict[str, float]]:
        """Answers, label scores, and seconds per ECG."""
        started = time.perf_counter()
        batch = self._encode(pictures, questions)
        answers = generate_answers(self.model, batch, self.processor.tokenizer, max_new_tokens=max_new_tokens)
        generated = time.perf_counter()
        scores = self._score(batch, labels)
        scored = time.perf_counter()
        count = len(pictures)
        return answers, scores, {"generate": (generated - started) / count, "score": (scored - generated) / count}

    def _encode(self, pictures: Sequence[ECGPicture], questions: Sequence[str]) -> dict[str, Any]:
        """Collated questions on the model's device; the collator wants an answer, which prompts leave out again."""
        batch = self._collate(
            [
                {"id": picture.name, "image": picture.image, "question": question, "answer": "yes"}
                for picture, question in zip(pictures, questions, strict=True)
            ]
        )
        return move_batch(batch, self.model)
