"""A model → a folder with its weights in 8 or 4 bits, for computers with little memory; checked in a new process."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import BitsAndBytesConfig, TorchAoConfig

from hf_evl_ecg.files import new_folder
from hf_evl_ecg.models.flat_tiles import is_flat
from hf_evl_ecg.models.loading import ModelLoadError, check_model, load_network, load_processor

from .export import check_input, model_logits
from .reload_check import ReloadError, relative_difference, reload_logits

__all__ = ["SCHEMES", "QuantizeReport", "quantize_model"]

SCHEMES = {"int8": "torchao", "int4": "bitsandbytes"}
"""Scheme → the library that makes it and that ``from_pretrained`` needs to load it."""

_SAME = 1e-3  # of the largest logit: the same numbers, added in another order by another process


@dataclass(frozen=True)
class QuantizeReport:
    """What was written, and what it costs.

    Attributes:
        folder: The folder.
        scheme: int8 or int4.
        bytes_before: Size of the weights as they were (bytes).
        bytes_after: Size as they are written (bytes).
        logit_difference: Largest difference of logits that the rounding makes on one page, over the largest logit: it says that
            the model is the same one, not how good its answers are; ``hf-evl-ecg evaluate`` says that.
        reload_difference: The same between this process and a new one that loads the folder.
    """

    folder: Path
    scheme: str
    bytes_before: int
    bytes_after: int
    logit_difference: float
    reload_difference: float


def quantize_model(
    model: str | Path, output_dir: str | Path, *, scheme: str = "int8", dtype: str = "auto"
) -> QuantizeReport:
    """Round the weights of a model's linear layers, and prove that plain ``from_pretrained`` loads what was written.

    int8: one scale per output of a layer, by torchao. int4: NF4 in blocks of 64 with 8-bit scales (QLoRA, arXiv 2305.14314,
    section 3), by bitsandbytes. Embeddings, the output layer, norms and convolutions stay as they are. Both compute in ``dtype``
    and unpack the weights of a layer as it is used: less memory, not less time. Weights are safetensors; nothing is pickled.

    Args:
        model: Folder of a whole model native to transformers, or its name on the Hub.
        output_dir: New folder.
        scheme: One of `SCHEMES`.
        dtype: Type of what stays and of all computations; ``"auto"``: as stored. On a CPU without bfloat16 instructions float32 is
            several times faster.

    Raises:
        ModelLoadError: There is no such model, it is quantized already, or the library is not installed.
        ReloadError: What was written does not load, or computes something else.
        ValueError: An unknown scheme, or the folder exists.

    See docs/bedside.md for a run.
    """
    output = Path(output_dir)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme={scheme!r}: choose one of {', '.join(SCHEMES)}")
    if output.exists():
        raise ValueError(f"output_dir={output}: it exists; choose a new folder or remove it")
    if importlib.util.find_spec(SCHEMES[scheme]) is None:
        raise ModelLoadError(f"scheme={scheme!r} needs {SCHEMES[scheme]}: pip install 'hf-mic-evl-ecg[quantize]'")
    check_model(model)
    whole, processor = load_network(model, dtype=dtype).eval(), load_processor(model)
    if getattr(whole.config, "quantization_config", None) is not None:
        raise ModelLoadError(f"{model} is quantized already; give the model that it was made from")
    if is_flat(whole.config):
        raise ModelLoadError(
            f"{model} packs its tiles as 'flat', which from_pretrained does not know; export a student"
        )
    tensors, picture = check_input(processor, None)
    assert picture is not None
    before, kind = model_logits(whole, tensors), whole.dtype
    bytes_before = sum(p.numel() * p.element_size() for p in whole.parameters())
    del whole
    rounded = load_network(model, dtype=kind, quantization_config=_config(scheme, kind), device_map="cpu").eval()
    after = model_logits(rounded, tensors)
    with new_folder(output) as temporary:
        rounded.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        found = reload_logits(temporary, tensors)
        same = relative_difference(found["logits"], after)
        if same > _SAME:
            raise ReloadError(
                f"Reloaded in a new process, logits differ by {same:.2g} of the largest; nothing was written."
            )
        bytes_after = sum(_tensor_bytes(path) for path in temporary.glob("*.safetensors"))
    return QuantizeReport(output, scheme, bytes_before, bytes_after, relative_difference(after, before), same)


def _config(scheme: str, dtype: torch.dtype) -> Any:
    if scheme == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _tensor_bytes(path: Path) -> int:
    """Size of a file's tensors (bytes), without its header."""
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118  # no mapping
