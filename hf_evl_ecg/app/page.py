"""The page: what stands where, which button does what, and how it is served.

Uploads are read into memory and deleted at once; their folder is removed when the page ends. What all visitors hold together is
bounded in bytes and time. Nothing is asked for outside the computer the page runs on.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from hf_evl_ecg.interpret.interpreter import ECGInterpreter
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.qa.prompts import REPORT_QUESTION, RHYTHM_QUESTION
from hf_evl_ecg.signals.simulation import LABELS

from .desk import MAX_QUESTION, Desk, Limits
from .intake import Intake
from .parts import EMPTY_FIGURE, answer_card, message

__all__ = ["build_page", "serve"]

TITLE = "Ask about an ECG"
DISCLAIMER = (
    "For research only, not a diagnostic device. Answers and scores come from a language model, can be wrong, and must not guide "
    "anybody's care."
)
PRESETS = (
    REPORT_QUESTION,
    RHYTHM_QUESTION,
    "Which abnormalities can be seen in this ECG?",
    "Does this ECG show atrial fibrillation?",
    "What is the heart rate in this ECG, in beats per minute?",
    "What is the electrical axis in this ECG?",
)
SESSION_S = 3600  # as HeldECGs holds an ECG


def serve(
    models: Mapping[str, str],
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str | None = None,
    quantization: str | None = None,
) -> None:
    """Load the models and serve the page until interrupted or terminated.

    Args:
        models: Role (Model, or Student and Teacher) → folder or name on the Hub.
        limits: Limits of uploads and answers.
        host: Address to listen on; 0.0.0.0 lets other computers in.
        port: Port.
        device: Where the models run; None: a GPU if there is one.
        quantization: "4bit" or "8bit", on a GPU; None: as stored.

    Raises:
        ModelLoadError: A model that cannot be loaded.
        OSError: A port in use.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stopped container removes its uploads too
    interpreters = {
        role: ECGInterpreter.from_pretrained(model, quantization=quantization, device=device)
        for role, model in models.items()
    }
    with tempfile.TemporaryDirectory(prefix="evl_ecg_app_") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read by gradio when components are made
        page = build_page(interpreters, models, uploads, limits)
        intake = Intake(uploads, limits.max_upload_mb)
        with intake.sweeping():
            page.queue(max_size=32, default_concurrency_limit=1).launch(
                server_name=host,
                server_port=port,
                share=False,
                show_error=False,
                app_kwargs={"routes": intake.routes()},
                max_file_size=intake.max_bytes,  # said by the browser before anything is sent
                state_session_capacity=64,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                theme=gr.themes.Default(
                    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
                ),
                css_paths=Path(__file__).with_name("app.css"),
            )


def build_page(
    interpreters: Mapping[str, ECGInterpreter], models: Mapping[str, str], uploads: str, limits: Limits
) -> gr.Blocks:
    """Lay out the page.

    Args:
        interpreters: Role → model.
        models: Role → the model's folder or name on the Hub.
        uploads: Folder in which uploads arrive; nothing outside it is read.
        limits: Limits of uploads and answers.
    """
    shown = {role: Path(model).name if Path(model).exists() else model for role, model in models.items()}
    desk = Desk(interpreters, shown, uploads, limits)
    # No delete_cache: gradio's own deletion ends for good at the first folder that is handed to it as a file; see intake.
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f'<header class="top"><h1>{TITLE}</h1><p class="disclaimer" role="note">{DISCLAIMER}</p></header>')
        given = gr.State(None, time_to_live=SESSION_S, delete_callback=desk.held.drop)  # the key, not the ECG
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                files, gain, label, seed, draw = _inputs(limits)
                question = gr.Textbox(
                    REPORT_QUESTION, label="Question", lines=2, max_length=MAX_QUESTION, elem_id="question"
                )
                gr.Examples([[preset] for preset in PRESETS], question, label="Usual questions", elem_id="presets")
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=3, min_width=480):
                status = gr.HTML(elem_id="status")
                figure = gr.HTML(EMPTY_FIGURE, elem_id="figure")
        with gr.Row(equal_height=True):
            cards = {role: gr.HTML(answer_card(role, shown[role]), elem_id=f"card-{role.lower()}") for role in models}
        scores = gr.HTML(elem_id="scores")

        answered = [status, *cards.values(), scores]
        asking = gr.on(
            [ask.click, question.submit],
            desk.ask,
            [given, question],
            answered,
            api_visibility="private",
            show_progress="hidden",
        )
        # First the old answer ends, then the new ECG appears: no answer is written below an ECG that it is not about.
        ends: dict[str, Any] = {"cancels": [asking], "api_visibility": "private"}
        shows: dict[str, Any] = {"api_visibility": "private", "show_progress_on": [figure]}
        loaded = [files, given, figure, *answered]
        files.upload(None, **ends).then(desk.upload, [files, gain, given], loaded, **shows)
        draw.click(None, **ends).then(desk.simulate, [label, seed, given], loaded, **shows)
        stop.click(None, **ends).then(lambda: message("Stopped."), None, status, **shows)
    return page


def _inputs(limits: Limits) -> tuple[gr.File, gr.Number, gr.Dropdown, gr.Number, gr.Button]:
    """Where an ECG comes from: files and the gain of a wrong header, or a class, a heart and the button that simulates it."""
    with gr.Tabs():
        with gr.Tab("Upload"):
            files = gr.File(
                label=f"One ECG, at most {limits.max_upload_mb:g} MB",
                file_count="multiple",
                height=150,
                elem_id="files",
            )
            # Gradio's own makes an empty file for each one that is read, which nobody deletes. Not a subclass: for those it writes a stub
            # beside the source.
            files.preprocess = _uploaded_paths  # type: ignore[method-assign]
            gr.HTML(
                '<p class="hint">A WFDB record (its .hea and its .dat or .mat, both at once), a DICOM, XML, SCP-ECG or EDF file, a picture or a zip.</p>'
            )
            with gr.Accordion("If the header's gain is wrong", open=False):
                gain = gr.Number(None, label="Stored units per mV, set before uploading", elem_id="gain")
        with gr.Tab("Simulate"):
            choices = [(f"{label_text(label)} ({label})", label) for label in LABELS]
            label = gr.Dropdown(choices, value=LABELS[0], label="Class", elem_id="label")
            seed = gr.Number(0, label="Heart no.", precision=0, minimum=0, elem_id="seed")
            draw = gr.Button("Simulate", elem_id="simulate")
    return files, gain, label, seed, draw


def _uploaded_paths(payload: Any) -> list[str]:
    """Where uploaded files lie."""
    return [] if payload is None else [file.path for file in payload.root]
