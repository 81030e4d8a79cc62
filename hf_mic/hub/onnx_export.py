"""One ONNX graph from token ids to the final embedding: mapped, cut to a prefix, normalised."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
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

__all__ = [
    "INPUTS",
    "OUTPUT",
    "SAME",
    "GraphReport",
    "OnnxExportError",
    "compare",
    "export_onnx",
    "float_copy",
    "run_onnx",
]

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
SAME = 1e-4  # of coordinates of unit vectors
OPSET = 18


class OnnxExportError(RuntimeError):
    """An encoder that has no such graph, or whose graph computes something else; nothing was written."""


@dataclass(frozen=True)
class GraphReport:
    """What was written.

    Attributes:
        path: The file.
        dim: Width of its embeddings.
        difference: Largest difference of coordinates between the graph, computed in float32, and sentence-transformers.
        computes_in: What its runtime computes in unless it is told otherwise: ``"float32"``, ``"int8"``, ``"bfloat16"`` …
        least_cosine: Least cosine between embeddings computed so and those of sentence-transformers; None in float32.
        megabytes: Size of the graph and its weights.
    """

    path: Path
    dim: int
    difference: float
    computes_in: str
    least_cosine: float | None
    megabytes: float


def export_onnx(
    model: SentenceTransformer,
    path: str | Path,
    *,
    dim: int | None = None,
    int8: bool = False,
    texts: Sequence[str] = CHECK_TEXTS,
) -> GraphReport:
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
    model = float_copy(model)
    graph = _Graph(model, dim)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch, "model.onnx")
        _export(graph, model.preprocess([texts[0], texts[-1]]), plain)
        difference, _ = compare(model, texts, graph.dim, lambda features: run_onnx(plain, features))
        if not difference <= SAME:
            raise OnnxExportError(
                f"{path}: the graph differs from the encoder by {difference:.2g}, more than {SAME}; nothing was written"
            )
        cosine = None
        if int8:
            plain = _quantise(plain)
            _, cosine = compare(model, texts, graph.dim, lambda features: run_onnx(plain, features))
        size = plain.stat().st_size / 1e6
        with replaced_file(path) as temporary:
            temporary.write_bytes(plain.read_bytes())
    return GraphReport(Path(path), graph.dim, difference, "int8" if int8 else "float32", cosine, size)


def float_copy(model: SentenceTransformer) -> SentenceTransformer:
    """A copy without prompts on the CPU, in float32 and not in training: dropout would become part of a graph.

    Raises:
        ValueError: There is no Transformer at its beginning.
    """
    if not isinstance(model[0], Transformer):
        raise ValueError(
            f"model: begins with a {type(model[0]).__name__}, a graph of token ids needs a Transformer first"
        )
    return SentenceTransformer(modules=copy.deepcopy(list(model)), device="cpu").float().eval()


def compare(
    model: SentenceTransformer, texts: Sequence[str], dim: int, run: Callable[[dict[str, Any]], NDArray[np.float32]]
) -> tuple[float, float]:
    """How far a graph's embeddings are from those of an encoder: texts as one batch, whose padding must not count, and one by one.

    Args:
        model: From :func:`float_copy`; what is put before a text is up to who calls the graph.
        texts: What is embedded.
        dim: Prefix length.
        run: Token ids and mask → embeddings. Shape: (texts, dim).

    Returns:
        The largest difference of coordinates, and the least cosine.
    """
    expected = _expected(model, texts, dim)
    batches = [slice(None), *(slice(row, row + 1) for row in range(len(texts)))]
    found = np.concatenate([run(model.preprocess(list(texts[rows]))) for rows in batches])
    expected = np.concatenate([expected[rows] for rows in batches])
    return float(np.abs(found - expected).max()), float((found * expected).sum(axis=1).min())


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
    full = model.encode(list(texts))
    return full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
