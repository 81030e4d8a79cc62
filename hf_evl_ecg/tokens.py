"""What the losses see of a batch: token features of one model, and which answer tokens of two models belong together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["IGNORE", "IMAGE_TURN", "NO_TURN", "PADDING_PLACE", "AnswerGroups", "TokenFeatures", "visible_tokens"]

IGNORE = -100  # the label that torch's cross-entropy and every transformers model leave out

# What stands for the number of a turn in the places of tokens, where a token belongs to none.
IMAGE_TURN = -1  # an image token
NO_TURN = -2  # what comes before the first question: beginning of the text, system prompt, marks around the image
PADDING_PLACE = -3  # padding: turn and byte


@dataclass(frozen=True)
class TokenFeatures:
    """What one model says about one batch, token by token: the only thing the losses see of a model.

    Student and teacher features of one batch share ``B`` and the answers; every other size may differ.

    Attributes:
        hidden: Hidden states of the covered tokens, last layer by default. Shape: (B, L, D).
        mask: True where ``hidden`` holds a token, False on padding. Shape: (B, L), bool.
        visual: Projector outputs at the image-token positions. Shape: (B, N, D).
        visual_mask: True where ``visual`` holds a token. Shape: (B, N), bool.
        visual_positions: Patch centres (x, y) as fractions of the image. Shape: (B, N, 2).
        visual_boxes: Patch centres and sizes (x, y, width, height). Shape: (B, N, 4).
        visual_index: Index within ``L`` of each visual token, -1 at padding and where it is not covered. Shape: (B, N), int64.
        visual_weights: What each visual token is worth in the transport term, of any scale; None: all the same. Shape: (B, N).
        visual_map: The same for each cell of an even grid over the image, for models that cut it up otherwise. Shape: (B, G, G).
        hidden_weights: What each covered token is worth in the relation term; None: all the same. Shape: (B, L).
        answer_hidden: States that predict the answer tokens. Shape: (B, A, D).
        answer_logits: LM-head outputs of ``answer_hidden``, or the largest of them. Shape: (B, A, V).
        answer_logsumexp: Log of the sum of the exponentials of all logits, where only the largest are given.
            Shape: (B, A).
        answer_ids: Tokens to predict, padding -100. Shape: (B, A), int64.
        answer_mask: True where ``answer_ids`` holds a token. Shape: (B, A), bool.
        answer_index: Index within ``L`` of the predicting state, padding -1. Shape: (B, A), int64.
        answer_read: Input embedding of the token that each predicting state stands at, without gradient. Shape: (B, A, D).
        answer_wanted: Input embedding of each answer token, without gradient. Shape: (B, A, D).
        places: Turn and byte at which the text of each covered token starts (`hf_evl_ecg.chat.places`); the turn of a token
            outside of every turn is ``IMAGE_TURN`` or ``NO_TURN``, padding is ``PADDING_PLACE``. Shape: (B, L, 2), int64.
    """

    hidden: Tensor
    mask: Tensor
    visual: Tensor | None
    visual_mask: Tensor | None
    visual_positions: Tensor | None = None
    answer_hidden: Tensor | None = None
    answer_logits: Tensor | None = None
    answer_logsumexp: Tensor | None = None
    answer_ids: Tensor | None = None
    answer_mask: Tensor | None = None
    answer_index: Tensor | None = None
    answer_read: Tensor | None = None
    answer_wanted: Tensor | None = None
    places: Tensor | None = None
    visual_boxes: Tensor | None = None
    visual_index: Tensor | None = None
    visual_weights: Tensor | None = None
    visual_map: Tensor | None = None
    hidden_weights: Tensor | None = None


@dataclass(frozen=True)
class AnswerGroups:
    """Which answer tokens of teacher and student cover the same bytes.

    Attributes:
        teacher: Group of each teacher answer token, counted from 0 in each sample; -1 at padding and where the answers
            have no counterpart. Shape: (B, A_t), int64.
        student: The same for the student, with the same groups. Shape: (B, A_s), int64.
    """

    teacher: Tensor
    student: Tensor


def visible_tokens(student_places: Tensor, teacher_places: Tensor, attention: str) -> Tensor:
    """Which teacher tokens a student token may attend to, by where their texts start (`hf_evl_ecg.chat.places`).

    ``"turn"``: the image, what comes before the first question, and the text of the token's own turn. Answers of other
    turns would make the target nearly independent of the question. ``"aligned"``: of the own turn only text that starts no
    later than the token's own, so that a state which predicts an answer is not shown the teacher's state of that answer. It
    is the token's *own* text that counts, not the one it predicts. Tokens of no turn (image, system prompt) see those of no
    turn. ``"all"`` needs no places: every covered teacher token.

    Args:
        student_places: Turn and byte of each student token. Shape: (B, L_s, 2).
        teacher_places: Turn and byte of each teacher token; padding is seen by none. Shape: (B, L_t, 2).
        attention: ``"turn"`` or ``"aligned"``.

    Returns:
        Shape: (B, L_s, L_t), bool.

    Example:
        >>> import torch
        >>> places = torch.tensor([[[IMAGE_TURN, 0], [0, 0], [0, 4], [1, 0]]])
        >>> visible_tokens(places, places, "aligned").int()
        tensor([[[1, 0, 0, 0],
                 [1, 1, 0, 0],
                 [1, 1, 1, 0],
                 [1, 0, 0, 1]]], dtype=torch.int32)
    """
    (own, byte), (turn, start) = student_places.unsqueeze(2).unbind(3), teacher_places.unsqueeze(1).unbind(3)
    within = (turn == own) & (turn >= 0)
    if attention == "aligned":
        within &= start <= byte
    return within | (turn == IMAGE_TURN) | (turn == NO_TURN)
