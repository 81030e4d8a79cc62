from .inputs import InspectionError, InspectionSettings, load_encoder, read_texts
from .inspection import Inspection, inspect_model
from .page import markdown_page
from .report import verdict, write_inspection

__all__ = [
    "Inspection",
    "InspectionError",
    "InspectionSettings",
    "inspect_model",
    "load_encoder",
    "markdown_page",
    "read_texts",
    "verdict",
    "write_inspection",
]
