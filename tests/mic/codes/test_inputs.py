"""Whatever takes vectors takes them as lists, arrays of any float, memory maps and tensors, and gives the same for each."""

import numpy as np
import pytest
import torch

from hf_mic import Compressor
from hf_mic.codes import ScalarQuantizer
from hf_mic.codes.inputs import as_codes, as_matrix
from hf_mic.evaluation.scoring import embed_checked
from hf_mic.frozen import AdaptConfig, PrefixMap, fit_map, principal_axes
from hf_mic.geometry import effective_rank, geometry_report
from hf_mic.inspection import InspectionSettings, inspect_vectors
from hf_mic.search import CodedStage, Funnel, VectorStage

# Of bfloat16, so that every kind below holds the same numbers.
EXACT = torch.from_numpy(np.random.default_rng(0).normal(size=(150, 16)).astype(np.float32)).bfloat16()
ROWS = EXACT.float().numpy()
FAST = AdaptConfig(dims=[4], steps=2, batch_size=32, pool_size=64, neighbours=0)
TURN = PrefixMap("orthogonal", torch.linalg.qr(EXACT[:16].float())[0])
CODE, COMPRESSOR = ScalarQuantizer.fit(ROWS, 4), Compressor.fit(ROWS, 4, config=AdaptConfig(steps=2))
CODES, SMALL = CODE.encode(ROWS), COMPRESSOR.transform(ROWS)


def on_disk(rows):
    mapped = np.memmap("rows.bin", rows.dtype, "w+", shape=rows.shape)
    mapped[:] = rows
    return mapped


KINDS = {
    "list": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "list of arrays": list,
    "list of tensors": lambda x: list(torch.tensor(x)),
    "list of bfloat16": lambda x: list(torch.tensor(x).bfloat16()),
    "array of arrays": lambda x: np.fromiter(x, dtype=object),
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.copy(),
    "float64": lambda x: x.astype(np.float64),
    "big-endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "memory map": on_disk,
    "tensor": torch.tensor,
    "tensor of float16": lambda x: torch.tensor(x).half(),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
    "tensor of float64": lambda x: torch.tensor(x).double(),
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True),
}
TAKERS = {
    "apply": lambda x: TURN.apply(x, dim=4),
    "fit_map": lambda x: fit_map(x, FAST, progress=False).weight,
    "principal_axes": principal_axes,
    "Compressor.fit": lambda x: Compressor.fit(x, 4, config=AdaptConfig(steps=2)).transform(ROWS),
    "transform": COMPRESSOR.transform,
    "transform_to": lambda x: np.load(COMPRESSOR.transform_to("codes.npy", x, progress=False)),
    "Compressor.search": lambda x: COMPRESSOR.search(x, SMALL, 3)[1],
    "Compressor.scores": lambda x: COMPRESSOR.scores(x, SMALL),
    "ScalarQuantizer.fit": lambda x: ScalarQuantizer.fit(x, 4).levels,
    "encode": CODE.encode,
    "ScalarQuantizer.search": lambda x: CODE.search(x, CODES, 3)[1],
    "ScalarQuantizer.scores": lambda x: CODE.scores(x, CODES),
    "VectorStage": lambda x: Funnel([VectorStage(x)]).search(ROWS[:9], 3).rows,
    "Funnel": lambda x: Funnel([CodedStage(COMPRESSOR, SMALL), VectorStage(ROWS)], [20]).search(x, 3).rows,
    "inspect_vectors": lambda x: [row["first"] for row in inspect_vectors(x, settings=InspectionSettings(k=3)).neighbours],
    "geometry_report": lambda x: [row["effective_rank"] for row in geometry_report(x, [4, 16], k=3)],
    "effective_rank": effective_rank,
    "embed_checked": lambda x: embed_checked(lambda texts: x, ["text"] * len(x)),
}  # fmt: skip


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
def test_every_kind_of_vectors_gives_the_same(taker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = taker(ROWS)
    for name, kind in KINDS.items():
        np.testing.assert_array_equal(np.asarray(taker(kind(ROWS))), np.asarray(expected), err_msg=name)


CODE_KINDS = {
    "list": lambda codes: codes.tolist(),
    "list of arrays": list,
    "tensor": torch.tensor,
    "list of tensors": lambda codes: list(torch.tensor(codes)),
    "memory map": on_disk,
}


@pytest.mark.parametrize("kind", CODE_KINDS.values(), ids=CODE_KINDS)
def test_every_kind_of_codes_gives_the_same(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for codes, call in (
        (CODES, CODE.decode),
        (CODES, lambda codes: CODE.scores(ROWS, codes)),
        (CODES, lambda codes: CODE.search(ROWS, codes, 3)[1]),
        (SMALL, COMPRESSOR.reconstruct),
        (SMALL, lambda codes: COMPRESSOR.scores(ROWS, codes)),
        (SMALL, lambda codes: COMPRESSOR.search(ROWS, codes, 3)[1]),
        (SMALL, lambda codes: Funnel([CodedStage(COMPRESSOR, codes)]).search(ROWS[:9], 3).rows),
    ):
        np.testing.assert_array_equal(np.asarray(call(kind(codes))), call(codes))
    assert isinstance(CODE.scores(ROWS, torch.tensor(CODES)), torch.Tensor)


def test_what_is_no_matrix_of_floats_is_refused_alike():
    for spoiled, message in (
        (ROWS.astype(int), "got int64: decode quantised vectors first, or convert whole"),
        ((ROWS * 9).astype(int).tolist(), "got int64: decode quantised"),
        (ROWS.astype(object), "got object"),
        (ROWS[0], r"got \(16,\) \(a single vector is a matrix of one row"),
        ([*ROWS.tolist(), [1.0]], "rows of one length"),
        ([*torch.tensor(ROWS), torch.ones(3)], "rows of one length"),
        (torch.tensor(ROWS).to_sparse(), "not sparse"),
        (ROWS[:, :5], r"must have shape \(N, 16\), got \(150, 5\)"),
    ):
        for call in (TURN.apply, COMPRESSOR.transform, CODE.encode, lambda x: CODE.scores(x, CODES), lambda x: as_matrix(x, 16)):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                call(spoiled)


@pytest.mark.parametrize("codes", [[[256, 0]], [[-1, 0]], [[0.5, 1.0]], [[1, 2, 3]], np.array([[1, 2]]), [1, 2]])
def test_what_are_no_codes_is_refused(codes):
    with pytest.raises(ValueError, match=r"Codes must be uint8 of shape \(N, 2\), got"):
        as_codes(codes, 2)
