"""What a file is, by its first bytes and never by its name."""

import re
import zipfile
from pathlib import Path

__all__ = ["ARRAYS", "READ", "WAY_OUT", "recognise"]

ARRAYS = ("CSV", "HDF5", "NumPy")
"""Numbers without a header: they need a description."""
READ = ("DICOM", "HL7 aECG", "GE MUSE XML", "Philips Sierra XML", "SCP-ECG", "EDF", *ARRAYS)
"""What is read as a recording, beside WFDB."""
WAY_OUT = {
    "BDF": "EDF or WFDB; save it so with the program that wrote it",
    "XML": "HL7 aECG, GE MUSE or Philips Sierra; choose one of them where the file was exported",
    "gzip data": "the file itself; unpack it first",
    "a web page": "the file itself; download that, not the page about it",
    "a pointer of Git LFS": "the file itself; fetch it with git lfs pull",
    "PDF": "a recording; pages are pictures, which the interpreter and its command take",
    "HEIC": "a recording; photographs are pictures, which the interpreter and its command take",
    "a picture": "a recording; pictures are taken by the interpreter and its command",
}
"""Kinds that are known and no recording → what to do instead."""

_HEAD_BYTES = 1 << 16
_FIRST = (  # first bytes → kind
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "NumPy"),
    (b"0       ", "EDF"),
    (b"\xffBIOSEMI", "BDF"),
    (b"%PDF-", "PDF"),
    (b"\x1f\x8b", "gzip data"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
    *((magic, "a picture") for magic in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")),
)
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_ROOTS = {"annotatedecg": "HL7 aECG", "restingecg": "GE MUSE XML", "restingecgdata": "Philips Sierra XML"}
_ROOT = re.compile(r"<(?![?!])(?:[\w.-]+:)?([\w.-]+)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"<\x00", "utf-16-le"), (b"\x00<", "utf-16-be"))
_NUMBER = re.compile(r"\s*[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?\s*|\s*nan\s*", re.IGNORECASE)
_LEAST_COLUMNS = 8


def recognise(path: Path) -> str | None:
    """One of `READ`, of `WAY_OUT`, or "zip"; None for what is not known, such as the files of a WFDB record.

    Args:
        path: A file that exists.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> Path("scan").write_bytes(b"%PDF-1.7 ...")
        12
        >>> recognise(Path("scan"))
        'PDF'
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "NumPy" if _holds_arrays(path) else "zip"
    for magic, kind in _FIRST:
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "HEIC"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a picture"
    return "SCP-ECG" if _is_scp(head) else _text_kind(head)


def _holds_arrays(path: Path) -> bool:
    """Whether a zip archive is one of NumPy (.npz)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _is_scp(head: bytes) -> bool:
    """Section 0 of SCP-ECG behind checksum and size: its number 0, and its first pointer to itself, at byte 7."""
    return (
        len(head) >= 32
        and head[8:10] == head[22:24] == b"\x00\x00"
        and head[28:32] == b"\x07\x00\x00\x00"
        and int.from_bytes(head[10:14], "little") >= 26
    )


def _text_kind(head: bytes) -> str | None:
    """XML by its root element, tables of numbers, web pages."""
    encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8-sig")
    text = head.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")
    if text[:14].lower().startswith(("<!doctype html", "<html")):
        return "a web page"
    if text.startswith("<"):
        root = _ROOT.search(_COMMENT.sub("", text))
        return _ROOTS.get(root[1].lower(), "XML") if root else "XML"
    return "CSV" if "\x00" not in text and _is_table(text.splitlines()[:-1]) else None


def _is_table(lines: list[str]) -> bool:
    """Whether rows of at least 8 numbers follow, below at most one row of names."""
    rows = [line for line in lines if line.strip()][:3]
    for separator in ";\t,":
        numbers = [
            len(fields) >= _LEAST_COLUMNS and all(map(_NUMBER.fullmatch, fields))
            for fields in (row.split(separator) for row in rows)
        ]
        if len(numbers) > 1 and all(numbers[1:]):
            return True
    return False
