"""Numbers in CSV, HDF5 and NumPy files: read with a description, refused without one or where it does not fit."""

import json
import zipfile

import clinical_files as files
import numpy as np
import pytest

from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS

SIGNAL = (files.counts(step_uv=1.0) + 3) / 1000.0  # mV, in steps of 1 uV; nowhere 0 in all leads, as padding is
MV = ArrayDescription(fs_hz=500, unit="mV")


def csv(path, rows=SIGNAL, names=STANDARD_LEADS, separator=",", point=".", form="{:.3f}"):
    lines = [separator.join(names)] if names else []
    lines += [separator.join(form.format(x).replace(".", point) for x in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def hdf5(path, **arrays):
    h5py = pytest.importorskip("h5py", reason="needs the extra clinical (h5py)")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def close(ecg, signal=SIGNAL):
    np.testing.assert_allclose(ecg.signal_mv, signal, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", "."), ("\t", "."), (";", ","), ("\t", ",")])
@pytest.mark.parametrize("names", [STANDARD_LEADS, ()], ids=["named", "bare"])
def test_csv_of_any_usual_form(separator, point, names, tmp_path):
    ecg = read_record(csv(tmp_path / "a.txt", names=names, separator=separator, point=point), description=MV)
    close(ecg)
    assert (ecg.fs_hz, dict(ecg.metadata)) == (500.0, {"age": None, "sex": None, "format": "CSV"})


def test_units_and_order_are_as_described(tmp_path):
    order = STANDARD_LEADS[::-1]
    microvolts = ArrayDescription(fs_hz=250, unit="uV", leads=order)
    ecg = read_record(csv(tmp_path / "a", SIGNAL[:, ::-1] * 1000, order, form="{:.0f}"), description=microvolts)
    close(ecg)
    assert (ecg.leads, ecg.fs_hz) == (STANDARD_LEADS, 250.0)
    with pytest.raises(ECGRecordError, match=r"first line is .*; allowed: the described order"):
        read_record(csv(tmp_path / "b"), description=microvolts)


def test_a_column_of_time_is_left_out(tmp_path):
    rows = np.column_stack([np.arange(len(SIGNAL)) / 500, SIGNAL])
    described = ArrayDescription(fs_hz=500, unit="mV", leads=("time", *STANDARD_LEADS))
    close(read_record(csv(tmp_path / "a", rows, ("time", *STANDARD_LEADS)), description=described))


def test_eight_leads_are_enough(tmp_path):
    columns = [STANDARD_LEADS.index(lead) for lead in INDEPENDENT_LEADS]
    described = ArrayDescription(fs_hz=500, unit="mV", leads=INDEPENDENT_LEADS)
    ecg = read_record(csv(tmp_path / "a", SIGNAL[:, columns], INDEPENDENT_LEADS), description=described)
    np.testing.assert_allclose(ecg.lead("aVF"), SIGNAL[:, 5], atol=3e-3)


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", SIGNAL.astype(np.float32))
    close(read_record(tmp_path / "a.npy", description=MV))
    np.save(tmp_path / "t.npy", np.asfortranarray(SIGNAL.T))
    close(read_record(tmp_path / "t.npy", description=MV))
    np.savez_compressed(tmp_path / "b.npz", ecg=SIGNAL, other=np.ones((3, 3)))
    close(read_record(tmp_path / "b.npz", description=ArrayDescription(500, "mV", dataset="ecg")))
    with pytest.raises(ECGRecordError, match="dataset is 'not stated'; allowed: dataset= one of ecg, other"):
        read_record(tmp_path / "b.npz", description=MV)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ECGRecordError, match="object"):
        read_record(tmp_path / "o.npy", description=MV)


def test_hdf5_files(tmp_path):
    path = hdf5(tmp_path / "a.h5", tracings=np.stack([SIGNAL * 2, SIGNAL]), exam_id=np.arange(2))
    close(read_record(path, description=ArrayDescription(500, "mV", index=1)))
    with pytest.raises(ECGRecordError, match="index is 'not stated'; allowed: 0 to 1, as the array holds 2"):
        read_record(path, description=MV)
    close(read_record(hdf5(tmp_path / "b.h5", ecg=SIGNAL), description=MV))


def test_hdf5_does_not_lead_into_other_files(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra clinical (h5py)")
    secret = hdf5(tmp_path / "secret.h5", ecg=SIGNAL)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = h5py.ExternalLink(str(secret), "ecg")
    with pytest.raises(ECGRecordError, match="there is no array"):
        read_record(tmp_path / "a.h5", description=MV)
    layout = h5py.VirtualLayout(shape=SIGNAL.shape, dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "ecg", shape=SIGNAL.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("ecg", layout)
    raw = tmp_path / "raw"
    raw.write_bytes(SIGNAL.tobytes())
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("ecg", SIGNAL.shape, "f8", external=[(str(raw), 0, SIGNAL.nbytes)])
    for name in ("b.h5", "c.h5"):
        with pytest.raises(ECGRecordError, match="numbers that lie in other files"):
            read_record(tmp_path / name, description=MV)


def test_hdf5_that_states_more_than_it_stores_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra clinical (h5py)")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", (8_000_000, 12), "f8", chunks=(1000, 12))[:1000] = 1.0
    with pytest.raises(ECGRecordError, match=r"array is '768000000 bytes .* out of 96000'; allowed: at most 200 times"):
        read_record(tmp_path / "a.h5", description=MV)


def test_padding_with_zeros_is_cut_off_and_said(tmp_path):
    """As CODE-15 fills 7 or 10 s of 400 Hz up to 4,096 samples."""
    padded = np.zeros((4096, 12))
    padded[648:3448] = np.tile(SIGNAL, (2, 1))[:2800]
    np.save(tmp_path / "a.npy", padded)
    with pytest.warns(
        ECGRecordWarning, match=r"padded with zeros, 1\.62 s before and 1\.62 s after it, which are cut off"
    ):
        ecg = read_record(tmp_path / "a.npy", description=ArrayDescription(400, "mV"))
    assert len(ecg) == 2800
    np.save(tmp_path / "b.npy", np.zeros((4096, 12)))
    with pytest.raises(ECGRecordError, match="4096 times 0"):
        read_record(tmp_path / "b.npy", description=ArrayDescription(400, "mV"))


def test_a_description_may_lie_beside_the_file(tmp_path):
    path = csv(tmp_path / "a.csv")
    with pytest.raises(
        ECGRecordError, match=r"description of the CSV file is 'missing'; allowed: an ArrayDescription, or a\.csv\.json"
    ):
        read_record(path)
    beside = tmp_path / "a.csv.json"
    beside.write_text(json.dumps({"fs_hz": 500, "unit": "mV", "leads": list(STANDARD_LEADS)}))
    close(read_record(path))
    for content in (
        "[]",
        '{"fs_hz": "fast", "unit": "mV"}',
        '{"fs_hz": 500, "unit": 3}',
        '{"fs_hz": 500}',
        "{",
        '{"rate": 1}',
    ):
        beside.write_text(content)
        with pytest.raises(ECGRecordError, match=r"a\.csv\.json: description is"):
            read_record(path)


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    for shape in ((100, 11), (12,), (2, 3, 4, 5)):
        np.save(tmp_path / "a.npy", np.ones(shape))
        with pytest.raises(ECGRecordError, match="shape is"):
            read_record(tmp_path / "a.npy", description=MV)
    with pytest.raises(ECGRecordError, match="shape is") as caught:
        read_record(tmp_path / "a.npy", description=ArrayDescription(fs_hz=500, unit="mV", leads=["other"] * 5000))
    assert len(str(caught.value)) < 1000, "as many names as a description may hold are not all quoted"


def test_an_array_that_unpacks_to_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ecg.npy", b"\x93NUMPY\x01\x00" + bytes(300 << 20))
    with pytest.raises(ECGRecordError, match="unpacked size"):
        read_record(tmp_path / "a.npz", description=MV)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fs_hz": 5, "unit": "mV"}, "fs_hz=5: allowed are 25 to 20000 Hz"),
        ({"fs_hz": 500, "unit": "mmHg"}, "unit='mmHg': allowed are mV"),
        ({"fs_hz": 500, "unit": "mV", "leads": ("I", "i")}, "twice"),
        ({"fs_hz": 500, "unit": "mV", "index": -1}, "index=-1"),
        ({"fs_hz": 500, "unit": "mV", "leads": "x" * 5000}, "leads='x{73,}: a list of names is needed"),
    ],
)
def test_wrong_descriptions_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        ArrayDescription(**options)


def test_a_description_is_for_arrays_only(tmp_path, save_record):
    from hf_evl_ecg.signals.simulation import simulate

    record = save_record(tmp_path, "r", simulate("AF", seed=0))
    with pytest.raises(ValueError, match="description: is for CSV, HDF5 and NumPy"):
        read_record(record, description=MV)


@files.NEEDS
def test_a_file_that_describes_itself_takes_none(tmp_path):
    with pytest.raises(ValueError, match="is DICOM, which describes itself"):
        read_record(files.write_dicom(tmp_path / "a"), description=MV)


def test_tables_of_other_things_are_no_recordings(tmp_path):
    (tmp_path / "records.csv").write_text("record,patient,label\na,1,AF\nb,2,SR\n")
    with pytest.raises(ECGRecordError, match=r"record is 'a \.csv file'; allowed: a WFDB record.*DICOM, HL7 aECG"):
        read_record(tmp_path / "records.csv")
