"""The command line and the page: true to scale, self-contained, harmless, and silent about the patient."""

import json
import os
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from transformers import BitsAndBytesConfig
from written_records import GAIN, beats, day, read, write

from hf_evl_ecg import ECG, ECGInterpreter, RenderConfig, render
from hf_evl_ecg.__main__ import main
from hf_evl_ecg.drawing.fit import fit_gain
from hf_evl_ecg.interpret.interpreter import Interpretation
from hf_evl_ecg.interpret.page import report_page, scale_notices, true_scale
from hf_evl_ecg.interpret.report import DISCLAIMER, ECGReport, Opinion, describe_model
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.signals.ecg import crop
from hf_evl_ecg.signals.simulation import simulate

SMALL = RenderConfig(width_px=440, height_px=340)
RHYTHM = "What is the rhythm of this ECG?"
EVIL = "<script>alert(1)</script>"


def test_the_command_line(ecg_student, ecg_records, tmp_path, capsys):
    out = tmp_path / "new" / "af.html"
    arguments = ["interpret", str(ecg_records[0]), "--model", str(ecg_student), "--teacher", str(ecg_student)]
    arguments += [
        "--question",
        RHYTHM,
        "--max_new_tokens",
        "6",
        "--json",
        str(tmp_path / "af.json"),
        "--html",
        str(out),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "atrial fibrillation" in printed
    assert DISCLAIMER in printed
    data = json.loads((tmp_path / "af.json").read_text())
    interpreter = ECGInterpreter.from_pretrained(ecg_student)
    expected = interpreter(ecg_records[0], RHYTHM, max_new_tokens=6)
    assert [o["answer"] for o in data["opinions"]] == [expected.answer] * 2
    assert data["opinions"][0]["label_scores"] == pytest.approx(expected.label_scores, abs=1e-6)
    assert data["record"]["record"] == "af"
    assert data["record"]["fs_hz"] == 500
    assert data["opinions"][0]["model"]["name"] == "student"
    assert data["opinions"][0]["seconds"]["read"] > 0
    page = out.read_text()
    for text in (page, json.dumps(data)):
        assert str(ecg_records[0].parent) not in text
        assert "Jane Doe" not in text
        assert "female" not in text
    assert EVIL not in page
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in page, "the teacher's name is shown, harmless"


def test_what_the_command_line_refuses(ecg_student, ecg_records, tmp_path, capsys):
    model = ["--model", str(ecg_student)]
    for arguments, message in (
        (["interpret", str(tmp_path / "absent"), *model], "absent.hea"),
        (["interpret", str(ecg_records[0]), "--model", str(tmp_path / "absent")], "no folder"),
        (["interpret", str(ecg_records[0]), *model, "--layout", "5x5"], "allowed are"),
        (["interpret", str(ecg_records[0]), *model, "--labels", "XX"], "unknown label"),
        (["interpret", str(tmp_path), *model], "a folder"),
        (["interpret", "scan.png", *model, "--gain_per_mv", "1000"], "is a picture"),
        (["interpret", "r", "--model", "never/loaded", "--labels", "XX"], "unknown label"),
        (["interpret", "r", "--model", "never/loaded", "--question", " "], "must not be empty"),
        (["interpret", "r", "--model", "never/loaded", "--max_new_tokens", "0"], "at least 1"),
        (["interpret", "r", "--model", "never/loaded", "--html", str(tmp_path)], "is a folder"),
        (["interpret", str(ecg_records[0]), *model, "--device", "warp"], "device='warp' cannot be used"),
        (["interpret", str(ecg_records[0]), *model, "--dtype", "float17"], "dtype='float17': choose 'auto'"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["interpret", str(ecg_records[0]), *model, "--missing", "guess"])
    assert "--missing: invalid choice: 'guess'" in capsys.readouterr().err
    assert main(["explain"]) == 2
    assert main(["--help"]) == 0
    assert "Ask a vision-language model about one ECG" in capsys.readouterr().out


def test_warnings_and_faults_of_a_record_are_told(ecg_student, save_record, tmp_path, capsys):
    ecg = simulate("NORM", seed=3)
    signal = ecg.signal_mv.copy() * 30
    signal[:, 5] = 0
    record = save_record(tmp_path / "r", "loud", ECG(signal, ecg.fs_hz))
    page = tmp_path / "loud.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            main(["interpret", str(record), "--model", str(ecg_student), "--labels", "none", "--html", str(page)]) == 0
        )
    assert "Warning:" in capsys.readouterr().out
    text = page.read_text()
    assert text.count('class="warning"') == 6
    for told in (
        "tallest waves are",
        "deviate by up to",
        "Drawn at 5 mm/mV",
        "Run into the rows beside them: ",
        "Cut at the edge of the paper: I, ",
    ):
        assert told in text
    assert "Flat leads: aVF" in text
    assert "Label scores" not in text
    assert str(tmp_path) not in text


def opinion(answer="sinus rhythm", **scores):
    model = {"name": EVIL, "architecture": "A", "parameters": 1000, "dtype": "float32", "device": "cpu"}
    seconds = {"read": 0.0, "render": 0.0, "generate": 0.5, "score": 0.25}
    return Opinion(model, Interpretation(RHYTHM, answer, scores, Image.new("RGB", (20, 10)), seconds))


@pytest.mark.parametrize("layout", ["3x4+rhythm", "3x4", "6x2", "12x1"])
def test_the_page_is_true_to_scale(layout):
    config = true_scale(layout)
    page = config.page()
    text = report_page(ECGReport("r", [opinion()], simulate("AF", seed=0), layout=layout))
    width, height = map(
        float, re.search(r'<img style="width:([\d.]+)mm;height:([\d.]+)mm" alt="12-lead', text).groups()
    )
    assert width == pytest.approx(page.width_px / page.scale.px_per_mm, abs=1e-9)
    assert height == pytest.approx(page.height_px / page.scale.px_per_mm, abs=1e-9)
    assert page.scale.px_per_s * width / page.width_px == pytest.approx(25, abs=1e-9), "25 mm of paper per second"
    assert page.scale.px_per_mv * height / page.height_px == pytest.approx(10, abs=1e-9), "10 mm of paper per mV"
    assert width <= 297 - 16, "fits between the margins of A4 landscape"
    assert height <= 210 - 12
    assert render(simulate("AF", seed=0), config).size == (page.width_px, page.height_px)


@pytest.mark.skipif(
    not all(map(shutil.which, ("chromium", "pdfinfo", "pdftoppm"))), reason="no chromium, pdfinfo or pdftoppm"
)
def test_the_page_prints_on_one_sheet_at_true_scale(tmp_path):
    """Printed to PDF by Chromium and rasterised at 10 pixels per millimetre: sheet, paper, 5 mm lines and ruler."""
    found = opinion("sinus rhythm with left axis deviation " * 6, **dict.fromkeys(CPSC_CLASSES, 0.5))
    (tmp_path / "r.html").write_text(report_page(ECGReport("r", [found], simulate("AF", seed=0), warnings=["odd"])))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
    profile = [f"--user-data-dir={tmp_path / 'profile'}", "--no-pdf-header-footer"]
    command = ["chromium", *flags, *profile, f"--print-to-pdf={tmp_path / 'r.pdf'}", (tmp_path / "r.html").as_uri()]
    home = os.environ | {"HOME": str(tmp_path)}
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=home)
    told = subprocess.run(["pdfinfo", tmp_path / "r.pdf"], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Pages:\s+1\n", told)
    assert "(A4)" in told
    subprocess.run(["pdftoppm", "-r", "254", "-png", tmp_path / "r.pdf", tmp_path / "sheet"], check=True)
    (sheet,) = tmp_path.glob("sheet*.png")
    pixels = np.asarray(Image.open(sheet).convert("RGB"), dtype=np.int32)
    red = (pixels[..., 0] - pixels[..., 1] > 40).astype(float)  # the grid; the warning's yellow is paler
    rows = np.flatnonzero(red.mean(axis=1) > 0.15)
    paper = red[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(paper.mean(axis=0) > 0.1)
    assert columns[-1] - columns[0] + 1 == pytest.approx(2740, abs=12)
    assert len(paper) == pytest.approx(1090, abs=12)
    for axis in (0, 1):
        thick = (pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 1] < 150).mean(axis=axis)
        spectrum = np.abs(np.fft.rfft(thick - thick.mean(), 1 << 20))
        peak = np.argmax(spectrum[(1 << 20) // 60 : (1 << 20) // 40]) + (1 << 20) // 60
        assert (1 << 20) / peak == pytest.approx(50.0, abs=0.2), "thick lines are 5 mm apart"
    grey = np.abs(pixels - 0x44).max(axis=2) < 40
    runs = [len(run) for row in grey[rows[-1] :] for run in "".join("x" if g else " " for g in row).split()]
    assert min(abs(run - 500) for run in runs) <= 3, "the ruler is 50 mm long"


def test_the_page_is_self_contained_and_escapes_all_text():
    evil = EVIL + "\"'&"
    report = ECGReport(
        f"{EVIL}", [opinion(evil, AF=0.25), opinion("", NORM=1.0)], simulate("AF", seed=0), warnings=[evil]
    )
    text = report_page(report)
    assert "<script" not in text
    assert "alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text
    assert text.count("data:image/png;base64,") == 3
    assert 'style="width:25.0%"' in text
    assert text.count('<td class="number"></td>') == 2, "a label that one model did not score stays empty"
    assert "simulated, not a patient" in text
    assert DISCLAIMER in text
    assert "(nothing)" in text


def test_a_report_on_a_picture_claims_no_scale():
    report = ECGReport("scan.png", [opinion()], created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    text = report_page(report)
    assert "scale is not known" in text
    assert "true to scale" not in text
    assert "scan.png, 2026-01-02 03:04 UTC" in text, "the end names the record too, which may be on a second sheet"
    assert report.to_dict()["record"] == {"record": "scan.png", "source": "picture"}
    with pytest.raises(ValueError, match="0 opinions"):
        ECGReport("r", [])
    with pytest.raises(ValueError, match="allowed are"):
        ECGReport("r", [opinion()], layout="5x5")


def test_what_a_report_says_of_a_long_record():
    ecg = simulate("AF", seed=0, duration_s=12.0)
    report = ECGReport("r", [opinion()], ecg)
    assert report.notices() == ["Shown are the first 10 of 12 s"]
    assert report.facts()["duration_s"] == 12


def test_what_a_report_says_of_a_short_record():
    ecg = crop(simulate("AF", seed=0), 0.0, 6.0)
    ended = "The recording ends after 6 s: nothing is shown of V4, V5, V6"
    assert ECGReport("r", [opinion()], ecg).notices() == [ended]
    assert ECGReport("r", [opinion()], ecg, layout="12x1").notices() == []
    assert ended in report_page(ECGReport("r", [opinion()], ecg))
    seen = replace(opinion().interpretation, unseen_leads=("V4", "V5"))
    report = ECGReport("r", [Opinion(opinion().model, seen)], ecg)
    assert "not in full: V4, V5" in report_page(report)
    assert report.to_dict()["opinions"][0]["unseen_leads"] == ["V4", "V5"]
    assert "not in full" not in report_page(ECGReport("r", [opinion()], ecg))


def test_tall_waves_are_drawn_at_half_the_gain_and_not_cut_in_silence():
    ecg = simulate("NORM", seed=1)
    size = float(np.ptp(ecg.signal_mv, axis=0).max())
    for peak_mv, told in ((1.0, []), (4.0, ["Drawn at 5 mm/mV, not at the usual 10"])):
        shown = replace(ecg, signal_mv=ecg.signal_mv * peak_mv / size)
        config = fit_gain(shown, true_scale())
        assert scale_notices(shown, config) == told
        text = report_page(ECGReport("r", [opinion()], shown))
        assert f"25 mm/s, {config.gain_mm_mv:g} mm/mV; true to scale" in text
        assert all(line in text for line in told)
    assert "Cut at the edge" in scale_notices(replace(ecg, signal_mv=ecg.signal_mv * 9), true_scale())[0]


def test_a_gain_that_was_given_and_crossing_waves_stand_on_the_page(tmp_path):
    write(tmp_path, signal=beats(5000))
    ecg = read(tmp_path / "r", gain_per_mv=50)
    assert ecg.metadata["gain_per_mv"] == 50
    report = ECGReport("r", [opinion()], ecg)
    said = "Voltages by a gain that was given, 50 stored units per mV, not by the record&#x27;s header"
    assert said in report_page(report)
    assert report.facts()["gain_per_mv"] == 50
    plain = ECGReport("r", [opinion()], read(tmp_path / "r"))
    assert "gain that was given" not in report_page(plain)
    assert "gain_per_mv" not in plain.facts()
    tall = np.zeros((5000, 12))
    tall[3000:3010, 6] = -9.0
    assert (
        scale_notices(ECG(tall, 500), replace(true_scale(), gain_mm_mv=5.0))[-1] == "Run into the rows beside them: V1"
    )


def test_a_model_is_described_by_what_identifies_it(ecg_student):
    described = describe_model(ECGInterpreter.from_pretrained(ecg_student))
    assert described["name"] == "student"
    assert described["architecture"] == "Idefics3ForConditionalGeneration"
    assert described["parameters"] > 1000
    assert described["method"] == "EVL-ECG"
    assert "revision" not in described


@pytest.mark.parametrize(("settings", "expected"), [({"load_in_4bit": True}, "4bit"), ({"load_in_8bit": True}, "8bit")])
def test_a_report_tells_of_quantized_weights(settings, expected, ecg_student):
    interpreter = ECGInterpreter.from_pretrained(ecg_student)
    interpreter.model.config.quantization_config = BitsAndBytesConfig(**settings)
    described = describe_model(interpreter)
    assert described["quantization"] == expected
    report = ECGReport("r", [Opinion(described, opinion().interpretation)])
    assert f"float32, {expected} on cpu" in report_page(report)


@pytest.mark.real_data
def test_a_real_record(ecg_student, data_dir, tmp_path):
    record = data_dir / "ecg" / "ludb" / "data" / "1"
    page = tmp_path / "1.html"
    arguments = ["interpret", str(record), "--model", str(ecg_student), "--gain_per_mv", "1000", "--html", str(page)]
    assert main([*arguments, "--max_new_tokens", "4"]) == 0
    text = page.read_text()
    assert "10 s at 500 Hz" in text
    assert re.findall('class="warning">([^,]*)', text) == ["Voltages by a gain that was given"]
    assert "Sinus" not in text, "what the header says about the patient stays out"


def test_a_strip_of_pages_of_a_day(ecg_student, tmp_path, capsys):
    """Pages six hours apart, each with its own ten seconds; one lies in a gap and is named."""
    record = day(tmp_path)
    page = beats(5000)
    with open(tmp_path / "r.dat", "r+b") as file:
        for hour, scale in ((1, 1.0), (7, 2.0), (19, 0.5)):
            file.seek(hour * 3600 * 500 * 24)
            file.write(np.rint(page * GAIN * scale).astype("<i2").tobytes())
        file.seek(13 * 3600 * 500 * 24)
        file.write(np.full((100, 12), -32768, "<i2").tobytes())  # marked as missing
    html, written = tmp_path / "day.html", tmp_path / "day.json"
    arguments = [
        "interpret",
        str(record),
        "--model",
        str(ecg_student),
        "--start",
        "3600",
        "--every",
        "21600",
        "--labels",
        "AF",
    ]
    assert main([*arguments, "--max_new_tokens", "4", "--html", str(html), "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    assert "No page at 46800 s:" in printed
    assert "missing samples" in printed
    pages = json.loads(written.read_text())["pages"]
    assert [found["record"]["start_s"] for found in pages] == [3600.0, 25200.0, 68400.0]
    assert {found["record"]["duration_s"] for found in pages} == {86400.0}
    expected = ECGInterpreter.from_pretrained(ecg_student)(
        read(record, start_s=25200.0, duration_s=10.0), labels=["AF"], max_new_tokens=4
    )
    assert pages[1]["opinions"][0]["answer"] == expected.answer
    assert pages[1]["opinions"][0]["label_scores"] == pytest.approx(expected.label_scores, abs=1e-6)
    text = html.read_text()
    assert text.count("<!doctype html>") == text.count("</html>") == 1
    assert text.count("<article") == 4  # three pages and the overview
    for at in ("1:00:00", "7:00:00", "19:00:00"):
        assert f"Shown are 10 s from {at} on, of 24:00:00" in text
        assert f">{at}</a>" in text
    assert str(tmp_path) not in text


def test_start_and_every_are_of_recordings_and_checked_first(ecg_records, tmp_path, capsys):
    Image.new("RGB", (60, 60)).save(tmp_path / "p.png")
    for options, reason in (
        ([str(ecg_records[0]), "--start", "-1"], "start=-1.0: allowed is 0 or"),
        ([str(ecg_records[0]), "--every", "0.5"], "every=0.5: allowed are 1 to inf"),
        ([str(ecg_records[0]), "--start", "60"], "start_s is 60.0; allowed: less than the record's 10 s"),
        ([str(tmp_path / "p.png"), "--every", "5"], "is a picture"),
        ([str(tmp_path / "p.png"), "--start", "5"], "is a picture"),
    ):
        assert main(["interpret", *options, "--model", "never/loaded"]) == 2
        assert reason in capsys.readouterr().err
