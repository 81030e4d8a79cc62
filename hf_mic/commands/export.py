r"""Write an encoder as one ONNX graph: token ids to the final embedding, mapped, cut to a prefix and normalised.

    pip install 'hf-mic-evl-ecg[onnx]'
    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64.onnx
    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64_int8.onnx --int8

The graph is compared with sentence-transformers before it is put in place; with --int8 the least cosine to the float embeddings is
printed. It needs a tokenizer and onnxruntime, neither torch nor sentence-transformers: examples/serving/embed_onnx.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options

if TYPE_CHECKING:
    from hf_mic.hub.onnx_export import OnnxReport


@dataclass
class ExportArguments:
    """What to export."""

    folder: str = field(
        metadata={"help": "The saved encoder, or its name on the Hub; the word --folder may be left out."}
    )
    output: str = field(metadata={"help": "File to write, *.onnx."})
    dim: int | None = field(default=None, metadata={"help": "Prefix length. Default: the full width."})
    int8: bool = field(
        default=False,
        metadata={
            "help": "Weights as int8, activations quantised as they come, for CPUs: about a quarter of the size."
        },
    )


def parse(words: Sequence[str]) -> tuple[ExportArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([ExportArguments], words, __doc__, prog="hf-mic export", positional="folder")
    return (args,)


def main(args: ExportArguments) -> OnnxReport:
    """Export and compare.

    Returns:
        What was written.

    Raises:
        OnnxExportError: The graph cannot be made, or does not compute what the encoder does.
        ValueError: There is no such encoder, or ``dim`` is out of range.
    """
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.hub.onnx_export import export_onnx

    report = export_onnx(load_encoder(args.folder, device="cpu"), args.output, dim=args.dim, int8=args.int8)
    loss = "" if report.int8_cosine is None else f"; as int8, the least cosine to them is {report.int8_cosine:.4f}"
    print(
        f"Written: {report.path}, {report.dim} dimensions, {report.megabytes:.1f} MB.\n"
        f"Coordinates of the float graph differ from sentence-transformers by at most {report.difference:.1e}{loss}."
    )
    return report
