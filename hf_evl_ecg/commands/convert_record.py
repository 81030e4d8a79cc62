r"""Write a recording of any format as a WFDB record, with a picture of it.

    hf-evl-ecg convert-record scan.dcm records/1001
    hf-evl-ecg convert-record lead.csv records/1002 --fs_hz 500 --unit uV --leads I II III aVR aVL aVF V1 V2 V3 V4 V5 V6

Reads WFDB, DICOM, HL7 aECG, GE MUSE and Philips Sierra XML, SCP-ECG, EDF, zip archives with one of these, and described CSV, HDF5 and NumPy
files. Writes OUT.hea, OUT.dat and OUT.png: 12 leads, 1 uV a step, age and sex; nothing of who the patient is. With such records
in a folder and a table of their labels, every data set command works: see docs/clinical.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_evl_ecg.command_line.parser import parse_arguments

if TYPE_CHECKING:  # --help must not wait for numpy
    from hf_evl_ecg.clinical.arrays import ArrayDescription

__all__ = ["ConvertRecordArguments", "command", "main"]


@dataclass
class ConvertRecordArguments:
    """What is converted, and where it goes."""

    source: str = field(metadata={"help": "File or WFDB record; may stand first.", "positional": True})
    destination: str = field(
        metadata={"help": "Record to write, without suffix; may stand second.", "positional": True}
    )
    picture: bool = field(default=True, metadata={"help": "Draw it on a page, too."})
    start_s: float = field(default=0.0, metadata={"help": "Where in the recording to begin (s)."})
    duration_s: float | None = field(default=None, metadata={"help": "So many seconds only; default: up to the end."})
    missing: Literal["raise", "interpolate"] = field(
        default="raise", metadata={"help": "Missing samples: raise an error, or interpolate them."}
    )
    gain_per_mv: float | None = field(
        default=None, metadata={"help": "Stored units per mV, where the header of a WFDB record is known to be wrong."}
    )
    fs_hz: float | None = field(default=None, metadata={"help": "Sampling rate (Hz) of a CSV, HDF5 or NumPy file."})
    unit: str | None = field(default=None, metadata={"help": "Unit of its numbers: mV, uV, nV or V."})
    leads: list[str] | None = field(default=None, metadata={"help": "Names of its columns, in their order."})
    dataset: str | None = field(default=None, metadata={"help": "Name of the array, where the file holds several."})
    index: int | None = field(
        default=None, metadata={"help": "Number of the recording, from 0, where the array holds several."}
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, ConvertRecordArguments, description=__doc__, prog=prog))


def main(args: ConvertRecordArguments) -> Path:
    """Convert.

    Returns:
        The new record's header.

    Raises:
        ECGRecordError: The source cannot be read.
        ValueError: The destination exists or cannot be a record's name, or a description lacks something.
    """
    from hf_evl_ecg.drawing.config import RenderConfig
    from hf_evl_ecg.drawing.rendering import render
    from hf_evl_ecg.records.reader import read_record
    from hf_evl_ecg.records.warned import gather_warnings
    from hf_evl_ecg.records.writing import check_destination, write_record

    check_destination(args.destination)
    with gather_warnings(Path(args.source).parent) as warned:
        ecg = read_record(
            args.source,
            nan=args.missing,
            gain_per_mv=args.gain_per_mv,
            start_s=args.start_s,
            duration_s=args.duration_s,
            description=_description(args),
        )
    picture = render(ecg, RenderConfig()) if args.picture else None
    written = write_record(ecg, args.destination, picture)
    for line in warned:
        print(f"Warning: {line}")
    about = [f"{ecg.metadata.get('format', 'WFDB')}, {ecg.duration_s:g} s at {ecg.fs_hz:g} Hz"]
    about += [f"{name} {value:g}" for name in ("age",) if (value := ecg.metadata.get(name)) is not None]
    about += [ecg.metadata["sex"]] if ecg.metadata.get("sex") else []
    about += [f"{', '.join(derived)} computed"] if (derived := ecg.metadata.get("derived_leads")) else []
    print(f"{', '.join(about)}\nWritten: {written}")
    return written


def _description(args: ConvertRecordArguments) -> ArrayDescription | None:
    from hf_evl_ecg.clinical.arrays import ArrayDescription
    from hf_evl_ecg.signals.ecg import STANDARD_LEADS

    if all(value is None for value in (args.fs_hz, args.unit, args.leads, args.dataset, args.index)):
        return None
    if args.fs_hz is None or args.unit is None:
        raise ValueError(
            f"fs_hz={args.fs_hz}, unit={args.unit}: numbers need both, and leads where they are not in usual order"
        )
    return ArrayDescription(args.fs_hz, args.unit, tuple(args.leads or STANDARD_LEADS), args.dataset, args.index)
