from .card import render_card, write_card
from .spec import CardSpec, MissingResultsError, read_spec

__all__ = ["CardSpec", "MissingResultsError", "read_spec", "render_card", "write_card"]
