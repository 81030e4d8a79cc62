from .findings import verdict
from .inputs import read_texts
from .inspection import Inspection, inspect_model
from .page import markdown_page
from .report import write_inspection
from .settings import InspectionError, InspectionSettings
from .vectors import inspect_vectors

__all__ = [
    "Inspection",
    "InspectionError",
    "InspectionSettings",
    "inspect_model",
    "inspect_vectors",
    "markdown_page",
    "read_texts",
    "verdict",
    "write_inspection",
]
