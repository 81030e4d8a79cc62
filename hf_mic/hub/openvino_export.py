"""The graph from token ids to the final embedding as OpenVINO's own two files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from hf_mic.files import replaced_files

from .onnx_export import INPUTS, OUTPUT, SAME, GraphReport, OnnxExportError, compare, export_onnx, float_copy
from .publish import CHECK_TEXTS

__all__ = ["export_openvino", "openvino_runner"]

NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def export_openvino(
    model: SentenceTransformer, path: str | Path, *, dim: int | None = None, texts: Sequence[str] = CHECK_TEXTS
) -> GraphReport:
    """Write an encoder as ``NAME.xml`` and ``NAME.bin``, float32 weights; inputs and output are those of :func:`export_onnx`.

    The ONNX graph is made and compared first, read by OpenVINO, run in float32 and compared again before both files are put in place.
    On processors with bfloat16 units OpenVINO computes in bfloat16 unless ``INFERENCE_PRECISION_HINT`` says ``f32``; the report says
    what this processor does and what it loses. Needs ``pip install 'hf-mic-evl-ecg[openvino]'``.

    Args:
        model: An encoder that begins with a Transformer.
        path: The file, ``*.xml``.
        dim: Prefix length. Default: the full width.
        texts: What is compared.

    Raises:
        OnnxExportError: The graph cannot be made, or does not compute what the encoder does.
        ValueError: ``dim`` is out of range, there is no Transformer, or the file has another ending.
        ModuleNotFoundError: The packages of the extra ``openvino`` are not installed.
    """
    import openvino

    target = Path(path)
    if target.suffix != ".xml":
        raise ValueError(f"path={str(path)!r}: OpenVINO reads a graph from *.xml, with its weights in *.bin beside it")
    model = float_copy(model)
    with tempfile.TemporaryDirectory() as scratch, replaced_files(target.parent) as made:
        onnx = export_onnx(model, Path(scratch, "model.onnx"), dim=dim, texts=texts)
        openvino.save_model(openvino.Core().read_model(onnx.path), made / target.name, compress_to_fp16=False)
        run, _ = openvino_runner(made / target.name, "f32")
        difference, _ = compare(model, texts, onnx.dim, run)
        if not difference <= SAME:
            raise OnnxExportError(
                f"{path}: OpenVINO's graph differs from the encoder by {difference:.2g}, more than {SAME}; nothing was written"
            )
        run, computes_in = openvino_runner(made / target.name)
        cosine = None if computes_in == "float32" else compare(model, texts, onnx.dim, run)[1]
        size = sum(file.stat().st_size for file in made.iterdir()) / 1e6
    return GraphReport(target, onnx.dim, difference, computes_in, cosine, size)


def openvino_runner(
    path: str | Path, precision: str | None = None
) -> tuple[Callable[[dict[str, Any]], NDArray[np.float32]], str]:
    """Load a graph that :func:`export_openvino` wrote for the CPU.

    Args:
        path: The file, ``*.xml``.
        precision: ``"f32"``, ``"bf16"`` …; default what OpenVINO takes on this processor.

    Returns:
        A function of ``input_ids`` and ``attention_mask``, as :meth:`SentenceTransformer.preprocess` gives them (others are left out),
        to embeddings of shape (texts, dim); and the name of what it computes in.
    """
    import openvino

    hints = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)

    def run(features: dict[str, Any]) -> NDArray[np.float32]:
        return compiled({name: np.asarray(features[name], dtype=np.int64) for name in INPUTS})[OUTPUT]

    name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return run, NAMES.get(name, name)
