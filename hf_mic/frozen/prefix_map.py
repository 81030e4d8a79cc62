"""A fitted map of embeddings: apply it to vectors, save it, read it again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_mic.codes.inputs import FLOATS, Vectors, as_matrix
from hf_mic.codes.storage import read_tensors
from hf_mic.files import replaced_file
from hf_mic.options import check_between

from .vectors import unit_rows

if TYPE_CHECKING:  # a map is read and applied without sentence-transformers, whose import takes seconds
    from sentence_transformers.sentence_transformer.modules import Dense

__all__ = ["PrefixMap"]


@dataclass(frozen=True, eq=False)
class PrefixMap:
    """A map from unit vectors to unit vectors of the same width whose prefixes can be used alone.

    ``z = x W`` (orthogonal, linear) or ``z = x W + relu(x V + b) U`` (mlp), with x and z scaled to unit length.

    Attributes:
        kind: ``"orthogonal"``, ``"linear"`` or ``"mlp"``.
        weight: W. Shape: (D, D).
        hidden_weight: V, only for ``"mlp"``. Shape: (D, H).
        hidden_bias: b, only for ``"mlp"``. Shape: (H,).
        output_weight: U, only for ``"mlp"``. Shape: (H, D).
        config: The settings of the fit.
        losses: Weighted terms of the loss, means over the last tenth of the steps.
        held_out: ``{"dim", "map", "pca", "truncation"}`` for each prefix length: the share of the ten nearest rows at full width
            that the map's prefix, as many principal axes, and as many first coordinates of the vectors as they are find, for rows the
            map was not fitted on; with ``bits``, in codes.
    """

    kind: str
    weight: Tensor
    hidden_weight: Tensor | None = None
    hidden_bias: Tensor | None = None
    output_weight: Tensor | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    held_out: Sequence[Mapping[str, float]] = ()

    @property
    def width(self) -> int:
        """Width D of the embeddings."""
        return self.weight.size(0)

    def apply(
        self,
        embeddings: Vectors,
        *,
        dim: int | None = None,
        out: NDArray | None = None,
        batch_size: int = 16384,
        progress: bool = False,
    ) -> NDArray:
        """Map embeddings in chunks; rows are scaled to unit length before and after.

        Args:
            embeddings: Rows of any scale; a numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).
            dim: Keep only this many leading coordinates, renormalised: the index to store. Default: all that the map has, which
                are fewer than D in a :class:`~hf_mic.frozen.Compressor`.
            out: Where to write, for example a memory map. Shape: (N, dim). Default: a new float32 array.
            batch_size: Rows mapped at once.
            progress: Show a progress bar.

        Returns:
            ``out``. Shape: (N, dim).

        Raises:
            ValueError: If shapes or ``dim`` do not fit, or a row is zero or not finite.

        Example:
            >>> PrefixMap("orthogonal", torch.eye(2)[[1, 0]]).apply(np.array([[3.0, 4.0]]))
            array([[0.8, 0.6]], dtype=float32)
        """
        columns = self.weight.size(1)
        dim = columns if dim is None else dim
        embeddings = as_matrix(embeddings, self.width)
        check_between("dim", dim, 1, columns)
        if out is None:
            out = np.empty((len(embeddings), dim), dtype=np.float32)
        elif out.shape != (len(embeddings), dim) or out.dtype not in FLOATS:
            raise ValueError(
                f"out must be floating-point of shape {(len(embeddings), dim)}, got {out.dtype} of shape {out.shape}."
            )
        for start in tqdm(range(0, len(embeddings), batch_size), desc="apply", unit="chunk", disable=not progress):
            rows = unit_rows(embeddings[start : start + batch_size], start)
            mapped = self.forward(rows, columns=dim)
            out[start : start + batch_size] = nn.functional.normalize(mapped, dim=1).numpy()
        return out

    def forward(self, unit: Tensor, columns: int | None = None) -> Tensor:
        """The map on unit vectors, without the final scaling: the first ``columns`` coordinates, by default all.

        Args:
            unit: Unit vectors. Shape: (B, D).
            columns: How many coordinates to compute.

        Returns:
            Shape: (B, columns).
        """
        mapped = unit @ self.weight[:, :columns]
        if self.hidden_weight is not None and self.hidden_bias is not None and self.output_weight is not None:
            hidden = torch.relu(unit @ self.hidden_weight + self.hidden_bias)
            mapped = mapped + hidden @ self.output_weight[:, :columns]
        return mapped

    def as_dense(self) -> list[Dense]:
        """The map as sentence-transformers modules that need no code of this package.

        A matrix is one module. The residual network becomes two, by ``x = relu(x) - relu(-x)``: the first computes
        ``relu([x, -x, x V + b])``, the second recombines the parts.

        Returns:
            Modules that read and write ``sentence_embedding``; they expect unit vectors.
        """
        if self.hidden_weight is None or self.hidden_bias is None or self.output_weight is None:
            return [_dense(self.weight, None, None)]
        eye = torch.eye(self.width)
        bias = torch.cat([torch.zeros(2 * self.width), self.hidden_bias])
        return [
            _dense(torch.cat([eye, -eye, self.hidden_weight], dim=1), bias, nn.ReLU()),
            _dense(torch.cat([self.weight, -self.weight, self.output_weight]), None, None),
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, with the settings as json in its header; it is replaced in one step.

        Args:
            path: The file, ``*.safetensors``; its folder is created.
        """
        header: dict[str, Any] = {"kind": self.kind, "config": dict(self.config), "losses": dict(self.losses)}
        header["held_out"] = [dict(row) for row in self.held_out]
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors()}
        with replaced_file(path) as temporary:
            save_file(tensors, temporary, metadata={"prefix_map": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrefixMap:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: If the file is no saved map, or its tensors do not fit together.
            FileNotFoundError: If there is no such file.
        """
        header, tensors = read_tensors(path, "prefix_map", "PrefixMap")
        if problem := _problem(header, tensors):
            raise ValueError(f"{path} is no saved PrefixMap: {problem}. It is damaged, write it again.")
        fields: dict[str, Any] = {**header, **tensors}
        return cls(**fields)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of the tensors the map has."""
        for name in ("weight", "hidden_weight", "hidden_bias", "output_weight"):
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor


def _problem(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """What of a file is not as :meth:`PrefixMap.save` writes it."""
    kinds = {"kind": str, "config": dict, "losses": dict, "held_out": list}  # old files lack some
    if unknown := sorted(header.keys() - kinds.keys()):
        return f"its header holds {unknown[0]!r:.40}"
    if wrong := [name for name, value in header.items() if not isinstance(value, kinds[name])]:
        return f"its header says {wrong[0]}={header[wrong[0]]!r:.40}"
    if header.get("kind") not in ("orthogonal", "linear", "mlp"):
        return f"its header says kind={header.get('kind')!r:.40}"
    needed = ["weight", *(("hidden_weight", "hidden_bias", "output_weight") if header["kind"] == "mlp" else ())]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if sorted(shapes) != sorted(needed):
        return f"it holds the tensors {', '.join(shapes) or '(none)':.80}, needed are {', '.join(needed)}"
    width, columns = shapes["weight"] if len(shapes["weight"]) == 2 else (0, 0)
    (hidden,) = bias if len(bias := shapes.get("hidden_bias", (1,))) == 1 else (0,)
    fitting = {
        "weight": (width, columns),
        "hidden_weight": (width, hidden),
        "hidden_bias": (hidden,),
        "output_weight": (hidden, columns),
    }
    if not 0 < columns <= width or not hidden or any(shapes[name] != fitting[name] for name in needed):
        return f"the shapes {shapes} do not fit together"
    return None


def _dense(weight: Tensor, bias: Tensor | None, activation: nn.Module | None) -> Dense:
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(
        weight.size(0),
        weight.size(1),
        bias=bias is not None,
        activation_function=activation,
        init_weight=weight.T.contiguous().clone(),
        init_bias=bias,
    )
