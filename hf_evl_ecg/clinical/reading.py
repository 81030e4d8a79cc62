"""One door to all formats of the room."""

from pathlib import Path

from .arrays import ArrayDescription, read_array
from .content import ARRAYS
from .dicom import read_dicom
from .kit import read_by_kit
from .recording import Recording

__all__ = ["read_clinical"]


def read_clinical(
    path: Path,
    kind: str,
    description: ArrayDescription | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> Recording:
    """Read a file as what it was recognised as.

    Args:
        path: The file.
        kind: One of `READ`, from `recognise`.
        description: What the numbers of an array file are; for those only.
        start_s: Where what is needed of it begins, in seconds; what comes before may be read, too (`Recording.start_s`).
        duration_s: How long that is; what follows may be read, too. None: up to the end.

    Raises:
        ECGRecordError: It is damaged, too large, lacks what is needed, or a library of the extra ``clinical`` is missing.
        ValueError: A description for a file that has its own.
    """
    if kind in ARRAYS:
        return read_array(path, kind, description)
    if description is not None:
        raise ValueError(f"description: {path.name} is {kind}, which describes itself (leave it out)")
    return read_dicom(path) if kind == "DICOM" else read_by_kit(path, kind, start_s, duration_s)
