"""A folder of ECGs: what is found in it, what is asked once, and what one bad file costs."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.commands.interpret_folder import FolderFailuresError, InterpretFolderArguments
from hf_evl_ecg.commands.interpret_folder import main as interpret_folder
from hf_evl_ecg.files import FolderInUseError, held_folder
from hf_evl_ecg.interpret.folder import find_sources, kept_answer
from hf_evl_ecg.interpret.interpreter import ECGInterpreter


@pytest.fixture
def exams(ecg_records, tmp_path):
    """Two records, one of them in a folder below, a photograph, and a note."""
    folder = tmp_path / "exams"
    (folder / "ward" / ".trash").mkdir(parents=True)
    for record, where in zip(ecg_records[:2], (folder, folder / "ward"), strict=True):
        for suffix in (".hea", ".dat"):
            shutil.copy(record.with_suffix(suffix), where)
    pixels = np.random.default_rng(0).integers(0, 255, (340, 440, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "notes.txt").write_text("call back")
    (folder / "ward" / ".trash" / "old.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """What the model was asked about."""
    calls = []
    original = ECGInterpreter.__call__

    def counting(self, ecg, *args, **kwargs):
        calls.append(getattr(ecg, "record_name", "picture"))
        return original(self, ecg, *args, **kwargs)

    monkeypatch.setattr(ECGInterpreter, "__call__", counting)
    return calls


@pytest.fixture
def options(ecg_student, exams, tmp_path):
    def make(**changed):
        given = {"folder": str(exams), "model": str(ecg_student), "output_dir": str(tmp_path / "out"), "labels": ["AF"]}
        return InterpretFolderArguments(**{**given, "max_new_tokens": 4, "device": "cpu", **changed})

    return make


def names(exams, ecg_records):
    return sorted([ecg_records[0].name, "photo.png", f"ward/{ecg_records[1].name}"])


def test_every_ecg_is_asked_about_once(options, exams, ecg_records, asked, tmp_path):
    assert interpret_folder(options()) == {"asked": 3, "kept": 0, "other": 1}
    assert sorted(asked) == sorted([ecg_records[0].name, ecg_records[1].name, "picture"])
    out = tmp_path / "out"
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == names(exams, ecg_records)
    assert all(0 <= float(row["AF"]) <= 1 for row in rows)
    written = json.loads((out / "ward" / f"{ecg_records[1].name}.json").read_text())
    interpreter = ECGInterpreter.from_pretrained(options().model, device="cpu")
    expected = interpreter(ecg_records[1], options().question, labels=["AF"], max_new_tokens=4)
    assert written["opinions"][0]["answer"] == expected.answer
    assert json.loads((out / "failures.json").read_text()) == {}
    asked.clear()
    assert interpret_folder(options()) == {"asked": 0, "kept": 3, "other": 1}
    assert asked == []
    with (out / "summary.csv").open() as file:
        assert list(csv.DictReader(file)) == rows


def test_only_what_is_new_is_asked_again(options, exams, ecg_records, asked, tmp_path):
    interpret_folder(options())
    asked.clear()
    Image.new("RGB", (440, 340), "white").save(exams / "photo.png")
    (tmp_path / "out" / f"{ecg_records[0].name}.json").write_text('{"key": "cut of')
    assert interpret_folder(options()) == {"asked": 2, "kept": 1, "other": 1}
    assert sorted(asked) == sorted([ecg_records[0].name, "picture"])
    assert interpret_folder(options(html=True, fhir=True))["asked"] == 3, "their pages are missing"
    assert (tmp_path / "out" / "photo.png.html").is_file()
    assert json.loads((tmp_path / "out" / "photo.png.fhir.json").read_text())["resourceType"] == "Bundle"
    assert interpret_folder(options(html=True, fhir=True))["kept"] == 3
    assert interpret_folder(options(question="What is the axis?"))["asked"] == 3


def test_one_bad_file_is_named_and_costs_no_other(options, exams, ecg_records, tmp_path, capsys):
    (exams / "broken.hea").write_text("broken 12 500")
    (exams / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(FolderFailuresError, match=r"2 of 5 ECGs .* broken: .*failures\.json"):
        interpret_folder(options())
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert list(failures) == ["broken", "broken.png"]
    assert str(exams) not in json.dumps(failures)
    assert all((tmp_path / "out" / f"{name}.json").is_file() for name in names(exams, ecg_records))
    given = ["interpret-folder", str(exams), "--model", options().model, "--output_dir", str(tmp_path / "out")]
    assert main([*given, "--labels", "AF", "--max_new_tokens", "4", "--device", "cpu"]) == 2
    assert "error: 2 of 5 ECGs" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(options, ecg_records, monkeypatch, tmp_path):
    original, calls = ECGInterpreter.__call__, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ECGInterpreter, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interpret_folder(options())
    assert len((tmp_path / "out" / "summary.csv").read_text().splitlines()) == 2
    assert interpret_folder(options()) == {"asked": 2, "kept": 1, "other": 1}


def test_what_is_refused(options, tmp_path, ecg_student):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    for changed, message in (
        ({"folder": str(tmp_path / "absent")}, "no folder"),
        ({"folder": str(tmp_path / "empty")}, r"holds no ECG that can be read \(but 1 \.txt\)"),
        ({"labels": ["XX"], "model": "never/loaded"}, "unknown label"),
        ({"question": " ", "model": "never/loaded"}, "must not be empty"),
        ({"layout": "5x5", "model": "never/loaded"}, "allowed are"),
    ):
        with pytest.raises((ValueError, NotADirectoryError), match=message):
            interpret_folder(options(**changed))
    with held_folder(tmp_path / "out"), pytest.raises(FolderInUseError, match="works there"):
        interpret_folder(options())


def test_what_counts_as_an_ecg(exams, ecg_records, tmp_path):
    record = ecg_records[0].name
    (exams / "many.hea").write_text(f"many/1 12 500 5000\n{record} 5000\n")
    np.save(exams / "numbers.npy", np.zeros((10, 12)))
    np.save(exams / "told.npy", np.zeros((10, 12)))
    (exams / "told.npy.json").write_text("{}")
    (tmp_path / "elsewhere.png").write_bytes((exams / "photo.png").read_bytes())
    (exams / "link.png").symlink_to(tmp_path / "elsewhere.png")
    out = exams / "out"
    out.mkdir()
    (out / "page.png").write_bytes((exams / "photo.png").read_bytes())
    found = find_sources(exams, out)
    assert [path.as_posix() for path in found.sources] == sorted(
        ["many", "photo.png", "told.npy", f"ward/{ecg_records[1].name}"]
    ), "the record is a segment of another"
    assert found.others == {".json": 1, ".txt": 1, "NumPy without a description": 1}


def test_an_answer_about_something_else_is_not_kept(tmp_path):
    path = tmp_path / "a.json"
    assert kept_answer(path, "k") is None
    for text in ("[1]", "{", '{"key": "other"}'):
        path.write_text(text)
        assert kept_answer(path, "k") is None
    path.write_text('{"key": "k"}')
    assert kept_answer(path, "k") == {"key": "k"}
