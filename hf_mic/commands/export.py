r"""Write an encoder as one graph, for ONNX or OpenVINO: token ids to the final embedding, mapped, cut to a prefix and normalised.

    pip install 'hf-mic-evl-ecg[onnx]'
    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64.onnx
    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64_int8.onnx --int8
    pip install 'hf-mic-evl-ecg[openvino]'
    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64.xml

The graph is compared with sentence-transformers before it is put in place; with --int8, or where OpenVINO computes in bfloat16, the
least cosine to the float embeddings is printed. It needs a tokenizer and onnxruntime or openvino, neither torch nor
sentence-transformers: examples/serving/embed_onnx.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options

if TYPE_CHECKING:
    from hf_mic.hub.onnx_export import GraphReport


@dataclass
class ExportArguments:
    """What to export."""

    folder: str = field(
        metadata={"help": "The saved encoder, or its name on the Hub; the word --folder may be left out."}
    )
    output: str = field(
        metadata={"help": "File to write: *.onnx, or *.xml for OpenVINO, whose weights lie in *.bin beside it."}
    )
    dim: int | None = field(default=None, metadata={"help": "Prefix length. Default: the full width."})
    int8: bool = field(
        default=False,
        metadata={
            "help": "ONNX: weights as int8, activations quantised as they come, for CPUs: about a quarter of the size."
        },
    )


def parse(words: Sequence[str]) -> tuple[ExportArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([ExportArguments], words, __doc__, prog="hf-mic export", positional="folder")
    return (args,)


def main(args: ExportArguments) -> GraphReport:
    """Export and compare.

    Returns:
        What was written.

    Raises:
        OnnxExportError: The graph cannot be made, or does not compute what the encoder does.
        ValueError: There is no such encoder, ``dim`` is out of range, or no graph is written to a file of that name.
    """
    ending = Path(args.output).suffix
    if ending not in (".onnx", ".xml"):
        raise ValueError(f"output={args.output!r}: must end in .onnx, or in .xml for OpenVINO")
    if args.int8 and ending == ".xml":
        raise ValueError(
            "int8=True: only ONNX graphs are written so; leave it out, or give an output that ends in .onnx"
        )
    from hf_mic.evaluation.loading import load_encoder

    encoder = load_encoder(args.folder, device="cpu")
    if ending == ".xml":
        from hf_mic.hub.openvino_export import export_openvino

        report = export_openvino(encoder, args.output, dim=args.dim)
    else:
        from hf_mic.hub.onnx_export import export_onnx

        report = export_onnx(encoder, args.output, dim=args.dim, int8=args.int8)
    loss = ""
    if report.least_cosine is not None:
        loss = f"; computed in {report.computes_in}, the least cosine to them is {report.least_cosine:.4f}"
    print(
        f"Written: {report.path}, {report.dim} dimensions, {report.megabytes:.1f} MB.\n"
        f"Coordinates of the float graph differ from sentence-transformers by at most {report.difference:.1e}{loss}."
    )
    return report
