"""Which code of a given size keeps most of what vectors say: maps, dimensions and bits, compared on rows held out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from hf_mic.codes.packing import code_bytes
from hf_mic.codes.quantizer import ScalarQuantizer
from hf_mic.codes.rotation import random_orthogonal

from .candidates import Candidate, MapName, sizes
from .config import CODED_BITS, AdaptConfig
from .fit import fit_map
from .prefix_map import PrefixMap
from .vectors import principal_axes

__all__ = ["choose", "shortened", "split_rows"]

NEIGHBOURS = 10
QUERIES = 1000  # held-out rows whose neighbours are looked for: a share of 0.6 is then known to about 0.007
SEARCHED = 10_000  # rows among which they are looked for: as many held out, the others learned from
CELL = 50  # rows of a neighbourhood that is held out whole, on average
CHUNK = 16384  # rows compared with the centres of neighbourhoods at once
PAIRS = (100, 300)  # queries and rows whose cosines are ranked

Maps = Mapping[tuple[MapName, int | None], PrefixMap]
"""Maps by name, and by the bits of the code that they were fitted for; ``None``: for any."""


def split_rows(unit: NDArray, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Row numbers to learn from, to judge with, and to find beside those that were learned from.

    Whole neighbourhoods are held out, a fifth of the rows or 2,000. Where vectors come in groups (phrasings of one statement,
    pages of one patient), a row that is held out alone has its neighbours among those that the map has seen, and a map that
    learned where these lie is judged better than it is for any other.

    Args:
        unit: Unit vectors. Shape: (N, D).
        seed: Seed of the choice.

    Returns:
        Three arrays of row numbers, ascending; the last two about equally long, and drawn from the same neighbourhoods.

    Example:
        >>> unit = np.eye(10)[np.arange(1000) % 10]  # ten groups
        >>> learn, judge, beside = split_rows(unit, seed=0)
        >>> len(learn), len(judge), len(beside), len({*learn % 10} & {*judge % 10})
        (800, 100, 100, 0)
    """
    random = np.random.default_rng(seed)
    wanted = min(2 * QUERIES, len(unit) // 5)
    anchors = unit[random.choice(len(unit), -(-len(unit) // CELL), replace=False)]
    cells = np.concatenate([(unit[i : i + CHUNK] @ anchors.T).argmax(axis=1) for i in range(0, len(unit), CHUNK)])
    held: list[int] = []
    for cell in random.permutation(len(anchors)):
        rows = np.flatnonzero(cells == cell)
        if len(held) + len(rows) <= wanted:
            held += rows.tolist()
    if len(held) < wanted // 2:  # a few neighbourhoods hold nearly all rows
        held = random.permutation(len(unit))[:wanted].tolist()
    drawn = random.permutation(held)
    learn = np.setdiff1d(np.arange(len(unit)), drawn)
    return learn, np.sort(drawn[: -(-len(drawn) // 2)]), np.sort(drawn[-(-len(drawn) // 2) :])


def choose(
    learn: NDArray,
    judge: NDArray,
    beside: NDArray,
    bytes_per_vector: int,
    seed: int,
    config: AdaptConfig,
    *,
    progress: bool = False,
) -> tuple[PrefixMap, ScalarQuantizer, list[Candidate]]:
    """Fit and judge every candidate of a size.

    Args:
        learn: Unit vectors on which maps and codes are fitted, and among which neighbours are looked for. Shape: (N, D).
        judge: Other unit vectors, whose neighbours are looked for. Shape: (Q, D).
        beside: Yet others, among which they are looked for too. Shape: (M, D).
        bytes_per_vector: Size of a code.
        seed: Seed of rotations and of the fitted map.
        config: Settings of the fitted map; its prefix lengths are those of the candidates.
        progress: Show progress bars.

    Returns:
        Map and quantiser of the best by neighbours kept, and all candidates, best first. Among equals the simpler one is
        before: truncation, then PCA, then a random rotation, then the fitted map.
    """
    width = learn.shape[1]
    pairs = sizes(width, bytes_per_vector)
    maps = _maps(learn, pairs, seed, config, progress)
    plan = [
        (name, turned, dims, bits)
        for name in dict.fromkeys(name for name, _ in maps)
        for dims, bits in pairs
        for turned in _turns(name, bits)
    ]
    sample = np.sort(np.random.default_rng(seed).permutation(len(learn))[: max(0, SEARCHED - len(beside))])
    examiner = _Examiner(np.concatenate([beside, learn[sample]]), judge)
    coded: list[tuple[Candidate, ScalarQuantizer]] = []
    mapped: dict[tuple[MapName, int | None], list[Tensor]] = {}
    longest = max(dims for dims, _ in pairs)
    for name, turned, dims, bits in tqdm(plan, desc="judge", unit="code", disable=not progress):
        key = _key(maps, name, bits)
        if key not in mapped:  # of one map at a time
            groups = (learn, examiner.rows, judge)
            mapped = {key: [maps[key].forward(torch.from_numpy(rows), columns=longest) for rows in groups]}
        short = [normalize(rows[:, :dims], dim=1).numpy() for rows in mapped[key]]
        quantizer = ScalarQuantizer.fit(short[0], bits, rotation="orthogonal" if turned else None, seed=seed)
        kept, spearman = examiner.examine(quantizer, short[1], short[2])
        coded.append((Candidate(name, turned, dims, bits, code_bytes(dims, bits), kept, spearman), quantizer))
    coded.sort(key=lambda pair: -pair[0].neighbours_kept)  # stable: among equals the simpler one stays before
    best, quantizer = coded[0]
    chosen = maps[_key(maps, best.map, best.bits)]
    return shortened(chosen, best.dims), quantizer, [candidate for candidate, _ in coded]


def _key(maps: Maps, name: MapName, bits: int) -> tuple[MapName, int | None]:
    """The map of a name that was fitted for codes of so many bits, else the one for all."""
    return (name, bits) if (name, bits) in maps else (name, None)


def _turns(name: str, bits: int) -> tuple[bool, ...]:
    """Whether a rotation of the kept coordinates is tried: after a map that orders them, before a code that rounds."""
    return (False, True) if name in ("pca", "fitted") and bits < 16 else (False,)


def _maps(learn: NDArray, pairs: Sequence[tuple[int, int]], seed: int, config: AdaptConfig, progress: bool) -> Maps:
    width = learn.shape[1]
    maps: dict[tuple[MapName, int | None], PrefixMap] = {
        ("truncation", None): PrefixMap("orthogonal", torch.eye(width)),
        ("pca", None): PrefixMap("orthogonal", principal_axes(learn, seed)),
        ("random", None): PrefixMap("orthogonal", torch.from_numpy(random_orthogonal(width, seed))),
    }
    # Lengths that nobody stores as floats alone: a map that serves 2 coordinates serves 64 less well.
    stored = [(dims, bits) for dims, bits in pairs if bits <= 8 and 1 < dims < width]
    if not stored:
        return maps
    # A map for each code of few bits, and one for all others; or the one that was asked for.
    wanted = [config.bits] if config.bits else [bits if bits in CODED_BITS else None for _, bits in stored]
    settings = replace(
        config, dims=sorted(dims for dims, _ in stored), seed=seed, batch_size=min(config.batch_size, len(learn))
    )
    for bits in dict.fromkeys(wanted):
        with warnings.catch_warnings():  # PCA is a candidate too: where it is ahead, it is chosen
            warnings.filterwarnings("ignore", message="The map keeps fewer")
            warnings.filterwarnings("ignore", message="The vectors hardly")  # said before, of all of them
            key = bits if config.bits is None else None
            maps["fitted", key] = fit_map(learn, replace(settings, bits=bits), progress=progress)
    return maps


def shortened(prefix_map: PrefixMap, dims: int) -> PrefixMap:
    """The part of a map that the first coordinates need."""
    output = prefix_map.output_weight
    lengths = [length for length in prefix_map.config.get("dims", []) if length <= dims]
    return replace(
        prefix_map,
        config={**prefix_map.config, "dims": lengths} if prefix_map.config else prefix_map.config,
        weight=prefix_map.weight[:, :dims].contiguous(),
        output_weight=None if output is None else output[:, :dims].contiguous(),
    )


class _Examiner:
    """What the full width says of some rows, to which codes are compared."""

    def __init__(self, rows: NDArray, queries: NDArray):
        self.rows, self.queries = rows, queries
        self.k = min(NEIGHBOURS, len(rows))
        full = ScalarQuantizer(rows.shape[1], bits=32)
        _, self.nearest = full.search(queries, full.encode(rows), self.k)
        self.ranks = rankdata(queries[: PAIRS[0]] @ rows[: PAIRS[1]].T)

    def examine(self, quantizer: ScalarQuantizer, rows: NDArray, queries: NDArray) -> tuple[float, float]:
        """Neighbours kept and rank correlation, of mapped rows and queries."""
        codes = quantizer.encode(rows)
        _, found = quantizer.search(queries, codes, self.k)
        kept = (self.nearest[:, :, None] == found[:, None, :]).any(axis=2).mean()
        scores = quantizer.scores(queries[: PAIRS[0]], codes[: PAIRS[1]])
        # Rounded: sums in another order must not part equal codes.
        ranks = rankdata(scores.round(6))
        # Constant scores, of codes that are all equal, correlate with nothing.
        correlation = float(np.corrcoef(self.ranks.ravel(), ranks.ravel())[0, 1]) if np.ptp(ranks) else 0.0
        return float(kept), correlation
