"""Who the patient is: dropped when a file is read, from everything that is made of it, unless it is asked for."""

import pickle
import traceback
import warnings

import clinical_files as files
import pytest

from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record

pytestmark = files.NEEDS
WRITERS = files.WRITERS | {"plain EDF": lambda path: files.write_edf(path, plus=False)}


def absent(text):
    assert [word for word in files.IDENTITY if word in text] == []


@pytest.mark.parametrize("kind", WRITERS)
def test_names_and_numbers_of_patients_are_dropped(kind, tmp_path, caplog):
    path = WRITERS[kind](tmp_path / "scan")
    assert any(word.encode() in path.read_bytes() for word in files.IDENTITY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ecg = read_record(path)
    said = [str(warning.message) for warning in caught]
    absent(
        "\n".join(
            [repr(ecg), repr(dict(ecg.metadata)), *ecg.comments, *ecg.diagnoses, ecg.record_name, *said, caplog.text]
        )
    )
    absent(pickle.dumps(ecg).decode("latin-1"))


@pytest.mark.parametrize("kind", WRITERS)
def test_they_are_kept_for_who_asks(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        identity = read_record(WRITERS[kind](tmp_path / "scan"), keep_identity=True).metadata["identity"]
    assert files.NAME.upper() in " ".join(map(str, identity.values())).upper()
    assert files.NUMBER in identity["patient_id"]
    if kind not in ("plain EDF",):
        assert identity["birth_date"] in (files.BORN, files.BORN.replace("-", ""))
    if kind == "GE MUSE XML":
        assert identity["statements"] == (f"Sinus rhythm in {files.GIVEN} {files.NAME}",)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("HL7 aECG", b"<digits>", f"<digits>{files.NAME} ".encode()),
        ("GE MUSE XML", b"<WaveFormData>", f"<WaveFormData>{files.NAME} ".encode()),
        ("GE MUSE XML", b"<LeadSampleCountTotal>", b"<LeadSampleCountTotal>9"),
        ("Philips Sierra XML", b"<documentversion>1.03", f"<documentversion>{files.NUMBER}".encode()),
        ("Philips Sierra XML", b"Base64", files.NAME.encode()),
        ("EDF", b"-32768  ", f"{files.NAME:.8}".encode()),
        ("SCP-ECG", b"SCPECG", b"SCPEC"),
    ],
)
def test_errors_of_libraries_do_not_quote_the_file(kind, old, new, tmp_path):
    path = WRITERS[kind](tmp_path / "scan")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ECGRecordError) as caught:
        read_record(path)
    absent("".join(traceback.format_exception(caught.value)))
    assert str(path) in str(caught.value)


def test_what_a_library_logs_stays_out_of_the_log(tmp_path, caplog):
    path = files.write_dicom(tmp_path / "scan")
    # The tag's length is made larger, so that a field of 64 characters holds the name and number behind it.
    path.write_bytes(path.read_bytes().replace(b"\x08\x00\x2a\x00DT\x0e\x00", b"\x08\x00\x2a\x00DA\x5e\x00"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read_record(path)
        except ECGRecordError as error:
            absent(str(error))
    absent(caplog.text + "".join(str(warning.message) for warning in caught))
