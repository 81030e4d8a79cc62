from .desk import Desk, Limits
from .page import build_page, serve
from .uploads import GivenECG, UploadError, read_uploads, simulated_ecg

__all__ = [
    "Desk",
    "GivenECG",
    "Limits",
    "UploadError",
    "build_page",
    "read_uploads",
    "serve",
    "simulated_ecg",
]
