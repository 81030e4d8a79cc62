"""One page on one ECG: the recording at true scale, the question, what each model answered, and with which model it was done.

The page is one HTML file without scripts or outside addresses. Printed at 100 % on A4 landscape, one millimetre of ECG paper is
one millimetre. It names the record, but nothing that a header says about the patient (age, sex, comments, diagnoses).
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from .features import base_model
from .geometry import LAYOUTS
from .interpreter import ECGInterpreter, Interpretation
from .labels import label_text
from .render import RenderConfig, render
from .signals import ECG

__all__ = ["DISCLAIMER", "ECGReport", "Opinion", "describe_model", "true_scale"]

DISCLAIMER = (
    "Research use only. This is the output of a language model, not of a medical device; it must not be used for diagnosis or "
    "treatment. Answers and probabilities can be wrong."
)
PIXELS_PER_MM = 8
PAGE_WIDTH_MM = 274
_ROWS_MM, _LEAST_PITCH_MM, _WIDEST_PITCH_MM, _EDGES_MM = 96, 13, 24, 12
_LARGEST_PICTURE_PX = 2200

STYLE = """
@page { size: A4 landscape; margin: 6mm 8mm; }
* { box-sizing: border-box; }
body { font: 9.2pt/1.3 system-ui, sans-serif; color: #1a1a1a; width: 281mm; margin: 4mm auto; }
h1 { font-size: 13pt; margin: 0; } p { margin: 0 0 2mm; } h2 { font-size: 10.5pt; margin: 0 0 1mm; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 6mm; margin-bottom: 1.5mm; }
.facts { color: #444; text-align: right; } .facts span + span::before { content: " · "; }
.warning { background: #fff3d6; border-left: 1mm solid #d99000; padding: .6mm 2mm; margin: 1mm 0; }
.paper img { display: block; margin: 0 auto; }
.scale { display: flex; justify-content: space-between; align-items: center; color: #444; font-size: 8pt; margin: .8mm 3.5mm 2mm; }
.ruler { display: inline-block; height: 2mm; border: .25mm solid #444; border-top: 0; }
main { display: grid; grid-template-columns: minmax(0, 1fr) 112mm; gap: 7mm; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; border-left: .8mm solid #7a93b8; padding-left: 2.5mm; margin: 0 0 2mm; }
.model { color: #444; font-size: 8pt; overflow-wrap: anywhere; }
section { break-inside: avoid; margin-bottom: 2.5mm; }
.seen { float: right; margin: 0 0 1mm 3mm; font-size: 7.5pt; color: #444; text-align: center; }
.seen img { display: block; height: 18mm; border: .2mm solid #bbb; margin: 0 auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2mm 1.5mm; border-bottom: .2mm solid #ddd; } td.number { text-align: right; width: 11mm; }
td.bar { width: 32mm; } .several td.bar { width: 16mm; } td.bar div { background: #e8ecf2; } td.bar div div { height: 2.6mm; background: #4a6fa5; min-width: .2mm; }
.note { font-size: 7.5pt; color: #444; } footer { border-top: .3mm solid #888; padding-top: 1mm; font-size: 8pt; }
@media print { body { margin: 0; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


@dataclass(frozen=True)
class Opinion:
    """What one model made of the ECG.

    Attributes:
        model: From `describe_model`.
        interpretation: From the same model.
    """

    model: Mapping[str, Any]
    interpretation: Interpretation


def describe_model(interpreter: ECGInterpreter) -> dict[str, Any]:
    """What identifies a model in a report: name, revision, architecture, size, type and method, where known.

    Folders are given by their last part only, so that a report names no other folder of its machine.
    """
    network = base_model(interpreter.model)
    name = network.config._name_or_path
    method, teacher = (interpreter.provenance.get(key) for key in ("method", "teacher"))
    known = {
        "name": (Path(name).resolve().name if Path(name).exists() else name) or type(network).__name__,
        "revision": getattr(network.config, "_commit_hash", None),
        "architecture": type(network).__name__,
        "parameters": network.num_parameters(),
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": network.device.type,
        "method": method,
        "teacher": teacher,
        "temperatures": dict(interpreter.temperatures) or None,
    }
    return {key: value for key, value in known.items() if value is not None}


def true_scale(layout: str = "3x4+rhythm") -> RenderConfig:
    """Paper at 25 mm/s and 10 mm/mV, 8 pixels per millimetre, wide enough for 10 s and narrow enough for A4 landscape.

    Raises:
        ValueError: An unknown layout.

    Example:
        >>> page = true_scale().page()
        >>> page.width_px / page.scale.px_per_mm, page.height_px / page.scale.px_per_mm
        (274.0, 108.0)
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: known are {sorted(LAYOUTS)}")
    rows = len(LAYOUTS[layout].rows)
    pitch = min(max(_ROWS_MM // rows, _LEAST_PITCH_MM), _WIDEST_PITCH_MM)
    return RenderConfig(
        width_px=PAGE_WIDTH_MM * PIXELS_PER_MM,
        height_px=(rows * pitch + _EDGES_MM) * PIXELS_PER_MM,
        dpi=PIXELS_PER_MM * 25.4,
        layout=layout,
    )


@dataclass(frozen=True)
class ECGReport:
    """One ECG and what one or more models made of it, as data and as a page.

    Args:
        record: What the ECG is called; of a path only the last part is kept.
        opinions: At least one; all to the same question.
        ecg: The recording, drawn at true scale; None: a picture was given, and is shown without a scale.
        warnings: What reading the record warned of.
        layout: Layout of the drawing.
        created: When; now if not given.

    Raises:
        ValueError: No opinion, opinions on different questions, or an unknown layout.

    Example:
        >>> opinion = Opinion(describe_model(interpreter), interpreter(ecg))  # doctest: +SKIP
        >>> Path("report.html").write_text(ECGReport("af", [opinion], ecg).html())  # doctest: +SKIP
    """

    record: str
    opinions: Sequence[Opinion]
    ecg: ECG | None = None
    warnings: Sequence[str] = ()
    layout: str = "3x4+rhythm"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        questions = {opinion.interpretation.question for opinion in self.opinions}
        if len(questions) != 1:
            raise ValueError(
                f"{len(self.opinions)} opinions on {len(questions)} questions; give at least one, all on one"
            )
        true_scale(self.layout)
        object.__setattr__(self, "record", Path(self.record).name)

    @property
    def question(self) -> str:
        """The question that was asked."""
        return self.opinions[0].interpretation.question

    def facts(self) -> dict[str, Any]:
        """What is known of the recording itself, without the patient."""
        if self.ecg is None:
            return {"record": self.record, "source": "picture"}
        known = {
            "record": self.record,
            "source": "simulated" if self.ecg.metadata.get("simulated") else "recording",
            "fs_hz": self.ecg.fs_hz,
            "duration_s": self.ecg.duration_s,
            "leads": list(self.ecg.leads),
            "derived_leads": list(self.ecg.metadata.get("derived_leads", ())),
            "flat_leads": list(self.ecg.flat_leads),
            "interpolated_samples": dict(self.ecg.metadata.get("interpolated_samples", {})),
        }
        return {key: value for key, value in known.items() if value not in ([], {})}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for json."""
        return {
            "record": self.facts(),
            "warnings": list(self.warnings),
            "question": self.question,
            "opinions": [
                {
                    "model": dict(opinion.model),
                    "answer": opinion.interpretation.answer,
                    "label_scores": opinion.interpretation.label_scores,
                    "image_px": list(opinion.interpretation.image.size),
                    "seconds": opinion.interpretation.seconds,
                }
                for opinion in self.opinions
            ],
            "software": _software(),
            "created": self.created.isoformat(timespec="seconds"),
            "disclaimer": DISCLAIMER,
        }

    def html(self) -> str:
        """The report as one page."""
        title = f"ECG interpretation: {self.record}"
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        answers = "\n".join(self._opinion(opinion) for opinion in self.opinions)
        software = ", ".join(f"{name} {number}" for name, number in _software().items())
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{STYLE}</style></head><body>
<header><h1>{_text(title)}</h1><div class="facts">{self._facts_line()}</div></header>
{"".join(f'<p class="warning">{_text(line)}</p>' for line in self._warnings())}
{self._paper()}
<main><div><h2>Question</h2><p>{_text(self.question)}</p>
{answers}</div>
<div>{self._scores()}</div></main>
<footer><strong>{_text(DISCLAIMER)}</strong><br>{_text(f"{self.created:%Y-%m-%d %H:%M %Z}")}, {_text(software)}</footer>
</body></html>
"""

    def _facts_line(self) -> str:
        if self.ecg is None:
            return "<span>given as a picture</span>"
        parts = [f"{self.ecg.duration_s:g} s at {self.ecg.fs_hz:g} Hz", "12 leads"]
        facts = self.facts()
        if derived := facts.get("derived_leads"):
            parts.append(f"computed from I and II: {', '.join(derived)}")
        if facts["source"] == "simulated":
            parts.append("simulated, not a patient")
        return "".join(f"<span>{_text(part)}</span>" for part in parts)

    def _warnings(self) -> list[str]:
        lines = list(self.warnings)
        facts = self.facts()
        if flat := facts.get("flat_leads"):
            lines.append(f"Flat leads: {', '.join(flat)}")
        if holes := facts.get("interpolated_samples"):
            lines.append("Missing samples were filled: " + ", ".join(f"{lead} {n}" for lead, n in holes.items()))
        if self.ecg is not None and self.ecg.duration_s > LAYOUTS[self.layout].duration_s:
            lines.append(f"Shown are the first {LAYOUTS[self.layout].duration_s:g} of {self.ecg.duration_s:g} s")
        return lines

    def _paper(self) -> str:
        if self.ecg is None:
            image = self.opinions[0].interpretation.image
            style = f"max-width:{PAGE_WIDTH_MM}mm;max-height:108mm"
            caption = "<span>The picture as given; its scale is not known.</span>"
        else:
            config = true_scale(self.layout)
            page = config.page()
            image = render(self.ecg, config)
            width, height = page.width_px / page.scale.px_per_mm, page.height_px / page.scale.px_per_mm
            style = f"width:{width:g}mm;height:{height:g}mm"
            caption = (
                f"<span>{config.speed_mm_s:g} mm/s, {config.gain_mm_mv:g} mm/mV; true to scale when printed at 100 %.</span>"
                '<span>50 mm <i class="ruler" style="width:50mm"></i></span>'
            )
        picture = f'<img style="{style}" alt="12-lead ECG" src="{_data_url(image)}">'
        return f'<div class="paper">{picture}</div><div class="scale">{caption}</div>'

    def _opinion(self, opinion: Opinion) -> str:
        told = opinion.interpretation
        seen = ""
        if self.ecg is not None:
            width, height = told.image.size
            picture = f'<img alt="picture given to the model" src="{_data_url(told.image)}">'
            seen = f'<div class="seen">{picture}what the model saw, {width} × {height} px</div>'
        spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in told.seconds.items())
        name = opinion.model["name"]
        return (
            f'<section>{seen}<h2>Answer of {_text(name)}</h2><p class="answer">{_text(told.answer or "(nothing)")}</p>'
            f'<p class="model">{_text(_model_line(opinion.model))}; {_text(spent)}</p></section>'
        )

    def _scores(self) -> str:
        labels = list(dict.fromkeys(label for o in self.opinions for label in o.interpretation.label_scores))
        if not labels:
            return ""
        several = len(self.opinions) > 1
        head = "".join(
            f'<th colspan="2">{_text(o.model["name"]) if several else "probability"}</th>' for o in self.opinions
        )
        rows = []
        for label in labels:
            cells = [_bar(o.interpretation.label_scores.get(label)) for o in self.opinions]
            rows.append(f"<tr><td>{_text(label_text(label))}</td>{''.join(cells)}</tr>")
        note = "“Yes” against “no” to a question about each label by itself; they need not sum to 1."
        if all("temperatures" not in o.model for o in self.opinions):
            note += " Not calibrated."
        kind = "several" if several else "single"
        table = f'<table class="{kind}"><tr><th>label</th>{head}</tr>{"".join(rows)}</table>'
        return f'<h2>Label scores</h2>{table}<p class="note">{_text(note)}</p>'


def _bar(probability: float | None) -> str:
    if probability is None:
        return '<td class="bar"></td><td class="number"></td>'
    return f'<td class="bar"><div><div style="width:{100 * probability:.1f}%"></div></div></td><td class="number">{probability:.2f}</td>'


def _model_line(model: Mapping[str, Any]) -> str:
    parts = [f"{model['architecture']}, {model['parameters']:,} parameters, {model['dtype']} on {model['device']}"]
    parts += [f"{key} {model[key]}" for key in ("revision", "method", "teacher") if key in model]
    return "; ".join(parts)


def _software() -> dict[str, str]:
    from . import __version__

    return {"hf_evl_ecg": __version__, **{name: version(name) for name in ("transformers", "torch")}}


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)


def _data_url(image: Image.Image) -> str:
    """The picture inside its address; very large ones are made smaller."""
    if max(image.size) > _LARGEST_PICTURE_PX:
        image = image.copy()
        image.thumbnail((_LARGEST_PICTURE_PX, _LARGEST_PICTURE_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
