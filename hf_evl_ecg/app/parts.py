"""The parts of the page as HTML; every text from outside is escaped, pictures are inline and touch no disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import fit_gain
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.interpret.page import scale_notices
from hf_evl_ecg.interpret.report import shown_time
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.signals.ecg import ECG

from .uploads import MAX_KEPT_PX, GivenECG

__all__ = ["EMPTY_FIGURE", "answer_card", "ecg_figure", "message", "picture_tag", "scores_table"]

EMPTY_FIGURE = '<div class="empty">Upload a record or a picture, or simulate an ECG; it is drawn here.</div>'
PAGE_LAYOUT = "3x4+rhythm"
PAGE_RENDER = RenderConfig(width_px=1600, height_px=900, layout=PAGE_LAYOUT)


def message(text: str, *, error: bool = False, busy: bool = False) -> str:
    """A line above the ECG: what is going on, or what is wrong; while ``busy``, unfinished answers show a cursor.

    Example:
        >>> message("a < b")
        '<p class="message" role="status">a &lt; b</p>'
    """
    kind, role = ("message error", "alert") if error else ("message busy" if busy else "message", "status")
    return f'<p class="{kind}" role="{role}">{_text(text)}</p>'


def picture_tag(image: Image.Image, description: str) -> str:
    """An image as a tag that holds its pixels, at most `MAX_KEPT_PX` large: a model may have seen a larger one."""
    if image.width > MAX_KEPT_PX[0] or image.height > MAX_KEPT_PX[1]:
        image = image.copy()
        image.thumbnail(MAX_KEPT_PX)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=92, method=1)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img alt="{_text(description)}" {size} src="data:image/webp;base64,{encoded}">'


def ecg_figure(given: GivenECG) -> str:
    """The ECG as a reader wants it: drawn at paper scale, or the picture that was given, with what is known about it."""
    facts, notices = [f"<strong>{_text(given.name)}</strong>"], list(given.notes)
    if given.simulated:
        facts.append('<span class="badge">simulated, not a patient</span>')
    if isinstance(given.source, ECG):
        config = fit_gain(given.source, PAGE_RENDER)
        image = render(given.source, config)
        scale = f"{config.speed_mm_s:g} mm/s, {config.gain_mm_mv:g} mm/mV"
        facts += [f"{given.source.recorded_s:.4g} s at {given.source.fs_hz:g} Hz", scale]
        notices += [*shown_time(given.source, PAGE_LAYOUT), *scale_notices(given.source, config)]
    else:
        image = given.source
        facts += ["picture", f"{image.width} × {image.height} px"]
    notes = "".join(f"<li>{_text(note)}</li>" for note in notices)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    tag = picture_tag(image, f"ECG {given.name}")
    zoom = f'<label class="zoom" title="Click: full size and back"><input type="checkbox">{tag}</label>'
    return f'<figure class="ecg"><figcaption>{" · ".join(facts)}</figcaption>{zoom}{notes}</figure>'


def answer_card(
    name: str,
    model: str,
    *,
    record: str = "",
    question: str = "",
    answer: str | None = None,
    seconds: float | None = None,
    seen: Image.Image | None = None,
    unseen_leads: Sequence[str] = (),
    doubts: Sequence[str] = (),
    measured: Sequence[str] = (),
) -> str:
    """One model's answer.

    Args:
        name: Role of the model, its heading.
        model: Its folder or name on the Hub.
        record: The ECG it was asked about.
        question: What it was asked.
        answer: What it has said so far; None: not asked yet.
        seconds: How long the answer took; None: it is still being written.
        seen: The picture the model saw.
        unseen_leads: Leads that it does not show in full.
        doubts: Why the answer should be doubted.
        measured: What was measured of such answers.
    """
    head = f'<header><h3>{_text(name)}</h3><span class="model">{_text(model)}</span></header>'
    if answer is None:
        return f'<article class="card">{head}<p class="waiting">No answer yet.</p></article>'
    asked = f'<p class="asked">{_text(record)}: {_text(question)}</p>'
    if seconds is None:
        said = f'<p class="answer">{_text(answer)}<span class="cursor">▍</span></p>'
        return f'<article class="card">{head}{asked}{said}</article>'
    said = f'<p class="answer">{_text(answer) or "<em>(an empty answer)</em>"}</p>'
    if doubts:
        said += f'<p class="doubt">Doubtful: {_text("; ".join(doubts))}</p>'
    if measured:
        said += f'<p class="took">Such answers on test records: {_text("; ".join(measured))}</p>'
    took = f'<p class="took">{seconds:.1f} s</p>'
    if seen is not None:
        lacking = f", not in full: {', '.join(unseen_leads)}" if unseen_leads else ""
        label = f"The picture it read ({seen.width} × {seen.height} px{lacking})"
        took = f"<details><summary>{label} · {seconds:.1f} s</summary>{picture_tag(seen, label)}</details>"
    return f'<article class="card done">{head}{asked}{said}{took}</article>'


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Label probabilities of one or more models, in the order of the first one's.

    Args:
        scores: Model → label → probability; a label that a model was not asked about is left empty.

    Example:
        >>> "91 %" in scores_table({"Student": {"AF": 0.91, "LBBB": 0.07}})
        True
    """
    if not scores:
        return ""
    first = next(iter(scores.values()))
    labels = sorted({label for found in scores.values() for label in found}, key=lambda label: -first.get(label, -1.0))
    heads = "".join(f"<th>{_text(name)}</th>" for name in scores)
    rows = "".join(f"<tr><th>{_text(label_text(label))}</th>{_cells(scores, label)}</tr>" for label in labels)
    return (
        '<section class="scores"><h3>Label scores</h3><p>The probability of "yes" against "no" when the model is asked about '
        "each label by itself. They do not sum to 100 %.</p>"
        f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _cells(scores: Mapping[str, Mapping[str, float]], label: str) -> str:
    cells: Sequence[str] = [
        f'<td><span class="bar"><i style="width:{100 * found[label]:.1f}%"></i></span><b>{100 * found[label]:.0f} %</b></td>'
        if label in found
        else "<td></td>"
        for found in scores.values()
    ]
    return "".join(cells)


def _text(text: str) -> str:
    """Escaped for HTML, and for the page's own templates, which know ``{{ }}`` and ``${ }``."""
    return escape(text).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")
