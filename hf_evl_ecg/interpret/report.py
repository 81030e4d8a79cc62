"""What one or more models made of one ECG, as data: the record, the question, the answers, and which models gave them.

A report names the record, but nothing that its header says about the patient (age, sex, comments, diagnoses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import blank_leads
from hf_evl_ecg.drawing.layouts import LAYOUTS
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.signals.ecg import ECG

from .interpreter import ECGInterpreter, Interpretation

__all__ = ["DISCLAIMER", "ECGReport", "Opinion", "clock", "describe_model", "shown_time", "software_versions"]

DISCLAIMER = (
    "Research use only. This is the output of a language model, not of a medical device; it must not be used for diagnosis or "
    "treatment. Answers and probabilities can be wrong."
)


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
    """What identifies a model in a report: name, revision, architecture, size, type, method and teacher, where known.

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
        "quantization": _quantization(network.config),
        "device": network.device.type,
        "method": method,
        "teacher": teacher,
        "temperatures": dict(interpreter.temperatures) or None,
    }
    return {key: value for key, value in known.items() if value is not None}


def _quantization(config: PreTrainedConfig) -> str | None:
    """Bits of the weights such as "4bit", else the method's name; None for weights as they were trained."""
    found = config.to_dict().get("quantization_config")
    if found is None:
        return None
    bits = [f"{number}bit" for number in (4, 8) if found.get(f"load_in_{number}bit")]
    return bits[0] if bits else str(found.get("quant_method"))


@dataclass(frozen=True)
class ECGReport:
    """One ECG and what one or more models made of it; `hf_evl_ecg.interpret.page.report_page` shows it.

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
        >>> from PIL import Image
        >>> said = Interpretation("Rhythm?", "atrial fibrillation", {"AF": 0.9}, Image.new("RGB", (56, 40)), {})
        >>> report = ECGReport("records/af", [Opinion({"name": "ecg-student"}, said)])
        >>> report.record, report.to_dict()["opinions"][0]["answer"]
        ('af', 'atrial fibrillation')
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
        RenderConfig(layout=self.layout)  # refuses an unknown one now, not when the page is drawn
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
            "duration_s": self.ecg.recorded_s,
            "start_s": self.ecg.metadata.get("start_s", []),
            "leads": list(self.ecg.leads),
            "derived_leads": list(self.ecg.metadata.get("derived_leads", ())),
            "flat_leads": list(self.ecg.flat_leads),
            "gain_per_mv": self.ecg.metadata.get("gain_per_mv", []),
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
                    "unseen_leads": list(opinion.interpretation.unseen_leads),
                    "doubts": list(opinion.interpretation.doubts),
                    "measured": list(opinion.interpretation.measured),
                    "seconds": opinion.interpretation.seconds,
                }
                for opinion in self.opinions
            ],
            "software": software_versions(),
            "created": self.created.isoformat(timespec="seconds"),
            "disclaimer": DISCLAIMER,
        }

    def notices(self) -> list[str]:
        """What a reader must know of the recording: warnings, flat leads, filled samples, time that is not shown."""
        lines = list(self.warnings)
        facts = self.facts()
        if flat := facts.get("flat_leads"):
            lines.append(f"Flat leads: {', '.join(flat)}")
        if holes := facts.get("interpolated_samples"):
            lines.append("Missing samples were filled: " + ", ".join(f"{lead} {n}" for lead, n in holes.items()))
        return lines + ([] if self.ecg is None else shown_time(self.ecg, self.layout))


def shown_time(ecg: ECG, layout: str) -> list[str]:
    """What a reader must know where a recording is longer or shorter than its drawing.

    Example:
        >>> import numpy as np
        >>> shown_time(ECG(np.zeros((3000, 12)), 500), "3x4+rhythm")
        ['The recording ends after 6 s: nothing is shown of V4, V5, V6']
    """
    drawn = LAYOUTS[layout]
    if start_s := float(ecg.metadata.get("start_s", 0.0)):
        shown = min(drawn.duration_s, ecg.duration_s)
        lines = [f"Shown are {shown:g} s from {clock(start_s)} on, of {clock(ecg.recorded_s)}"]
        return lines + _not_shown(ecg, layout)
    if ecg.recorded_s > drawn.duration_s:
        return [f"Shown are the first {drawn.duration_s:g} of {ecg.recorded_s:g} s"]
    return _not_shown(ecg, layout)


def clock(seconds: float) -> str:
    """A time within a recording, as hours, minutes and seconds.

    Example:
        >>> clock(3725), clock(0.5)
        ('1:02:05', '0:00:00.5')
    """
    whole, rest = divmod(round(seconds, 3), 1)
    fraction = f"{rest:.3f}"[1:].rstrip("0").rstrip(".")
    return f"{int(whole) // 3600}:{int(whole) // 60 % 60:02d}:{int(whole) % 60:02d}{fraction}"


def _not_shown(ecg: ECG, layout: str) -> list[str]:
    ended = LAYOUTS[layout].blank_leads(ecg.duration_s)
    lines = [f"The recording ends after {ecg.duration_s:g} s: nothing is shown of {', '.join(ended)}"] if ended else []
    if blank := [lead for lead in blank_leads(ecg, RenderConfig(layout=layout)) if lead not in ended]:
        lines.append(f"Blank in part or whole, as nothing was recorded in their place on the page: {', '.join(blank)}")
    return lines


def software_versions() -> dict[str, str]:
    """Versions of this package and of what the model ran on."""
    from hf_evl_ecg import __version__

    return {"hf_evl_ecg": __version__, **{name: version(name) for name in ("transformers", "torch")}}
