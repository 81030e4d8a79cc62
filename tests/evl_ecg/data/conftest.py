"""A folder of records with a table."""

import pytest
from written_records import write_normal


@pytest.fixture
def folder(tmp_path):
    """Six records of four patients, one of them cut short."""
    root = tmp_path / "mine"
    lines = ["record,patient,labels,heart_rate,sex,report"]
    for i in range(6):
        write_normal(root / f"r{i}", seed=i)
        lines.append(f"r{i},p{i // 2},{'AF|LVH' if i % 2 else 'SR; AXN'},{60 + i},{'mf'[i % 2]},text {i}")
    cut = root / "r3.dat"
    cut.write_bytes(cut.read_bytes()[:-100])
    (root / "records.csv").write_text("\n".join(lines))
    return root
