"""Reading a WFDB record with `hf_evl_ecg.records.reader.read_record` against `wfdb.rdrecord` (voltages) and `wfdb.rdsamp`.

Records of 12 leads, 10 s and 500 Hz are written first, in 16-bit samples, in pairs of 12 bits and as FLAC. The readers take turns; times
are CPU seconds for a record, and a ratio is the median over rounds to ours: above 1 a reader is slower. Deviation is the largest
difference of a voltage from `rdrecord`'s; ours are float32. Ours also checks file sizes, checksums and plausible scales, orders the leads
and reads age, sex and diagnoses.

    OMP_NUM_THREADS=1 python benchmarks/ecg_records.py

Takes about a minute.
"""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import wfdb
from measuring import median_ratio, take_turns
from reporting import Table, options

from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import LABELS, simulate

FORMATS = ("16", "212", "516")
OURS = "hf_evl_ecg read_record"
COLUMNS = {"format": "", "reader": "", "ms a record": ".2f", "ratio": ".2f", "deviation [µV]": ".4f"}
Reader = Callable[[str], np.ndarray]
READERS: dict[str, Reader] = {
    OURS: lambda path: read_record(path).signal_mv,
    "wfdb rdrecord": lambda path: wfdb.rdrecord(path).p_signal,
    "wfdb rdsamp": lambda path: wfdb.rdsamp(path)[0],
}


def write_records(folder: Path, fmt: str, count: int) -> list[str]:
    """Paths of simulated records in one format."""
    names = [f"{fmt}_{seed}" for seed in range(count)]
    layout = {"fs": 500, "units": ["mV"] * 12, "sig_name": list(STANDARD_LEADS), "fmt": [fmt] * 12}
    layout |= {"adc_gain": [200.0] * 12, "baseline": [0] * 12, "comments": ["<age>: 51", "<sex>: F"]}
    for seed, name in enumerate(names):
        signal = simulate(LABELS[seed % len(LABELS)], seed=seed).signal_mv.astype(np.float64)
        wfdb.wrsamp(name, p_signal=signal, write_dir=str(folder), **layout)
    return [str(folder / name) for name in names]


def read_all(read: Reader, paths: Sequence[str]) -> None:
    """Read one record after the other."""
    for path in paths:
        read(path)


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--records", type=int, default=40, help="records of each format")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about wfdb's own calls
    table = Table(__file__, args.output, COLUMNS, ("wfdb", "numpy", "soundfile"))
    with tempfile.TemporaryDirectory() as folder:
        for fmt in FORMATS:
            paths = write_records(Path(folder), fmt, args.records)
            truth = [wfdb.rdrecord(path).p_signal for path in paths]
            taken = take_turns({name: partial(read_all, read, paths) for name, read in READERS.items()}, args.rounds)
            for name, times in taken.items():
                off = max(np.abs(READERS[name](path) - t).max() for path, t in zip(paths, truth, strict=True))
                ms = 1e3 * statistics.median(times) / len(paths)
                table.add(fmt, name, ms, median_ratio(times, taken[OURS]), 1e3 * off)


if __name__ == "__main__":
    main()
