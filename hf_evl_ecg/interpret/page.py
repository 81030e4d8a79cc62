"""A report as one page: the recording at true scale, the question, answers and label scores, and which models gave them.

The page is one HTML file without scripts or outside addresses. Printed at 100 % on A4 landscape, one millimetre of ECG paper is
one millimetre.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from PIL import Image

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import crossing_leads, cut_leads, fit_gain
from hf_evl_ecg.drawing.layouts import Layout
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.signals.ecg import ECG

from .report import DISCLAIMER, ECGReport, Opinion, clock, software_versions

__all__ = ["report_page", "scale_notices", "strip_page", "true_scale"]

PIXELS_PER_MM = 8
PAGE_WIDTH_MM = 274
_ROWS_MM, _LEAST_PITCH_MM, _WIDEST_PITCH_MM, _EDGES_MM = 88, 13, 22, 21
_LARGEST_PICTURE_PX = 2200
USUAL_GAIN_MM_MV = 10.0

STYLE = """
@page { size: A4 landscape; margin: 6mm 8mm; }
* { box-sizing: border-box; }
body { font: 9.2pt/1.3 system-ui, sans-serif; color: #1a1a1a; width: 281mm; margin: 4mm auto; }
h1 { font-size: 13pt; margin: 0; } p { margin: 0 0 1.5mm; } h2 { font-size: 10.5pt; margin: 0 0 1mm; break-after: avoid; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 6mm; margin-bottom: 1.5mm; }
.facts { color: #444; text-align: right; } .facts span + span::before { content: " · "; }
.warning { background: #fff3d6; border-left: 1mm solid #d99000; padding: .3mm 2mm; margin: .7mm 0; font-size: 8.6pt; }
.paper img { display: block; margin: 0 auto; }
.scale { display: flex; justify-content: space-between; align-items: center; color: #444; font-size: 8pt; margin: .5mm 3.5mm 1.2mm; }
.ruler { display: inline-block; height: 2mm; border: .25mm solid #444; border-top: 0; }
main { display: grid; grid-template-columns: minmax(0, 1fr) 112mm; gap: 7mm; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; border-left: .8mm solid #7a93b8; padding-left: 2.5mm; margin: 0 0 2mm; }
.model { color: #444; font-size: 8pt; overflow-wrap: anywhere; }
article + article { break-before: page; margin-top: 8mm; } @media print { article + article { margin-top: 0; } }
section { break-inside: avoid; margin-bottom: 2.5mm; }
.seen { float: right; margin: 0 0 1mm 3mm; font-size: 7.5pt; color: #444; text-align: center; }
.seen img { display: block; height: 18mm; border: .2mm solid #bbb; margin: 0 auto; }
table { font-size: 8.2pt; line-height: 1.15; border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .12mm 1.5mm; border-bottom: .2mm solid #ddd; } td.number { text-align: right; width: 11mm; }
td.bar { width: 32mm; } .several td.bar { width: 16mm; } td.bar div { background: #e8ecf2; } td.bar div div { height: 2.6mm; background: #4a6fa5; min-width: .2mm; }
.note { font-size: 7.5pt; color: #444; } footer { border-top: .3mm solid #888; padding-top: 1mm; font-size: 8pt; }
@media print { body { margin: 0; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def true_scale(layout: str = "3x4+rhythm") -> RenderConfig:
    """Paper at 25 mm/s and 10 mm/mV, 8 pixels per millimetre, wide enough for 10 s and narrow enough for A4 landscape.

    The line that names the record stands where tall waves of the first row, mostly V4's, find room.

    Raises:
        ValueError: An unknown layout.

    Example:
        >>> page = true_scale().page()
        >>> page.width_px / page.scale.px_per_mm, page.height_px / page.scale.px_per_mm
        (274.0, 109.0)
    """
    drawn = RenderConfig(layout=layout).layout  # which knows the layouts, and what to say of another
    assert isinstance(drawn, Layout)
    rows = len(drawn.rows)
    pitch = min(max(_ROWS_MM // rows, _LEAST_PITCH_MM), _WIDEST_PITCH_MM)
    return RenderConfig(
        width_px=PAGE_WIDTH_MM * PIXELS_PER_MM,
        height_px=(rows * pitch + _EDGES_MM) * PIXELS_PER_MM,
        dpi=PIXELS_PER_MM * 25.4,
        layout=layout,
        header="{record_name}   {duration_s} s at {fs_hz} Hz",
    )


def scale_notices(ecg: ECG, config: RenderConfig) -> list[str]:
    """What a reader must know of a drawing's height: its gain where it is not 10 mm/mV, leads cut or crossing, a replaced gain.

    Example:
        >>> import numpy as np
        >>> scale_notices(ECG(np.zeros((5000, 12)), 500), RenderConfig(gain_mm_mv=5))
        ['Drawn at 5 mm/mV, not at the usual 10']
    """
    lines = []
    if config.gain_mm_mv != USUAL_GAIN_MM_MV:
        lines.append(f"Drawn at {config.gain_mm_mv:g} mm/mV, not at the usual {USUAL_GAIN_MM_MV:g}")
    if cut := cut_leads(ecg, config):
        lines.append(f"Cut at the edge of the paper: {', '.join(cut)}")
    if crossing := crossing_leads(ecg, config):
        lines.append(f"Run into the rows beside them: {', '.join(crossing)}")
    if gain := ecg.metadata.get("gain_per_mv"):
        lines.append(f"Voltages by a gain that was given, {gain:g} stored units per mV, not by the record's header")
    return lines


def report_page(report: ECGReport) -> str:
    """Show a report as one HTML file; the gain is 5 mm/mV where a lead would leave the paper or its row at 10, and the page says so.

    Args:
        report: The report.

    Returns:
        The page.

    Example:
        >>> from hf_evl_ecg.interpret.interpreter import ECGInterpreter
        >>> from hf_evl_ecg.interpret.report import describe_model
        >>> from hf_evl_ecg.signals.simulation import simulate
        >>> interpreter, ecg = ECGInterpreter(student, processor), simulate("AF", seed=0)
        >>> opinion = Opinion(describe_model(interpreter), interpreter(ecg, labels=["AF"], max_new_tokens=8))
        >>> report_page(ECGReport("af", [opinion], ecg)).splitlines()[0]
        '<!doctype html>'
    """
    return "".join(strip_page([report], f"ECG interpretation: {report.record}"))


def strip_page(reports: Iterable[ECGReport], title: str) -> Iterator[str]:
    """Show the reports on several stretches of a recording as one HTML file, a sheet each, and an overview of their answers.

    Args:
        reports: The reports, taken one by one: none is kept.
        title: What stands above all of it; above a single report it is its heading.

    Yields:
        The file in pieces, the next as soon as its report is there.

    Example:
        >>> from hf_evl_ecg.interpret.interpreter import Interpretation
        >>> said = Opinion({"name": "m", "architecture": "A", "parameters": 1, "dtype": "", "device": "cpu"},
        ...                Interpretation("Rhythm?", "AF", {}, Image.new("RGB", (40, 40)), {}))
        >>> "".join(strip_page([ECGReport("a", [said]), ECGReport("a", [said])], "a")).count("<article")  # and the overview
        3
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{STYLE}</style></head><body>
"""
    rows: list[str] = []
    for number, report in enumerate(reports, 1):
        yield f'<article id="page{number}">\n{_sheet(report)}</article>\n'
        at = "" if report.ecg is None else clock(float(report.ecg.metadata.get("start_s", 0.0)))
        said = "".join(
            f"<td>{_text(o.interpretation.answer)}{' (doubtful)' if o.interpretation.doubts else ''}</td>"
            for o in report.opinions
        )
        rows.append(f'<tr><td><a href="#page{number}">{_text(at or report.record)}</a></td>{said}</tr>')
    if len(rows) > 1:
        yield f"<article><h1>{_text(title)}</h1><h2>Answers of {len(rows)} pages</h2><table>{''.join(rows)}</table></article>\n"
    yield "</body></html>\n"


def _sheet(report: ECGReport) -> str:
    """One report as it is printed on a sheet of paper."""
    title = f"ECG interpretation: {report.record}"
    answers = "\n".join(_opinion(report, opinion) for opinion in report.opinions)
    config = None if report.ecg is None else fit_gain(report.ecg, true_scale(report.layout))
    notices = report.notices() + ([] if config is None or report.ecg is None else scale_notices(report.ecg, config))
    software = ", ".join(f"{name} {number}" for name, number in software_versions().items())
    return f"""<header><h1>{_text(title)}</h1><div class="facts">{_facts_line(report)}</div></header>
{"".join(f'<p class="warning">{_text(line)}</p>' for line in notices)}
{_paper(report, config)}
<main><div><h2>Question</h2><p>{_text(report.question)}</p>
{answers}</div>
<div>{_scores(report)}</div></main>
<footer><strong>{_text(DISCLAIMER)}</strong><br>{_text(f"{report.record}, {report.created:%Y-%m-%d %H:%M %Z}")}, {_text(software)}</footer>
"""


def _facts_line(report: ECGReport) -> str:
    if report.ecg is None:
        return "<span>given as a picture</span><span>research use only</span>"
    parts = ["research use only", f"{report.ecg.recorded_s:g} s at {report.ecg.fs_hz:g} Hz", "12 leads"]
    facts = report.facts()
    if derived := facts.get("derived_leads"):
        parts.append(f"computed from I and II: {', '.join(derived)}")
    if facts["source"] == "simulated":
        parts.append("simulated, not a patient")
    return "".join(f"<span>{_text(part)}</span>" for part in parts)


def _paper(report: ECGReport, config: RenderConfig | None) -> str:
    if report.ecg is None or config is None:
        image = report.opinions[0].interpretation.image
        style = f"max-width:{PAGE_WIDTH_MM}mm;max-height:109mm"
        caption = "<span>The picture as given; its scale is not known.</span>"
    else:
        page = config.page()
        image = render(report.ecg, config)
        width, height = page.width_px / page.scale.px_per_mm, page.height_px / page.scale.px_per_mm
        style = f"width:{width:g}mm;height:{height:g}mm"
        caption = (
            f"<span>{config.speed_mm_s:g} mm/s, {config.gain_mm_mv:g} mm/mV; true to scale when printed at 100 %.</span>"
            '<span>50 mm <i class="ruler" style="width:50mm"></i></span>'
        )
    picture = f'<img style="{style}" alt="12-lead ECG" src="{_data_url(image)}">'
    return f'<div class="paper">{picture}</div><div class="scale">{caption}</div>'


def _opinion(report: ECGReport, opinion: Opinion) -> str:
    found = opinion.interpretation
    seen = ""
    if report.ecg is not None:
        width, height = found.image.size
        picture = f'<img alt="picture given to the model" src="{_data_url(found.image)}">'
        lacking = f"<br><strong>not in full: {', '.join(found.unseen_leads)}</strong>" if found.unseen_leads else ""
        seen = f'<div class="seen">{picture}what the model saw, {width} × {height} px{lacking}</div>'
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.seconds.items())
    name = opinion.model["name"]
    notes = f'<p class="warning">Doubtful: {_text("; ".join(found.doubts))}</p>' if found.doubts else ""
    if found.measured:
        notes += f'<p class="note">Such answers on test records: {_text("; ".join(found.measured))}</p>'
    return (
        f'<section>{seen}<h2>Answer of {_text(name)}</h2><p class="answer">{_text(found.answer or "(nothing)")}</p>{notes}'
        f'<p class="model">{_text(_model_line(opinion.model))}; {_text(spent)}</p></section>'
    )


def _scores(report: ECGReport) -> str:
    labels = list(dict.fromkeys(label for o in report.opinions for label in o.interpretation.label_scores))
    if not labels:
        return ""
    several = len(report.opinions) > 1
    head = "".join(
        f'<th colspan="2">{_text(o.model["name"]) if several else "probability"}</th>' for o in report.opinions
    )
    rows = []
    for label in labels:
        cells = [_bar(o.interpretation.label_scores.get(label)) for o in report.opinions]
        rows.append(f"<tr><td>{_text(label_text(label))}</td>{''.join(cells)}</tr>")
    note = "“Yes” against “no” to a question about each label by itself; they need not sum to 1."
    if all("temperatures" not in o.model for o in report.opinions):
        note += " Not calibrated."
    kind = "several" if several else "single"
    table = f'<table class="{kind}"><tr><th>label</th>{head}</tr>{"".join(rows)}</table>'
    return f'<h2>Label scores</h2>{table}<p class="note">{_text(note)}</p>'


def _bar(probability: float | None) -> str:
    if probability is None:
        return '<td class="bar"></td><td class="number"></td>'
    return f'<td class="bar"><div><div style="width:{100 * probability:.1f}%"></div></div></td><td class="number">{probability:.2f}</td>'


def _model_line(model: Mapping[str, Any]) -> str:
    kind = f"{model['dtype']}, {model['quantization']}" if "quantization" in model else model["dtype"]
    parts = [f"{model['architecture']}, {model['parameters']:,} parameters, {kind} on {model['device']}"]
    words = {"revision": "revision", "method": "method", "teacher": "taught by"}
    parts += [f"{said} {model[key]}" for key, said in words.items() if key in model]
    return "; ".join(parts)


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)


def _data_url(image: Image.Image) -> str:
    """The picture inside its address; very large ones are made smaller."""
    if max(image.size) > _LARGEST_PICTURE_PX:
        image = image.copy()
        image.thumbnail((_LARGEST_PICTURE_PX, _LARGEST_PICTURE_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
