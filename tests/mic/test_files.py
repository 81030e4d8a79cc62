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


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    """A user's umask, for one test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_who_may_read_is_as_the_umask_says(tmp_path, umask):
    write_text(tmp_path / "one", "new")
    with replaced_file(tmp_path / "other") as temporary:  # as by a writer that puts a file of its own in place
        temporary.unlink()
        temporary.touch(mode=0o600)
    with replaced_files(tmp_path) as folder:
        (folder / "two.json").touch(mode=0o600)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("one", "other", "two.json"), 0o666 & ~umask)


def test_written_file_is_utf8_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(str(path), "µ–\n")
    assert path.read_bytes() == "µ–\n".encode()
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
