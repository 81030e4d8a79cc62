"""Each format against the numbers that were written: mV, Hz, order of leads, age and sex; recognised by content alone."""

import sys
import tracemalloc
import warnings

import clinical_files as files
import numpy as np
import pytest
from clinical_files import FS, STEP_UV, counts

from hf_evl_ecg.clinical import kit
from hf_evl_ecg.clinical.content import READ, recognise
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import DERIVED_LEADS, INDEPENDENT_LEADS, STANDARD_LEADS, derive_limb_leads

pytestmark = files.NEEDS
EXPECTED = counts() * STEP_UV / 1000
WRITERS = files.WRITERS


def close(ecg, millivolts, leads=STANDARD_LEADS):
    assert ecg.leads == STANDARD_LEADS
    for index, lead in enumerate(leads):
        np.testing.assert_allclose(ecg.lead(lead), millivolts[:, index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["scan", "scan.png.txt", "scan.xyz"])
def test_a_file_is_recognised_by_its_content(kind, name, tmp_path):
    path = WRITERS[kind](tmp_path / name)
    assert recognise(path) == kind
    assert kind in READ


# ---- DICOM ----------------------------------------------------------------------------------------------------------


def test_dicom_is_read_exactly(tmp_path):
    ecg = read_record(files.write_dicom(tmp_path / "a.dcm"))
    close(ecg, EXPECTED)
    assert (ecg.fs_hz, ecg.record_name) == (500.0, "a")
    assert dict(ecg.metadata) == {"age": 69.0, "sex": "female", "format": "DICOM"}  # a day before the 70th birthday


def test_dicom_baseline_and_correction_factor_count(tmp_path):
    group = files.dicom_group(counts(), correction=1.25, baseline=40.0)
    close(read_record(files.write_dicom(tmp_path / "a", group)), counts() * STEP_UV * 1.25 / 1000 + 0.04)
    group = files.dicom_group(counts(), unit="mV", sensitivity=STEP_UV / 1000, baseline=-0.5)
    close(read_record(files.write_dicom(tmp_path / "b", group)), EXPECTED - 0.5)


@pytest.mark.parametrize("label", ["MEDIAN BEAT", "Representative Beats", ""])
def test_dicom_rhythm_is_taken_and_not_the_median_beat(label, tmp_path):
    beat = files.dicom_group(np.full((600, 12), 77), label=label, originality="DERIVED")
    with pytest.warns(
        ECGRecordWarning, match=r"of 2 multiplex groups the rhythm of 4 s was read; left out: 12 channels of 1\.2 s"
    ):
        close(read_record(files.write_dicom(tmp_path / "a", beat, files.dicom_group(counts()))), EXPECTED)
    with pytest.raises(ECGRecordError, match="of median beats only"):
        read_record(files.write_dicom(tmp_path / "b", beat))


def test_dicom_of_two_rates(tmp_path):
    slow = files.dicom_group(counts(3.0, 250), 250)
    with pytest.warns(ECGRecordWarning, match="multiplex groups"):
        ecg = read_record(files.write_dicom(tmp_path / "a", slow, files.dicom_group(counts(4.0, 1000), 1000)))
    assert ecg.fs_hz == 1000
    close(ecg, counts(4.0, 1000) * STEP_UV / 1000)


def test_dicom_leads_by_name_and_in_any_order(tmp_path):
    order = STANDARD_LEADS[::-1]
    close(
        read_record(files.write_dicom(tmp_path / "a", files.dicom_group(counts(leads=order), leads=order, named=True))),
        EXPECTED,
    )


def test_dicom_missing_samples_are_not_a_voltage(tmp_path):
    numbers = counts()
    numbers[100:105, 3] = -32768
    group = files.dicom_group(numbers)
    group.WaveformPaddingValue = np.array(-32768, "<i2").tobytes()
    group["WaveformPaddingValue"].VR = "OW"
    path = files.write_dicom(tmp_path / "a", group)
    with pytest.raises(ECGRecordError, match=r"missing samples per lead is .*aVR.*5"):
        read_record(path)
    assert read_record(path, nan="interpolate").metadata["interpolated_samples"] == {"aVR": 5}


def test_dicom_without_waveforms_says_what_to_do(tmp_path):
    from pydicom.uid import DeflatedExplicitVRLittleEndian, EncapsulatedPDFStorage

    path = files.write_dicom(tmp_path / "a", SOPClassUID=EncapsulatedPDFStorage)
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.WaveformSequence
    dataset.save_as(path)
    with pytest.raises(
        ECGRecordError, match=r"DICOM object is 'Encapsulated PDF Storage'; allowed: an ECG waveform; .*interpreter"
    ):
        read_record(path)
    packed = files.write_dicom(tmp_path / "b", syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(ECGRecordError, match="transfer syntax"):
        read_record(packed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NumberOfWaveformSamples": 10**9}, "multiplex group"),
        ({"WaveformBitsAllocated": 8, "WaveformSampleInterpretation": "MB"}, "waveform samples"),
        ({"SamplingFrequency": 1}, "sampling rate of lead I is 1.0; allowed: 25 to 20000 Hz"),
        ({"ChannelDefinitionSequence": []}, "channel definitions is 0; allowed: 12"),
    ],
)
def test_dicom_that_contradicts_itself_is_refused(change, reason, tmp_path):
    group = files.dicom_group(counts())
    for name, value in change.items():
        setattr(group, name, value)
    with pytest.raises(ECGRecordError, match=reason):
        read_record(files.write_dicom(tmp_path / "a", group))


def test_units_that_are_no_voltage_are_refused(tmp_path):
    with pytest.raises(ECGRecordError, match=r"units of lead I is 'mmHg'; allowed: mV, uV, nV or V"):
        read_record(files.write_dicom(tmp_path / "a", files.dicom_group(counts(), unit="mmHg")))
    with pytest.raises(ECGRecordError, match=r"units of lead I is 'not stated'"):
        read_record(files.write_muse(tmp_path / "b", unit="COUNTS"))


# ---- XML ------------------------------------------------------------------------------------------------------------


def test_aecg_is_read_exactly(tmp_path):
    ecg = read_record(files.write_aecg(tmp_path / "a.xml", origin="25"))
    close(ecg, EXPECTED + 0.025)
    assert ecg.fs_hz == 500.0
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == (69.0, "female")


@pytest.mark.parametrize(("increment", "fs_hz"), [("0.0016", 625.0), ("0.003", 1000 / 3), ("0.00390625", 256.0)])
def test_a_rate_that_is_no_whole_number_is_not_rounded(increment, fs_hz, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        assert read_record(files.write_aecg(tmp_path / "a", increment=increment)).fs_hz == pytest.approx(
            fs_hz, rel=1e-12
        )


def test_muse_stores_eight_leads_and_four_are_computed(tmp_path):
    ecg = read_record(files.write_muse(tmp_path / "a"))
    stored = counts(leads=INDEPENDENT_LEADS) * STEP_UV / 1000
    close(ecg, stored, INDEPENDENT_LEADS)
    for lead, values in derive_limb_leads(stored[:, 0], stored[:, 1]).items():
        np.testing.assert_allclose(ecg.lead(lead), values, atol=1e-6)
    assert ecg.metadata["derived_leads"] == DERIVED_LEADS
    assert (ecg.fs_hz, ecg.metadata["age"], ecg.metadata["sex"]) == (500.0, 70.0, "female")


def test_muse_checksums_that_do_not_fit_are_said(tmp_path):
    path = files.write_muse(tmp_path / "a")
    text = path.read_text()
    path.write_text(text.replace("<LeadDataCRC32>", "<LeadDataCRC32>1", 1))
    with pytest.warns(ECGRecordWarning, match="CRC32 mismatch in lead I"):
        read_record(path)


@pytest.mark.parametrize(
    ("compressed", "encoding"), [(False, "utf-8"), (True, "utf-8"), (False, "utf-16"), (True, "utf-16")]
)
def test_sierra_is_read_without_its_calibration_pulse(compressed, encoding, tmp_path):
    with pytest.warns(
        ECGRecordWarning, match=r"calibration pulse in the last of its 11 s is cut off; 10\.7 s are left"
    ):
        ecg = read_record(files.write_sierra(tmp_path / "a", compressed=compressed, encoding=encoding))
    assert (ecg.fs_hz, len(ecg)) == (500.0, 5350)
    close(ecg, files.sierra_counts()[:5350] * 5 / 1000)
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == (70.0, "female")


def test_sierra_of_another_length_is_left_whole(tmp_path):
    ecg = read_record(files.write_sierra(tmp_path / "a", counts(10.0, step_uv=5.0)))
    assert len(ecg) == 5000


def test_other_xml_is_refused_with_what_is_read(tmp_path):
    (tmp_path / "a.xml").write_text("<?xml version='1.0'?><!-- RestingECG --><CardiologyXML></CardiologyXML>")
    with pytest.raises(ECGRecordError, match="format is 'XML'; allowed: HL7 aECG, GE MUSE or Philips Sierra"):
        read_record(tmp_path / "a.xml")


# ---- SCP-ECG and EDF ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("huffman", [False, True])
def test_scp_is_read_exactly(huffman, tmp_path):
    ecg = read_record(files.write_scp(tmp_path / "a.scp", huffman=huffman))
    close(ecg, EXPECTED)
    assert (ecg.fs_hz, ecg.metadata["age"], ecg.metadata["sex"]) == (500.0, 70.0, "female")


@pytest.mark.parametrize("plus", [True, False])
def test_edf_is_read_exactly(plus, tmp_path):
    ecg = read_record(files.write_edf(tmp_path / "a.edf", plus=plus))
    close(ecg, counts(step_uv=1.0) / 1000)
    assert ecg.fs_hz == 500.0
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == ((69.0, "female") if plus else (None, None))


def test_edf_of_several_rates_is_brought_to_the_fastest(tmp_path):
    rates = [FS] * 6 + [250] * 6
    columns = [*counts(step_uv=1.0).T[:6], *counts(4.0, 250, step_uv=1.0).T[6:]]
    ecg = read_record(files.write_edf(tmp_path / "a", columns, rates=rates))
    assert ecg.fs_hz == 500.0
    close(ecg, counts(step_uv=1.0)[:, :6] / 1000, STANDARD_LEADS[:6])
    np.testing.assert_allclose(ecg.lead("V1")[::2], columns[6] / 1000, atol=0.01)  # a wave of 12 ms in steps of 4 ms


@pytest.mark.parametrize("start_s", [0.0, 0.4, 1.0, 150.302, 285.0, 296.5])
def test_of_a_long_edf_only_a_stretch_is_read(start_s, tmp_path, monkeypatch):
    columns = [
        *np.tile(counts(10.0, step_uv=1.0), (30, 1)).T[:6],
        *np.tile(counts(10.0, 250, step_uv=1.0), (30, 1)).T[6:],
    ]
    path = files.write_edf(tmp_path / "a", columns, rates=[FS] * 6 + [250] * 6)
    whole = read_record(path)
    tracemalloc.start()
    ecg = read_record(path, start_s=start_s, duration_s=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size  # of 12 leads in float64 it would be four times that
    begin, length = round(start_s * 500), min(5000, round((300 - start_s) * 500))
    assert (len(ecg), ecg.metadata["recorded_s"], ecg.recorded_s) == (length, 300.0, 300.0)
    np.testing.assert_allclose(ecg.signal_mv, whole.signal_mv[begin:][:5000], atol=1e-6)
    with pytest.raises(ECGRecordError, match=r"start_s is 300\.0; allowed: less than the record's 300 s"):
        read_record(path, start_s=300.0, duration_s=1)
    monkeypatch.setattr(kit, "_FORMATS", {"EDF": kit._FORMATS["EDF"]._replace(largest=300_000)})
    assert len(read_record(path, start_s=start_s, duration_s=10)) == length
    with pytest.raises(ECGRecordError, match="file size"):
        read_record(path)


def test_other_channels_of_edf_are_left_out(tmp_path):
    leads = (*STANDARD_LEADS, "V7")
    columns = [*counts(step_uv=1.0).T, np.full(2000, 9000)]
    close(read_record(files.write_edf(tmp_path / "a", columns, leads)), counts(step_uv=1.0) / 1000)


def test_a_lead_twice_or_not_at_all_is_refused(tmp_path):
    with pytest.raises(ECGRecordError, match=r"leads is 'V1, V1'; allowed: lead V1 once"):
        read_record(files.write_aecg(tmp_path / "a", counts(leads=("I", "II", "V1", "V1")), ("I", "II", "V1", "V1")))
    with pytest.raises(
        ECGRecordError, match=r"leads is 'I, II'; allowed: .*missing: \['V1', 'V2', 'V3', 'V4', 'V5', 'V6'\]"
    ):
        read_record(files.write_aecg(tmp_path / "b", counts(leads=("I", "II")), ("I", "II")))


# ---- the reader's own arguments -------------------------------------------------------------------------------------


def test_the_readers_arguments_hold_for_every_format(tmp_path):
    path = files.write_dicom(tmp_path / "a")
    order = STANDARD_LEADS[::-1]
    ecg = read_record("a", order, root=tmp_path, duration_s=1.5)
    assert (ecg.leads, len(ecg), ecg.metadata["recorded_s"]) == (order, 750, 4.0)
    with pytest.raises(ValueError, match=r"gain_per_mv=200: .* is DICOM, which states its own"):
        read_record(path, gain_per_mv=200)
    (tmp_path / "data").mkdir()
    with pytest.raises(ECGRecordError, match="a path inside"):
        read_record("../a", root=tmp_path / "data")


def test_a_file_beside_a_header_of_its_name_is_part_of_that_record(tmp_path, save_record):
    from hf_evl_ecg.signals.simulation import simulate

    save_record(tmp_path, "r", simulate("AF", seed=0))
    files.write_aecg(tmp_path / "r.xml")
    assert read_record(tmp_path / "r.dat").metadata.get("format") is None
    assert read_record(tmp_path / "r.xml").metadata["format"] == "HL7 aECG"


def test_voltages_that_no_heart_has_are_said(tmp_path):
    from hf_evl_ecg.records.plausibility import ImplausibleAmplitudeWarning

    with pytest.warns(ImplausibleAmplitudeWarning, match="most likely"):
        read_record(files.write_dicom(tmp_path / "a", files.dicom_group(counts(), sensitivity=1000 * STEP_UV)))


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("DICOM", "pydicom"), ("HL7 aECG", "ecgdatakit"), ("SCP-ECG", "ecgdatakit"), ("EDF", "ecgdatakit")],
)
def test_without_the_extra_the_message_says_what_to_install(kind, missing, tmp_path, monkeypatch):
    path = WRITERS[kind](tmp_path / "a")
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ECGRecordError, match=rf"format is '{kind}'.*{missing} is not installed .*hf-mic-evl-ecg\[clinical\]"
    ):
        read_record(path)


def test_the_recording_of_a_cart_that_comes_with_pydicom():
    """12 leads of 10 s at 1 kHz, and a group of median beats; pydicom's own array is the reference."""
    import pydicom
    from pydicom.data import get_testdata_file

    path = get_testdata_file("waveform_ecg.dcm", download=False)
    with pytest.warns(ECGRecordWarning, match=r"of 2 multiplex groups the rhythm of 10 s was read; .*median beats"):
        ecg = read_record(path)
    assert (ecg.fs_hz, ecg.signal_mv.shape) == (1000.0, (10_000, 12))
    np.testing.assert_allclose(ecg.signal_mv, pydicom.dcmread(path).waveform_array(0) / 1000, atol=1e-6)
    assert ecg.metadata["age"] == 42
