"""The README's Python blocks run as they stand, but for the encoder, which comes from a package instead of the Hub."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import doc_pages

BLOCKS = [block for block in doc_pages.read_blocks(doc_pages.ROOT / "README.md") if block.language == "python"]


def test_there_is_a_block_per_package():
    assert any("hf_mic" in block.code for block in BLOCKS)
    assert any("hf_evl_ecg" in block.code for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doc_pages.run_blocks([block], doc_pages.local_names()) == 1
    assert any(tmp_path.rglob("model.safetensors")) or (tmp_path / "af.png").stat().st_size > 10_000
