"""The command line and the page: true to scale, self-contained, harmless, and silent about the patient."""

import json
import re
import warnings
from datetime import UTC, datetime

import pytest
from PIL import Image
from transformers import BitsAndBytesConfig

from hf_evl_ecg import ECG, ECGInterpreter, RenderConfig, render
from hf_evl_ecg.__main__ import main
from hf_evl_ecg.interpret_report import DISCLAIMER, ECGReport, Opinion, describe_model
from hf_evl_ecg.interpreter import Interpretation
from hf_evl_ecg.report_page import report_page, true_scale
from hf_evl_ecg.simulate import simulate

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
        (["interpret", str(ecg_records[0]), *model, "--layout", "5x5"], "known are"),
        (["interpret", str(ecg_records[0]), *model, "--labels", "XX"], "unknown label"),
        (["interpret", str(ecg_records[0]), *model, "--missing", "guess"], "nan is 'guess'"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert main(["explain"]) == 2
    assert main(["--help"]) == 0
    assert "interpret RECORD" in capsys.readouterr().out


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
    assert text.count('class="warning"') == 2
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
    assert "2026-01-02 03:04 UTC" in text
    assert report.to_dict()["record"] == {"record": "scan.png", "source": "picture"}
    with pytest.raises(ValueError, match="0 opinions"):
        ECGReport("r", [])
    with pytest.raises(ValueError, match="known are"):
        ECGReport("r", [opinion()], layout="5x5")


def test_what_a_report_says_of_a_long_record():
    ecg = simulate("AF", seed=0, duration_s=12.0)
    report = ECGReport("r", [opinion()], ecg)
    assert report.notices() == ["Shown are the first 10 of 12 s"]
    assert report.facts()["duration_s"] == 12


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
    assert 'class="warning"' not in text
    assert "Sinus" not in text, "what the header says about the patient stays out"
