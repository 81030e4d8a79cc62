r"""Write a model with weights in 8 or 4 bits, for a computer with little memory; loads with plain from_pretrained.

    hf-evl-ecg quantize --model outputs/student_export --scheme int8 --output_dir outputs/student_int8
    hf-evl-ecg evaluate --models whole=outputs/student_export int8=outputs/student_int8 --compare whole --data outputs/questions \
        --output_dir outputs/scores_int8

Needs torchao (int8) or bitsandbytes (int4), the extra `quantize`; so does whoever loads the folder. No GPU is needed. Both save memory
and not time: weights are unpacked as they are used. Scores must be measured again: the second command. Takes as long as loading the
model three times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_evl_ecg.command_line.parser import parse_arguments

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.hub.quantize import QuantizeReport

__all__ = ["QuantizeArguments", "command", "main"]


@dataclass
class QuantizeArguments:
    """Which model, in how many bits, and where it goes."""

    model: str = field(metadata={"help": "Folder of an exported model, or its name on the Hub."})
    output_dir: str = field(metadata={"help": "New folder."})
    scheme: str = field(default="int8", metadata={"help": "int8 (torchao) or int4 (bitsandbytes, NF4)."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Type of what stays and of computations: auto (as stored), float32, bfloat16, float16."},
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, QuantizeArguments, description=__doc__, prog=prog))


def main(args: QuantizeArguments) -> QuantizeReport:
    """Quantize and check.

    Returns:
        What was written, and what the rounding changes.
    """
    from hf_evl_ecg.hub.quantize import quantize_model

    report = quantize_model(args.model, args.output_dir, scheme=args.scheme, dtype=args.dtype)
    print(
        f"Written: {report.folder}, weights of {report.bytes_after / 1e6:,.1f} MB instead of {report.bytes_before / 1e6:,.1f} MB; loaded "
        f"in a new process, its logits differ by {report.reload_difference:.1e} of the largest. The rounding changes them by "
        f"{report.logit_difference:.1e}: what that does to answers, hf-evl-ecg evaluate says."
    )
    return report
