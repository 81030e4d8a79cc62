r"""Serve a page to ask a model about an ECG: upload a record or picture, or simulate one; teacher and student side by side.

    hf-evl-ecg app --model outputs/demo_ecg/export --teacher outputs/demo_ecg/teacher

then open http://127.0.0.1:7860. Needs gradio (the extra `app`); works without a network, and asks for nothing outside the computer it
runs on. On a Space it takes its models from the variables EVL_ECG_MODEL and EVL_ECG_TEACHER (see docs/app.md).

Uploads are read into memory and deleted at once; their folder is removed when the page ends. Research use, not a diagnostic device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["AppArguments", "command", "main"]


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
    max_held_mb: float = field(
        default=512.0,
        metadata={"help": "Memory of all ECGs that visitors have loaded (MB); then the longest unused go."},
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model='': must be a folder or a name on the Hub (give --model, or set EVL_ECG_MODEL)")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, AppArguments, description=__doc__, prog=prog))


def main(args: AppArguments) -> None:
    """Serve the page until interrupted or terminated."""
    from hf_evl_ecg.app.desk import Limits
    from hf_evl_ecg.app.page import serve

    models = {"Student": args.model, "Teacher": args.teacher} if args.teacher else {"Model": args.model}
    limits = Limits(args.max_upload_mb, args.max_new_tokens, args.max_held_mb)
    serve(models, limits, host=args.host, port=args.port, device=args.device, quantization=args.quantization)
