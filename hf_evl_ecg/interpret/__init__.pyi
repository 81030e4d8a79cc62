from .interpreter import ECGInterpreter, Interpretation
from .page import report_page
from .pictures import ECGPicture, load_picture
from .report import ECGReport, Opinion

__all__ = [
    "ECGInterpreter",
    "ECGPicture",
    "ECGReport",
    "Interpretation",
    "Opinion",
    "load_picture",
    "report_page",
]
