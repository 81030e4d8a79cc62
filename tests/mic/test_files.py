"""Files are whole or absent, whatever happens while they are written."""

import os
import stat

import pytest

from hf_mic.files import replaced_file, replaced_files, write_atomically, write_text


def test_interrupted_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    def fail_by_name():
        with replaced_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    with pytest.raises(KeyboardInterrupt):
        fail_by_name()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_written_file_is_utf8_readable_by_all_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(str(path), "µ–\n")
    assert path.read_bytes() == "µ–\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["file.txt"]


def test_several_files_appear_together_and_other_files_stay(tmp_path):
    (tmp_path / "other").write_text("other")
    (tmp_path / "a.json").write_text("old")

    def fail():
        with replaced_files(tmp_path) as folder:
            (folder / "a.json").write_text("new")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (tmp_path / "a.json").read_text() == "old"
    with replaced_files(tmp_path) as folder:
        for name in ("a.json", "b.md"):
            (folder / name).write_text("new")
        assert (tmp_path / "a.json").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.md", "other"]
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.md").read_text() == "new"
