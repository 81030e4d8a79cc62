"""The EVL-ECG objective: features of student and teacher → named, weighted terms."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from hf_evl_ecg.alignment import (
    CrossAttentionAligner,
    StudentToTeacherProjector,
    alignment_loss,
    anchor_loss,
    collapse_monitors,
)
from hf_evl_ecg.arguments import check_between, check_choice
from hf_evl_ecg.ot import ot_matching_loss
from hf_evl_ecg.padded import promote, zero_padding
from hf_evl_ecg.relations import relation_loss
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures
from hf_evl_ecg.uld import uld_loss

__all__ = ["EVLECGLoss"]

MODES = ("paper", "anchored")
_WEIGHT_OF = {"anchor_ce": "anchor"}


class EVLECGLoss(nn.Module):
    """Multi-aspect distillation between two vision-language models of any architectures (EVL-ECG, arXiv 2605.29977).

    ``L = (1 - alpha) L_CE + alpha (lambda_mhca L_mhca + lambda_ot L_ot + lambda_relation L_rel + lambda_uld L_uld)``

    - ``mhca``: student states match the teacher's, aligned to the student's tokens by cross-attention.
    - ``ot``: visual tokens match along an optimal-transport plan, in the teacher's space.
    - ``relation``: pairwise distances and cosines match those of the aligned teacher.
    - ``uld``: sorted answer probabilities match across vocabularies; not part of the paper's total, so 0 by default.

    A term of weight zero is not computed and owns no parameters; the ``needs_...`` properties say what is left to provide.
    The parameters (aligner, projector) are trained beside the student and are no part of it.

    ``mhca_mode="paper"`` lets the gradient of ``mhca`` reach both sides, so the aligner may learn to copy the student, and both may
    shrink to one point: watch ``monitors["variance_ratio"]``, the token variance of the aligned teacher over the student's,
    and ``monitors["student_variance"]``, whose fall to zero makes the relation term diverge. ``mhca_mode="anchored"``
    (as in DSKD, https://arxiv.org/abs/2406.17328) trains the aligner by the answers' cross-entropy through the student's
    frozen LM head, and the student towards the detached result.

    In ``paper`` mode without ``mhca`` only the relation term can train the aligner, so its gradient is let through; else
    the aligned teacher is a constant for that term.

    Attributes:
        monitors: Values of the last forward pass to watch, detached and not part of the loss: ``variance_ratio`` and
            ``student_variance``.

    Args:
        student_dim: Width of the student's hidden states and visual tokens.
        teacher_dim: Width of the teacher's.
        alpha: Share of the distillation terms, in [0, 1].
        lambda_mhca: Weight of the alignment term.
        lambda_ot: Weight of the transport term.
        lambda_relation: Weight of half the sum of distance and angle terms.
        lambda_uld: Weight of universal logit distillation.
        lambda_anchor: Weight of the aligner's cross-entropy; used by ``anchored`` only.
        mhca_mode: ``"paper"`` or ``"anchored"``.
        mhca_num_heads: Heads of the aligner.
        mhca_channel_mean: Mean (default) or literal sum over channels in the alignment term.
        attention: What a student token may attend to: ``"all"``, ``"turn"`` or ``"aligned"``
            (`hf_evl_ecg.tokens.visible_tokens`); one that may attend to nothing has no part in ``mhca`` and ``relation``.
        match: ``"raw"`` or ``"normalised"`` states in the alignment term; relations know no scale in either.
        ot_epsilon: Entropic regularisation on the mean-normalised transport cost.
        ot_max_iter: Sinkhorn iterations.
        ot_tol: Marginal error at which a sample's Sinkhorn stops.
        ot_position_weight: Weight of patch positions in the transport cost.
        ot_backend: ``"torch"`` or ``"pot"``.
        relation_max_tokens: Samples with more tokens use a random subset in the relation term.
        relation_subset: Size of that subset.
        uld_merge: ``"first"`` or ``"mean"`` token of a group.
        uld_temperature: Temperature of ULD.
        uld_top_k: Ranks ULD compares one by one; None for all.

    Raises:
        ValueError: For weights out of range, an unknown mode, or heads that do not divide the width. The other options are
            checked by the function that reads them, at the first batch.

    Example:
        >>> loss = EVLECGLoss(student_dim=8, teacher_dim=12, lambda_ot=0.0, mhca_num_heads=2)
        >>> mask = torch.ones(1, 4, dtype=torch.bool)
        >>> student = TokenFeatures(torch.randn(1, 4, 8), mask, None, None)
        >>> teacher = TokenFeatures(torch.randn(1, 4, 12), mask, None, None)
        >>> sorted(loss(student, teacher, torch.tensor(2.0)))
        ['ce', 'mhca', 'relation']
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        alpha: float = 0.5,
        lambda_mhca: float = 1.0,
        lambda_ot: float = 1.0,
        lambda_relation: float = 1.0,
        lambda_uld: float = 0.0,
        lambda_anchor: float = 1.0,
        mhca_mode: str = "paper",
        mhca_num_heads: int = 8,
        mhca_channel_mean: bool = True,
        attention: str = "all",
        match: str = "raw",
        ot_epsilon: float = 0.05,
        ot_max_iter: int = 50,
        ot_tol: float = 0.0,
        ot_position_weight: float = 0.0,
        ot_backend: str = "torch",
        relation_max_tokens: int = 1024,
        relation_subset: int = 512,
        uld_merge: str = "first",
        uld_temperature: float = 1.0,
        uld_top_k: int | None = None,
    ):
        super().__init__()
        weights = {
            "lambda_mhca": lambda_mhca,
            "lambda_ot": lambda_ot,
            "lambda_relation": lambda_relation,
            "lambda_uld": lambda_uld,
            "lambda_anchor": lambda_anchor,
        }
        _check_weights(alpha, weights, mhca_mode)
        self.mhca_mode = mhca_mode
        self._match_hidden = partial(alignment_loss, channel_mean=mhca_channel_mean, match=match)
        self._match_visual = partial(
            ot_matching_loss,
            epsilon=ot_epsilon,
            max_iter=ot_max_iter,
            tol=ot_tol,
            position_weight=ot_position_weight,
            backend=ot_backend,
        )
        self._match_relations = partial(relation_loss, max_tokens=relation_max_tokens, subset=relation_subset)
        self._match_logits = partial(uld_loss, merge=uld_merge, temperature=uld_temperature, top_k=uld_top_k)
        self.weights = {name.removeprefix("lambda_"): alpha * weight for name, weight in weights.items()}
        self.weights["ce"] = 1 - alpha
        aligned = self.weights["mhca"] > 0 or self.weights["relation"] > 0
        self.aligner = CrossAttentionAligner(student_dim, teacher_dim, mhca_num_heads, attention) if aligned else None
        self.projector = StudentToTeacherProjector(student_dim, teacher_dim) if self.weights["ot"] > 0 else None
        self.monitors: dict[str, Tensor] = {}

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher; if not, it need not run."""
        return self.needs_hidden or self.needs_visual or self.needs_logits

    @property
    def needs_hidden(self) -> bool:
        """Whether any term reads ``hidden`` of student and teacher."""
        return self.aligner is not None

    @property
    def needs_places(self) -> bool:
        """Whether any term reads ``places`` of student and teacher."""
        return self.aligner is not None and self.aligner.attention != "all"

    @property
    def needs_visual(self) -> bool:
        """Whether any term reads ``visual`` of student and teacher."""
        return self.projector is not None

    @property
    def needs_logits(self) -> bool:
        """Whether any term reads ``answer_logits`` of student and teacher."""
        return self.weights["uld"] > 0

    @property
    def needs_lm_head(self) -> bool:
        """Whether ``forward`` needs the student's ``lm_head``, ``answer_ids`` and ``answer_index``."""
        return self.aligner is not None and self.mhca_mode == "anchored"

    def forward(
        self,
        student: TokenFeatures,
        teacher: TokenFeatures | None,
        ce: Tensor,
        *,
        lm_head: nn.Module | Tensor | None = None,
        answer_groups: AnswerGroups | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted terms; their sum is the loss.

        Args:
            student: Features with gradient.
            teacher: Features of the same samples; None where ``needs_teacher`` is false.
            ce: The student's own cross-entropy. Scalar.
            lm_head: The student's LM head, a module or its weight (V, student_dim), where ``needs_lm_head``.
            answer_groups: Answer tokens that belong together, for ``uld``. Default: by rank.
            generator: Source of the relation term's subsets.

        Returns:
            Scalars in float32 under ``"ce"``, ``"mhca"``, ``"anchor_ce"``, ``"ot"``, ``"relation"``, ``"uld"``, without
            those of weight zero: none at all for ``alpha=1`` and every weight 0, which leaves all to other losses.

        Raises:
            ValueError: If something a term needs is missing; the message says what.
        """
        self.monitors = {}
        terms = {"ce": ce} if self.weights["ce"] > 0 else {}
        if self.needs_teacher:
            if teacher is None:
                raise ValueError("teacher is None, yet terms with positive weight read it; see needs_teacher.")
            if self.needs_hidden:
                terms |= self._hidden_terms(student, teacher, lm_head, generator)
            if self.needs_visual:
                terms["ot"] = self._transport_term(student, teacher)
            if self.needs_logits:
                terms["uld"] = self._logit_term(student, teacher, answer_groups)
        return {name: self.weights[_WEIGHT_OF.get(name, name)] * promote(term) for name, term in terms.items()}

    def _hidden_terms(
        self,
        student: TokenFeatures,
        teacher: TokenFeatures,
        lm_head: nn.Module | Tensor | None,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        assert self.aligner is not None
        anchored = self.mhca_mode == "anchored"
        hidden = zero_padding(student.hidden, student.mask)
        seen = (teacher.mask, student.places, teacher.places)
        mask = student.mask & self.aligner.has_target(*seen)
        # Anchored: the answers alone train the aligner (DSKD, arXiv 2406.17328), so it must not see the student move.
        aligned = self.aligner(hidden.detach() if anchored else hidden, teacher.hidden.detach(), *seen)
        self.monitors = collapse_monitors(hidden, aligned, mask)
        terms = {}
        if self.weights["mhca"] > 0:
            terms["mhca"] = self._match_hidden(hidden, aligned.detach() if anchored else aligned, mask)
        if anchored:
            if lm_head is None or student.answer_index is None or student.answer_ids is None:
                raise ValueError("mhca_mode='anchored' needs lm_head and the student's answer_ids and answer_index.")
            terms["anchor_ce"] = anchor_loss(aligned, student.answer_index, student.answer_ids, lm_head)
        if self.weights["relation"] > 0:
            # With another term to train the aligner, a relation gradient into it could shrink both sides to one point.
            constant = anchored or self.weights["mhca"] > 0
            pair = self._match_relations(
                aligned, hidden, mask, generator=generator, detach_target=constant, weights=student.hidden_weights
            )
            terms["relation"] = (pair[0] + pair[1]) / 2
        return terms

    def _transport_term(self, student: TokenFeatures, teacher: TokenFeatures) -> Tensor:
        assert self.projector is not None
        student_visual, student_mask = _needed(student, "student", "ot", "visual", "visual_mask")
        teacher_visual, teacher_mask = _needed(teacher, "teacher", "ot", "visual", "visual_mask")
        return self._match_visual(
            teacher_visual,
            self.projector(zero_padding(student_visual, student_mask)),
            teacher_mask,
            student_mask,
            teacher_positions=teacher.visual_positions,
            student_positions=student.visual_positions,
            teacher_masses=teacher.visual_weights,
            student_masses=student.visual_weights,
        )

    def _logit_term(self, student: TokenFeatures, teacher: TokenFeatures, groups: AnswerGroups | None) -> Tensor:
        student_logits, student_mask = _needed(student, "student", "uld", "answer_logits", "answer_mask")
        teacher_logits, teacher_mask = _needed(teacher, "teacher", "uld", "answer_logits", "answer_mask")
        return self._match_logits(
            teacher_logits,
            student_logits,
            teacher_mask,
            student_mask,
            groups=groups,
            teacher_logsumexp=teacher.answer_logsumexp,
        )


def _needed(features: TokenFeatures, side: str, term: str, *fields: str) -> list[Tensor]:
    """What a term reads of one side, or an error that names it."""
    found = [getattr(features, field) for field in fields]
    if any(value is None for value in found):
        raise ValueError(
            f"lambda_{term} above 0 needs {' and '.join(fields)} of the {side}; provide them, or set lambda_{term}=0."
        )
    return found


def _check_weights(alpha: float, weights: Mapping[str, float], mode: str) -> None:
    check_choice("mhca_mode", mode, MODES)
    check_between("alpha", alpha, 0, 1)
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}={weight}: must be finite and not negative (0 switches the term off).")
    aligned = weights["lambda_mhca"] > 0 or weights["lambda_relation"] > 0
    if mode == "anchored" and aligned and weights["lambda_anchor"] == 0:
        raise ValueError(
            "mhca_mode='anchored' with lambda_anchor=0 would pull the student to an untrained aligner; make it positive."
        )
