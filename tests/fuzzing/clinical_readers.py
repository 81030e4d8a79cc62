"""Recordings of every format that hf_evl_ecg reads: a file of 1.2 s each, so that some thousand can be read in a minute."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clinical_files as files
import numpy as np
import scipy.io
from written_records import GAIN, edit, write

from fuzzing.harness import Reader
from fuzzing.mutations import STRUCTURE
from fuzzing.valid import a_picture
from hf_evl_ecg.app.uploads import UploadError, read_uploads
from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.errors import ECGRecordError

KIT, DICOM, EDF = ("ecgdatakit",), ("pydicom",), ("ecgdatakit", "pyedflib")
DESCRIBED = {"description": ArrayDescription(fs_hz=500, unit="mV")}
WRITTEN = (
    "16",
    "80",
    "212",
    "24",
    "32",
    "516",
)  # by wfdb; others get the bytes of format 16, where they are no gaps there
WFDB_FORMATS = (*WRITTEN, "8", "61", "310")


def _numbers(seconds: float = 1.2) -> np.ndarray:
    return files.counts(seconds)


def _millivolts() -> np.ndarray:
    return _numbers() / 400


def _csv(path: Path) -> Path:
    lines = [",".join(STANDARD_LEADS), *(",".join(f"{x:.3f}" for x in row) for row in _millivolts())]
    path.write_text("\n".join(lines))
    return path


def _numpy(path: Path) -> Path:
    with path.open("wb") as file:
        np.save(file, _millivolts())
    return path


def _numpy_zip(path: Path) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, ecg=_millivolts())
    return path


def _hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", data=_millivolts().astype(np.float32), compression="gzip")
    return path


def _described(path: Path) -> Path:
    """An array whose description, which is damaged, lies beside it."""
    _numpy(path)
    beside = path.with_name(f"{path.name}.json")
    leads = ", ".join(f'"{lead}"' for lead in STANDARD_LEADS)
    beside.write_text(f'{{"fs_hz": 500, "unit": "mV", "leads": [{leads}], "dataset": null, "index": null}}')
    return beside


def _zip(path: Path) -> Path:
    record = write(path.parent, signal=_millivolts())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for suffix in (".hea", ".dat"):
            archive.write(record.with_suffix(suffix), f"r{suffix}")
            record.with_suffix(suffix).unlink()
    return path


def _clinical(
    name: str, make: Callable[[Path], Path], packages: tuple[str, ...] = (), options: Any = None, **more: Any
) -> Reader:
    """A file whose name says nothing."""
    return Reader(
        name,
        lambda folder: make(folder / "file"),
        lambda path: read_record(path.with_name("file"), **(options or {})),
        errors=(ECGRecordError,),
        check=_checked,
        packages=packages,
        **more,
    )


def _checked(found: Any) -> None:
    """No error names the patient, and no sample is left that is no number."""
    if isinstance(found, ECGRecordError):
        context = "" if found.__suppress_context__ else found.__context__
        text = f"{found} {found.value} {found.__cause__} {context}"
        assert not any(word in text for word in (files.NAME, files.GIVEN, files.NUMBER)), "the error names the patient"
        return
    assert np.isfinite(found.signal_mv).all()
    assert "identity" not in found.metadata


def _wfdb(fmt: str, damaged: str = "") -> Reader:
    """A record of which the header or the signal file is damaged; of formats that wfdb does not write, the bytes of another."""
    written = fmt if fmt in WRITTEN else "16"

    def make(folder: Path) -> Path:
        record = write(folder, "r", _millivolts(), fmt=written, adc_gain=[50.0] * 12)
        if written != fmt:
            edit(record, "r.dat 16 ", f"r.dat {fmt} ", 12)
        signals = min(path for path in folder.iterdir() if path.suffix != ".hea")  # FLAC has several
        return record.with_suffix(damaged) if damaged else signals

    return _record(f"WFDB {damaged or 'signals'} of format {fmt}", make, "r.hea")


def _record(name: str, make: Callable[[Path], Path], header: str = "m.hea") -> Reader:
    return Reader(name, make, lambda path: read_record(path.parent / header), errors=(ECGRecordError,), check=_checked)


def _matlab(damaged: str) -> Reader:
    def make(folder: Path) -> Path:
        samples = np.rint(_millivolts() * GAIN).T.astype("<i2")
        scipy.io.savemat(folder / "m.mat", {"val": samples}, format="4")
        lines = [f"m.mat 16+24 {GAIN:g}/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS]
        (folder / "m.hea").write_text("\n".join([f"m 12 500 {samples.shape[1]}", *lines]))
        return folder / f"m{damaged}"

    return _record(f"WFDB {damaged} beside MATLAB", make)


def _segments(folder: Path) -> Path:
    for name in ("a", "b"):
        write(folder, name, _millivolts())
    (folder / "m.hea").write_text("m/2 12 500 1200\na 600\nb 600\n# <age>: 60\n")
    return folder / "m.hea"


def _uploaded(path: Path) -> Any:
    """The page of the app moves what was uploaded and deletes it; the damaged file itself stays for the next reader."""
    together = path.parent / "uploads"
    together.mkdir(exist_ok=True)
    given = [Path(shutil.copy(file, together)) for file in sorted(path.parent.iterdir()) if file.is_file()]
    try:
        return read_uploads(given, together, max_megabytes=50)
    finally:
        assert not list(together.iterdir()), "an uploaded file was left behind"


def _upload(name: str, make: Callable[[Path], Path], **more: Any) -> Reader:
    return Reader(name, make, _uploaded, errors=(UploadError,), **more)


READERS = [
    _clinical("DICOM", lambda path: files.write_dicom(path, files.dicom_group(_numbers())), DICOM),
    _clinical("HL7 aECG", lambda path: files.write_aecg(path, _numbers()), KIT),
    _clinical("GE MUSE XML", lambda path: files.write_muse(path, files.counts(1.2, leads=files.INDEPENDENT_LEADS)), KIT),
    _clinical("Philips Sierra XML", lambda path: files.write_sierra(path, _numbers()), KIT),
    _clinical("Philips Sierra XML, compressed", lambda path: files.write_sierra(path, _numbers(), compressed=True), KIT),
    _clinical("SCP-ECG", lambda path: files.write_scp(path, _numbers()), KIT),
    _clinical("SCP-ECG, Huffman", lambda path: files.write_scp(path, _numbers(), huffman=True), KIT),
    _clinical("EDF", lambda path: files.write_edf(path, files.counts(2.0, step_uv=1.0).T), EDF),
    _clinical("EDF, its beginning", lambda path: files.write_edf(path, files.counts(2.0, step_uv=1.0).T, duration=0.1), EDF, {"duration_s": 0.3}),
    _clinical("CSV", _csv, options=DESCRIBED),
    _clinical("NumPy", _numpy, options=DESCRIBED),
    _clinical("NumPy npz", _numpy_zip, options=DESCRIBED, sound=False),
    _clinical("HDF5", _hdf5, ("h5py",), {"description": ArrayDescription(fs_hz=500, unit="mV", dataset="ecg")}),
    _clinical("description of an array", _described, mutation=STRUCTURE),
    _clinical("zip", _zip, sound=False),
    _wfdb("16", ".hea"),
    *(_wfdb(fmt) for fmt in WFDB_FORMATS),
    _matlab(".hea"),
    _matlab(".mat"),
    _record("WFDB .hea of segments", _segments),
    _upload("upload of a header", lambda folder: write(folder, "r", _millivolts()).with_suffix(".hea")),
    _upload("upload of signals", lambda folder: write(folder, "r", _millivolts()).with_suffix(".dat"), called=("r.hea:",)),
    _upload("upload of a zip", lambda folder: _zip(folder / "a.zip"), sound=False),
    _upload("upload of a picture", a_picture("p.jpg")),
    _upload("upload of DICOM", lambda folder: files.write_dicom(folder / "file", files.dicom_group(_numbers())), packages=DICOM),
]  # fmt: skip
