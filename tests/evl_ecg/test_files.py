"""Files and folders appear whole or not at all."""

import errno
import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file
from small_disk import small_disk

from hf_evl_ecg.command_line.stages import Stage, folder_fingerprint
from hf_evl_ecg.files import new_file, new_folder, read_mapping, write_json, write_text


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "made" / "a.txt"
    with new_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic within one file system only"
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_who_may_read_is_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "new")
        with new_file(tmp_path / "b.txt") as temporary:  # as by a writer that puts a file of its own in place
            temporary.unlink()
            temporary.touch(mode=0o600)
        with new_folder(tmp_path / "model") as folder:
            (folder / "c").touch()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    file = 0o666 & ~umask
    assert modes == {"a.txt": file, "b.txt": file, "c": file, "model": 0o777 & ~umask}


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

    def fail():
        with new_folder(tmp_path / "made" / "other") as temporary:
            (temporary / "a").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["torch", "safetensors", "plain"])
def test_a_full_disk_is_named_whatever_the_writer_says(tmp_path, kind):
    values = {"w": torch.zeros(1 << 20)}  # 4 MB
    writers = {
        "torch": lambda path: torch.save(values, path),
        "safetensors": lambda path: save_file(values, path),
        "plain": lambda path: path.write_bytes(bytes(4 << 20)),
    }
    with small_disk(tmp_path / "disk", 2) as disk:
        for target, made in ((disk / "cache" / "a.bin", new_file), (disk / "model", new_folder)):

            def write(target=target, made=made):
                with made(target) as temporary:
                    writers[kind](temporary / "a.bin" if made is new_folder else temporary)

            with pytest.raises(OSError, match=r"No space left on device after \d.* MB, which are removed") as caught:
                write()
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
            assert caught.value.__cause__ is not None
        assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_other_errors_keep_their_words(tmp_path):
    def fail():
        with new_file(tmp_path / "a"):
            raise ValueError("not a number")

    with pytest.raises(ValueError, match="not a number"):
        fail()


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


def test_a_fingerprint_is_of_contents_and_not_of_times_or_what_passes(tmp_path):
    weights = bytearray(os.urandom(9 << 20))
    for name in ("a", "b"):
        write_text(tmp_path / name / "train" / "state.json", "{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    os.utime(tmp_path / "b" / "model.safetensors", (1, 1))
    first = folder_fingerprint(tmp_path / "a")
    assert folder_fingerprint(tmp_path / "b") == first
    for name in ("checkpoint-12/x", ".lock", "stage.json", "stage.lock", "done.json", "train/cache-1f.arrow", "runs/e"):
        write_text(tmp_path / "b" / name, "passing")
    assert folder_fingerprint(tmp_path / "b") == first
    weights[-1] ^= 1
    (tmp_path / "b" / "model.safetensors").write_bytes(weights)
    assert folder_fingerprint(tmp_path / "b") != first, "the last byte of a large file"
    (tmp_path / "a" / "train").rename(tmp_path / "a" / "test")
    assert folder_fingerprint(tmp_path / "a") != first, "a name"


def test_a_stage_is_refused_when_its_inputs_have_changed(tmp_path):
    def stage():
        return Stage(tmp_path / "student", {"alpha": 0.5}, {"teacher": tmp_path / "teacher"})

    done: list[int] = []
    write_text(tmp_path / "teacher" / "model.safetensors", "first")
    stage().run(lambda: done.append(1))
    stage().run(lambda: done.append(2))
    write_text(tmp_path / "teacher" / "model.safetensors", "again")
    with pytest.raises(ValueError, match=r"student: was made from other contents of teacher=.*remove .*student to run"):
        stage().run(lambda: done.append(3))
    (tmp_path / "student" / "done.json").unlink()  # a stage that was interrupted would go on with another teacher
    with pytest.raises(ValueError, match="other contents"):
        stage().run(lambda: done.append(4))
    assert done == [1]
    record = json.loads((tmp_path / "student" / "stage.json").read_text())
    write_json(tmp_path / "student" / "done.json", {})
    write_json(tmp_path / "student" / "stage.json", {name: record[name] for name in ("settings", "sha256")})
    stage().run(lambda: done.append(5))  # made before fingerprints were kept
    assert done == [1]


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
        read_mapping(path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000


def test_aliases_of_yaml_are_understood(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: [&b {dim: 8}, *b]")
    assert read_mapping(path) == {"a": [{"dim": 8}, {"dim": 8}]}
