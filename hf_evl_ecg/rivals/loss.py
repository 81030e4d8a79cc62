"""Rival objectives: features of student and teacher → named, weighted terms, beside or instead of EVL-ECG's."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from hf_evl_ecg.alignment import StudentToTeacherProjector
from hf_evl_ecg.arguments import check_between, check_choice
from hf_evl_ecg.padded import promote, zero_padding
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures

from .answer_states import paired_answer_states
from .cka import cka_loss
from .divergence import DIVERGENCES, divergence_loss
from .dskd import CrossModelProjectors, answer_side, dskd_terms
from .hungarian import affinity_loss, hungarian_loss, match_tokens
from .pooled import pool_states, pooled_mse_loss
from .rkd import rkd_angle_loss, rkd_distance_loss

__all__ = ["RivalLoss"]

_WEIGHT_OF = {"dskd_t2s_ce": "dskd", "dskd_t2s": "dskd", "dskd_s2t": "dskd"}


class RivalLoss(nn.Module):
    """Distillation losses that a user could pick instead of EVL-ECG, each multiplied by ``alpha`` and its own weight.

    - ``kl``: divergence of the answers' probabilities, for one vocabulary (`divergence_loss`).
    - ``dskd_t2s_ce``, ``dskd_t2s``, ``dskd_s2t``: DSKD with cross-model attention, for two vocabularies (`dskd_terms`).
    - ``rkd_distance``, ``rkd_angle``: relations between mean hidden states of the samples of a batch (`rkd_distance_loss`).
    - ``cka``: one minus the linear CKA of answer states, one row per group of answer tokens of the batch (`cka_loss`).
    - ``em_kd``: visual states matched one to one (`hungarian_loss`), and their affinity to the answers (`affinity_loss`).
    - ``feature_mse``: mean hidden states, through a projector (`pooled_mse_loss`).

    RKD and CKA compare the samples of one micro-batch with each other, so gradient accumulation changes them; the other terms
    are means over samples. A term of weight zero is not computed and owns no parameters. The projectors are trained beside the
    student and are no part of it.

    Args:
        student_dim: Width of the student's hidden states.
        teacher_dim: Width of the teacher's.
        alpha: Share of the distillation terms, in [0, 1].
        lambda_kl: Weight of the divergence of answer probabilities.
        lambda_dskd: Weight of each of DSKD's three terms.
        lambda_rkd_distance: Weight of RKD's distance term.
        lambda_rkd_angle: Weight of RKD's angle term.
        lambda_cka: Weight of one minus CKA.
        lambda_em_kd: Weight of EM-KD.
        lambda_feature_mse: Weight of the squared error of mean states.
        kl_divergence: ``"forward"``, ``"reverse"`` or ``"jsd"``.
        kl_beta: Share of the teacher in the mixture of ``"jsd"``.
        kl_temperature: Temperature of the divergence.
        dskd_temperature: Temperature of DSKD's two divergences.
        vocab_size: Tokens of the common vocabulary, where LM heads have more rows.

    Raises:
        ValueError: For weights out of range or an unknown divergence.

    Example:
        >>> loss = RivalLoss(student_dim=4, teacher_dim=6, lambda_feature_mse=1.0, lambda_rkd_distance=25.0)
        >>> mask = torch.ones(2, 3, dtype=torch.bool)
        >>> student = TokenFeatures(torch.randn(2, 3, 4), mask, None, None)
        >>> teacher = TokenFeatures(torch.randn(2, 3, 6), mask, None, None)
        >>> sorted(loss(student, teacher))
        ['feature_mse', 'rkd_distance']
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        alpha: float = 0.5,
        lambda_kl: float = 0.0,
        lambda_dskd: float = 0.0,
        lambda_rkd_distance: float = 0.0,
        lambda_rkd_angle: float = 0.0,
        lambda_cka: float = 0.0,
        lambda_em_kd: float = 0.0,
        lambda_feature_mse: float = 0.0,
        kl_divergence: str = "forward",
        kl_beta: float = 0.5,
        kl_temperature: float = 1.0,
        dskd_temperature: float = 2.0,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        check_between("alpha", alpha, 0, 1)
        check_choice("kl_divergence", kl_divergence, DIVERGENCES)
        weights = {
            "kl": lambda_kl,
            "dskd": lambda_dskd,
            "rkd_distance": lambda_rkd_distance,
            "rkd_angle": lambda_rkd_angle,
            "cka": lambda_cka,
            "em_kd": lambda_em_kd,
            "feature_mse": lambda_feature_mse,
        }
        for name, weight in weights.items():
            check_between(f"lambda_{name}", weight, 0, 1e6)
        self.weights = {name: alpha * weight for name, weight in weights.items()}
        self._divergence = partial(
            divergence_loss, divergence=kl_divergence, beta=kl_beta, temperature=kl_temperature, vocab_size=vocab_size
        )
        self._dskd_terms = partial(dskd_terms, temperature=dskd_temperature)
        widths = student_dim, teacher_dim
        self.projectors = nn.ModuleDict()
        for name in ("em_kd", "feature_mse"):
            if self._on(name):
                self.projectors[name] = StudentToTeacherProjector(*widths)
        if self._on("dskd"):
            self.projectors["dskd"] = CrossModelProjectors(*widths)

    def _on(self, *names: str) -> bool:
        return any(self.weights[name] > 0 for name in names)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher; if not, it need not run."""
        return self._on(*self.weights)

    @property
    def needs_hidden(self) -> bool:
        """Whether any term reads ``hidden`` of student and teacher."""
        return self._on("dskd", "rkd_distance", "rkd_angle", "cka", "em_kd", "feature_mse")

    @property
    def needs_visual(self) -> bool:
        """Whether any term reads ``visual`` of student and teacher: none does."""
        return False

    @property
    def needs_logits(self) -> bool:
        """Whether any term reads ``answer_logits`` of student and teacher."""
        return self._on("kl", "dskd")

    @property
    def needs_embeddings(self) -> bool:
        """Whether any term reads embeddings of the answer tokens, and both LM heads."""
        return self._on("dskd")

    def forward(
        self,
        student: TokenFeatures,
        teacher: TokenFeatures | None,
        *,
        answer_groups: AnswerGroups | None = None,
        lm_head: nn.Module | Tensor | None = None,
        teacher_lm_head: nn.Module | Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted terms.

        Args:
            student: Features with gradient.
            teacher: Features of the same samples; None where ``needs_teacher`` is false.
            answer_groups: Answer tokens that belong together. Default: by rank.
            lm_head: The student's LM head, a module or its weight (V, student_dim), where ``needs_embeddings``.
            teacher_lm_head: The teacher's.

        Returns:
            Scalars in float32 under the names of the terms, without those of weight zero.

        Raises:
            ValueError: If something a term needs is missing; the message says what.
        """
        if not self.needs_teacher:
            return {}
        if teacher is None:
            raise ValueError("teacher is None, yet terms with positive weight read it; see needs_teacher.")
        terms: dict[str, Tensor] = {}
        if self._on("kl"):
            terms["kl"] = self._logit_term(student, teacher, answer_groups)
        if self._on("dskd"):
            terms |= self._dual_space_terms(student, teacher, lm_head, teacher_lm_head)
        if self._on("rkd_distance", "rkd_angle"):
            terms |= self._relational_terms(student, teacher)
        if self._on("cka"):
            target, found, _ = paired_answer_states(teacher, student, answer_groups)
            terms["cka"] = cka_loss(target, found)
        if self._on("em_kd"):
            terms["em_kd"] = self._matching_term(student, teacher, answer_groups)
        if self._on("feature_mse"):
            projected = self.projectors["feature_mse"](zero_padding(student.hidden, student.mask))
            terms["feature_mse"] = pooled_mse_loss(teacher.hidden, projected, teacher.mask, student.mask)
        return {name: self.weights[_WEIGHT_OF.get(name, name)] * promote(term) for name, term in terms.items()}

    def _logit_term(self, student: TokenFeatures, teacher: TokenFeatures, groups: AnswerGroups | None) -> Tensor:
        found = [getattr(side, name) for side in (teacher, student) for name in ("answer_logits", "answer_mask")]
        if any(value is None for value in found):
            raise ValueError("lambda_kl above 0 needs answer_logits and answer_mask of both sides; or set lambda_kl=0.")
        if teacher.answer_logsumexp is not None:
            raise ValueError("lambda_kl above 0 needs every logit of the teacher, not the largest ones of a cache.")
        return self._divergence(found[0], found[2], found[1], found[3], groups=groups)

    def _dual_space_terms(
        self,
        student: TokenFeatures,
        teacher: TokenFeatures,
        lm_head: nn.Module | Tensor | None,
        teacher_lm_head: nn.Module | Tensor | None,
    ) -> dict[str, Tensor]:
        if lm_head is None or teacher_lm_head is None:
            raise ValueError("lambda_dskd above 0 needs lm_head and teacher_lm_head; or set lambda_dskd=0.")
        maps = self.projectors["dskd"]
        assert isinstance(maps, CrossModelProjectors)
        sides = answer_side(teacher, "teacher"), answer_side(student, "student")
        terms = self._dskd_terms(*sides, maps, lm_head, teacher_lm_head)
        return {f"dskd_{name}": term for name, term in terms.items()}

    def _relational_terms(self, student: TokenFeatures, teacher: TokenFeatures) -> dict[str, Tensor]:
        usable = teacher.mask.any(1) & student.mask.any(1)
        target, found = (pool_states(side.hidden, side.mask)[usable] for side in (teacher, student))
        terms = {}
        if self._on("rkd_distance"):
            terms["rkd_distance"] = rkd_distance_loss(target, found)
        if self._on("rkd_angle"):
            terms["rkd_angle"] = rkd_angle_loss(target, found)
        return terms

    def _matching_term(self, student: TokenFeatures, teacher: TokenFeatures, groups: AnswerGroups | None) -> Tensor:
        # Normalised without parameters: a few channels of huge magnitude would decide the matching alone.
        with torch.autocast(student.hidden.device.type, enabled=False):
            target = promote(zero_padding(teacher.hidden.detach(), teacher.mask))
            target = nn.functional.layer_norm(target, target.shape[-1:])
        found = self.projectors["em_kd"](zero_padding(student.hidden, student.mask))
        matches = match_tokens(target, found, teacher.mask, student.mask)
        return hungarian_loss(target, found, matches) + affinity_loss(teacher, student, matches, groups)
