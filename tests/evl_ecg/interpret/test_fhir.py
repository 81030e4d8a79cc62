"""FHIR R4: valid by another library, complete, unverified, and silent about the patient."""

import json
import re

from PIL import Image

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.interpret.fhir import fhir_bundle, fhir_entries
from hf_evl_ecg.interpret.interpreter import Interpretation
from hf_evl_ecg.interpret.report import DISCLAIMER, ECGReport, Opinion

PAGE = Image.new("RGB", (56, 40))


def report(*models, answer="atrial <b>fibrillation</b>", scores=None, **more):
    scores = {"AF": 0.875, "NORM": 0.125} if scores is None else scores
    said = Interpretation("Which rhythm?", answer, scores, PAGE, {}, doubts=("it contradicts itself",))
    return ECGReport("records/r1", [Opinion({"name": name, "dtype": "bfloat16"}, said) for name in models], **more)


def resources(bundle, kind):
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_a_bundle_says_what_the_report_says():
    bundle = fhir_bundle(fhir_entries(report("student", "teacher")))
    (found,) = resources(bundle, "DiagnosticReport")
    assert found["conclusion"] == "student: atrial <b>fibrillation</b>\nteacher: atrial <b>fibrillation</b>"
    assert found["status"] == "partial"
    assert found["code"]["coding"][0]["code"] == "11524-6"
    observations = resources(bundle, "Observation")
    assert {o["status"] for o in observations} == {"preliminary"}
    impression, af, norm = observations[:3]
    assert impression["valueString"] == "atrial <b>fibrillation</b>"
    assert [note["text"] for note in impression["note"]] == [
        "Question: Which rhythm?",
        "it contradicts itself",
        DISCLAIMER,
    ]
    assert af["code"] == {
        "coding": [{"system": "http://snomed.info/sct", "code": "164889003"}],
        "text": "atrial fibrillation",
    }
    assert af["valueQuantity"] == {
        "value": 0.875,
        "unit": "probability",
        "system": "http://unitsofmeasure.org",
        "code": "1",
    }
    assert norm["code"] == {"text": "normal ECG"}, "there is no code that says what these labels say"
    assert [d["deviceName"][0]["name"] for d in resources(bundle, "Device")] == ["student", "teacher"]
    assert "<b>" not in found["text"]["div"]
    assert "&lt;b&gt;" in found["text"]["div"]


def test_references_lead_to_entries():
    bundle = fhir_bundle([*fhir_entries(report("student")), *fhir_entries(report("student"))])
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls) == 10
    named = re.findall(r'"reference": "([^"]+)"', json.dumps(bundle))
    assert set(named) <= set(urls)
    kinds = dict(zip(urls, (entry["resource"]["resourceType"] for entry in bundle["entry"]), strict=True))
    for found in resources(bundle, "DiagnosticReport"):
        assert [kinds[part["reference"]] for part in found["result"]] == ["Observation"] * 3
    assert {kinds[o["device"]["reference"]] for o in resources(bundle, "Observation")} == {"Device"}


def test_another_library_reads_it():
    from fhir.resources.R4B.bundle import Bundle

    for given in (
        report("student"),
        report("a", "b"),
        report("student", answer="", scores={}),
        report("s", warnings=["x & y"]),
    ):
        read = Bundle.model_validate_json(json.dumps(fhir_bundle(fhir_entries(given))))
        assert read.entry[0].resource.issued.isoformat() == given.created.isoformat(timespec="seconds")


def test_the_command_line_writes_every_page_and_no_patient(ecg_student, ecg_records, tmp_path):
    out = tmp_path / "af.json"
    arguments = [
        "interpret",
        str(ecg_records[0]),
        "--model",
        str(ecg_student),
        "--labels",
        "AF",
        "--max_new_tokens",
        "4",
    ]
    assert main([*arguments, "--every", "5", "--fhir", str(out)]) == 0
    text = out.read_text()
    bundle = json.loads(text)
    assert len(resources(bundle, "DiagnosticReport")) == 2
    assert [r["identifier"] for r in resources(bundle, "DiagnosticReport")] == [[{"value": "af"}]] * 2
    assert "subject" not in text
    for private in (str(ecg_records[0].parent), "Jane Doe", "female"):
        assert private not in text


def test_a_folder_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    assert main(["interpret", "r", "--model", "never/loaded", "--fhir", str(tmp_path)]) != 0
    assert "is a folder" in capsys.readouterr().err
