"""The collator of a run: built from its arguments and processors, and whether it fits the models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import Subset

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.encoding import image_tokens
from hf_evl_ecg.chat.examples import InkLoader, UnreadableImageError, is_answered, record_name
from hf_evl_ecg.chat.remembered import RememberedInk, RememberedPages, remember_processing
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.models.native import UnsupportedModelError, image_token_id
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures

from .cache import CachedTeacher
from .teacher import OnlineTeacher, TeacherSignal

__all__ = [
    "answer_groups",
    "build_collator",
    "check_first_examples",
    "check_image_tokens",
    "drop_unanswered",
    "refuse_collator_fields",
]

logger = logging.getLogger(__name__)

_FIELDS = ("max_length", "teacher_max_length", "system_prompt", "teacher_system_prompt", "on_bad_example")


def build_collator(
    args: EVLECGConfig,
    student_processor: Any,
    teacher_processor: Any,
    teacher: TeacherSignal | None,
    load_image: Callable[[Mapping[str, Any]], Any] | None,
) -> EVLECGCollator:
    """The collator that a student and its teacher need.

    Args:
        args: Arguments of the run.
        student_processor: The student's processor.
        teacher_processor: The teacher's processor.
        teacher: Where the teacher's features come from; None if no term reads them.
        load_image: Example → PIL image; `ImageFile` if None.

    Raises:
        ValueError: If a processor is missing.
    """
    if student_processor is None:
        raise ValueError("give the student's processor as processing_class, or a data_collator.")
    if teacher_processor is None and isinstance(teacher, OnlineTeacher):
        raise ValueError("give the teacher's processor as teacher_processing_class, or a data_collator.")
    load_image = load_image or ImageFile()
    ink = args.visual_weights == "ink" and isinstance(teacher, OnlineTeacher)  # a cache holds it
    if args.remember_pages:
        kind = RememberedInk if ink and isinstance(load_image, InkLoader) else RememberedPages
        load_image = kind(load_image, args.remember_pages)
        student_processor = remember_processing(student_processor)
        teacher_processor = (
            remember_processing(teacher_processor) if isinstance(teacher, OnlineTeacher) else teacher_processor
        )
    return EVLECGCollator(
        student_processor,
        teacher_processor if teacher is not None else None,
        load_image=load_image,
        teacher_images=isinstance(teacher, OnlineTeacher),
        cached_keys=teacher.keys if isinstance(teacher, CachedTeacher) else None,
        ink=ink,
        unanswered="use" if args.unanswered == "use" else "refuse",
        **{name: getattr(args, name) for name in _FIELDS},
    )


def drop_unanswered(examples: Any) -> Any:
    """Leave out the examples whose last question has no answer.

    Args:
        examples: A `datasets.Dataset`, a stream of examples with ``filter``, or a sequence.

    Example:
        >>> list(drop_unanswered([{"question": "Rhythm?", "answer": "AF"}, {"question": "Axis?", "answer": None}]))
        [{'question': 'Rhythm?', 'answer': 'AF'}]
    """
    if isinstance(examples, IterableDataset):
        return examples.filter(is_answered)
    kept = [number for number, example in enumerate(examples) if is_answered(example)]
    if len(kept) < len(examples):
        logger.info(
            "%d of %d training examples have no answer and are left out", len(examples) - len(kept), len(examples)
        )
    return examples.select(kept) if isinstance(examples, Dataset) else Subset(examples, kept)


def refuse_collator_fields(args: EVLECGConfig, load_image: Any) -> None:
    """Raise for arguments that a data collator of the user's own makes void."""
    defaults = EVLECGConfig.__dataclass_fields__
    given = [name for name in (*_FIELDS, "remember_pages") if getattr(args, name) != defaults[name].default]
    given += ["load_image"] if load_image is not None else []
    given += ["unanswered='use'"] if args.unanswered == "use" else []
    if given:
        raise ValueError(f"{', '.join(given)} would have no effect beside a data_collator; set them on the collator.")


def check_image_tokens(collator: EVLECGCollator, model: nn.Module, teacher: TeacherSignal | None) -> None:
    """Raise unless models and processors mean the same token by an image.

    Raises:
        UnsupportedModelError: If they do not.
    """
    pairs = [(model, collator.student_processor, "student")]
    if isinstance(teacher, OnlineTeacher) and collator.teacher_processor is not None:
        pairs.append((teacher.model, collator.teacher_processor, "teacher"))
    for network, processor, name in pairs:
        known = image_tokens(processor)
        if image_token_id(network) not in known.values():
            raise UnsupportedModelError(
                f"the {name}'s configuration has image token {image_token_id(network)}, its processor {known}; "
                "load both from one place."
            )


def check_first_examples(collator: EVLECGCollator, number: int, evaluated: Any, trained: Any) -> None:
    """Collate the first examples of each data set, so that a run that cannot work stops before its first step.

    A record for training that cannot be read is left out here too, where the run leaves such records out: it says nothing of the others.

    Args:
        collator: The run's.
        number: Examples of each; 0 looks at none.
        evaluated: A data set, several by name, or None.
        trained: A data set or None.

    Raises:
        ExampleError: If one of them cannot be learnt from, or no record for training can be read.
    """
    tested = evaluated.values() if isinstance(evaluated, dict) else [evaluated]
    for dataset in (*tested, trained):
        examples = list(islice(iter(dataset or ()), number))
        while examples:
            try:
                collator.check(examples)
                break
            except UnreadableImageError as error:
                if (
                    dataset is not trained
                    or collator.on_bad_example == "stop"
                    or {record_name(e) for e in examples} == {error.record}
                ):
                    raise
                examples = [example for example in examples if record_name(example) != error.record]
                logger.warning("%s; it will be left out", error)


def answer_groups(groups: Mapping[str, Tensor], teacher: TokenFeatures | None) -> AnswerGroups:
    """Groups of a batch; those of answer tokens that a cached teacher never saw (``teacher_max_length``) are cut."""
    if teacher is None or teacher.answer_mask is None:
        return AnswerGroups(**groups)
    missing = teacher.answer_mask.shape[1] - groups["teacher"].shape[1]
    return AnswerGroups(nn.functional.pad(groups["teacher"], (0, missing), value=-1), groups["student"])
