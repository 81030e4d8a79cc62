"""One ONNX graph from token ids to the final embedding: mapped, cut to a prefix, normalised."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from hf_mic.files import replaced_file
from hf_mic.options import check_between

from .publish import CHECK_TEXTS

__all__ = ["INPUTS", "OUTPUT", "OnnxExportError", "OnnxReport", "export_onnx", "run_onnx"]

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
SAME = 1e-4  # of coordinates of unit vectors
OPSET = 18


class OnnxExportError(RuntimeError):
    """An encoder that has no such graph, or whose graph computes something else; nothing was written."""


@dataclass(frozen=True)
class OnnxReport:
    """What was written.

    Attributes:
        path: The file.
        dim: Width of its embeddings.
        difference: Largest difference of coordinates between the float graph and sentence-transformers.
        int8_cosine: Least cosine between the embeddings of the int8 graph and those of sentence-transformers; None in float32.
        megabytes: Size of the file.
    """

    path: Path
    dim: int
    difference: float
    int8_cosine: float | None
    megabytes: float


def export_onnx(
    model: SentenceTransformer,
    path: str | Path,
    *,
    dim: int | None = None,
    int8: bool = False,
    texts: Sequence[str] = CHECK_TEXTS,
) -> OnnxReport:
    """Write an encoder as one graph that needs a tokenizer and a runtime, neither torch nor sentence-transformers.

    Inputs ``input_ids`` and ``attention_mask``, int64. Shape: (texts, tokens), both free. Output ``sentence_embedding``, unit vectors.
    Shape: (texts, dim). The graph is that of all modules of the encoder, then ``x[:, :dim] / |x[:, :dim]|``; it is run on ``texts``,
    one by one and as a batch, and compared before it is put in place. Needs ``pip install 'hf-mic-evl-ecg[onnx]'``.

    Args:
        model: An encoder that begins with a Transformer.
        path: The file, ``*.onnx``.
        dim: Prefix length. Default: the full width.
        int8: Keep the weights of matrix products as int8 and compute with int8 activations (onnxruntime's dynamic quantisation, for CPUs).
        texts: What is compared.

    Raises:
        OnnxExportError: The graph cannot be made, or does not compute what the encoder does.
        ValueError: ``dim`` is out of range, or there is no Transformer.
        ModuleNotFoundError: The packages of the extra ``onnx`` are not installed.

    See examples/serving/embed_onnx.py for its use.
    """
    if not isinstance(model[0], Transformer):
        raise ValueError(
            f"model: begins with a {type(model[0]).__name__}, a graph of token ids needs a Transformer first"
        )
    # A copy on the CPU, in float32 and not in training: dropout would become part of the graph.
    model = SentenceTransformer(modules=copy.deepcopy(list(model)), device="cpu").float().eval()
    graph = _Graph(model, dim)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch, "model.onnx")
        _export(graph, model.preprocess([texts[0], texts[-1]]), plain)
        expected = _expected(model, texts, graph.dim)
        difference = max(
            float(np.abs(run_onnx(plain, model.preprocess(list(part))) - expected[rows]).max())
            for part, rows in _parts(texts)
        )
        if not difference <= SAME:
            raise OnnxExportError(
                f"{path}: the graph differs from the encoder by {difference:.2g}, more than {SAME}; nothing was written"
            )
        cosine = None
        if int8:
            plain, cosine = _quantise(plain), 1.0
            for part, rows in _parts(texts):
                found = run_onnx(plain, model.preprocess(list(part)))
                cosine = min(cosine, float((found * expected[rows]).sum(axis=1).min()))
        size = plain.stat().st_size / 1e6
        with replaced_file(path) as temporary:
            temporary.write_bytes(plain.read_bytes())
    return OnnxReport(Path(path), graph.dim, difference, cosine, size)


def run_onnx(path: str | Path, features: dict[str, Any]) -> NDArray[np.float32]:
    """Run a graph that :func:`export_onnx` wrote on the CPU.

    Args:
        path: The file.
        features: ``input_ids`` and ``attention_mask``, as :meth:`SentenceTransformer.preprocess` gives them; others are left out.

    Returns:
        Shape: (texts, dim).
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {name: np.asarray(features[name], dtype=np.int64) for name in INPUTS})[0]


class _Graph(nn.Module):
    """Token ids → unit prefix of the sentence embedding."""

    def __init__(self, model: SentenceTransformer, dim: int | None) -> None:
        super().__init__()
        width = model.get_embedding_dimension() or 0
        self.encoder, self.dim = model, width if dim is None else dim
        check_between("dim", self.dim, 1, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features: dict[str, Any] = dict(zip(INPUTS, (input_ids, attention_mask), strict=True))
        for module in self.encoder:
            features = module(features)
        return nn.functional.normalize(features["sentence_embedding"][:, : self.dim], dim=1)


def _export(graph: _Graph, features: dict[str, Any], path: Path) -> None:
    free = {0: "texts", 1: "tokens"}
    level = logging.getLogger("torch.onnx").level
    try:
        logging.getLogger("torch.onnx").setLevel(
            logging.ERROR
        )  # it names each operator of torchvision that is not there
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                tuple(features[name] for name in INPUTS),
                dynamo=True,
                verbose=False,
                dynamic_shapes=tuple(dict(free) for _ in INPUTS),
                input_names=INPUTS,
                output_names=(OUTPUT,),
                opset_version=OPSET,
            )
        assert program is not None  # None only of the exporter that dynamo=True replaces
        program.save(str(path), external_data=False)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever the exporter or the model raises
        raise OnnxExportError(f"the encoder has no such graph: {type(error).__name__}: {str(error)[:500]}") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _quantise(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name("int8.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A scale per channel: with one per matrix, cosines of MiniLM fell to 0.95 where these stay at 0.99.
        quantize_dynamic(path, target, weight_type=QuantType.QInt8, per_channel=True)
    return target


def _expected(model: SentenceTransformer, texts: Sequence[str], dim: int) -> NDArray[np.float32]:
    full = model.encode(
        list(texts)
    )  # of a copy without prompts: what is put before a text is up to who calls the graph
    return full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)


def _parts(texts: Sequence[str]) -> list[tuple[Sequence[str], slice]]:
    """All texts as one batch, whose padding must not count, and each by itself."""
    return [(texts, slice(None)), *((texts[i : i + 1], slice(i, i + 1)) for i in range(len(texts)))]
