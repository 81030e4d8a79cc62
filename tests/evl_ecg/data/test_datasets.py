"""Datasets: rows, splits, bad records, questions; small folders made here, then the real ones."""

import json
import random
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import wfdb
from scipy.signal import butter, sosfiltfilt

import hf_evl_ecg.data
from hf_evl_ecg.chat.conversations import read_turns
from hf_evl_ecg.data import (
    conversation_dataset,
    load_cinc,
    load_ecg,
    load_folder,
    load_instructions,
    load_ptbxl,
    load_simulated,
    question_dataset,
)
from hf_evl_ecg.data.cinc import cpsc_labels
from hf_evl_ecg.data.delineations import Wave, measure, read_delineation
from hf_evl_ecg.data.instructions import iterate_json
from hf_evl_ecg.data.ptbxl import parse_scp_codes
from hf_evl_ecg.data.table import FEATURES, collect_rows, make_row, split_by_group
from hf_evl_ecg.data.zscored import restore_millivolts
from hf_evl_ecg.qa.labels import CPSC_CLASSES, label_text
from hf_evl_ecg.qa.prompts import MEASUREMENTS
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate


def write_record(path: Path, seed: int = 0, comments=(), fs: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = simulate("NORM", seed=seed, fs_hz=fs, duration_s=5).signal_mv.astype(np.float64)
    options = {"fs": fs, "units": ["mV"] * 12, "sig_name": list(STANDARD_LEADS), "fmt": ["16"] * 12}
    gains = {"adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp(path.name, p_signal=signal, write_dir=str(path.parent), comments=list(comments), **options, **gains)


def break_record(path: Path) -> None:
    data = path.with_suffix(".dat").read_bytes()
    path.with_suffix(".dat").write_bytes(data[:-100])


@pytest.fixture
def folder(tmp_path):
    """Six records of four patients, one of them cut short."""
    root = tmp_path / "mine"
    lines = ["record,patient,labels,heart_rate,sex,report"]
    for i in range(6):
        write_record(root / f"r{i}", seed=i)
        lines.append(f"r{i},p{i // 2},{'AF|LVH' if i % 2 else 'SR; AXN'},{60 + i},{'mf'[i % 2]},text {i}")
    break_record(root / "r3")
    (root / "records.csv").write_text("\n".join(lines))
    return root


def test_all_names_exist():
    assert all(getattr(hf_evl_ecg.data, name) is not None for name in hf_evl_ecg.data.__all__)


def test_own_folder(folder):
    rows, report = load_folder(folder)
    assert isinstance(rows, datasets.Dataset)
    assert rows.features == FEATURES
    assert report.n_rows == len(rows) == 5
    assert [name for name, _ in report.skipped] == ["r3"]
    assert "n_samples" in report.skipped[0][1]
    assert "r3" in str(report)
    assert report.notes == ["split by patient"]
    row = rows[1]
    assert (row["labels"], row["rhythm"], row["axis"], row["sex"]) == (["AF", "LVH"], "AF", None, "female")
    assert row["heart_rate"] == 61
    assert set(row["known_labels"]) == {"AF", "LVH", "SR", "AXN"}
    by_patient = defaultdict(set)
    for row in rows:
        by_patient[row["patient"]].add(row["split"])
    assert all(len(splits) == 1 for splits in by_patient.values())
    with pytest.raises(ECGRecordError, match="n_samples"):
        load_folder(folder, on_bad="raise")
    assert load_folder(folder, check="none")[1].n_rows == 6


def test_own_folder_refuses(folder):
    def table(text):
        (folder / "records.csv").write_text(text)
        return folder

    with pytest.raises(ValueError, match="record 'r0': label='XX': allowed are"):
        load_folder(table("record,labels\nr0,XX\n"))
    with pytest.raises(ValueError, match="no columns"):
        load_folder(table("name\nr0\n"))
    with pytest.raises(ValueError, match="split='dev': allowed are"):
        load_folder(table("record,split\nr0,dev\n"))
    with pytest.raises(ValueError, match="1 of 2 records"):
        load_folder(table("record,split\nr0,train\nr1,\n"))
    with pytest.raises(ValueError, match="patient a is in train and test"):
        load_folder(table("record,patient,split\nr0,a,train\nr1,a,test\n"))
    with pytest.raises(ValueError, match="missing \\(give the folder"):
        load_folder(folder, "none.csv")
    with pytest.raises(ValueError, match="no readable record"):
        load_folder(table("record\nr3\n"))
    assert "2 of 2 records name no patient" in load_folder(table("record\nr0\nr1\n"))[1].notes[0]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "door/outside"])
def test_no_row_leads_out_of_the_folder(folder, name):
    write_record(folder.parent / "outside")
    (folder / "door").symlink_to(folder.parent)
    (folder / "records.csv").write_text(f"record\n{name}\nr0\n")
    rows, report = load_folder(folder)
    assert rows["record"][:] == ["r0"]
    assert "a path inside" in report.skipped[0][1]
    unchecked, _ = load_folder(folder, check="none")
    with pytest.raises(ECGRecordError, match="a path inside"):
        load_ecg(unchecked[0])


def test_rows_are_checked():
    for change, match in [
        ({"split": "dev"}, "split"),
        ({"colour": 1}, "unknown columns"),
        ({"labels": ["XX"]}, "label='XX'"),
    ]:
        with pytest.raises(ValueError, match=match):
            make_row(**({"record": "r", "source": "s", "root": "", "split": "train"} | change))
    with pytest.raises(ValueError, match="on_bad"):
        collect_rows([], "s", on_bad="ignore")
    with pytest.raises(ValueError, match="storage='tape': allowed are"):
        load_ecg({"record": "r", "root": "", "storage": "tape"})


def test_load_ecg_options(folder):
    rows, _ = load_folder(folder)
    ecg = load_ecg(rows[0], duration_s=2.0, fs_hz=250)
    assert (ecg.duration_s, ecg.fs_hz) == (2.0, 250)
    moved = folder.rename(folder.with_name("moved"))
    assert load_ecg(rows[0], root=moved).duration_s == 5.0
    with pytest.raises(ECGRecordError):
        load_ecg(rows[0])


def test_split_by_group():
    groups = [f"p{i % 100}" for i in range(300)]
    splits = split_by_group(groups, fractions=(0.7, 0.1, 0.2), seed=4)
    assert Counter(dict(zip(groups, splits, strict=True)).values()) == {"train": 70, "validation": 10, "test": 20}
    order = list(range(300))
    random.Random(0).shuffle(order)
    assert split_by_group([groups[i] for i in order], seed=4) == [splits[i] for i in order]
    assert split_by_group(groups, seed=5) != splits
    with pytest.raises(ValueError, match="summing to 1"):
        split_by_group(groups, fractions=(0.7, 0.1, 0.1))


def test_ptbxl_folds_classes_and_axis(tmp_path):
    lines = ["ecg_id,patient_id,age,sex,report,scp_codes,heart_axis,strat_fold,filename_lr,filename_hr"]
    codes = [
        "{'NORM': 100.0, 'SR': 0.0}",
        "{'IMI': 35.0, 'CRBBB': 100.0, 'AFIB': 0.0}",
        "{'LVH': 20.0, 'SR': 0.0, 'SBRAD': 0.0}",
    ]
    for i, (code, fold, axis) in enumerate(zip(codes, ("8", "9", "10"), ("MID", "ALAD", ""), strict=True)):
        write_record(tmp_path / "records500" / f"{i}_hr")
        lines.append(f'{i},{i}.0,50,0,text,"{code}",{axis},{fold},records100/{i}_lr,records500/{i}_hr')
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(lines))
    statements = ",description,diagnostic_class,rhythm\nNORM,,NORM,\nIMI,,MI,\nCRBBB,,CD,\nLVH,,HYP,\nSR,,,1.0\nAFIB,,,1.0\nSBRAD,,,1.0\n"
    (tmp_path / "scp_statements.csv").write_text(statements)
    rows, _ = load_ptbxl(tmp_path)
    assert rows["split"][:] == ["train", "validation", "test"]
    assert rows["labels"][:] == [
        ["NORM", "SR", "AXN"],
        ["MI", "CD", "RBBB", "AF", "LAD"],
        ["HYP", "LVH", "SR", "SBRAD"],
    ]
    assert rows["rhythm"][:] == ["SR", "AF", "SBRAD"]
    assert rows["axis"][:] == ["AXN", "LAD", None]
    assert rows["patient"][:] == ["0", "1", "2"]
    strict, _ = load_ptbxl(tmp_path, min_likelihood=50)
    assert strict["labels"][:] == [["NORM", "SR", "AXN"], ["CD", "RBBB", "AF", "LAD"], ["SR", "SBRAD"]]
    with pytest.raises(ValueError, match="no readable record"):
        load_ptbxl(tmp_path, sampling_rate=100)
    with pytest.raises(ValueError, match="sampling_rate=250: allowed are 500, 100"):
        load_ptbxl(tmp_path, sampling_rate=250)
    text = (tmp_path / "ptbxl_database.csv").read_text()
    (tmp_path / "ptbxl_database.csv").write_text(text.replace(",8,", ",11,"))
    with pytest.raises(ValueError, match="strat_fold='11': allowed are 1 to 10"):
        load_ptbxl(tmp_path)


def test_scp_codes_are_not_evaluated():
    assert parse_scp_codes("{'NORM': 100.0, 'LAO/LAE': 0}") == {"NORM": 100.0, "LAO/LAE": 0.0}
    assert parse_scp_codes("__import__('os').system('true')") == {}


def test_challenge_folders(tmp_path):
    write_record(tmp_path / "cpsc_2018" / "g1" / "A1", comments=["Age: 70", "Sex: Male", "Dx: 164889003,59118001"])
    write_record(tmp_path / "georgia" / "E1", comments=["Dx: 426783006"])
    write_record(tmp_path / "georgia" / "E2", comments=["Dx: 426783006,39732003,999"])
    write_record(tmp_path / "ptb-xl" / "HR1", comments=["Dx: 426783006"])
    (tmp_path / "georgia" / "E3.hea").write_text("E3.mat 12 500 5000\n")
    (tmp_path / "map.csv").write_text("dx,snomed_ct_code,abbreviation\natrial fibrillation,164889003,AF\n")
    rows, report = load_cinc(tmp_path, dx_mapping=tmp_path / "map.csv")
    table = {row["record"]: row for row in rows}
    assert set(table) == {"cpsc_2018/g1/A1", "georgia/E1", "georgia/E2"}
    first = table["cpsc_2018/g1/A1"]
    assert (first["source"], first["labels"], first["diagnoses"]) == (
        "cinc/cpsc_2018",
        ["AF", "RBBB"],
        ["atrial fibrillation", "59118001"],
    )
    assert (first["age"], first["sex"], set(first["known_labels"])) == (70, "male", set(CPSC_CLASSES))
    assert table["georgia/E1"]["labels"] == ["NORM", "SR"]
    assert (table["georgia/E2"]["labels"], table["georgia/E2"]["axis"]) == (["SR", "LAD"], "LAD")
    assert [name for name, _ in report.skipped] == ["georgia/E3"]
    assert any("split by record" in note for note in report.notes)
    with pytest.raises(ECGRecordError, match="record name"):
        load_cinc(tmp_path, on_bad="raise")
    assert load_cinc(tmp_path, sources=["ptb-xl"])[0]["source"][:] == ["cinc/ptb-xl"]
    with pytest.raises(ValueError, match="no records of"):
        load_cinc(tmp_path, sources=["chapman"])
    assert cpsc_labels(["426783006", "284470004"]) == ["PAC"]


def test_intervals_by_hand():
    beat = [Wave("p", 80, 90, 100), Wave("N", 120, 130, 145), Wave("t", 200, 220, 260)]
    second = [Wave(w.kind, w.onset + 400, w.peak + 400, w.offset + 400) for w in beat]
    measured = measure({"II": beat + second, "V1": beat[1:2]}, 500.0)
    assert measured == {"heart_rate": 75.0, "pr_interval": 80.0, "qrs_duration": 50.0, "qt_interval": 280.0}
    assert measure({"II": [beat[0]]}, 500.0) == dict.fromkeys(MEASUREMENTS)
    lost_qrs = [beat[0], *second]
    assert measure({"II": lost_qrs}, 500.0)["pr_interval"] == 80.0


def test_delineations_agree_with_wfdb(tmp_path):
    samples = [5, 9, 14, 2000, 2010, 2030, 70_000, 70_010, 70_020, 70_100]
    symbols = ["(", "p", ")", "(", "N", ")", "(", "t", ")", "("]
    wfdb.wrann("a", "ii", np.array(samples), symbols, aux_note=["x"] + [""] * 9, write_dir=str(tmp_path))
    waves = read_delineation(tmp_path / "a.ii")
    assert waves == [Wave("p", 5, 9, 14), Wave("N", 2000, 2010, 2030), Wave("t", 70_000, 70_010, 70_020)]
    data = (tmp_path / "a.ii").read_bytes()
    for damaged in (data[:-2], data[:7], b""):
        (tmp_path / "b.ii").write_bytes(damaged)
        with pytest.raises(ECGRecordError, match="end mark"):
            read_delineation(tmp_path / "b.ii")
    with pytest.raises(ECGRecordError, match="annotation file"):
        read_delineation(tmp_path / "none.ii")


def conversation(i, image, turns=1):
    said = [("human", f"<image>\nQuestion {i}?"), ("gpt", f"Answer {i}."), ("human", "And?"), ("gpt", "That is all.")]
    return {"id": f"c{i}", "image": image, "conversations": [{"from": a, "value": b} for a, b in said[: 2 * turns]]}


def test_instructions_with_images_and_waveforms(tmp_path):
    root = tmp_path / "data"
    write_record(root / "ptb-xl" / "00001_hr")
    (root / "ptb-xl" / "00001_hr-0.png").write_bytes(b"png")
    good = "ptb-xl/00001_hr-0.png"
    bad = [conversation(7, "../secret.png"), conversation(8, "gone.png"), {"id": "c9"}, conversation(10, good)]
    bad[3]["conversations"][1]["value"] = " "
    (tmp_path / "c.json").write_text(json.dumps([conversation(1, good), *bad, conversation(2, good, turns=2)]))
    rows, report = load_instructions(tmp_path / "c.json", root)
    assert rows["question"][:] == ["Question 1?", "Question 2?"]
    assert rows["answer"][:] == ["Answer 1.", "Answer 2."]
    assert [turn["value"] for turn in rows[1]["conversations"]] == ["Question 2?", "Answer 2.", "And?", "That is all."]
    assert [turn["from"] for turn in rows[1]["conversations"]] == ["human", "gpt"] * 2
    assert (rows[0]["image"], rows[0]["record"]) == (good, None)
    assert [name for name, _ in report.skipped] == ["c7", "c8", "c9", "c10"]
    drawn, report = load_instructions(tmp_path / "c.json", root, draw=True, split="test")
    assert (drawn[0]["image"], drawn[0]["record"], drawn[0]["split"]) == (None, "ptb-xl/00001_hr", "test")
    assert load_ecg(drawn[0]).duration_s == 5.0
    with pytest.raises(ECGRecordError, match="a path inside"):
        load_instructions(tmp_path / "c.json", root, on_bad="raise")
    stream, report = load_instructions(tmp_path / "c.json", root, streaming=True)
    assert [row["question"] for row in stream] == rows["question"][:]
    assert (report.n_rows, len(report.skipped)) == (2, 4)


def test_json_is_read_piece_by_piece(tmp_path, monkeypatch):
    items = [conversation(i, "ä" * (i % 50)) for i in range(200)]
    for chunk in (1, 7, 1000, 1 << 20):
        monkeypatch.setattr("hf_evl_ecg.data.instructions.CHUNK", chunk)
        (tmp_path / "list.json").write_text(json.dumps(items, indent=1, ensure_ascii=False))
        (tmp_path / "lines.json").write_text("\n".join(json.dumps(item) for item in items) + "\n")
        count = 20 if chunk < 100 else 200
        for name in ("list.json", "lines.json"):
            read = iterate_json(tmp_path / name)
            assert [item for item, _ in zip(read, range(count), strict=False)] == items[:count]
    (tmp_path / "one.json").write_text("[]")
    assert list(iterate_json(tmp_path / "one.json")) == []
    for text in (json.dumps(items)[:-1], json.dumps(items)[:-40], "[1, }", "nonsense", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            list(iterate_json(tmp_path / "bad.json"))


def test_limb_ratios_come_back_from_z_scores():
    for seed, label in enumerate(CPSC_CLASSES):
        signal = simulate(label, seed=seed, fs_hz=100).signal_mv.astype(np.float64)
        signal = sosfiltfilt(butter(3, [0.5, 40], "bandpass", fs=100, output="sos"), signal, axis=0)
        restored, solved = restore_millivolts(signal / signal.std(0))
        assert solved, label
        ratio = restored.std(0)[:6] / signal.std(0)[:6]
        assert ratio.max() / ratio.min() < 1.01
    noise = np.random.default_rng(0).normal(size=(1000, 12))
    assert not restore_millivolts(noise)[1]
    with pytest.raises(ValueError, match="shape"):
        restore_millivolts(noise[:, :8])


def test_simulated_rows_know_the_truth():
    rows, _ = load_simulated(2)
    assert len(rows) == 18
    assert set(rows["source"]) == {"simulated"}
    ecg = load_ecg(rows[0])
    assert ecg.metadata["simulated"] is True
    assert ecg.metadata["heart_rate_bpm"] == pytest.approx(rows[0]["heart_rate"], abs=1e-3)
    others = [load_simulated(2, split=split)[0]["record"][:] for split in ("validation", "test")]
    assert not set(rows["record"]) & set(others[0]) | set(others[0]) & set(others[1])
    with pytest.raises(ValueError, match="XX"):
        load_simulated(2, classes=["XX"])


def test_conversations_hold_each_question_once_in_any_order():
    rows = load_simulated(4)[0]
    questions = question_dataset(rows, balanced=True, formats=["closed", "fill"], tasks=["diagnosis", "rhythm", "axis"])
    joined = conversation_dataset(questions, 3, seed=1)
    turns = [(row["record"], read_turns(row, row["record"])) for row in joined]
    assert Counter((record, turn.question, turn.answer) for record, own in turns for turn in own) == Counter(
        (item["record"], item["question"], item["answer"]) for item in questions
    )
    asked = Counter(questions["record"])
    assert Counter(joined["record"]) == {record: -(-count // 3) for record, count in asked.items()}
    lengths = defaultdict(list)
    for record, own in turns:
        lengths[record].append(len(own))
    assert max(map(max, lengths.values())) == 3
    assert all(max(own) - min(own) <= 1 for own in lengths.values())
    first = {record: questions["question"][questions["record"].index(record)] for record in asked}
    assert 0 < sum(own[0].question == first[record] for record, own in turns) < len(asked)  # orders differ
    assert joined.to_list() == conversation_dataset(questions, 3, seed=1).to_list()
    assert joined.to_list() != conversation_dataset(questions, 3, seed=2).to_list()
    assert load_ecg(joined[0]).signal_mv.shape == load_ecg(questions[0]).signal_mv.shape
    with pytest.raises(ValueError, match="turns=0"):
        conversation_dataset(questions, 0)


def test_balanced_questions_do_not_give_their_answer_away():
    rows = datasets.concatenate_datasets([load_simulated(8, split=name)[0] for name in ("train", "test")])
    questions = question_dataset(rows, balanced=True, formats=["closed", "fill"], tasks=["diagnosis", "rhythm", "axis"])
    asked = Counter(
        (item["split"], item["labels"][0], item["answer"]) for item in questions if item["format"] == "closed"
    )
    labels = {key[:2] for key in asked}
    assert {("train", "AF"), ("test", "LBBB")} <= labels
    assert all(asked[*key, "yes"] == asked[*key, "no"] > 0 for key in labels)
    assert asked["train", "LBBB", "yes"] == 8  # all that there are
    truth = {row["record"]: row["labels"] for row in rows}
    assert all(
        (item["labels"][0] in truth[item["record"]]) == (item["answer"] == "yes")
        for item in questions
        if item["format"] == "closed"
    )
    fill = {"formats": ["fill"], "tasks": ["diagnosis", "rhythm", "axis"]}
    assert sum(item["format"] == "fill" for item in questions) == len(question_dataset(rows, **fill))
    with pytest.raises(ValueError, match="give one of them"):
        question_dataset(rows, balanced=True, per_record=2)


def test_questions(folder):
    rows, _ = load_folder(folder)
    questions = question_dataset(rows, seed=1)
    again = question_dataset(rows, seed=1)
    assert questions.to_list() == again.to_list()
    assert questions.to_list() != question_dataset(rows, seed=2).to_list()
    assert set(questions["format"]) == {"open", "closed", "choice", "fill", "report"}
    assert load_ecg(questions[0]).duration_s == 5.0
    truth = {row["record"]: row for row in rows}
    for item in questions:
        row = truth[item["record"]]
        assert item["split"] == row["split"]
        if item["format"] == "closed" and item["labels"]:
            assert item["answer"] == ("yes" if item["labels"][0] in row["labels"] else "no")
        if item["format"] == "choice" and item["labels"]:
            shown = [label_text(label) for label in row["labels"]]
            assert sum(option in shown for option in item["options"]) == 1
    reports = question_dataset(rows, tasks=["report"], report_text="original")
    assert reports["answer"][:2] == ["text 0", "text 1"]
    few = question_dataset(rows, per_record=2)
    assert set(Counter(few["record"]).values()) == {2}
    with pytest.raises(ValueError, match="mood"):
        question_dataset(rows, tasks=["mood"])
    with pytest.raises(ValueError, match="no such question can be made"):
        question_dataset(rows, tasks=["qt_interval"])


def test_the_label_asked_about_does_not_give_the_answer_away():
    """Yes and no are about as frequent for each common label, though most labels are absent from most records."""
    rng = random.Random(0)
    rates = {"RBBB": 0.3, "I-AVB": 0.2, "PVC": 0.1, "STD": 0.1, "LBBB": 0.05}
    table = []
    for i in range(1500):
        found = [label for label, p in rates.items() if rng.random() < p]
        row = make_row(f"r{i}", "s", "", "train", labels=found, known_labels=list(CPSC_CLASSES))
        table.append((f"r{i}", partial(dict, row)))
    rows, _ = collect_rows(table, "s")
    questions = question_dataset(rows, tasks=["diagnosis"], formats=["closed"])
    asked = Counter(
        (labels[0], answer) for labels, answer in zip(questions["labels"], questions["answer"], strict=True)
    )
    assert {label for label, _ in asked} == set(rates), "labels that never occur are not asked about"
    for label in rates:
        share = asked[label, "yes"] / (asked[label, "yes"] + asked[label, "no"])
        assert 0.2 < share < 0.7, (label, share)
