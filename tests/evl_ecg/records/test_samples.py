"""Signal files: bytes and values worked out by hand for every format, frames, skew, offsets, several files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hf_evl_ecg.records.header import FORMATS, ECGRecordError, parse_header_text
from hf_evl_ecg.records.samples import check_sizes, read_physical

NAN = float("nan")
HAND_MADE = {  # blocks of bytes, and their samples by the format's definition; the most negative one is "missing"
    "16": ("0100 ffff 3412 0080", [1, -1, 0x1234, NAN]),
    "61": ("0001 ffff 1234 8000", [1, -1, 0x1234, NAN]),
    "160": ("0180 ff7f 3492 0000", [1, -1, 0x1234, NAN]),
    "80": ("81 7f ff 00", [1, -1, 127, NAN]),
    "24": ("010000 ffffff 563412 000080", [1, -1, 0x123456, NAN]),
    "32": ("01000000 ffffffff 78563412 00000080", [1, -1, 0x12345678, NAN]),
    # 0xf01, 0x2fe; 0x800, 0x080
    "212": ("012ffe 000880", [-255, 766, NAN, 128]),
    # words of 16 bits: s1 << 1 | (s3 & 31) << 11, s2 << 1 | (s3 >> 5) << 11; s3 = 100 = 3 << 5 | 4, -2 = 0x3fe
    "310": ("0220 fc1f 00fc fefb", [1, -2, 100, NAN, 511, -1]),
    # words of 32 bits: s1 | s2 << 10 | s3 << 20; the third is the second with its two unused bits set
    "311": ("01f84f06 00fef73f 00fef7ff", [1, -2, 100, NAN, 511, -1, NAN, 511, -1]),
}


def physical(folder: Path, lines: str, data: bytes | None = None, n_frames: int | str = "") -> list[np.ndarray]:
    """Write a record of `r.dat`, and read its signals in physical units."""
    if data is not None:
        (folder / "r.dat").write_bytes(data)
    count = len(lines.splitlines())
    header = parse_header_text(f"r {count} 500 {n_frames}\n{lines}", folder / "r.hea")
    files = {name: folder / name for name in {line.file_name for line in header.signals}}
    return read_physical(header, files, check_sizes(header, files))


@pytest.mark.parametrize("fmt", HAND_MADE)
@pytest.mark.parametrize("n_frames", [3, 4, 5])
@pytest.mark.parametrize("offset", [0, 24])
def test_bytes_by_hand(tmp_path, fmt, n_frames, offset):
    """Eleven signals, so that a frame begins anywhere in a block and the last block is cut anywhere."""
    digits, block = HAND_MADE[fmt]
    raw, total = bytes.fromhex(digits), 11 * n_frames
    blocks, rest = divmod(total, len(block))
    tails = {
        "212": (0, 2, 3, 5),
        "310": (0, 2, 4, 4, 6, 8),
        "311": (0, 2, 3, 4, 6, 7, 8, 10, 11),
    }  # bytes of 0, 1, ... samples
    tail = tails[fmt][rest] if fmt in tails else rest * len(raw) // len(block)
    data = b"\x5a" * offset + raw * blocks + raw[:tail]
    expected = (np.resize(block, (n_frames, 11)) - 7) / 4
    lines = "\n".join([f"r.dat {fmt}+{offset} 4(7)/mV"] * 11)
    for length in (n_frames, ""):
        signals = physical(tmp_path, lines, data, length)
        assert np.array_equal(np.stack(signals, axis=1), expected, equal_nan=True)
    with pytest.raises(ECGRecordError, match="n_samples"):
        physical(tmp_path, lines, data[:-1], n_frames)


@pytest.mark.parametrize(
    ("fmt", "bits", "block"),
    [("508", 8, [1, -1, 127, NAN]), ("516", 16, [1, -1, 0x1234, NAN]), ("524", 24, [1, -1, 0x123456, NAN])],
)
def test_flac_by_hand(tmp_path, fmt, bits, block):
    """Each channel of the stream is a signal; several samples per frame follow each other in it; offsets are samples."""
    stored = np.nan_to_num(np.resize(block, (10, 3)), nan=-(2 ** (bits - 1))).astype(np.int64) << (32 - bits)
    subtype = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits]
    soundfile.write(tmp_path / "r.dat", stored.astype(np.int32), 96000, subtype, format="FLAC")
    for per_frame, offset, skew in ((1, 0, 0), (2, 0, 0), (2, 4, 0), (1, 3, 2), (2, 0, 2)):
        layouts = [f"{fmt}x{per_frame}+{offset}", f"{fmt}x{per_frame}:{skew}+{offset}", f"{fmt}x{per_frame}+{offset}"]
        expected = np.resize(block, (10, 3))[offset:]
        moved = np.concatenate([expected[skew * per_frame :, 1], [NAN] * (skew * per_frame)])
        expected[:, 1] = moved
        signals = physical(tmp_path, "\n".join(f"r.dat {layout} 1/mV" for layout in layouts))
        assert np.array_equal(np.stack(signals, axis=1), expected, equal_nan=True)
    with pytest.raises(ECGRecordError, match="samples per frame is 'different'"):
        physical(tmp_path, f"r.dat {fmt}\nr.dat {fmt}x2\nr.dat {fmt}")
    with pytest.raises(ECGRecordError, match=f"FLAC of at most {bits} bits and 2 channels"):
        physical(tmp_path, f"r.dat {fmt}\nr.dat {fmt}")
    with pytest.raises(ECGRecordError, match="n_samples is 11; allowed: 1 to 10"):
        physical(tmp_path, f"r.dat {fmt}\n" * 3, None, 11)


def test_a_flac_file_that_would_expand_beyond_reason_is_refused(tmp_path):
    soundfile.write(tmp_path / "r.dat", np.zeros((200_000, 8), np.int16), 96000, "PCM_16", format="FLAC")
    size = (tmp_path / "r.dat").stat().st_size
    with pytest.raises(
        ECGRecordError, match=f"n_samples is 200000; allowed: 1 to {size * 256 // 8}: r.dat has {size} "
    ):
        physical(tmp_path, "r.dat 516\n" * 8, None, 200_000)


def test_differences_frames_skew_and_files_by_hand(tmp_path):
    differences = np.array([1, 10, 2, -20, -3, 30, 4, -40], dtype=np.int8).tobytes()  # two signals, in turn
    first, second = physical(tmp_path, "r.dat 8 2(1)/mV 16 0 5\nr.dat 8:1 1(0)/mV 16 0 -100", differences)
    assert np.array_equal(first, (np.array([6, 8, 5, 9]) - 1) / 2)
    assert np.array_equal(second, [-110, -80, -120, NAN], equal_nan=True)

    frames = np.array(
        [[1, 2, 30], [4, 5, 60], [7, 8, 90]], dtype="<i2"
    ).tobytes()  # two samples of one signal, one of another
    slow = np.array([100, -200, 300], dtype=">i2").tobytes()
    (tmp_path / "s.dat").write_bytes(slow)
    lines = "r.dat 16x2:1 10/mV\nr.dat 16 0 16 3\ns.dat 61 1(100)/mV"
    fast, uncalibrated, other = physical(tmp_path, lines, frames, 3)
    assert np.allclose(fast, [0.4, 0.5, 0.7, 0.8, NAN, NAN], equal_nan=True)
    assert np.allclose(uncalibrated, np.array([27, 57, 87]) / 200)
    assert np.array_equal(other, [0, -300, 200])


def test_every_format_of_the_header_is_tested():
    assert {*HAND_MADE, "508", "516", "524", "8"} == set(FORMATS)
