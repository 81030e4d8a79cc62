"""Files are whole or absent, whatever happens while they are written."""

import errno
import os
import stat

import numpy as np
import pytest

from hf_mic.files import new_array, read_mapping, replaced_file, replaced_files, write_atomically, write_text


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


def test_a_kill_between_files_leaves_none_of_two_sets(tmp_path, monkeypatch):
    def write(text):
        with replaced_files(tmp_path) as folder:
            for name in ("index.npy", "map.safetensors", "notes.md"):
                (folder / name).write_text(text)

    real = os.replace
    for moved in range(3):
        write("former")
        left = iter(range(moved))

        def killed(*given, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(*given)

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write("new")
        monkeypatch.setattr(os, "replace", real)
        assert not (tmp_path / "notes.md").exists(), "what comes last says whether the set is whole"


def test_space_for_an_array_is_taken_before_it_is_written(tmp_path, monkeypatch):
    """A sparse file on a full disk is written until a page has no place: the process ends with a bus error, without a word."""
    array = new_array(tmp_path / "a.npy", np.float32, (1000, 64))
    status = (tmp_path / "a.npy").stat()
    assert status.st_blocks * 512 >= status.st_size > array.nbytes == 256_000

    def full(handle, offset, size):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device for 256,128 bytes: .*b\.npy") as caught:
        new_array(tmp_path / "b.npy", np.float32, (1000, 64))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["a.npy"]


DAMAGED_YAML = [
    "[" * 2000 + "]" * 2000,  # brackets that yaml takes seconds for
    "a: 2001-99-99",  # "month must be in 1..12", without a file
    "a: !!int x",
    "a: !!bool x",  # a KeyError of yaml
    "a: !!timestamp x",  # an AttributeError
    "a: &a [*a]",  # holds itself
    "a: [&a [1,1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b], "
    "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e,*e,*e]]",
]


@pytest.mark.parametrize("text", DAMAGED_YAML, ids=range(len(DAMAGED_YAML)))
def test_yaml_that_the_library_stumbles_over_is_one_error(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{path}:? cannot be read as YAML") as caught:
        read_mapping(path, ["a"])
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000


def test_aliases_of_yaml_are_understood(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: [&b {dim: 8}, *b]")
    assert read_mapping(path, ["a"]) == {"a": [{"dim": 8}, {"dim": 8}]}
