r"""Write a trained student as anyone loads it: adapters merged, nothing of the teacher, checked in a new process.

    hf-evl-ecg export --model outputs/student --output_dir outputs/student_export --image_width 448 --image_height 224 --grid thick

OUTPUT_DIR loads with AutoModelForImageTextToText.from_pretrained and needs no package of ours. Its config.json records how ECGs were
drawn in training, so that hf-evl-ecg interpret draws them so: give the image options of the training. Takes as long as loading the
model three times; needs no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.hub.export import ExportReport

__all__ = ["ExportArguments", "command", "is_export", "main"]


@dataclass
class ExportArguments:
    """Which student, and where the export goes."""

    model: str = field(metadata={"help": "Folder of hf-evl-ecg distil, with weights or LoRA adapters."})
    output_dir: str = field(metadata={"help": "New folder for the export."})
    method: str = field(
        default="EVL-ECG, arXiv 2605.29977", metadata={"help": "How it was trained, as its config.json will say."}
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, ExportArguments, PageOptions, description=__doc__, prog=prog))


def main(args: ExportArguments, images: PageOptions) -> ExportReport:
    """Export and check.

    Returns:
        What was written, and how it was checked.
    """
    from hf_evl_ecg.chat.question_kinds import read_kinds
    from hf_evl_ecg.hub.export import export_student
    from hf_evl_ecg.results import current_commit

    drawn = images.config(args.model).to_dict()
    provenance = {"method": args.method, "images": drawn, "commit": current_commit()}
    if kinds := read_kinds(args.model):
        provenance["question_kinds"] = kinds
    report = export_student(args.model, args.output_dir, provenance=provenance)
    print(
        f"Exported: {report.folder}, {report.parameters:,} parameters; loaded in a new process without this package, its logits "
        f"differ by {report.reload_difference:.1e} of the largest."
    )
    return report


def is_export(folder: str | Path) -> bool:
    """Whether a folder is an export, whose config says where the model comes from."""
    from hf_evl_ecg.models.loading import PROVENANCE_KEY

    config = Path(folder) / "config.json"
    return config.is_file() and f'"{PROVENANCE_KEY}"' in config.read_text(encoding="utf-8")
