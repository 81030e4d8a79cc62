"""Headers and lists of teacher caches that are damaged; no teacher is needed to see it."""

import json

import pytest

from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import FORMAT, CacheMismatchError, DamagedShardError

LAYOUT = {"layers": [-1], "visual": False, "top_k": 0, "dtype": "float32"}
HEADER = {"format": FORMAT, "fingerprint": {"seed": 0}, "layout": LAYOUT, "hidden_dim": 4, "vocab_size": 9}


def opened(folder):
    return CachedTeacher(folder, expected={"seed": 0})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([HEADER], "has format None"),
        ({**HEADER, "format": True}, "has format True"),
        ({**HEADER, "format": "x" * 5000}, "has format 'x{39};"),
        ({**HEADER, "hidden_dim": "true"}, "hidden_dim is missing or of another type"),
        ({**HEADER, "vocab_size": [9]}, "vocab_size is missing or of another type"),
        ({**HEADER, "fingerprint": []}, "fingerprint is missing or of another type"),
        ({name: HEADER[name] for name in HEADER if name != "layout"}, "layout is missing or of another type"),
        ({**HEADER, "layout": {**LAYOUT, "x": 1}}, "layout has no 'x'"),
        ({**HEADER, "layout": {**LAYOUT, "layers": -1}}, "layout: layers is a int"),
        ({**HEADER, "layout": {**LAYOUT, "layers": ["-1"]}}, "layout: layers is a list"),
        ({**HEADER, "layout": {**LAYOUT, "dtype": "int8"}}, "layout: dtype='int8'"),
        ({**HEADER, "layout": {**LAYOUT, "dtype": "x" * 5000}}, "layout: dtype='xxx"),
        ({**HEADER, "layout": {**LAYOUT, "tokens": "some"}}, "layout: .*some"),
    ],
)
def test_a_damaged_header_names_file_and_field(tmp_path, header, message):
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(HEADER))
    assert opened(tmp_path).hidden_dim == 4
    path.write_text(json.dumps(header))
    with pytest.raises(CacheMismatchError, match=rf"^{path}.*{message}") as caught:
        opened(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["[" * 3000, '{"file": 1' + "0" * 5000 + "}", "{}", "3", '{"file": "x", "examples": {"a": "b"}}']
)
def test_a_damaged_list_says_what_to_delete(tmp_path, text):
    (tmp_path / "cache.json").write_text(json.dumps(HEADER))
    (tmp_path / "000-00000-deadbeef.json").write_text(text)
    with pytest.raises(DamagedShardError, match=r"delete .*000-00000-deadbeef\.safetensors and .*\.json") as caught:
        opened(tmp_path)
    assert len(str(caught.value)) < 1000
