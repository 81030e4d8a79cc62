"""examples/mic: short scripts that import the package only, name their three commands and do what the verbs do."""

import ast
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_mic import Compressor
from hf_mic.__main__ import main
from hf_mic.frozen import AdaptConfig

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "mic"
OF_LIBRARIES = ("code_with_ray",)
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if path.stem not in OF_LIBRARIES]


def test_the_scripts_are_those_of_the_verbs():
    assert [path.stem for path in SCRIPTS] == ["adapt", "evaluate", "publish", "train"]
    assert all((FOLDER / f"{name}.py").is_file() for name in OF_LIBRARIES)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_imports_the_package_only(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    tree = ast.parse(text)
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"hf_mic"}
    head = ast.get_docstring(tree)
    assert f"python examples/mic/{path.name}" in head
    if path.stem in ("adapt", "evaluate", "train"):
        assert "CPU smoke run" in head
        assert "GPU" in head


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_takes_the_options_of_its_verb(path, monkeypatch, capsys):
    printed = []
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    for run in (lambda: runpy.run_path(str(path), run_name="__main__"), lambda: main([path.stem, "--help"])):
        with pytest.raises(SystemExit):
            run()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert f"usage: hf-mic {path.stem}" in printed[0]


@pytest.mark.slow  # most of it is the start of two workers
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (the extra ray)")
def test_two_ray_workers_write_the_codes_of_one_machine(tmp_path):
    """The example as a user runs it, against a cluster of two nodes of one core each; then which node coded what."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2001, 32)).astype(np.float32)
    compressor = Compressor.fit(vectors, 8, config=AdaptConfig(steps=5, batch_size=64, pool_size=256))
    compressor.save(tmp_path / "compressor")
    ids = rng.permutation(len(vectors))
    for part, rows in enumerate(np.array_split(np.arange(len(vectors)), 4)):  # a file is the least that a worker reads
        table = pa.table({"id": ids[rows], "embedding": list(vectors[rows])})
        (tmp_path / "vectors").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "vectors" / f"{part}.parquet")
    environment = {"PYTHONPATH": str(FOLDER.parents[1]), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    words = [str(tmp_path / name) for name in ("vectors", "compressor", "codes")]
    run = [sys.executable, "-c", TWO_NODES, str(FOLDER / "code_with_ray.py"), *words]
    done = subprocess.run(run, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nodes that coded: 2" in done.stdout
    written = pq.read_table(tmp_path / "codes")
    assert set(written.column_names) == {"id", "codes"}
    order = np.argsort(written["id"].to_numpy())
    codes = np.array(written["codes"].to_pylist(), dtype=np.uint8)[order]
    assert np.array_equal(codes, compressor.transform(vectors[np.argsort(ids)]))


TWO_NODES = """
import os, runpy, sys, time
import numpy as np, ray
from ray.cluster_utils import Cluster
from hf_mic import Compressor

# Without the head's own core: work is done by the two workers.
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
os.environ["RAY_ADDRESS"] = cluster.address
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
compressor = Compressor.load(sys.argv[2])

def coded(batch):
    time.sleep(0.3)  # so that one worker does not do all before the other has begun
    codes = compressor.transform_batch(batch)
    return {**codes, "node": np.array([ray.get_runtime_context().get_node_id()] * len(codes["id"]))}

print("nodes that coded:", len(ray.data.read_parquet(sys.argv[1]).repartition(8).map_batches(coded).unique("node")))
ray.shutdown()
cluster.shutdown()
"""
