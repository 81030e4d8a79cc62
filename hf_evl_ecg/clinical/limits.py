"""What a file asks of memory and time, counted from its own bytes before a library decodes it."""

import re
from pathlib import Path

from hf_evl_ecg.signals.errors import ECGRecordError

from .recording import check_count

__all__ = ["check_edf", "check_scp", "stated_number"]

MAX_EDF_SIGNALS, MAX_EDF_RECORDS = 1024, 1_000_000


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
