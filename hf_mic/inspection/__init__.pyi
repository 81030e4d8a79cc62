from .findings import verdict
from .inputs import load_encoder, read_texts
from .inspection import Inspection, inspect_model
from .page import markdown_page
from .report import write_inspection
from .settings import InspectionError, InspectionSettings

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
