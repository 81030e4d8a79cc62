"""Where the teacher's features come from: the teacher itself, frozen, or a cache of what it said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import base_model, image_token_id, move_batch
from hf_evl_ecg.tokens import TokenFeatures

__all__ = ["OnlineTeacher", "SameModelError", "TeacherSignal", "check_not_same_model"]


class SameModelError(ValueError):
    """Teacher and student are one model."""


class TeacherSignal(Protocol):
    """Features of a collated batch; what the trainer asks a teacher for."""

    @property
    def hidden_dim(self) -> int:
        """Width of the teacher's hidden states and visual tokens."""

    @property
    def exact_ranks(self) -> int | None:
        """How many of the largest answer probabilities are exact; None: all."""

    @property
    def lm_head(self) -> nn.Module | None:
        """What makes logits of the last hidden states; None where only features are known."""

    def features(self, batch: Mapping[str, Any], request: FeatureRequest) -> TokenFeatures:
        """Features without gradient, on the device of ``batch["input_ids"]``."""


class OnlineTeacher:
    """A teacher that runs beside the student: frozen, in eval mode, never with gradient.

    It is no ``nn.Module``, so it can end up neither in the student's weights nor in an optimiser.

    Args:
        model: A native vision-language model. Its parameters are frozen and it is put into eval mode.

    Raises:
        UnsupportedModelError: If the model has no image tokens.

    Example:
        >>> from PIL import Image
        >>> from hf_evl_ecg.chat.collator import EVLECGCollator
        >>> picture = Image.new("RGB", (56, 40), "white")
        >>> collate = EVLECGCollator(processor, teacher_processor)  # of student and teacher
        >>> batch = collate([{"id": "r1", "image": picture, "question": "Rhythm?", "answer": "sinus rhythm"}])
        >>> features = OnlineTeacher(teacher).features(batch, FeatureRequest(logits=False))
        >>> features.hidden.shape[-1], features.hidden.requires_grad
        (48, False)
    """

    def __init__(self, model: nn.Module) -> None:
        image_token_id(model)
        self.model = model.eval().requires_grad_(False)  # with dropout the target would change from step to step

    @property
    def hidden_dim(self) -> int:
        """Width of the teacher's hidden states and visual tokens."""
        return base_model(self.model).config.get_text_config().hidden_size

    @property
    def exact_ranks(self) -> int | None:
        """None: every answer probability is exact."""
        return None

    @property
    def lm_head(self) -> nn.Module | None:
        """The model's LM head."""
        return base_model(self.model).get_output_embeddings()

    def features(self, batch: Mapping[str, Any], request: FeatureRequest) -> TokenFeatures:
        """Run the teacher on ``batch["teacher"]``, in the dtype of its weights.

        Raises:
            ValueError: If the batch holds no teacher inputs.
        """
        if "teacher" not in batch:
            raise ValueError("the batch holds no teacher inputs; give EVLECGCollator the teacher's processor.")
        device = batch["input_ids"].device
        if (
            base_model(self.model).device != device
        ):  # the trainer places the student only; the teacher follows the batch
            self.model.to(device)
        inputs, labels, places = self.inputs(batch)
        with torch.no_grad():
            return extract_features(self.model, inputs, labels, request, places=places, ink=batch.get("ink"))

    def inputs(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The teacher's forward arguments, on its device and with pixels in its dtype, its labels and places."""
        inputs = move_batch(batch["teacher"], self.model)
        return inputs, inputs.pop("labels"), inputs.pop("places", None)


def check_not_same_model(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that is the student, or was loaded from the same place.

    Raises:
        SameModelError: If so.
    """
    names = [base_model(model).config._name_or_path for model in (student, teacher)]
    if base_model(student) is base_model(teacher):
        raise SameModelError("teacher and student are the same object; load the teacher by itself.")
    if names[0] and names[0] == names[1]:  # a model that was built from a config has an empty name
        raise SameModelError(
            f"teacher and student were both loaded from {names[0]!r}; there is nothing to distil. Give another teacher."
        )
