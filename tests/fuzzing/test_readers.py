"""A hundredth of the damage of ``make fuzz``, and other damage: plain errors that name the file, soon, in little memory."""

import pytest

from fuzzing.harness import run
from fuzzing.readers import available, readers

COUNT, SEED = 200, 0  # of 20,000; a quarter for readers that take ten milliseconds a file


@pytest.mark.parametrize("name", list(readers()))
def test_damaged_files_are_read_or_refused(name, tmp_path):
    reader = readers()[name]
    if missing := [package for package in reader.packages if not available(package)]:
        pytest.skip(f"needs {', '.join(missing)}")
    count = round(COUNT * reader.share)
    found = run(reader, tmp_path, count, SEED)
    again = f"PYTHONPATH=tests python -m fuzzing --reader {name!r} --seed {SEED} --count {count}"
    assert not found.failures, f"{len(found.failures)} of {count}, see {again}; the first: {found.failures[0].why}"
    assert found.refused + found.read == count
    assert found.refused >= count / 20 or not reader.refuses, "the changes do no damage"
    assert found.read or not reader.sound, "nothing is left to be read"
