"""Results json of ECG studies: what is read is whole, and what is not names file and field."""

import json

import pytest

from hf_evl_ecg.results import read_results, write_results

ROW = {"method": "m", "seed": 0, "task": "t", "dim": None, "metric": "f1", "value": 0.8, "n": 9, "ci_low": None, "ci_high": None}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: b"{", r"is no json \(Expecting"),
        (lambda found: b'{"a": "\xe9"}', "is no json .*decode"),
        (lambda found: b"[" * 3000 + b"]" * 3000, r"is no json \(maximum recursion depth"),
        (lambda found: b"1" * 5000, r"is no json \(Exceeds the limit"),
        (lambda found: [found], "it lacks"),
        (lambda found: {**found, "machine": None}, "machine must hold what write_results wrote"),
        (lambda found: {**found, "rows": {"a": 1}}, "rows must hold what write_results wrote"),
        (lambda found: {**found, "rows": ["x"]}, "row 0: is a str"),
        (lambda found: {**found, "rows": [{**ROW, "value": None}]}, "row 0: value is a NoneType"),
        (lambda found: {**found, "rows": [{**ROW, "value": 10**400}]}, "row 0 .*: value is 1000"),
        (lambda found: {**found, "rows": [{**ROW, "metric": []}]}, "row 0: metric is a list"),
    ],
)
def test_damaged_results_name_file_and_field(tmp_path, change, message):
    path = tmp_path / "results.json"
    whole = json.loads(json.dumps(write_results(path, "s", {"seed": 0}, [ROW])))
    assert read_results(path) == whole
    changed = change(whole)
    path.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    with pytest.raises(ValueError, match=rf"^{path}.*{message}") as caught:
        read_results(path)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_encoding_of_json_is_read(tmp_path, encoding):
    path = tmp_path / "results.json"
    write_results(path, "söme", {}, [ROW])
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert read_results(path)["study"] == "söme"
