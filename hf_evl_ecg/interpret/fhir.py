"""Interpretations as HL7 FHIR R4 resources, for a clinic's other systems: reports, observations, and the models as devices.

Nothing identifies a patient: there is no ``subject``, which the receiving system has to add. Everything is marked as unverified.
Resources: https://hl7.org/fhir/R4/diagnosticreport.html, observation.html, device.html.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.sources.cinc import SNOMED_LABELS

from .report import DISCLAIMER, ECGReport, Opinion

__all__ = ["fhir_bundle", "fhir_entries"]

LOINC, SNOMED, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"
_STUDY = {"coding": [{"system": LOINC, "code": "11524-6", "display": "EKG study"}], "text": "ECG"}
_IMPRESSION = {
    "coding": [{"system": LOINC, "code": "8601-7", "display": "EKG impression"}],
    "text": "answer of a model",
}
_CATEGORY = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "EC"}]}
_PROCEDURE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "procedure"}]}
_RESEARCH = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH"}]}
# Of the codes that mean one finding, the first of the table, which is the one without further detail.
_CODES = {label: code for code, label in reversed(SNOMED_LABELS.items())}


def fhir_entries(report: ECGReport) -> list[dict[str, Any]]:
    """Entries of a Bundle for one page: its DiagnosticReport, then of each model a Device and Observations.

    A model's answer is an Observation "EKG impression", and each label score one with the finding's SNOMED CT code where it has one, the
    probability as ``valueQuantity``, and doubts as notes. Reports have the status ``partial`` and observations ``preliminary``, which
    FHIR defines as unverified; ``meta.security`` says healthcare research (HRESCH).

    Args:
        report: The page.

    Example:
        >>> from PIL import Image
        >>> from hf_evl_ecg.interpret.interpreter import Interpretation
        >>> said = Interpretation("Rhythm?", "atrial fibrillation", {"AF": 0.9}, Image.new("RGB", (56, 40)), {})
        >>> entries = fhir_entries(ECGReport("records/af", [Opinion({"name": "ecg-student"}, said)]))
        >>> [entry["resource"]["resourceType"] for entry in entries]
        ['DiagnosticReport', 'Device', 'Observation', 'Observation']
    """
    parts: list[dict[str, Any]] = []
    results = []
    for opinion in report.opinions:
        device = _entry(_device(opinion))
        observed = [_entry(o | {"device": {"reference": device["fullUrl"]}}) for o in _observations(opinion, report)]
        results += [{"reference": entry["fullUrl"]} for entry in observed]
        parts += [device, *observed]
    answers = [(str(opinion.model["name"]), opinion.interpretation.answer) for opinion in report.opinions]
    conclusion = answers[0][1] if len(answers) == 1 else "\n".join(f"{name}: {answer}" for name, answer in answers)
    resource = {
        "resourceType": "DiagnosticReport",
        "meta": _RESEARCH,
        "text": _narrative(report, answers),
        "identifier": [{"value": report.record}],
        "status": "partial",
        "category": [_CATEGORY],
        "code": _STUDY,
        "issued": report.created.isoformat(timespec="seconds"),
        "result": results,
        "conclusion": conclusion,
    }
    return [_entry({name: value for name, value in resource.items() if value}), *parts]


def fhir_bundle(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A Bundle (type ``collection``) as plain data for json.

    Args:
        entries: Of all pages, from `fhir_entries`.

    Example:
        >>> fhir_bundle([])["type"]
        'collection'
    """
    return {"resourceType": "Bundle", "meta": _RESEARCH, "type": "collection", "entry": list(entries)}


def _entry(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": dict(resource)}


def _device(opinion: Opinion) -> dict[str, Any]:
    model = opinion.model
    versions = [{"value": f"{name} {model[name]}"} for name in ("revision", "dtype", "quantization") if name in model]
    named = {"deviceName": [{"name": str(model["name"]), "type": "model-name"}]}
    return {
        "resourceType": "Device",
        **named,
        **({"version": versions} if versions else {}),
        "type": {"text": "vision-language model"},
    }


def _observations(opinion: Opinion, report: ECGReport) -> list[dict[str, Any]]:
    """The answer, where there is one, and the label scores."""
    said = opinion.interpretation
    common = {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_PROCEDURE],
        "issued": report.created.isoformat(timespec="seconds"),
    }
    notes = [{"text": text} for text in (f"Question: {said.question}", *said.doubts, *said.measured, DISCLAIMER)]
    found = [{**common, "code": _IMPRESSION, "valueString": said.answer, "note": notes}] if said.answer else []
    for label, probability in said.label_scores.items():
        coding = [{"system": SNOMED, "code": _CODES[label]}] if label in _CODES else []
        code = {**({"coding": coding} if coding else {}), "text": label_text(label)}
        value = {"value": round(probability, 6), "unit": "probability", "system": UCUM, "code": "1"}
        method = {"text": "probability of yes against no to the closed question about this finding"}
        found.append({**common, "code": code, "valueQuantity": value, "method": method})
    return found


def _narrative(report: ECGReport, answers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What a person reads who sees nothing else."""
    lines = [report.question, *(f"{name}: {answer}" for name, answer in answers), *report.notices(), DISCLAIMER]
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'}
