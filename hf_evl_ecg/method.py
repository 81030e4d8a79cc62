"""What EVL-ECG adds to the arguments of a training run; in a module of its own, so that a command line shows them at once."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["AnswerOptions", "DistillationOptions", "MethodOptions"]


@dataclass
class DistillationOptions:
    """The method: weights of the loss, how its terms are computed, what of the teacher is matched."""

    alpha: float = field(default=0.5, metadata={"help": "Share of the distillation terms in the loss, 0 to 1."})
    lambda_mhca: float = field(default=1.0, metadata={"help": "Weight of the cross-attention alignment term."})
    lambda_ot: float = field(default=1.0, metadata={"help": "Weight of the optimal-transport term on visual tokens."})
    lambda_relation: float = field(default=1.0, metadata={"help": "Weight of the relation term."})
    lambda_uld: float = field(
        default=0.0, metadata={"help": "Weight of universal logit distillation on answer tokens (not in the paper)."}
    )
    lambda_anchor: float = field(
        default=1.0, metadata={"help": "Weight of the aligner's own cross-entropy, in mhca_mode 'anchored'."}
    )
    lambda_schedules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Weights that change over the run: NAME=warmup:SHARE rises from 0 over the first SHARE of the steps, "
            "NAME=cosine:END goes to END; NAME is alpha (all terms together), mhca, ot, relation, uld …; relation may end below 0."
        },
    )
    mhca_mode: str = field(
        default="paper",
        metadata={
            "help": "'paper': the alignment term trains aligner and student; 'anchored': the aligner is trained by the "
            "answers through the student's frozen LM head, and the student follows."
        },
    )
    mhca_num_heads: int = field(default=8, metadata={"help": "Heads of the aligner; divides the student's width."})
    mhca_channel_mean: bool = field(
        default=True, metadata={"help": "Mean over channels in the alignment term; False: the paper's literal sum."}
    )
    attention: str = field(
        default="all",
        metadata={
            "help": "What of the teacher a student token may attend to: 'all' (the paper), 'turn': the image and its own "
            "question and answer, 'aligned': of these, text that starts no later than its own."
        },
    )
    match: str = field(
        default="raw",
        metadata={"help": "Alignment term on 'raw' states (the paper) or on 'normalised' ones, whatever their scale."},
    )
    ot_epsilon: float = field(default=0.05, metadata={"help": "Entropic regularisation, on a mean-normalised cost."})
    ot_max_iter: int = field(default=50, metadata={"help": "Sinkhorn iterations."})
    ot_tol: float = field(
        default=0.0, metadata={"help": "Marginal error at which a sample's Sinkhorn stops; 0: never."}
    )
    ot_position_weight: float = field(
        default=0.0, metadata={"help": "Share of patch positions in the transport cost, 0 to 1."}
    )
    ot_backend: str = field(default="torch", metadata={"help": "'torch' (this package) or 'pot'."})
    relation_max_tokens: int = field(
        default=1024, metadata={"help": "Above this many tokens the relation term uses a random subset."}
    )
    relation_subset: int = field(default=512, metadata={"help": "Size of that subset."})
    uld_merge: str = field(default="first", metadata={"help": "'first' or 'mean' token of a group of answer tokens."})
    uld_temperature: float = field(default=1.0, metadata={"help": "Temperature of universal logit distillation."})
    uld_top_k: int | None = field(
        default=None, metadata={"help": "Ranks that ULD compares one by one; None compares the whole vocabulary."}
    )
    lambda_kl: float = field(
        default=0.0, metadata={"help": "Weight of a divergence of answer probabilities, for one vocabulary."}
    )
    kl_divergence: str = field(
        default="forward", metadata={"help": "'forward' or 'reverse' KL, or 'jsd' (generalised Jensen-Shannon)."}
    )
    kl_beta: float = field(default=0.5, metadata={"help": "Share of the teacher in the mixture of 'jsd', 0 to 1."})
    kl_temperature: float = field(default=1.0, metadata={"help": "Temperature of the divergence."})
    lambda_dskd: float = field(
        default=0.0, metadata={"help": "Weight of DSKD with cross-model attention; not from a cache."}
    )
    dskd_temperature: float = field(default=2.0, metadata={"help": "Temperature of DSKD's divergences."})
    lambda_rkd_distance: float = field(
        default=0.0, metadata={"help": "Weight of RKD's distances between the mean states of a batch's samples."}
    )
    lambda_rkd_angle: float = field(default=0.0, metadata={"help": "Weight of RKD's angles of three such states."})
    lambda_cka: float = field(default=0.0, metadata={"help": "Weight of one minus the linear CKA of answer states."})
    lambda_em_kd: float = field(
        default=0.0, metadata={"help": "Weight of EM-KD on visual states; needs hidden_tokens 'visual'."}
    )
    lambda_feature_mse: float = field(
        default=0.0, metadata={"help": "Weight of the squared error of mean hidden states, through a projector."}
    )
    visual_weights: str = field(
        default="uniform",
        metadata={
            "help": "What visual tokens are worth in the transport term, and in the relation term where it covers them: "
            "'uniform': all the same, the paper's form; 'ink': the trace that each holds of the drawn page; "
            "'teacher_contrast': how far the teacher's token is from its page's mean, for photographs; 'teacher_attention': how "
            "much its answer attends to it (a teacher with eager attention)."
        },
    )
    visual_weight_floor: float = field(
        default=0.1, metadata={"help": "Share of those weights that is spread evenly over all tokens, 0 to 1."}
    )
    hidden_tokens: str = field(
        default="all", metadata={"help": "Tokens whose hidden states are matched: 'all', 'visual' or 'answer'."}
    )
    student_layer: int = field(
        default=-1, metadata={"help": "Student's hidden state to match; -1: after the last norm."}
    )
    teacher_layer: int = field(
        default=-1, metadata={"help": "Teacher's hidden state to match; -1: after the last norm."}
    )
    teacher_visual_pool: int = field(
        default=1, metadata={"help": "Average this many consecutive image tokens of the teacher into one."}
    )
    aligner_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of aligner and projector, which have their own parameter group."}
    )
    aligner_weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of aligner and projector."})
    teacher_max_length: int | None = field(default=None, metadata={"help": "Longest teacher input in tokens."})
    teacher_system_prompt: str | None = field(default=None, metadata={"help": "System message of the teacher's chats."})


@dataclass
class AnswerOptions:
    """Learning from answers: lengths, bad examples, evaluation in between."""

    freeze_vision_tower: bool = field(
        default=False,
        metadata={
            "help": "Do not train the student's vision tower. Qwen-VL's projector is a part of it (visual.merger), so the "
            "ot term, which reads what the projector gives, trains nothing there."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest student input in tokens; an image is never cut, an answer may be."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message of the student's chats."})
    on_bad_example: str = field(
        default="skip",
        metadata={
            "help": "'skip': leave a bad example out of training, count and name it; 'stop': raise. In evaluation a bad "
            "example always raises: a metric over fewer examples is another metric."
        },
    )
    remember_pages: int = field(
        default=0,
        metadata={
            "help": "Draw and process this many pages once and keep them in memory, for small data sets and several epochs; "
            "0: none. A page of 448 x 224 takes about 4 MB in each loader process."
        },
    )
    unanswered: str = field(
        default="refuse",
        metadata={
            "help": "Training examples whose last question has no answer: 'refuse': they are bad examples, as an answer is "
            "easily forgotten; 'use': both models read picture and question, and the terms that need no answer learn from "
            "them; 'drop': leave them out beforehand."
        },
    )
    preflight_examples: int = field(
        default=8,
        metadata={"help": "Examples for training, and for evaluation, that are looked at before the start; 0: none."},
    )
    eval_predictions: str = field(
        default="loss",
        metadata={
            "help": "What compute_metrics gets: 'generate': generated token ids; 'likelihood': log-likelihoods of "
            "candidate_answers; 'loss': evaluation computes losses only."
        },
    )
    max_new_tokens: int = field(default=64, metadata={"help": "Longest generated answer, for eval_predictions."})
    candidate_answers: list[str] | None = field(
        default=None, metadata={"help": "Answers whose likelihood is computed, for eval_predictions='likelihood'."}
    )


@dataclass
class MethodOptions(AnswerOptions, DistillationOptions):
    """The method, and learning from answers.

    `hf_evl_ecg.config.EVLECGConfig` has these fields beside those of `transformers.TrainingArguments`, and checks them.
    """
