r"""A page to ask a model about an ECG: upload a record or picture, or simulate one; teacher and student side by side.

    python examples/evl_ecg/app.py --model outputs/demo_ecg/export --teacher outputs/demo_ecg/teacher

then open http://127.0.0.1:7860. Needs `pip install gradio` (the extra `app`); works without a network, and asks for nothing outside the
computer it runs on. On a Space it takes its models from the variables EVL_ECG_MODEL and EVL_ECG_TEACHER (see docs/app.md).

Uploads are read into memory and deleted at once; their folder is removed when the page ends. Research use, not a diagnostic device.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from app_html import answer_card, ecg_figure, message, scores_table
from app_uploads import GivenECG, read_uploads, simulated_ecg
from transformers import HfArgumentParser

from hf_evl_ecg.interpret.interpreter import ECGInterpreter
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.qa.prompts import REPORT_QUESTION
from hf_evl_ecg.signals.simulation import LABELS

TITLE = "Ask about an ECG"
DISCLAIMER = (
    "For research only, not a diagnostic device. Answers and scores come from a language model, can be wrong, and must not guide "
    "anybody's care."
)
PRESETS = (
    REPORT_QUESTION,
    "What is the rhythm of this ECG?",
    "Which abnormalities can be seen in this ECG?",
    "Does this ECG show atrial fibrillation?",
    "What is the heart rate in this ECG, in beats per minute?",
    "What is the electrical axis in this ECG?",
)
EMPTY = '<div class="empty">Upload a record or a picture, or simulate an ECG; it is drawn here.</div>'
MAX_QUESTION = 500
SESSION_S = 3600
LEFTOVER_S = 600  # files of uploads that were broken off


logger = logging.getLogger(__name__)


@dataclass
class AppArguments:
    """Which models answer, and where the page is served."""

    model: str = field(
        default=os.environ.get("EVL_ECG_MODEL", ""),
        metadata={"help": "Folder of an exported model, or its name on the Hub; default: $EVL_ECG_MODEL."},
    )
    teacher: str = field(
        default=os.environ.get("EVL_ECG_TEACHER", ""),
        metadata={"help": "A second model to stand beside it; default: $EVL_ECG_TEACHER, or none."},
    )
    quantization: str | None = field(default=None, metadata={"help": "4bit or 8bit, on a GPU; default: as stored."})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda:0 …; default: a GPU if there is one."})
    host: str = field(
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        metadata={"help": "Address to listen on; 0.0.0.0 lets other computers in."},
    )
    port: int = field(default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), metadata={"help": "Port."})
    max_upload_mb: float = field(default=20.0, metadata={"help": "Largest upload (MB)."})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest answer (tokens)."})

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("no model: give --model FOLDER_OR_HUB_NAME, or set EVL_ECG_MODEL")
        if self.max_upload_mb <= 0 or self.max_new_tokens < 1:
            raise ValueError(
                f"max_upload_mb={self.max_upload_mb}, max_new_tokens={self.max_new_tokens}; both must be above 0"
            )


def main(args: AppArguments) -> None:
    """Serve the page until interrupted or terminated."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    models = {"Student" if args.teacher else "Model": args.model}
    models |= {"Teacher": args.teacher} if args.teacher else {}
    options = {"quantization": args.quantization, "device": args.device}
    interpreters = {role: ECGInterpreter.from_pretrained(model, **options) for role, model in models.items()}
    with tempfile.TemporaryDirectory(prefix="evl_ecg_app_") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read by gradio when components are made
        page = build_page(interpreters, models, uploads, args)
        page.queue(max_size=32, default_concurrency_limit=1).launch(
            server_name=args.host,
            server_port=args.port,
            share=False,
            show_error=False,
            max_file_size=int(args.max_upload_mb * 1e6),
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
    interpreters: Mapping[str, ECGInterpreter], models: Mapping[str, str], uploads: str, args: AppArguments
) -> gr.Blocks:
    """Lay out the page.

    Args:
        interpreters: Role → model.
        models: Role → the model's folder or name on the Hub.
        uploads: Folder in which uploads arrive; nothing outside it is read.
        args: Limits.
    """
    shown = {role: Path(model).name if Path(model).exists() else model for role, model in models.items()}
    desk = Desk(interpreters, shown, uploads, args)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(60, LEFTOVER_S)) as page:
        gr.HTML(f'<header class="top"><h1>{TITLE}</h1><p class="disclaimer" role="note">{DISCLAIMER}</p></header>')
        given = gr.State(None, time_to_live=SESSION_S)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                with gr.Tabs():
                    with gr.Tab("Upload"):
                        files = gr.File(
                            label=f"WFDB record or picture, at most {args.max_upload_mb:g} MB",
                            file_count="multiple",
                            height=150,
                            elem_id="files",
                        )
                        gr.HTML('<p class="hint">A record: its .hea and its .dat or .mat, both at once.</p>')
                        with gr.Accordion("If the header's gain is wrong", open=False):
                            gain = gr.Number(None, label="Stored units per mV, set before uploading", elem_id="gain")
                    with gr.Tab("Simulate"):
                        choices = [(f"{label_text(label)} ({label})", label) for label in LABELS]
                        label = gr.Dropdown(choices, value=LABELS[0], label="Class", elem_id="label")
                        seed = gr.Number(0, label="Heart no.", precision=0, minimum=0, elem_id="seed")
                        draw = gr.Button("Simulate", elem_id="simulate")
                question = gr.Textbox(
                    REPORT_QUESTION, label="Question", lines=2, max_length=MAX_QUESTION, elem_id="question"
                )
                gr.Examples([[preset] for preset in PRESETS], question, label="Usual questions", elem_id="presets")
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=3, min_width=480):
                status = gr.HTML(elem_id="status")
                figure = gr.HTML(EMPTY, elem_id="figure")
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
        files.upload(None, **ends).then(desk.upload, [files, gain], loaded, **shows)
        draw.click(None, **ends).then(desk.simulate, [label, seed], loaded, **shows)
        stop.click(None, **ends).then(lambda: message("Stopped."), None, status, **shows)
    return page


class Desk:
    """What the page's buttons do; outputs are the page's components in the order of `build_page`.

    Args:
        interpreters: Role → model.
        models: Role → what the model is called on the page.
        uploads: Folder in which uploads arrive.
        args: Limits.
    """

    def __init__(
        self, interpreters: Mapping[str, ECGInterpreter], models: Mapping[str, str], uploads: str, args: AppArguments
    ) -> None:
        self.interpreters = dict(interpreters)
        self.models = dict(models)
        self.uploads = uploads
        self.args = args

    def upload(self, paths: Sequence[str] | None, gain_per_mv: float | None = None) -> list[Any]:
        """Show uploaded files as an ECG, or say what is wrong with them; either way they are gone afterwards."""
        try:
            limit_mb = self.args.max_upload_mb
            return self._show(read_uploads(paths or [], self.uploads, limit_mb, gain_per_mv=gain_per_mv))
        except (ValueError, OSError) as error:
            return self._refuse(error)

    def simulate(self, label: str, seed: float | None) -> list[Any]:
        """Show a simulated ECG."""
        try:
            return self._show(simulated_ecg(label, int(seed or 0)))
        except ValueError as error:
            return self._refuse(error)

    def ask(self, given: GivenECG | None, question: str) -> Iterator[list[Any]]:
        """Answers as they are written, one model after the other, then their label scores."""
        cards: list[Any] = [gr.skip() for _ in self.models]
        if given is None:
            yield [
                message("There is no ECG yet, or its hour is over: upload one or simulate one.", error=True),
                *cards,
                gr.skip(),
            ]
            return
        asked = question.strip()[:MAX_QUESTION] or REPORT_QUESTION
        waiting = [answer_card(role, model) for role, model in self.models.items()]
        yield [message("Reading the ECG …", busy=True), *waiting, ""]
        scores: dict[str, dict[str, float]] = {}
        try:
            for index, role in enumerate(self.interpreters):
                for card in self._answer(role, given, asked, scores):
                    line = message(f"{role} is writing …", busy=True)
                    yield [line, *cards[:index], card, *cards[index + 1 :], gr.skip()]
                yield [gr.skip(), *cards, scores_table(scores)]
        except (ValueError, OSError) as error:
            yield [message(str(error), error=True), *cards, gr.skip()]
            return
        except RuntimeError as error:  # of torch, such as too little memory
            logger.exception("a model failed")
            yield [message(f"The model failed: {str(error).partition(chr(10))[0]}", error=True), *cards, gr.skip()]
            return
        yield [message(f"Answered about {given.name}."), *cards, gr.skip()]

    def _answer(self, role: str, given: GivenECG, question: str, scores: dict[str, dict[str, float]]) -> Iterator[str]:
        """One model's card as it grows; its scores are added to ``scores`` at the end."""
        model, started, answer = self.interpreters[role], time.perf_counter(), ""
        words = {"record": given.name, "question": question}
        yield answer_card(role, self.models[role], **words, answer="")
        for piece in model.stream(given.source, question, max_new_tokens=self.args.max_new_tokens):
            answer += piece
            yield answer_card(role, self.models[role], **words, answer=answer)
        seconds = time.perf_counter() - started
        scored = model(given.source, question, max_new_tokens=1)  # the scores alone
        scores[role] = scored.label_scores
        shown = {"seen": scored.image, "unseen_leads": scored.unseen_leads}
        yield answer_card(role, self.models[role], **words, answer=answer, seconds=seconds, **shown)

    def _show(self, given: GivenECG) -> list[Any]:
        cards = [answer_card(role, model) for role, model in self.models.items()]
        return [None, given, ecg_figure(given), message(f"{given.name} is ready: ask about it."), *cards, ""]

    def _refuse(self, error: Exception) -> list[Any]:
        """The ECG before, with its answers, stays."""
        kept = [gr.skip() for _ in range(2)]
        return [None, *kept, message(str(error), error=True), *(gr.skip() for _ in self.models), gr.skip()]


if __name__ == "__main__":
    try:
        main(HfArgumentParser(AppArguments, description=__doc__).parse_args_into_dataclasses()[0])
    except (ValueError, OSError) as error:  # a model that is not there, a port in use
        raise SystemExit(f"app.py: {error}") from error
