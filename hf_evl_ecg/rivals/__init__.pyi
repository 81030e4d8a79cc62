from .cka import cka_loss
from .divergence import VocabularyMismatchError, divergence_loss
from .dskd import dskd_terms
from .hungarian import affinity_loss, hungarian_loss
from .loss import RivalLoss
from .pooled import pooled_mse_loss
from .presets import PRESETS
from .rkd import rkd_angle_loss, rkd_distance_loss

__all__ = [
    "PRESETS",
    "RivalLoss",
    "VocabularyMismatchError",
    "affinity_loss",
    "cka_loss",
    "divergence_loss",
    "dskd_terms",
    "hungarian_loss",
    "pooled_mse_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
]
