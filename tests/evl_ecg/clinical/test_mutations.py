"""Damaged files of every format: typed errors that name no patient, soon and without much memory; seeded, so each can be had again."""

import random
import resource
import time
import warnings
import zipfile
from pathlib import Path

import clinical_files as files
import numpy as np
import pytest
from written_records import write

from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.errors import ECGRecordError

NUMBERS = [b"0", b"-1", b"1", b"65535", b"2147483648", b"99999999999", b"1e308", b"nan", b"-0.0", b""]
WORDS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\1\0\0\0",
    b"\0\0\0\x80",
    b"<!--",
    b"]]>",
    b"&x;",
    b"\xfe\xff",
]
SECONDS = 1.0
MEGABYTES = 200  # of growth over all; the files have a tenth of one


def _short(kind: str, folder: Path) -> tuple[Path, dict]:
    """A file of 1.2 s, so that some thousand can be read in a minute; its name says nothing."""
    path, numbers = folder / "file", files.counts(1.2)
    described = {"description": ArrayDescription(fs_hz=500, unit="mV")}
    if kind == "DICOM":
        return files.write_dicom(path, files.dicom_group(numbers)), {}
    if kind == "HL7 aECG":
        return files.write_aecg(path, numbers), {}
    if kind == "GE MUSE XML":
        return files.write_muse(path, files.counts(1.2, leads=files.INDEPENDENT_LEADS)), {}
    if kind in ("Philips Sierra XML", "Philips Sierra XML, compressed"):
        return files.write_sierra(path, numbers, compressed=kind.endswith("compressed")), {}
    if kind in ("SCP-ECG", "SCP-ECG, Huffman"):
        return files.write_scp(path, numbers, huffman=kind.endswith("Huffman")), {}
    if kind == "EDF":
        return files.write_edf(path, files.counts(2.0, step_uv=1.0).T), {}
    if kind == "EDF, its beginning":
        return files.write_edf(path, files.counts(2.0, step_uv=1.0).T, duration=0.1), {"duration_s": 0.3}
    if kind == "CSV":
        lines = [",".join(STANDARD_LEADS), *(",".join(f"{x:.3f}" for x in row) for row in numbers / 400)]
        path.write_text("\n".join(lines))
        return path, described
    if kind == "NumPy":
        with path.open("wb") as file:
            np.save(file, numbers / 400)
        return path, described
    if kind == "zip":
        record = write(folder, signal=numbers / 400)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for suffix in (".hea", ".dat"):
                archive.write(record.with_suffix(suffix), f"r{suffix}")
                record.with_suffix(suffix).unlink()
        return path, {}
    return write(folder, "r", numbers / 400), {}


KINDS = ["DICOM", "HL7 aECG", "GE MUSE XML", "Philips Sierra XML", "Philips Sierra XML, compressed", "SCP-ECG", "SCP-ECG, Huffman",
         "EDF", "EDF, its beginning", "CSV", "NumPy", "zip", "WFDB"]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes, numbers of text, numbers of binary fields, pieces left out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Headers are small and samples many: half of the changes are made near the beginning.
        at = rng.randrange(min(len(changed), 2048) if rng.random() < 0.5 else len(changed))
        how = rng.randrange(7)
        if how == 0:
            changed[at] = rng.randrange(256)
        elif how == 1:
            word = rng.choice(WORDS)
            changed[at : at + len(word)] = word
        elif how == 2:
            end = at
            while end < len(changed) and chr(changed[end]) in "0123456789.-":
                end += 1
            changed[at:end] = rng.choice(NUMBERS)
        elif how == 3:
            del changed[at : at + rng.randint(1, 64)]
        elif how == 4:
            piece = changed[at : at + rng.randint(1, 512)]
            changed[at:at] = piece
        elif how == 5:
            del changed[max(at, 16) :]
        else:
            other = rng.randrange(len(changed))
            changed[at : at + 4] = changed[other : other + 4]
        if not changed:
            return bytes(changed)
    return bytes(changed)


def damage(kind: str, folder: Path, count: int, seed: int = 0) -> tuple[int, int, float]:
    """Read `count` damaged files; returns how many were refused and read, and the longest time of the processor (s)."""
    rng = random.Random(f"{kind} {seed}")
    path, options = _short(kind, folder)
    target = path.with_suffix(".hea") if kind == "WFDB" else path
    whole = target.read_bytes()
    assert len(read_record(path, **options)) > 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    refused = read = 0
    longest = 0.0
    for number in range(count):
        target.write_bytes(mutated(whole, rng))
        started = time.process_time()
        try:
            ecg = read_record(path, **options)
        except ECGRecordError as error:
            refused += 1
            text = f"{error} {error.value} {error.__cause__} {'' if error.__suppress_context__ else error.__context__}"
            assert not any(word in text for word in (files.NAME, files.GIVEN, files.NUMBER)), (kind, seed, number)
        else:
            read += 1
            assert np.isfinite(ecg.signal_mv).all()
            assert "identity" not in ecg.metadata
        longest = max(longest, time.process_time() - started)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        assert grown < MEGABYTES, (kind, seed, number)
    return refused, read, longest


@files.NEEDS
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_typed_errors(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused, read, longest = damage(kind, tmp_path, 300)
    assert refused > 20, "the changes do no damage"
    assert read > 0
    assert longest < SECONDS


@files.NEEDS
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_thousand_damaged_files(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused, read, longest = damage(kind, tmp_path, 20_000, seed=1)
    print(f"{kind}: {refused} refused, {read} read, longest {longest:.2f} s")
    assert longest < SECONDS
