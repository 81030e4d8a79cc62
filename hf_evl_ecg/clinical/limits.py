"""What a file asks of memory and time, counted from its own bytes before a library decodes it."""

import base64
import binascii
import re
import xml.parsers.expat as expat
from pathlib import Path

from hf_evl_ecg.signals.errors import ECGRecordError

from .libraries import refuse
from .recording import check_count

__all__ = ["check_edf", "check_scp", "check_xli", "check_xml", "stated_number"]

MAX_ELEMENTS, MAX_DEPTH = 1_000_000, 64
MAX_XLI_SAMPLES = 4_000_000  # unpacked in Python; 16 leads of 11 s at 1 kHz are 176,000
MAX_EDF_SIGNALS, MAX_EDF_RECORDS = 1024, 1_000_000
_XLI_BITS = 10
_XLI_SEARCH = re.compile(rb"<parsedwaveforms\b([^>]*)>([^<]*)<", re.IGNORECASE)


def check_xml(path: Path, kind: str, data: bytes) -> None:
    """Refuse entities, whatever they stand for, and trees that are deeper or larger than any export; nothing is fetched.

    Raises:
        ECGRecordError: Such a file. What is not well-formed is left to who reads it.
    """
    depth = elements = 0
    parser = expat.ParserCreate()

    def entity(name: str, *_: object) -> None:
        raise ECGRecordError(path, "XML", "a declaration of entities", "a file without them, as devices write it")

    def start(*_: object) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            found = f"{elements} elements, {depth} deep"
            raise ECGRecordError(path, "XML", found, f"at most {MAX_ELEMENTS} elements, {MAX_DEPTH} deep")

    def end(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser.EntityDeclHandler, parser.StartElementHandler, parser.EndElementHandler = entity, start, end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # of the last: unknown encodings
        if isinstance(error, ECGRecordError):
            raise


def check_xli(path: Path, kind: str, data: bytes) -> None:
    """Count what Sierra's compressed samples (LZW codes of 10 bits) become, of which a code can hold hundreds.

    Raises:
        ECGRecordError: They become more samples than are read.
    """
    text = data
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", errors="replace").encode("utf-8")
    for attributes, content in _XLI_SEARCH.findall(text):
        if b"XLI" not in attributes.upper():
            continue
        try:
            packed = base64.b64decode(b"".join(content.split()))
        except (binascii.Error, ValueError):
            refuse(path, kind, "samples that are no Base64")
        samples = _lzw_bytes(packed) // 2
        if samples > MAX_XLI_SAMPLES:
            raise ECGRecordError(path, "samples", samples, f"at most {MAX_XLI_SAMPLES} of all compressed leads")


def _lzw_bytes(packed: bytes) -> int:
    """Bytes that all chunks of XLI unpack to, from the lengths of their strings alone."""
    at = total = 0
    while at + 8 <= len(packed):
        size = int.from_bytes(packed[at : at + 4], "little", signed=True)
        at += 8
        if not 0 < size <= len(packed) - at:
            break
        total += _chunk_bytes(packed[at : at + size])
        at += size
    return total


def _chunk_bytes(chunk: bytes) -> int:
    lengths = dict.fromkeys(range(256), 1)
    held = bits = before = total = 0
    following = 256
    for byte in chunk:
        held, bits = (held << 8 | byte) & 0x3FFFF, bits + 8
        if bits < _XLI_BITS:
            continue
        bits -= _XLI_BITS
        code = held >> bits & 0x3FF
        if code == 0x3FF or (code not in lengths and not before):
            break
        length = lengths.setdefault(code, before + 1)
        if before and following < 0x3FF:
            lengths[following] = before + 1
            following += 1
        before, total = length, total + length
    return total


def check_scp(path: Path, kind: str, data: bytes) -> None:
    """Compare the samples that the definition of leads (section 3) states with the bytes there are.

    Raises:
        ECGRecordError: More samples than bits, or than are read.
    """
    end = min(6 + int.from_bytes(data[10:14], "little"), len(data))
    for at in range(22, end - 9, 10):
        number, length, index = (int.from_bytes(data[at + i : at + j], "little") for i, j in ((0, 2), (2, 6), (6, 10)))
        if number != 3 or length < 18 or not 0 < index <= len(data) - 18:
            continue
        body = data[index + 15 : index - 1 + length]
        count = min(body[0], (len(body) - 2) // 9) if body else 0
        spans = [body[2 + 9 * i : 10 + 9 * i] for i in range(count)]
        stated = [int.from_bytes(s[4:], "little") - int.from_bytes(s[:4], "little") + 1 for s in spans]
        if max(stated, default=0) > 8 * len(data):
            raise ECGRecordError(path, "samples of a lead", max(stated), f"at most one a bit of the {len(data)} bytes")
        check_count(path, [n for n in stated if n > 0])


def check_edf(path: Path, kind: str, data: bytes) -> None:
    """Refuse headers that state more signals or data records than any recorder writes.

    Raises:
        ECGRecordError: Such a header.
    """
    signals = stated_number(path, "number of signals", data[252:256], 1, MAX_EDF_SIGNALS)
    records = stated_number(path, "number of data records", data[236:244], -1, MAX_EDF_RECORDS)
    if records < 0:  # not closed by the recorder: as many as there are
        at = 256 + 216 * signals
        fields = [data[at + 8 * i : at + 8 * i + 8] for i in range(signals)]
        samples = sum(stated_number(path, "samples per data record", text, 1, len(data)) for text in fields)
        found = (len(data) - 256 * (signals + 1)) // (2 * samples)
        if found > MAX_EDF_RECORDS:
            raise ECGRecordError(path, "number of data records", found, f"at most {MAX_EDF_RECORDS}")
    check_count(path, [len(data) // 2])


def stated_number(path: Path, field: str, raw: bytes, low: int, high: int) -> int:
    """A number in the text of an EDF header, within bounds.

    Raises:
        ECGRecordError: Something else.
    """
    text = raw.decode("latin-1").strip("\x00 ")
    if not re.fullmatch(r"-?[0-9]{1,8}", text) or not low <= int(text) <= high:
        raise ECGRecordError(path, field, text, f"a whole number, {low} to {high}")
    return int(text)
