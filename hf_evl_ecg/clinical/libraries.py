"""What stands between a library and what it reads: its absence, its errors and its warnings, none of which may name a patient."""

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from hf_evl_ecg.signals.ecg import canonical_lead
from hf_evl_ecg.signals.errors import ECGRecordError

__all__ = ["library", "read_by", "refuse"]

# What a library quotes from the file, which may be a name or a number of the patient: quotes, brackets, all behind a colon.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^]]*\]|:.*", re.DOTALL)
_WORD = re.compile(r"[^\s,;]+")
_ORDINARY = re.compile(
    r"a|as|beats?|bytes?|channels?|crc|crc32|data|duration|ends|file|first|found|holds|ignored|in|is|leads?|median|missing|no|not|of|"
    r"only|rate|read|rhythm|samples?|sampling|section|sequence|series|sets?|size|the|units?|values?|waveform|xml"
)
_LONGEST = 120


def library(path: Path, kind: str, name: str) -> ModuleType:
    """Import a library of the extra ``clinical``.

    Raises:
        ECGRecordError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        missing = name.partition(".")[0]
    allowed = f"WFDB, as {missing} is not installed (pip install 'hf-mic-evl-ecg[clinical]')"
    raise ECGRecordError(path, "format", kind, allowed)


def read_by(path: Path, kind: str, parse: Callable[[], Any], content: bytes = b"") -> tuple[Any, list[str]]:
    """Let a library parse a file.

    Args:
        path: The file, for messages.
        kind: Its format.
        parse: Calls the library.
        content: The file's bytes: what the library says in words of the file, it may quote.

    Returns:
        What it gives, and what it warns of, without anything that it quotes from the file.

    Raises:
        ECGRecordError: Whatever it stumbles over, without anything that it quotes from the file.
    """
    with _silent("pydicom"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parsed = parse()
        except ECGRecordError:
            raise
        except MemoryError:
            reason = "more than fits into memory"
        except Exception as error:  # whatever a library stumbles over in damaged bytes
            reason = _unquoted(error, content, path)
        else:
            said = {
                _plain(str(found.message), content, path)
                for found in caught
                if not issubclass(found.category, DeprecationWarning)
            }
            return parsed, sorted(said - {""})
    refuse(path, kind, reason)  # outside, so that no traceback shows what the library quoted


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep what a library logs about values of the file out of the log."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def refuse(path: Path, kind: str, reason: str) -> NoReturn:
    """Refuse a damaged file.

    Raises:
        ECGRecordError: Always.
    """
    raise ECGRecordError(
        path, f"{kind} content", reason, "a whole file as the device or archive exports it; export it again"
    )


def _unquoted(error: Exception, content: bytes, path: Path) -> str:
    said = _plain(str(error), content, path) if type(error).__module__.startswith("ecgdatakit") else ""
    return f"damaged ({type(error).__name__}{': ' + said if said else ''})"


def _plain(text: str, content: bytes, path: Path) -> str:
    """A library's sentence without what it quotes: what stands in quotes or brackets, and words of the file that are no usual ones."""
    for end in (f" in {path}", f" of {path}", f" of {path.name}"):
        text = text.removesuffix(end)
    content = content.replace(b"\x00", b"").lower()  # of UTF-16, too
    words = [
        word
        if _ORDINARY.fullmatch(word.lower()) or canonical_lead(word) or word.lower().encode() not in content
        else "…"
        for word in _WORD.findall(_QUOTED.sub(" ", text))
    ]
    return " ".join(words)[:_LONGEST].strip(" -") if set(words) - {"…"} else ""
