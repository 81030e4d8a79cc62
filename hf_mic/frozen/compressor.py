"""Vectors in a given number of bytes: a map, a code, and what they keep."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from hf_mic.codes.inputs import Vectors, as_array, as_matrix
from hf_mic.codes.quantizer import ScalarQuantizer
from hf_mic.codes.storage import load_quantizer, save_quantizer
from hf_mic.files import plain, read_json, replaced_files, write_text
from hf_mic.options import check_at_least

from .candidates import Candidate, sizes
from .coded_file import write_codes
from .config import AdaptConfig
from .prefix_map import PrefixMap
from .vectors import check_directions, distinct_unit_rows, unit_rows

__all__ = ["Compressor"]

FILES = ("map.safetensors", "quantizer.safetensors")
SETTINGS = "compressor.json"
FORMAT_VERSION = 1
LEAST_ROWS = 100
FITTED_ROWS = 100_000  # drawn from more
ROWS = 16384  # coded at once


@dataclass(frozen=True, eq=False)
class Compressor:
    """Vectors as a few bytes each, and similarities read from those bytes.

    ``fit`` chooses among maps (truncation, PCA, a random rotation, a fitted map), dimensions and bits the combination that
    keeps most neighbours of rows it did not learn from; truncation is among them, so the choice is never worse there than
    what costs nothing. Vectors are scaled to unit length, mapped, cut, and quantised; queries stay floats.

    Attributes:
        prefix_map: The map, its columns cut to the coordinates that are kept.
        quantizer: The code of those coordinates.
        report: What every candidate keeps, best first: the first row is this compressor. Empty if it was not chosen by ``fit``.

    Example:
        >>> random = np.random.default_rng(0)
        >>> vectors = random.normal(size=(2000, 8)) @ random.normal(size=(8, 64))
        >>> compressor = Compressor.fit(vectors, bytes_per_vector=8, config=AdaptConfig(steps=20))
        >>> codes = compressor.transform(vectors)
        >>> codes.shape, codes.dtype
        ((2000, 8), dtype('uint8'))
        >>> scores, rows = compressor.search(vectors[:3], codes, k=10)
        >>> rows[:, 0]
        array([0, 1, 2])
    """

    prefix_map: PrefixMap
    quantizer: ScalarQuantizer
    report: Sequence[Candidate] = ()

    @classmethod
    def fit(
        cls,
        vectors: Vectors,
        bytes_per_vector: int = 8,
        *,
        seed: int = 0,
        config: AdaptConfig | None = None,
        progress: bool = False,
    ) -> Compressor:
        """Choose map, dimensions and bits for vectors like these.

        A fifth of the rows, at most 2,000, is held out to judge with, whole neighbourhoods of them. Of more than 100,000 rows a random sample is used; exact
        copies are left out.

        Args:
            vectors: Floats of any scale; a numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).
            bytes_per_vector: Bytes of a code, at most 4 D.
            seed: Seed of everything random; the same vectors, settings and number of threads give the same compressor.
            config: Settings of the fitted map; its ``dims`` and ``seed`` are set here.
            progress: Show progress bars.

        Raises:
            ValueError: If the vectors are no floating-point matrix, fewer than 100 of them differ, one is zero or not
                finite, or no code has that size.
        """
        from .choosing import choose, split_rows  # fitting needs what using a compressor does not

        bytes_per_vector, seed = plain(bytes_per_vector), plain(seed)
        check_at_least("bytes_per_vector", bytes_per_vector, 1)
        array = as_matrix(vectors)
        sizes(array.shape[1], bytes_per_vector)
        unit = distinct_unit_rows(array, FITTED_ROWS, seed)
        if len(unit) < LEAST_ROWS:
            raise ValueError(f"{len(unit)} distinct vectors are too few to choose a code: give at least {LEAST_ROWS}.")
        check_directions(unit)
        learn, judge, beside = (unit[rows] for rows in split_rows(unit, seed))
        settings = config or AdaptConfig()
        chosen = choose(learn, judge, beside, bytes_per_vector, seed, settings, progress=progress)
        return cls(*chosen)

    @property
    def width(self) -> int:
        """Width D of the vectors that are taken."""
        return self.prefix_map.width

    @property
    def dims(self) -> int:
        """Coordinates d that are kept."""
        return self.quantizer.dims

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a code."""
        return self.quantizer.bytes_per_vector

    def transform(self, vectors: Vectors) -> NDArray[np.uint8]:
        """Codes of vectors.

        Args:
            vectors: Floats of any scale; a numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).

        Returns:
            Shape: (N, bytes_per_vector).

        Raises:
            ValueError: If the width differs, or a row is zero or not finite.
        """
        array = as_matrix(vectors, self.width)
        codes = np.empty((len(array), self.bytes_per_vector), dtype=np.uint8)
        for start in range(0, len(array), ROWS):
            codes[start : start + ROWS] = self._coded(array[start : start + ROWS], start)
        return codes

    def transform_batch(
        self, batch: Mapping[str, Any], column: str = "embedding", codes: str = "codes"
    ) -> dict[str, Any]:
        """Codes in place of the vectors of a table's batch: the function for ``Dataset.map`` and Ray Data's ``map_batches``.

        A row has the code that :meth:`transform` gives it, whatever else is in its batch and in whichever process. Row numbers of
        messages count within the batch.

        Args:
            batch: Column → values; all but the vectors are handed on as they are.
            column: The vectors: rows of lists or arrays, or a matrix. Shape: (N, D).
            codes: Name of the new column.

        Returns:
            Column → values, without ``column``. ``Dataset.map`` keeps it all the same, unless ``remove_columns`` names it.

        Raises:
            ValueError: As :meth:`transform`, or if there is no such column.

        Example:
            >>> identity = Compressor(PrefixMap("orthogonal", Tensor([[1, 0], [0, 1]])), ScalarQuantizer(2, 16))
            >>> identity.transform_batch({"id": [7], "embedding": [[3.0, 4.0]]})["codes"].view("<f2")
            array([[0.6, 0.8]], dtype=float16)
        """
        if column not in batch:
            raise ValueError(f"column={column!r}: must be one of {', '.join(batch)}")
        others, vectors = dict(batch), batch[column]
        del others[column]
        return {**others, codes: self.transform(vectors)}

    def transform_to(self, path: str | os.PathLike[str], vectors: Vectors, *, progress: bool = True) -> Path:
        """Codes of vectors as a .npy file that :func:`hf_mic.codes.open_codes` reads, also of more than fit into memory.

        The file appears when it is whole. Killed, the same call goes on where it was.

        Args:
            path: The file, ``*.npy``; its folder is created.
            vectors: As for :meth:`transform`.
            progress: Show a progress bar.

        Returns:
            ``path``.
        """
        array = as_matrix(vectors, self.width)
        check_at_least("number of vectors", len(array), 1)
        return write_codes(
            Path(path), array, self._coded, self.bytes_per_vector, rows=ROWS, key=self.fingerprint(), progress=progress
        )

    def scores(self, queries: Vectors, codes: NDArray | Tensor) -> NDArray[np.float32]:
        """Cosine of each query, mapped but not rounded, to each coded vector.

        Args:
            queries: Floats of any scale. Shape: (Q, D).
            codes: From :meth:`transform`, or a memory map of them. Shape: (N, bytes_per_vector).

        Returns:
            Shape: (Q, N).
        """
        return as_array(self.quantizer.scores(self._mapped(queries), codes))

    def search(
        self, queries: Vectors, codes: NDArray | Tensor, k: int = 10
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k most similar coded vectors of each query, best first; of equal scores the lower row.

        Args:
            queries: Floats of any scale. Shape: (Q, D).
            codes: From :meth:`transform`, or a memory map of them. Shape: (N, bytes_per_vector).
            k: How many.

        Returns:
            Scores and row numbers. Shape: (Q, k) each.
        """
        return self.quantizer.search(self._mapped(queries), codes, k)

    def reconstruct(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mapped coordinates that codes stand for; their cosines are those of the codes.

        Args:
            codes: Shape: (N, bytes_per_vector).

        Returns:
            Shape: (N, d).
        """
        return self.quantizer.decode(codes)

    def fingerprint(self) -> str:
        """SHA-256 of all numbers that codes depend on."""
        digest = hashlib.sha256(repr((self.prefix_map.kind, self.dims, self.quantizer.bits)).encode())
        for tensor in dict(self.prefix_map.tensors()).values():
            digest.update(tensor.numpy().tobytes())
        for name in ("means", "spreads", "levels", "rotation", "signs"):
            value = getattr(self.quantizer, name)
            digest.update(b"" if value is None else value.tobytes())
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``compressor.json`` (settings, report), ``map.safetensors`` and ``quantizer.safetensors``, the json last.

        Args:
            folder: Made if missing; other files in it are left alone.
        """
        with replaced_files(folder) as made:
            self.prefix_map.save(made / FILES[0])
            save_quantizer(self.quantizer, made / FILES[1])
            settings = {
                "format_version": FORMAT_VERSION,
                "width": self.width,
                "dims": self.dims,
                "bits": self.quantizer.bits,
                "bytes_per_vector": self.bytes_per_vector,
                "fingerprint": self.fingerprint(),
                "report": [asdict(candidate) for candidate in self.report],
            }
            write_text(made / SETTINGS, json.dumps(settings, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Compressor:
        """Read what :meth:`save` wrote; nothing that fits is imported.

        Raises:
            ValueError: If the folder holds no compressor, one of a later version, or files of different ones.
            FileNotFoundError: If a file is missing.
        """
        file = Path(folder, SETTINGS)
        settings = read_json(file)
        if not isinstance(settings, dict) or settings.get("format_version") != FORMAT_VERSION:
            version = settings.get("format_version") if isinstance(settings, dict) else None
            raise ValueError(
                f"{file} has format version {version!r:.40}, this release reads {FORMAT_VERSION}: update the package, or save the "
                "compressor again."
            )
        try:
            report = [Candidate(**row) for row in settings["report"]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is damaged, save the compressor again: report is none of candidates ({error})."
            ) from error
        prefix_map, quantizer = PrefixMap.load(Path(folder, FILES[0])), load_quantizer(Path(folder, FILES[1]))
        loaded = cls(prefix_map, quantizer, report)
        if loaded.fingerprint() != settings.get("fingerprint"):
            raise ValueError(f"{folder} holds files of different compressors, or damaged ones: save it again.")
        return loaded

    def _mapped(self, vectors: Vectors) -> NDArray[np.float32]:
        return self._floats(unit_rows(as_matrix(vectors, self.width)))

    def _floats(self, unit: Tensor) -> NDArray[np.float32]:
        return normalize(self.prefix_map.forward(unit), dim=1).numpy()

    def _coded(self, rows: NDArray, start: int) -> NDArray[np.uint8]:
        unit = unit_rows(rows, start)
        # The product of a single row is summed in another order: it is doubled, or its code would depend on the batch.
        pair = unit.expand(2, -1) if len(unit) == 1 else unit
        return self.quantizer.encode(self._floats(pair))[: len(unit)]
