from .coders import Code, ScalarCoder
from .maps import Method, fit_mapping
from .mteb_encoder import MTEBEncoder
from .published import Replay, ReplayError, replay
from .scoring import Outcome, score_coded
from .texts import fit_texts

__all__ = [
    "Code",
    "MTEBEncoder",
    "Method",
    "Outcome",
    "Replay",
    "ReplayError",
    "ScalarCoder",
    "fit_mapping",
    "fit_texts",
    "replay",
    "score_coded",
]
