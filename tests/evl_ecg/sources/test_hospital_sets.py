"""CODE-15, MIMIC-IV-ECG and SPH as their authors lay them out, in small: rows, labels, patients, samples."""

from collections import Counter

import numpy as np
import pytest
from written_records import beats, write

from hf_evl_ecg.commands.prepare import PrepareArguments
from hf_evl_ecg.commands.prepare import main as prepare
from hf_evl_ecg.data.load import load_ecg
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_cinc, load_code15, load_mimic_iv_ecg, load_sph
from hf_evl_ecg.sources.mimic import statement_labels

HDF5 = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("h5py") is None, reason="needs the extra clinical (h5py)"
)
quiet = pytest.mark.filterwarnings("ignore::hf_evl_ecg.records.header.ECGRecordWarning")
REPORTS = [f"report_{i}" for i in range(18)]


def rows_of(loaded):
    return {row["record"]: row for row in loaded[0]}


def one_split_per_patient(rows):
    splits = {(row["patient"], row["split"]) for row in rows.values()}
    assert max(Counter(patient for patient, _ in splits).values()) == 1


# ---- CODE-15 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def code15(tmp_path):
    """Two parts of which one is there; exams in another order than in the table; 7 and 10 s, padded to 4,096 samples."""
    import h5py

    signal = beats(4000, 400) + 0.001  # mV
    tracings = np.zeros((4, 4096, 12), np.float32)
    tracings[0, 648:3448], tracings[1, 48:4048], tracings[2, 48:4048] = signal[:2800], signal, 2 * signal
    with h5py.File(tmp_path / "exams_part0.hdf5", "w") as file:
        file["exam_id"], file["tracings"] = [30, 10, 20, 0], tracings
    columns = (
        "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg,trace_file"
    )
    lines = [columns]
    for exam, flags, patient, normal, part in (
        (10, "False,True,False,False,False,False", 7, "False", 0),
        (20, "False,False,False,True,False,False", 7, "False", 0),
        (30, "False,False,False,False,False,True", 8, "False", 0),
        (40, "False,False,False,False,False,False", 9, "True", 1),
    ):
        lines.append(f"{exam},{50 + exam},True,49.1,{flags},{patient},False,1.0,{normal},exams_part{part}.hdf5")
    (tmp_path / "exams.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, signal


@HDF5
@quiet
def test_code15_is_read_without_its_padding(code15):
    root, signal = code15
    loaded = load_code15(root)
    rows = rows_of(loaded)
    assert set(rows) == {"exams_part0.hdf5#0", "exams_part0.hdf5#1", "exams_part0.hdf5#2"}
    one_split_per_patient(rows)
    ten = rows["exams_part0.hdf5#1"]
    assert (ten["labels"], ten["patient"], ten["age"], ten["sex"]) == (["RBBB"], "7", 60.0, "male")
    assert ten["known_labels"] == ["I-AVB", "RBBB", "LBBB", "SBRAD", "STACH", "AF", "NORM"]
    for index, length, expected in ((0, 2800, signal[:2800]), (1, 4000, signal), (2, 4000, 2 * signal)):
        ecg = load_ecg(rows[f"exams_part0.hdf5#{index}"], duration_s=None)
        assert (ecg.fs_hz, len(ecg)) == (400.0, length)
        np.testing.assert_allclose(ecg.signal_mv, expected, atol=1e-6)
    said = str(loaded[1])
    assert "1 of 4 exams lie in parts that are not there" in said
    assert "padded with zeros" in said
    assert "3 of 3 records whose samples were read" in said


@HDF5
@quiet
def test_code15_that_is_damaged_is_refused(code15):
    root, _ = code15
    (root / "exams_part1.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ECGRecordError, match="a part of CODE-15"):
        load_code15(root)
    (root / "exams_part1.hdf5").unlink()
    table = root / "exams.csv"
    table.write_text(table.read_text().replace("\n10,", "\n11,"))
    assert load_code15(root)[1].skipped[0][0] == "exam 11"
    (root / "exams_part0.hdf5").unlink()
    with pytest.raises(ValueError, match=r"none of exams_part0\.hdf5, exams_part1\.hdf5 is there"):
        load_code15(root)


# ---- MIMIC-IV-ECG ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mimic(tmp_path):
    entries = []
    for subject, study in ((10000032, 40689238), (10000032, 44458630), (10000117, 45090959), (10000999, 40000000)):
        folder = tmp_path / "files" / f"p{str(subject)[:4]}" / f"p{subject}" / f"s{study}"
        entries.append((subject, study, f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"))
        if study != 40000000:  # not downloaded
            folder.mkdir(parents=True)
            write(folder, str(study), beats(5000))
    lines = [f"{subject},{study},{study},2180-07-23 08:44:00,{path}" for subject, study, path in entries]
    (tmp_path / "record_list.csv").write_text("\n".join(["subject_id,study_id,file_name,ecg_time,path", *lines]) + "\n")
    measured = "rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis"
    said = {
        40689238: (
            ["Sinus rhythm", "Possible left ventricular hypertrophy", "Normal ECG"],
            "800,40,150,200,290,590,1,2,3",
        ),
        44458630: (["Atrial fibrillation", "Left axis deviation"], "600,100,29999,200,29999,560,1,2,3"),
        45090959: (
            ["Poor data quality, interpretation may be affected", "Sinus bradycardia"],
            "29999,40,150,200,290,590,1,2,3",
        ),
    }
    table = [f"subject_id,study_id,cart_id,ecg_time,{','.join(REPORTS)},bandwidth,filtering,{measured}"]
    for subject, study, _ in entries[:3]:
        texts, numbers = said[study]
        fields = [f'"{text}"' for text in texts] + [""] * (18 - len(texts))
        table.append(f"{subject},{study},1,2180-07-23 08:44:00,{','.join(fields)},0.005-150 Hz,60 Hz,{numbers}")
    (tmp_path / "machine_measurements.csv").write_text("\n".join(table) + "\n")
    return tmp_path


def test_mimic_iv_ecg_by_its_tables(mimic):
    loaded = load_mimic_iv_ecg(mimic)
    rows = {name.rpartition("/")[2]: row for name, row in rows_of(loaded).items()}
    one_split_per_patient(rows)
    assert "1 of 4 records of the list are not there" in str(loaded[1])
    normal = rows["40689238"]
    assert normal["labels"] == ["SR", "NORM"]
    assert "LVH" not in normal["known_labels"]
    assert {"AF", "RBBB", "NORM"} <= set(normal["known_labels"])
    assert [normal[name] for name in ("heart_rate", "pr_interval", "qrs_duration", "qt_interval")] == [75, 160, 90, 390]
    flutter = rows["44458630"]
    assert (flutter["rhythm"], flutter["axis"], flutter["report"]) == (
        "AF",
        "LAD",
        "Atrial fibrillation. Left axis deviation.",
    )
    assert [flutter[name] for name in ("heart_rate", "pr_interval", "qrs_duration", "qt_interval")] == [
        100,
        None,
        None,
        360,
    ]
    poor = rows["45090959"]
    assert poor["known_labels"] == ["SBRAD"]
    assert poor["heart_rate"] is None
    assert len(load_ecg(normal)) == 5000


@pytest.mark.parametrize(
    ("statements", "there", "unknown"),
    [
        (["Sinus rhythm", "Normal ECG"], ["SR", "NORM"], []),
        (["Otherwise normal ECG"], [], []),
        (["Normal ECG except for rate"], [], ["NORM"]),
        (["Incomplete right bundle branch block"], ["IRBBB"], []),
        (["Right bundle-branch block"], ["RBBB"], []),
        (["Supraventricular extrasystoles"], ["PAC"], []),
        (["PVC(s)"], ["PVC"], []),
        (["Ventricular premature complex(es)", "Atrial premature complex(es)"], ["PVC", "PAC"], []),
        (["Cannot rule out inferior infarct - age undetermined"], [], ["MI"]),
        (["Inferior infarct", "Possible anterior infarct"], ["MI"], []),
        (["1st degree A-V block"], ["I-AVB"], []),
        (["Prolonged QT interval"], ["LQT"], []),
        (["Left ventricular hypertrophy", "ST-T changes"], ["LVH"], []),
    ],
)
def test_statements_become_labels(statements, there, unknown):
    labels, known = statement_labels(statements)
    assert labels == there
    assert set(there) <= set(known)
    assert not set(unknown) & set(known)


def test_of_no_statement_nothing_is_known():
    assert statement_labels([]) == statement_labels([" "]) == ([], [])


def test_a_study_twice_is_refused(mimic):
    table = mimic / "machine_measurements.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    with pytest.raises(ValueError, match="study 45090959 stands there twice"):
        load_mimic_iv_ecg(mimic)


# ---- SPH ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sph(tmp_path):
    import h5py

    (tmp_path / "records").mkdir()
    for name, seconds in (("A00001", 10), ("A00002", 12), ("A00003", 10)):
        with h5py.File(tmp_path / "records" / f"{name}.h5", "w") as file:
            file["ecg"] = (beats(500 * seconds) + 0.002).T.astype(np.float16)
    (tmp_path / "code.csv").write_text(
        "Category,Code,Description\nA,1,Normal ECG\nC,22,Sinus bradycardia\nF,60,Ventricular premature complex(es)\n"
        "L,142,Left ventricular hypertrophy\nModifier,310,Frequent\nModifier,201,Possible\n"
    )
    (tmp_path / "metadata.csv").write_text(
        "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\nA00001,60+310;22,S1,44,M,5000,2020-01-01\n"
        "A00002,1,S2,61,F,6000,2020-01-01\nA00003,142+201;999,S2,61,F,5000,2020-01-01\nA00004,1,S3,61,F,5000,2020-01-01\n"
    )
    return tmp_path


@HDF5
@quiet
def test_sph_by_its_tables(sph):
    loaded = load_sph(sph)
    rows = rows_of(loaded)
    one_split_per_patient(rows)
    first = rows["records/A00001.h5"]
    assert (first["labels"], first["rhythm"], first["sex"], first["age"]) == (["PVC", "SBRAD"], "SBRAD", "male", 44.0)
    assert first["diagnoses"] == ["Ventricular premature complex(es), Frequent", "Sinus bradycardia"]
    assert rows["records/A00002.h5"]["duration_s"] == 12.0
    hedged = rows["records/A00003.h5"]
    assert (hedged["labels"], hedged["known_labels"]) == ([], [])
    assert "999 1" in str(loaded[1])
    assert [record for record, _ in loaded[1].skipped] == ["A00004"]
    ecg = load_ecg(first, duration_s=None)
    assert (ecg.fs_hz, len(ecg)) == (500.0, 5000)
    np.testing.assert_allclose(ecg.signal_mv, beats(5000) + 0.002, atol=2e-3)  # numbers of 16 bits
    (sph / "records" / "A00002.h5").write_bytes(b"x")
    assert len(load_sph(sph, check="signal")[1].skipped) == 2


# ---- together -------------------------------------------------------------------------------------------------------


@HDF5
@quiet
def test_prepare_takes_all_of_them(code15, mimic, sph, tmp_path):
    """The three fixtures lie in one folder; each loader looks at its own tables only."""
    root = str(tmp_path)
    made = prepare(
        PrepareArguments(
            output_dir=str(tmp_path / "out"), code15=root, mimic_iv_ecg=root, sph=root, tasks=["diagnosis"]
        )
    )
    sources = {source for split in made.values() for source in split["source"]}
    assert sources == {"code-15", "mimic-iv-ecg", "sph"}


@quiet
def test_chapman_as_physionet_lays_it_out_is_the_challenges(tmp_path):
    """`WFDBRecords/01/010/JS00001`, with SNOMED codes in the headers."""
    folder = tmp_path / "WFDBRecords" / "01" / "010"
    folder.mkdir(parents=True)
    for number, code in ((1, "426177001"), (2, "164889003,59118001")):
        write(folder, f"JS0000{number}", beats(5000), comments=["Age: 85", "Sex: Male", f"Dx: {code}"])
    rows = rows_of(load_cinc(tmp_path))
    assert {name.rpartition("/")[2]: row["labels"] for name, row in rows.items()} == {
        "JS00001": ["SBRAD"],
        "JS00002": ["AF", "RBBB"],
    }
    assert {row["source"] for row in rows.values()} == {"cinc/chapman_ningbo"}
