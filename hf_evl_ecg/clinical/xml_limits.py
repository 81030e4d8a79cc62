"""XML from anywhere, looked through before a library reads it: nothing is expanded or fetched, nothing larger is made than there is.

What is looked through is what the libraries read: where a text is not in the encoding that it states, they and this fall back alike.
"""

import base64
import binascii
import codecs
import re
import xml.parsers.expat as expat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hf_evl_ecg.signals.errors import ECGRecordError

from .libraries import refuse

__all__ = ["check_sierra", "check_xml"]

MAX_ELEMENTS, MAX_DEPTH = 100_000, 64
MAX_LEADS = 1024
MAX_XLI_SAMPLES = 4_000_000  # unpacked in Python; 16 leads of 11 s at 1 kHz are 176,000
_XLI_BITS = 10
_PROLOG = re.compile(r"^\ufeff?\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")


class _Element(NamedTuple):
    name: str
    attributes: dict[str, str]
    text: list[str]


def check_xml(path: Path, kind: str, data: bytes) -> None:
    """Refuse entities, whatever they stand for, and trees that are deeper or larger than any export.

    Raises:
        ECGRecordError: Such a file, or one that is not well-formed.
    """
    _scan(path, kind, data, ())


def check_sierra(path: Path, kind: str, data: bytes) -> None:
    """As `check_xml`; and refuse numbers of leads that no device has, and compressed samples that become more than are read.

    Raises:
        ECGRecordError: Such a file.
    """
    for element in _scan(path, kind, data, ("parsedwaveforms", "numberchannelsallocated", "numberchannelsvalid")):
        text = "".join(element.text)
        if element.name != "parsedwaveforms":
            _check_leads(path, element.name, _number(text))
            continue
        _check_leads(path, "leadlabels", len(element.attributes.get("leadlabels", "").split()))
        if "XLI" not in (value.strip().upper() for value in element.attributes.values()):
            continue
        try:
            packed = base64.b64decode("".join(text.split()))
        except (binascii.Error, ValueError):
            refuse(path, kind, "samples that are no Base64")
        samples = _lzw_bytes(packed) // 2
        if samples > MAX_XLI_SAMPLES:
            raise ECGRecordError(path, "samples", samples, f"at most {MAX_XLI_SAMPLES} of all compressed leads")


def _check_leads(path: Path, field: str, count: float) -> None:
    if count > MAX_LEADS:
        raise ECGRecordError(path, field, f"{count:g}", f"at most {MAX_LEADS} leads")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # no number, of which the library says what is wrong


def _scan(path: Path, kind: str, data: bytes, wanted: tuple[str, ...]) -> list[_Element]:
    """Go through a document, and return the elements of these names (in lower case) with their text."""
    for document in _readings(data):
        try:
            return _parse(path, document, wanted)
        except (expat.ExpatError, ValueError, LookupError) as error:  # of the last: unknown encodings
            if isinstance(error, ECGRecordError):
                raise
    refuse(path, kind, "XML that is not well-formed")


def _readings(data: bytes) -> Iterator[bytes | str]:
    """The bytes as they say they are; then as text without what they say."""
    yield data
    stated = _ENCODING.search(data[:1024])
    for encoding in filter(None, (stated and stated[1].decode("ascii"), "utf-8", "latin-1")):
        try:
            codecs.lookup(encoding)
            yield _PROLOG.sub("", data.decode(encoding))
        except (LookupError, UnicodeDecodeError):
            continue


def _parse(path: Path, document: bytes | str, wanted: tuple[str, ...]) -> list[_Element]:
    found: list[_Element] = []
    open_elements: list[_Element] = []
    depth = elements = 0
    parser = expat.ParserCreate()

    def entity(name: str, *_: object) -> None:
        raise ECGRecordError(path, "XML", "a declaration of entities", "a file without them, as devices write it")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            stated = f"{elements} elements, {depth} deep"
            raise ECGRecordError(path, "XML", stated, f"at most {MAX_ELEMENTS} elements, {MAX_DEPTH} deep")
        if (local := name.rpartition(":")[2].lower()) in wanted:
            found.append(_Element(local, attributes, []))
            open_elements.append(found[-1])

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        if open_elements and name.rpartition(":")[2].lower() == open_elements[-1].name:
            open_elements.pop()

    def text(piece: str) -> None:
        for element in open_elements:
            element.text.append(piece)

    parser.EntityDeclHandler, parser.StartElementHandler, parser.EndElementHandler = entity, start, end
    parser.CharacterDataHandler = text
    parser.Parse(document, True)
    return found


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
