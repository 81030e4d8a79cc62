"""Distil a vision-language teacher into a student of any other architecture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.models.features import extract_features
from hf_evl_ecg.models.native import base_model, image_token_id
from hf_evl_ecg.models.visual_weights import share_weights

from .checkpoints import WholeCheckpointTrainer
from .collation import (
    answer_groups,
    build_collator,
    check_first_examples,
    check_image_tokens,
    drop_unanswered,
    refuse_collator_fields,
)
from .criterion import (
    CriterionCallback,
    add_parameter_group,
    build_criterion,
    load_criterion,
    save_criterion,
    student_request,
    teacher_request,
)
from .cross_entropy import answer_cross_entropy
from .health import BatchPlace, CollapseWarning, check_loss, leave_out_non_finite
from .meter import TermMeter, check_uses_unanswered, count_answer_tokens, share_terms
from .predictions import AnswerPredictor
from .teacher import OnlineTeacher, TeacherSignal, check_not_same_model

__all__ = ["EVLECGTrainer"]

logger = logging.getLogger(__name__)


class EVLECGTrainer(WholeCheckpointTrainer):
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
        >>> from PIL import Image
        >>> example = {"id": "r1", "image": Image.new("RGB", (56, 40)), "question": "Rhythm?", "answer": "sinus rhythm"}
        >>> trainer = EVLECGTrainer(
        ...     student, EVLECGConfig("out", max_steps=1, mhca_num_heads=4, report_to="none", logging_steps=1, use_cpu=True),
        ...     teacher=teacher, processing_class=processor, teacher_processing_class=teacher_processor,
        ...     train_dataset=[example],
        ... )
        >>> result = trainer.train()  # doctest: +ELLIPSIS
        {'loss': ..., 'ce': ..., 'mhca': ..., 'ot': ..., 'relation': ...}
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
        self._predict_answers = AnswerPredictor(args, processing_class, kwargs.get("compute_metrics"))
        image_token_id(model)
        if isinstance(teacher, nn.Module):
            check_not_same_model(model, teacher)
            teacher = OnlineTeacher(teacher)
        self.teacher: TeacherSignal | None = teacher
        self.criterion = build_criterion(model, teacher, args, (processing_class, teacher_processing_class))
        if args.unanswered == "use":
            check_uses_unanswered(self.criterion.weights, args.hidden_tokens)
        if args.freeze_vision_tower:
            base_model(model).get_encoder(modality="image").requires_grad_(False)
        if data_collator is None:
            read = teacher if self.criterion.needs_teacher else None
            data_collator = build_collator(args, processing_class, teacher_processing_class, read, load_image)
        else:
            refuse_collator_fields(args, load_image)
        if isinstance(data_collator, EVLECGCollator):
            check_image_tokens(data_collator, model, teacher)
        if args.unanswered == "drop" and kwargs.get("train_dataset") is not None:
            kwargs["train_dataset"] = drop_unanswered(kwargs["train_dataset"])
        super().__init__(model, args, data_collator=data_collator, processing_class=processing_class, **kwargs)
        self._check_parallelism()
        self.criterion.to(args.device)
        self.skipped: list[str] = []
        self._step_counts = torch.ones(3)
        self._meter = TermMeter(self.accelerator)
        self.add_callback(CriterionCallback(self.criterion, self.accelerator))
        self.add_callback(CollapseWarning())

    @property
    def student(self) -> nn.Module:
        """The student without any distributed wrapper."""
        assert isinstance(self.model, nn.Module)
        return self.model

    # What is computed

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Fetch the batches of one optimizer step; count its answer tokens and examples over all processes."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(3, device=device)
        for batch in batches:
            counts += count_answer_tokens(batch["labels"]).to(counts)
            self._note_skipped(batch.get("skipped", []))
        # The host's num_items counts labels alone; terms other than cross-entropy are means over examples.
        self._step_counts = self.accelerator.reduce(counts, "sum")
        self._meter.count += 1
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the weighted terms for one micro-batch; its share of the optimizer step while training."""
        request = student_request(self.criterion, self.args, several_processes=self.accelerator.num_processes > 1)
        # The forward pass goes through the distributed wrapper, which would not average the gradients otherwise.
        student = extract_features(
            self.student, model_inputs(inputs), inputs["labels"], request, places=inputs.get("places"), forward=model
        )
        teacher = None
        if self.criterion.needs_teacher and self.teacher is not None:
            teacher = self.teacher.features(inputs, teacher_request(self.criterion, self.args))
            if request.boxes:
                student, teacher = share_weights(student, teacher, self.args.visual_weight_floor)
        count = count_answer_tokens(inputs["labels"]).to(self._step_counts)
        in_step = model.training
        # Data parallelism averages the gradients of the processes, so each weighs its share of the step times their number.
        total, processes = (self._step_counts, self.accelerator.num_processes) if in_step else (count, 1)
        ce = student.hidden.new_zeros((), dtype=torch.float32)
        if student.answer_logits is not None:
            smoothing = self.args.label_smoothing_factor
            ce = answer_cross_entropy(student, total[0].clamp(min=1), label_smoothing=smoothing)
        head = base_model(self.student).get_output_embeddings() if self.criterion.needs_lm_head else None
        taught = self.teacher.lm_head if self.criterion.needs_embeddings and self.teacher is not None else None
        groups = answer_groups(inputs["groups"], teacher) if "groups" in inputs else None
        # Steps that are done, so that a resumed run goes on with the weights it would have had; untrained, those of the end.
        self.criterion.progress = self.state.global_step / self.state.max_steps if self.state.max_steps > 0 else 1.0
        records = inputs.get("records") or [f"sample {row} of the batch" for row in range(len(inputs["labels"]))]
        where = BatchPlace(self.state.global_step + 1, records, inputs["labels"])
        skip = in_step and self.args.on_bad_example == "skip"
        kept, counted, left_out = leave_out_non_finite((student, teacher, groups), where, skip=skip)
        self._note_skipped(left_out)
        terms = self.criterion(*kept[:2], ce * processes, lm_head=head, teacher_lm_head=taught, answer_groups=kept[2])
        shares = counted / total.clamp(min=1) * processes
        terms = share_terms(terms, shares, self.args.hidden_tokens)
        check_loss(terms, student, where)
        loss = torch.stack(list(terms.values())).sum()
        if "ce" not in terms:
            loss = loss + 0 * ce  # see student_request
        watched = shares[2 if self.args.hidden_tokens == "answer" else 1]
        monitors = {name: value * watched for name, value in self.criterion.monitors.items()}
        self._meter.add(terms | monitors, 1.0 if in_step else count[1])
        return (loss, {"features": student}) if return_outputs else loss

    # What is trained and saved

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The student's optimizer, with one more parameter group for aligner and projector."""
        optimizer = super().create_optimizer(model)
        add_parameter_group(optimizer, self.criterion, self.args)
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student; in a checkpoint also what `criterion` has learnt, before older checkpoints are removed."""
        super().save_model(output_dir, _internal_call)
        # Here, not in a callback: the host removes older checkpoints before on_save, and a kill between would lose the last.
        if output_dir is not None and _internal_call and self.args.should_save:
            save_criterion(self.criterion, output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_criterion(self.criterion, resume_from_checkpoint)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; as `transformers.Trainer.train`, after looking at the first examples for training and evaluation.

        Args:
            resume_from_checkpoint: A folder, True or ``"last"``; see
                `hf_evl_ecg.distillation.checkpoints.checkpoint_to_resume`.
            args: As for the host, as the next.
            kwargs: See there.

        Raises:
            ExampleError: If one of the first ``preflight_examples`` of a data set cannot be learnt from.
            CheckpointError: If the checkpoint to resume from is incomplete.
            ValueError: If it does not fit the terms of this run.
        """
        if isinstance(self.data_collator, EVLECGCollator):
            evaluated = self.eval_dataset if self.args.eval_strategy != "no" else None
            check_first_examples(self.data_collator, self.args.preflight_examples, evaluated, self.train_dataset)
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self._report_skipped()
        return output

    # What is reported

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean of each term since the last log beside the loss."""
        if "loss" in logs and self._meter.count:
            logs = {**logs, **self._meter.means()}
        super().log(logs, start_time)

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
        training, self._meter = self._meter, TermMeter(self.accelerator)  # an evaluation may fall between two logs
        try:
            output = super().evaluation_loop(*args, **kwargs)
            if output.metrics is not None:
                prefix = kwargs.get("metric_key_prefix", "eval")
                output.metrics.update({f"{prefix}_{name}": mean for name, mean in self._meter.means().items()})
        finally:
            self._meter = training
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
        self._meter.count += inputs["labels"].shape[0]
        if prediction_loss_only:
            return loss, None, None
        return loss, *self._predict_answers(self.student, inputs)

    def _check_parallelism(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError("several GPUs in one process are not supported; start with accelerate launch or torchrun.")
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "EVLECGTrainer runs on one process or with DistributedDataParallel, not DeepSpeed or FSDP."
            )
