from .card import complete_model_card
from .spec import CardSpec, MissingResultsError, read_spec
from .study_card import render_card, write_card

__all__ = ["CardSpec", "MissingResultsError", "complete_model_card", "read_spec", "render_card", "write_card"]
