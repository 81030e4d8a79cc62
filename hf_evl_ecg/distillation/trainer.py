"""Distil a vision-language teacher into a student of any other architecture."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

from hf_evl_ecg.chat.batches import first_answer, model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError
from hf_evl_ecg.chat.encoding import image_tokens
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.cross_entropy import answer_cross_entropy
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.inference.generation import generate_ids
from hf_evl_ecg.inference.likelihood import answer_token_ids, label_likelihoods
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import UnsupportedModelError, base_model, image_token_id
from hf_evl_ecg.tokens import IGNORE, AnswerGroups, TokenFeatures

from .cache import CachedTeacher
from .criterion import CriterionCallback, build_criterion, load_criterion, save_criterion
from .teacher import OnlineTeacher, TeacherSignal, check_not_same_model

__all__ = ["EVLECGTrainer"]

logger = logging.getLogger(__name__)

_COLLATOR_FIELDS = ("max_length", "teacher_max_length", "system_prompt", "teacher_system_prompt", "on_bad_example")


class EVLECGTrainer(Trainer):
    """Trains a student on answers and on a frozen teacher's features (EVL-ECG, arXiv 2605.29977).

    The student alone is ``self.model``: what is saved, exported and pushed holds nothing of the teacher and nothing of
    aligner and projector (``self.criterion``). Those two have a parameter group of their own, are kept equal on all
    processes, and are saved for resuming in ``distillation.safetensors`` beside each checkpoint's optimizer. Works on
    one process or with ``accelerate launch`` / ``torchrun`` (DistributedDataParallel).

    Cross-entropy is a mean over all answer tokens of an optimizer step, the other terms are means over its examples,
    so gradient accumulation and data parallelism do not change the loss.

    Args:
        model: The student: a native vision-language model, or a PEFT model around one.
        args: Arguments; ``EVLECGConfig()`` if None.
        teacher: A vision-language model, or a signal such as `CachedTeacher`. None if all its terms have weight zero.
        processing_class: The student's processor.
        teacher_processing_class: The teacher's processor. With a cached teacher its images are not prepared.
        load_image: Example → PIL image: `ImageFile` (default), `RenderedECG` or your own.
        data_collator: Instead of the three above.
        kwargs: Further arguments of `transformers.Trainer`: ``train_dataset``, ``eval_dataset``, ``compute_metrics`` …

    Raises:
        SameModelError: If teacher and student are one model, or were loaded from one place.
        UnsupportedModelError: If one of the models has no image tokens, or others than its processor.
        ValueError: If a teacher is needed and missing, or the arguments do not fit together.

    Example:
        >>> trainer = EVLECGTrainer(  # doctest: +SKIP
        ...     student, EVLECGConfig("out"), teacher=teacher, processing_class=student_processor,
        ...     teacher_processing_class=teacher_processor, train_dataset=dataset,
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the counts of the whole step
    args: EVLECGConfig

    def __init__(
        self,
        model: nn.Module,
        args: EVLECGConfig | None = None,
        *,
        teacher: nn.Module | TeacherSignal | None = None,
        processing_class: Any = None,
        teacher_processing_class: Any = None,
        load_image: Callable[[Mapping[str, Any]], Any] | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        args = EVLECGConfig() if args is None else args
        if not isinstance(args, EVLECGConfig):
            raise ValueError(f"args is {type(args).__name__}; EVLECGTrainer takes an EVLECGConfig.")
        _check_metrics(args, processing_class, kwargs.get("compute_metrics"))
        image_token_id(model)
        if isinstance(teacher, nn.Module):
            check_not_same_model(model, teacher)
            teacher = OnlineTeacher(teacher)
        self.teacher: TeacherSignal | None = teacher
        self.criterion = build_criterion(model, teacher, args)
        if args.freeze_vision_tower:
            base_model(model).get_encoder(modality="image").requires_grad_(False)
        if data_collator is None:
            data_collator = self._build_collator(args, processing_class, teacher_processing_class, load_image)
        else:
            _refuse_collator_fields(args, load_image)
        if isinstance(data_collator, EVLECGCollator):
            _check_image_tokens(data_collator, model, teacher)
        self._candidates = (
            answer_token_ids(processing_class, args.candidate_answers, system=args.system_prompt)
            if args.candidate_answers
            else []
        )
        super().__init__(model, args, data_collator=data_collator, processing_class=processing_class, **kwargs)
        self._check_parallelism()
        self.criterion.to(args.device)
        self.skipped: list[str] = []
        self._step_counts = torch.ones(2)
        self._sums = self._new_sums()
        self._steps_summed = 0
        self.add_callback(CriterionCallback(self.criterion, self.accelerator))

    @property
    def student(self) -> nn.Module:
        """The student without any distributed wrapper."""
        assert isinstance(self.model, nn.Module)
        return self.model

    # What is computed

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Fetch the batches of one optimizer step and count its answer tokens and examples over all processes."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self._note_skipped(batch.get("skipped", []))
        counts = torch.zeros(2, device=device)
        for batch in batches:
            counts += _counts(batch["labels"]).to(counts)
        self._step_counts = self.accelerator.reduce(counts, "sum")
        self._steps_summed += 1
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the weighted terms for one micro-batch; its share of the optimizer step while training."""
        student = self._student_features(model, inputs)
        teacher = None
        if self.criterion.needs_teacher and self.teacher is not None:
            teacher = self.teacher.features(inputs, self._request(self.args.teacher_layer, teacher=True))
        count = _counts(inputs["labels"]).to(self._step_counts)
        in_step = model.training
        total, processes = (self._step_counts, self.accelerator.num_processes) if in_step else (count, 1)
        ce = student.hidden.new_zeros((), dtype=torch.float32)
        if student.answer_logits is not None:
            smoothing = self.args.label_smoothing_factor
            ce = answer_cross_entropy(student, total[0].clamp(min=1), label_smoothing=smoothing)
        head = base_model(self.student).get_output_embeddings() if self.criterion.needs_lm_head else None
        groups = _answer_groups(inputs["groups"], teacher) if "groups" in inputs else None
        terms = self.criterion(student, teacher, ce, lm_head=head, answer_groups=groups)
        share = count[1] / total[1]
        terms = {name: term * processes * (1.0 if name == "ce" else share) for name, term in terms.items()}
        loss = torch.stack(list(terms.values())).sum()
        if "ce" not in terms:
            loss = loss + 0 * ce  # see _request
        weight = 1.0 if in_step else count[1]
        monitors = {name: value * share * processes for name, value in self.criterion.monitors.items()}
        for name, value in (terms | monitors).items():
            self._sums[name] += value.detach() * weight
        return (loss, {"features": student}) if return_outputs else loss

    def _student_features(self, model: nn.Module, inputs: Mapping[str, Any]) -> TokenFeatures:
        request = self._request(self.args.student_layer, teacher=False)
        return extract_features(self.student, model_inputs(inputs), inputs["labels"], request, forward=model)

    def _request(self, layer: int, *, teacher: bool) -> FeatureRequest:
        """What the terms of positive weight read.

        DistributedDataParallel waits for the gradient of all that the forward pass returns, so on several processes the
        student's logits enter the loss even at weight zero.
        """
        needs_ce = (self.criterion.weights["ce"] > 0 or self.accelerator.num_processes > 1) and not teacher
        return FeatureRequest(
            tokens=self.args.hidden_tokens,  # type: ignore[arg-type]
            layer=layer,
            visual=self.criterion.needs_visual,
            logits=self.criterion.needs_logits or needs_ce,
            visual_pool=self.args.teacher_visual_pool if teacher else 1,
            positions=self.criterion.needs_visual and self.args.ot_position_weight > 0,
        )

    # What is trained and saved

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The student's optimizer, with one more parameter group for aligner and projector."""
        optimizer = super().create_optimizer(model)
        present = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [p for p in self.criterion.parameters() if id(p) not in present]
        if own:
            decay = self.args.aligner_weight_decay
            optimizer.add_param_group({"params": own, "lr": self.args.aligner_learning_rate, "weight_decay": decay})
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student; in a checkpoint also what `criterion` has learnt, before older checkpoints are removed."""
        super().save_model(output_dir, _internal_call)
        if output_dir is not None and _internal_call and self.args.should_save:
            save_criterion(self.criterion, output_dir)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; as `transformers.Trainer.train`, after looking at the first examples for training and evaluation.

        Raises:
            ExampleError: If one of the first ``preflight_examples`` of a data set cannot be learnt from.
            ValueError: If the checkpoint to resume from does not fit the terms of this run.
        """
        self._look_at_first_examples()
        if resume_from_checkpoint:
            folder = resume_from_checkpoint
            if folder is True:
                folder = get_last_checkpoint(str(self.args.output_dir))
            if isinstance(folder, str):
                load_criterion(self.criterion, folder)
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self._report_skipped()
        return output

    def _look_at_first_examples(self) -> None:
        if not self.args.preflight_examples or not isinstance(self.data_collator, EVLECGCollator):
            return
        evaluated = self.eval_dataset if self.args.eval_strategy != "no" else None
        tested = evaluated.values() if isinstance(evaluated, dict) else [evaluated]
        for dataset in (*tested, self.train_dataset):
            if examples := list(islice(iter(dataset or ()), self.args.preflight_examples)):
                self.data_collator.check(examples)

    # What is reported

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean of each term since the last log beside the loss."""
        if "loss" in logs and self._steps_summed:
            logs = {**logs, **self._mean_terms(self._steps_summed)}
            self._steps_summed = 0
        super().log(logs, start_time)

    def _new_sums(self) -> defaultdict[str, Tensor]:
        return defaultdict(lambda: torch.zeros((), device=self.args.device))

    def _mean_terms(self, count: float) -> dict[str, float]:
        """Means over processes of the summed terms, which start anew."""
        means = {n: float(self.accelerator.reduce(v / count, "mean")) for n, v in sorted(self._sums.items())}
        self._sums.clear()
        return means

    def _note_skipped(self, reasons: list[str]) -> None:
        self.skipped += reasons
        for reason in reasons:
            logger.warning("left out %s", reason)

    def _report_skipped(self) -> None:
        count = torch.tensor(float(len(self.skipped)), device=self.args.device)
        total = int(self.accelerator.reduce(count, "sum"))
        if total:
            logger.warning("%d examples were left out while training; each is named above.", total)
            self.log({"skipped_examples": total})

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate, and report the mean of each term over the examples."""
        training, self._sums = self._sums, self._new_sums()
        try:
            output = super().evaluation_loop(*args, **kwargs)
            examples = float(self._sums.pop("examples", torch.ones(())))
            if self._sums and output.metrics is not None:
                prefix = kwargs.get("metric_key_prefix", "eval")
                output.metrics.update({f"{prefix}_{n}": value for n, value in self._mean_terms(examples).items()})
        finally:
            self._sums = training
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss, what ``eval_predictions`` names, and the token ids of the first answer (-100 where there is none)."""
        if inputs.get("skipped"):
            raise ExampleError("evaluation", f"metrics need every example, but: {'; '.join(inputs['skipped'])}")
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs).detach()
        self._sums["examples"] += inputs["labels"].shape[0]
        kind = self.args.eval_predictions
        if prediction_loss_only or kind == "loss":
            return loss, None, None
        tokenizer = self.processing_class.tokenizer  # type: ignore[union-attr]
        if kind == "generate":
            new = generate_ids(self.student, inputs, tokenizer, max_new_tokens=self.args.max_new_tokens)
            predictions = nn.functional.pad(
                new, (0, self.args.max_new_tokens - new.shape[1]), value=tokenizer.pad_token_id
            )
        else:
            predictions = label_likelihoods(self.student, inputs, self._candidates, tokenizer.pad_token_id)
        return loss, predictions, first_answer(inputs["labels"])

    # What is checked

    def _build_collator(
        self, args: EVLECGConfig, student: Any, teacher: Any, load_image: Callable[..., Any] | None
    ) -> EVLECGCollator:
        if student is None:
            raise ValueError("give the student's processor as processing_class, or a data_collator.")
        if self.criterion.needs_teacher and teacher is None and isinstance(self.teacher, OnlineTeacher):
            raise ValueError("give the teacher's processor as teacher_processing_class, or a data_collator.")
        cached = self.teacher if isinstance(self.teacher, CachedTeacher) and self.criterion.needs_teacher else None
        return EVLECGCollator(
            student,
            teacher if self.criterion.needs_teacher else None,
            load_image=load_image or ImageFile(),
            teacher_images=isinstance(self.teacher, OnlineTeacher),
            cached_keys=cached.keys if cached is not None else None,
            **{name: getattr(args, name) for name in _COLLATOR_FIELDS},
        )

    def _check_parallelism(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError("several GPUs in one process are not supported; start with accelerate launch or torchrun.")
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "EVLECGTrainer runs on one process or with DistributedDataParallel, not DeepSpeed or FSDP."
            )


def _refuse_collator_fields(args: EVLECGConfig, load_image: Any) -> None:
    """A data collator of one's own makes these arguments void."""
    defaults = EVLECGConfig.__dataclass_fields__
    given = [name for name in _COLLATOR_FIELDS if getattr(args, name) != defaults[name].default]
    given += ["load_image"] if load_image is not None else []
    if given:
        raise ValueError(f"{', '.join(given)} would have no effect beside a data_collator; set them on the collator.")


def _check_metrics(args: EVLECGConfig, processing_class: Any, compute_metrics: Any) -> None:
    if args.eval_predictions == "loss" and compute_metrics is not None:
        raise ValueError(
            "compute_metrics would never be called with eval_predictions='loss'; choose 'generate' or 'likelihood'."
        )
    if args.eval_predictions != "loss" and processing_class is None:
        raise ValueError(
            f"eval_predictions={args.eval_predictions!r} needs the student's processor as processing_class."
        )


def _check_image_tokens(collator: EVLECGCollator, model: nn.Module, teacher: TeacherSignal | None) -> None:
    """Models and processors must mean the same token by an image."""
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


def _answer_groups(groups: Mapping[str, Tensor], teacher: TokenFeatures | None) -> AnswerGroups:
    """Groups of a batch; those of answer tokens that a cached teacher never saw (``teacher_max_length``) are cut."""
    if teacher is None or teacher.answer_mask is None:
        return AnswerGroups(**groups)
    missing = teacher.answer_mask.shape[1] - groups["teacher"].shape[1]
    return AnswerGroups(nn.functional.pad(groups["teacher"], (0, missing), value=-1), groups["student"])


def _counts(labels: Tensor) -> Tensor:
    """Answer tokens and examples of a batch. Shape: (2,)."""
    return torch.stack([(labels[:, 1:] != IGNORE).sum(), torch.tensor(labels.shape[0], device=labels.device)])
