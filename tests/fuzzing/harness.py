"""A reader, what it may answer to a damaged file, and what a run over many of them finds."""

import json
import os
import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.mutations import Mutation, bytes_mutated

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT / package}{os.sep}" for package in ("hf_mic", "hf_evl_ecg"))
SECONDS = 1.0  # of the processor, for one file
HANGS_S = 20.0  # of the clock, after which a reader is stopped
MEGABYTES = 64  # that reading may take at most, whatever the file's size
PER_BYTE = 100  # and this many bytes for each byte of it
ADDRESSES = 4 << 30  # of address space beyond what is taken before: what is asked for beyond it is refused, not taken
VALID_READ = 20  # times that the valid file is read first, so that imports and caches are no part of what is measured
KEPT_MB = 256  # that may remain when all are read; what allocators keep comes and goes below it


@dataclass(frozen=True)
class Reader:
    """One way from a file to a value.

    Attributes:
        name: What it is called.
        make: Writes a valid input into an empty folder and returns the file that is damaged.
        read: Reads that input, given the file.
        mutation: How the file is damaged.
        errors: What may be raised. Of ValueError and OSError only these themselves are allowed, and those the project derives from
            them: a UnicodeDecodeError is no answer to a user.
        check: Looks at what was read, or at the error; raises AssertionError.
        packages: What has to be installed.
        called: What messages may call the file instead of its name: its data set, its record.
        refuses: Whether it refuses anything: what an interrupted run goes on from, it does without where it is damaged.
        share: Of the files of the others, how many the suite gives it: fewer where one takes ten milliseconds and more.
        sound: Whether some damaged files can still be read: a format with a checksum over everything lets none through.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    mutation: Mutation = bytes_mutated
    errors: tuple[type[BaseException], ...] = (ValueError, OSError)
    check: Callable[[Any], None] | None = None
    packages: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    refuses: bool = True
    share: float = 1.0
    sound: bool = True


@dataclass
class Failure:
    """One damaged file to which a reader gave no answer that is allowed.

    Attributes:
        number: With the reader's name and the seed, all it takes to make the file again.
        why: What happened.
        content: The file.
    """

    number: int
    why: str
    content: bytes = field(repr=False)


@dataclass
class Found:
    """What a run over many damaged files found.

    Attributes:
        refused: Files that were refused as they should be.
        read: Files that were read.
        longest_s: Longest time of the processor for one.
        grown_mb: Most memory that one took.
        kept_mb: Memory that remained after all.
        failures: All others.
    """

    refused: int = 0
    read: int = 0
    longest_s: float = 0.0
    grown_mb: float = 0.0
    kept_mb: float = 0.0
    failures: list[Failure] = field(default_factory=list)


class Hanging(BaseException):
    """A reader that was stopped; no reader may catch it."""


def damaged(reader: Reader, whole: bytes, number: int, seed: int) -> bytes:
    """The file of that number; each can be had without those before it."""
    return reader.mutation(whole, random.Random(f"{reader.name} {seed} {number}"))


def run(
    reader: Reader, folder: Path, count: int, seed: int, after: Callable[[Found], Any] = lambda found: None
) -> Found:
    """Read `count` damaged files.

    Args:
        reader: The reader.
        folder: An empty folder, for one valid input.
        count: How many files.
        seed: Another seed damages them otherwise.
        after: Called after each file.
    """
    found = Found()
    target = reader.make(folder)
    whole = target.read_bytes()
    with warnings.catch_warnings(), _bounded():
        warnings.simplefilter("ignore")
        for _ in range(VALID_READ):
            reader.read(target)
        before = _memory_mb("VmRSS")
        for number in range(count):
            content = damaged(reader, whole, number, seed)
            # A new file each time: the last one may still be mapped into memory.
            target.unlink(missing_ok=True)
            target.write_bytes(content)
            try:
                _one(reader, target, folder, found)
            except Exception as error:
                found.failures.append(Failure(number, f"{type(error).__name__}: {error}"[:2000], content))
            found.kept_mb = _memory_mb("VmRSS") - before
            after(found)
    if found.kept_mb > KEPT_MB:
        found.failures.append(Failure(-1, f"{found.kept_mb:.0f} MB remain after {count} files", b""))
    return found


def _one(reader: Reader, target: Path, folder: Path, found: Found) -> None:
    """Read one damaged file and count the answer; whatever else happens is raised as AssertionError."""
    size = target.stat().st_size
    _forget_peak()
    held, started = _memory_mb("VmRSS"), time.process_time()
    with _stopped_after(HANGS_S):
        try:
            value: Any = reader.read(target)
            refusal = None
        except Hanging:
            raise AssertionError(f"still reading after {HANGS_S:g} s") from None
        except (Exception, SystemExit, RecursionError) as error:
            value = refusal = error
    seconds, grown = time.process_time() - started, _memory_mb("VmHWM") - held
    found.longest_s, found.grown_mb = max(found.longest_s, seconds), max(found.grown_mb, grown)
    if refusal is not None:
        _check_refusal(reader, refusal, target, folder)
    if reader.check is not None:
        reader.check(value)
    assert seconds < SECONDS, f"took {seconds:.2f} s for {size} bytes"
    assert grown < MEGABYTES + size * PER_BYTE / 1e6, f"took {grown:.0f} MB for {size} bytes"
    found.refused += refusal is not None
    found.read += refusal is None


def _check_refusal(reader: Reader, error: BaseException, target: Path, folder: Path) -> None:
    kind = type(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"  {Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in frames[-4:])
    shown = f"{kind.__module__}.{kind.__name__}: {str(error)[:300]}\n{where}"
    foreign = kind.__module__.partition(".")[0] not in ("hf_mic", "hf_evl_ecg", "builtins")
    assert isinstance(error, reader.errors), shown
    assert not foreign, shown
    if kind.__module__ == "builtins":  # which of Python's own classes: not those that say what went wrong in its depths
        plain = kind in reader.errors or (isinstance(error, OSError) and error.filename is not None)
        assert plain, f"not a plain error: {shown}"
    if isinstance(error, SystemExit):
        return
    assert frames[-1].filename.startswith(OURS) or isinstance(error, OSError), f"raised by others: {shown}"
    named = {target.name, str(folder), *reader.called}
    assert any(name in str(error) for name in named), f"names no file: {shown}"
    assert len(str(error)) < 5000, f"an error of {len(str(error))} characters: {shown}"


@contextmanager
def _bounded() -> Iterator[None]:
    """Refuse memory far beyond what any file here needs, which is often taken before it is filled and so never measured."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(_memory_mb("VmSize") * 1024 * 1024) + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _forget_peak() -> None:
    """Let the peak of this process begin anew (Linux); elsewhere it stays that of the whole run, and what is measured too much."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory_mb(name: str) -> float:
    """A number of /proc/self/status in MB; VmHWM is the peak of what is held, VmRSS what is held now."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summary(found: Found) -> dict[str, Any]:
    """The numbers of a run, as json can hold them."""
    kept = {name: round(getattr(found, name), 3) for name in ("longest_s", "grown_mb", "kept_mb")}
    failures = [{"number": failure.number, "why": failure.why} for failure in found.failures]
    return {"refused": found.refused, "read": found.read, **kept, "failures": json.loads(json.dumps(failures))}
