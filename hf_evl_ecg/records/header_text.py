"""The bytes of a header file → its text, in the encodings and with the endings that editors and old systems leave."""

__all__ = ["decode_header"]

# What lies in the place of a header after a download or by mistake: first bytes, what they are, what to do.
_OTHER = (
    (b"\x1f\x8b", "gzip data", "unpack it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"MATLAB", "a MATLAB file", "give the .hea beside it"),
)
_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))  # byte order marks
_END = b"\x00\x1a \t\r\n"  # padding to a block, and Ctrl-Z, the end of a text in DOS


def decode_header(raw: bytes) -> str:
    r"""The text of a header: UTF-8, UTF-16 or, as before these, Latin-1; NULs and Ctrl-Z at its end are left out.

    Raises:
        ValueError: It is no text; what it is, and what to do.

    Example:
        >>> decode_header(b"r 1 500\r\n\x00\x00\x1a"), decode_header("r 1 500".encode("utf-16"))
        ('r 1 500', 'r 1 500')
    """
    for magic, what, advice in _OTHER:
        if raw[: len(magic)].lower() == magic.lower():
            raise ValueError(f"{what} ({advice})")
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _utf16(raw[2:], encoding)
    if len(raw) > 3 and (raw[0] == 0) != (raw[1] == 0) and (raw[2] == 0) == (raw[0] == 0):  # UTF-16 without a mark
        return _utf16(raw, "utf-16-be" if raw[0] == 0 else "utf-16-le")
    raw = raw.rstrip(_END)
    if b"\x00" in raw:
        raise ValueError("binary data, with NUL bytes inside")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # headers of before UTF-8; every byte is a character there


def _utf16(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"no text in UTF-16, {error}") from error
    return text.strip("\ufeff" + _END.decode("ascii"))
