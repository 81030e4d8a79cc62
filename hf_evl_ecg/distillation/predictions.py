"""What ``compute_metrics`` gets of an evaluated batch, as ``eval_predictions`` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_evl_ecg.chat.batches import first_answer
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.inference.generation import generate_ids
from hf_evl_ecg.inference.likelihood import answer_token_ids, label_likelihoods

__all__ = ["AnswerPredictor"]


class AnswerPredictor:
    """Batch → predictions and labels; nothing but the loss with ``eval_predictions="loss"``.

    Args:
        args: Arguments of the run.
        processor: The student's processor.
        compute_metrics: The user's metrics.

    Raises:
        ValueError: If ``compute_metrics`` would never be called, or the processor is missing.
    """

    def __init__(self, args: EVLECGConfig, processor: Any, compute_metrics: Any) -> None:
        if args.eval_predictions == "loss" and compute_metrics is not None:
            raise ValueError(
                "compute_metrics would never be called with eval_predictions='loss'; choose 'generate' or 'likelihood'."
            )
        if args.eval_predictions != "loss" and processor is None:
            raise ValueError(
                f"eval_predictions={args.eval_predictions!r} needs the student's processor as processing_class."
            )
        self.args = args
        self.processor = processor
        self._candidates = (
            answer_token_ids(processor, args.candidate_answers, system=args.system_prompt)
            if args.candidate_answers
            else []
        )

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
        """Predictions for each example, and the token ids of its first answer (-100 where there is none).

        Args:
            model: The student, not a distributed wrapper around it.
            batch: From the collator, on the model's device.
        """
        kind, length = self.args.eval_predictions, self.args.max_new_tokens
        if kind == "loss":
            return None, None
        tokenizer = self.processor.tokenizer
        answers = first_answer(batch["labels"])
        if kind == "likelihood":
            return label_likelihoods(model, batch, self._candidates, tokenizer.pad_token_id), answers
        new = generate_ids(model, batch, tokenizer, max_new_tokens=length)
        # to one width, as the host gathers the predictions of several processes into one tensor
        new = nn.functional.pad(new, (0, length - new.shape[1]), value=tokenizer.pad_token_id)
        return new, answers
