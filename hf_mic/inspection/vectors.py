"""What the prefixes of vectors from anywhere are worth, and what a map or a code makes of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_mic.codes.inputs import Vectors, as_matrix
from hf_mic.frozen.compressor import SETTINGS, Compressor
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.frozen.vectors import LONGEST, NARROW, SHORTEST, describe_direction, unit_rows
from hf_mic.geometry.linalg import draw, neighbours, shared

from .inspection import Inspection, measure_embeddings
from .settings import InspectionError, InspectionSettings

__all__ = ["inspect_vectors", "read_map"]


def inspect_vectors(
    vectors: Vectors,
    *,
    name: str = "vectors",
    file: str | None = None,
    mapped: PrefixMap | Compressor | None = None,
    map_name: str = "the map",
    settings: InspectionSettings | None = None,
    progress_bar: bool = False,
) -> Inspection:
    """Measure every prefix of vectors that are there already, from any encoder or an API.

    Args:
        vectors: Floats of any scale; of a memory map only the rows that are measured are read. Exact copies among these are
            left out. Shape: (N, D).
        name: Their name in the report.
        file: Where they lie, for the next command that the verdict names.
        mapped: Also measure what this makes of the same rows. Neighbours are those of the vectors as they are.
        map_name: Its name in the report.
        settings: How to inspect; of the fields about texts only ``max_texts`` is used, the number of rows measured at most.
        progress_bar: Show progress.

    Raises:
        InspectionError: Fewer than 2 k + 1 distinct vectors, one that is zero or not finite, dims beyond the width, or a map
            of another width.
        ValueError: If they are no matrix of floating-point numbers.

    Example:
        >>> random = np.random.default_rng(0)
        >>> found = inspect_vectors(random.normal(size=(500, 16)) * np.linspace(2, 0, 16))
        >>> found.texts["measured"], [row["dim"] for row in found.neighbours]
        (500, [8, 16])
    """
    settings, array = settings or InspectionSettings(), as_matrix(vectors)
    count, width = array.shape
    numbers = draw(count, settings.max_texts, settings.seed) if count else np.arange(0)
    given, norms = _checked(array[numbers], numbers)
    rows = _distinct(given)
    if len(rows) < 2 * settings.k + 1:
        raise InspectionError(
            f"{len(rows)} distinct vectors are too few to compare {settings.k} neighbours: give at least {2 * settings.k + 1}."
        )
    if mapped is not None and mapped.width != width:
        raise InspectionError(f"{map_name} takes vectors of width {mapped.width}, these have {width}.")
    dims = settings.dims_for(width)
    outside, direction = describe_direction(unit_rows(rows).numpy())
    return Inspection(
        model={
            "name": name,
            "file": file,
            "dtype": str(array.dtype),
            "width": width,
            "truncate_dim": None,
            "norm": {"mean": float(norms.mean()), "lowest": float(norms.min()), "highest": float(norms.max())},
            "outside_of_one_direction": outside,
            "one_direction": direction if outside < NARROW else None,
        },
        texts={"from": "vectors", "given": count, "measured": len(rows)},
        **measure_embeddings(rows, dims, settings, progress_bar=progress_bar),
        scores=[],
        settings=asdict(settings),
        mapped={} if mapped is None else {"name": map_name, **_after(rows, mapped, dims, settings, progress_bar)},
    )


def read_map(path: str | Path) -> PrefixMap | Compressor:
    """Read a folder that ``hf-mic adapt`` wrote, or a file of a map.

    Raises:
        InspectionError: If there is neither a compressor nor a map.
        ValueError: If what is there cannot be read.
    """
    if Path(path, SETTINGS).is_file():
        return Compressor.load(path)
    file = Path(path, "map.safetensors") if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InspectionError(
            f"{path} holds neither {SETTINGS} nor map.safetensors: give a folder that hf-mic adapt wrote."
        )
    return PrefixMap.load(file)


def _after(
    rows: NDArray, mapped: PrefixMap | Compressor, dims: list[int], settings: InspectionSettings, progress_bar: bool
) -> dict[str, Any]:
    """The measurements of the mapped rows, and of the code if there is one."""
    prefix_map = mapped.prefix_map if isinstance(mapped, Compressor) else mapped
    columns = prefix_map.weight.size(1)
    lengths = sorted({dim for dim in dims if dim <= columns} | {columns})
    after = prefix_map.apply(rows, dim=columns)
    found = measure_embeddings(after, lengths, settings, reference=rows, progress_bar=progress_bar)
    if not isinstance(mapped, Compressor):
        return {"kind": prefix_map.kind, **found}
    queries, k = draw(len(rows), settings.max_queries, settings.seed), settings.k
    _, nearest = mapped.search(rows[queries], mapped.transform(rows), k + 1)
    # Nobody is their own neighbour; where a code hides a row behind its equals, the last of the k + 1 goes.
    own = nearest == queries[:, None]
    own[~own.any(axis=1), -1] = True
    kept = shared(neighbours(rows, queries, k), nearest[~own].reshape(-1, k)).mean() / k
    code = {
        "dim": mapped.dims,
        "bits": mapped.quantizer.bits,
        "bytes_per_vector": mapped.bytes_per_vector,
        "kept": float(kept),
    }
    return {"kind": prefix_map.kind, **found, "code": code}


def _checked(rows: NDArray, numbers: NDArray) -> tuple[NDArray[np.float32], NDArray]:
    """Rows that float32 holds, of unit length where their own length is not for it, and their lengths."""
    exact = rows.astype(np.float64)
    largest = np.abs(exact).max(axis=1)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        raise InspectionError(
            f"Row {numbers[bad[0]]} is zero or not finite ({bad.size} such rows among the {len(rows)} measured): a direction is "
            "needed. Drop these rows, or embed their texts again."
        )
    norms = largest * np.linalg.norm(exact / largest[:, None], axis=1)
    held = norms.min() > SHORTEST and norms.max() < LONGEST
    return rows.astype(np.float32) if held else unit_rows(rows).numpy(), norms


def _distinct(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows without exact copies, which would be each other's nearest neighbours at every width; in their order."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]
