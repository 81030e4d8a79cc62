"""Files and folders appear whole or not at all."""

import json
import stat

import pytest

from hf_evl_ecg.files import new_file, new_folder, read_mapping, write_json, write_text


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "made" / "a.txt"
    with new_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic within one file system only"
    assert path.read_text() == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "made" / "model"
    with new_folder(path) as temporary:
        (temporary / "a").write_text("x")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755

    def fail():
        with new_folder(tmp_path / "made" / "other") as temporary:
            (temporary / "a").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(path.parent.iterdir()) == [path]


def test_text_is_utf8_and_json_can_be_read_back(tmp_path):
    write_text(tmp_path / "a.txt", "Größe ≤ 1")
    assert (tmp_path / "a.txt").read_bytes() == "Größe ≤ 1".encode()
    write_json(tmp_path / "a.json", {"wörter": [1, tmp_path]}, default=str)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"wörter": [1, str(tmp_path)]}
    assert text.endswith("}\n")
    assert "wörter" in text


def test_json_without_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name: [x", "cannot be read as YAML"), (b"\xff\xfe", "cannot be read as YAML"), (b"- a", "got list"), (b"", "NoneType")],
)  # fmt: skip
def test_what_maps_no_names_is_refused(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.yaml: .*{message}"):
        read_mapping(tmp_path / "a.yaml")
