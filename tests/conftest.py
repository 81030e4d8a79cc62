"""Fixtures shared by all tests: the real data folder, the repository root; how property tests draw their examples."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples each time and in each process, none remembered, none late on a busy machine: what fails here fails everywhere.
settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=50, print_blob=False)
settings.load_profile("same")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real text and ECGs, or a skip that .ci/check_report.py refuses where the folder exists."""
    folder = Path(os.environ.get("REAL_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data folder not found")
    return folder.resolve()
