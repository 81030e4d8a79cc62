"""Uploads arrive whole and apart, are bounded together, and go away whatever a visitor does."""

import asyncio
import logging
import os
import re
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio")  # with it come starlette and httpx

import httpx
from starlette.applications import Starlette

from hf_evl_ecg.app import intake as intake_module
from hf_evl_ecg.app.intake import UPLOAD_ADDRESS, Intake

DAY = 86_400


def post(intake: Intake, files=None, **request) -> httpx.Response:
    """One request to the upload address alone."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=intake.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.post(UPLOAD_ADDRESS, files=files, **request)

    return asyncio.run(send())


def named(*names_and_contents):
    return [("files", pair) for pair in names_and_contents]


def stored(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_files_are_stored_under_their_names_each_in_a_folder_of_its_own(tmp_path):
    paths = [
        Path(path) for path in post(Intake(tmp_path, 1), named(("r.hea", b"header"), ("../../r.dat", b"\0\1"))).json()
    ]
    assert [path.name for path in paths] == ["r.hea", "r.dat"]
    assert [path.read_bytes() for path in paths] == [b"header", b"\0\1"]
    assert len({path.parent for path in paths}) == 2
    assert all(path.parent.parent == tmp_path for path in paths)


def test_visitors_with_the_same_file_do_not_share_it(tmp_path):
    """Gradio names a folder by the content: of 60 visitors with one file, 32 found it deleted by another."""
    intake = Intake(tmp_path, 1)
    (first,), (second,) = (post(intake, named(("r.png", b"the same"))).json() for _ in range(2))
    Path(first).unlink()
    assert Path(second).read_bytes() == b"the same"


def test_the_request_is_bounded_and_not_each_file(tmp_path):
    """Twelve files of 19 MB in one request lay on the disk, each below the limit of 20."""
    intake = Intake(tmp_path, 0.5)
    assert post(intake, named(("a", b"x" * 499_000))).status_code == 200
    for path in stored(tmp_path):
        (path / "a").unlink()
        path.rmdir()
    refused = post(intake, named(*((f"{n}.dat", b"x" * 300_000) for n in range(2))))
    assert (refused.status_code, refused.text) == (413, "At most 0.5 MB are taken, of all files together")
    assert stored(tmp_path) == []


def test_a_request_without_its_length_is_bounded_while_it_arrives(tmp_path):
    sent = 0

    async def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(1000):
            sent += 10_000
            yield b"x" * 10_000

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert post(Intake(tmp_path, 0.1), content=endless(), headers=kind).status_code == 413
    assert sent < 300_000
    assert stored(tmp_path) == []


def test_files_that_wait_are_bounded_together(tmp_path):
    intake = Intake(tmp_path, 0.1, max_waiting=2)
    answers = [post(intake, named((f"{n}", b"x" * 90_000))) for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert intake.waiting_bytes() == 180_000
    intake.sweep(age_s=-1)
    assert post(intake, named(("a", b"x" * 90_000))).status_code == 200


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"files": [("files", (f"{n}", b"")) for n in range(33)]}, "form with at most 32 files"),
        ({"data": {"a": "b"}}, "no form|no file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "no form"),
        ({"content": b"--b--", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "holds no file"),
    ],
    ids=["too many", "no files", "no boundary", "empty"],
)
def test_other_requests_leave_nothing(tmp_path, request_, said):
    answer = post(Intake(tmp_path, 1), **request_)
    assert answer.status_code == 400
    assert re.search(said, answer.text)
    assert stored(tmp_path) == []


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    copied = 0

    def copy(source, target):
        nonlocal copied
        copied += 1
        target.write(b"some")
        if copied == 2:
            raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(intake_module.shutil, "copyfileobj", copy)
    answer = post(Intake(tmp_path, 1), named(("a", b"1"), ("b", b"2")))
    assert answer.status_code == 507
    assert "No space left on device" in answer.text
    assert str(tmp_path) not in answer.text
    assert stored(tmp_path) == []


def test_old_files_go_and_new_ones_stay(tmp_path):
    intake = Intake(tmp_path, 1)
    old, new = (Path(post(intake, named((name, b"x"))).json()[0]) for name in ("old", "new"))
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    os.utime(old, (time.time() - DAY, time.time() - DAY))
    intake.sweep(600)
    assert (old.exists(), new.exists()) == (False, True)
    for _ in range(3):  # a folder is as new as the last change in it
        for folder in (path for path in tmp_path.rglob("*") if path.is_dir() and path != new.parent):
            os.utime(folder, (time.time() - DAY, time.time() - DAY))
        intake.sweep(600)
    assert sorted(tmp_path.rglob("*")) == [new.parent, new]


def test_what_cannot_be_deleted_does_not_stop_the_rest(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x")
    unlink = Path.unlink

    def refuse(path, **options):
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    Intake(tmp_path, 1).sweep(age_s=-1)
    assert [path.name for path in stored(tmp_path)] == ["b"]


def test_deletion_goes_on_after_any_failure(tmp_path, monkeypatch, caplog):
    """Gradio's deletion ended for good at the first file that was a folder: 24,043 files stayed."""
    intake, turns, third = Intake(tmp_path, 1), 0, threading.Event()
    sweep = intake.sweep

    def turn(age_s):
        nonlocal turns
        turns += 1
        if turns == 1:
            raise RuntimeError("set changed size during iteration")
        sweep(age_s)
        if turns == 3:
            third.set()

    monkeypatch.setattr(intake, "sweep", turn)
    (tmp_path / "left").write_bytes(b"x")
    with caplog.at_level(logging.ERROR), intake.sweeping(every_s=0.01, age_s=-1):
        assert third.wait(20)
    assert stored(tmp_path) == []
    assert "tried again" in caplog.text
    turns_before = turns
    time.sleep(0.05)
    assert turns == turns_before, "the thread ends with the page"


def test_uploads_while_it_sweeps_are_whole(tmp_path):
    intake, failures = Intake(tmp_path, 1, max_waiting=10_000), []
    ended = threading.Event()

    def sweep():
        while not ended.is_set():
            try:
                intake.sweep(600)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    paths = [Path(post(intake, named(("r.dat", bytes([n])))).json()[0]) for n in range(50)]
    ended.set()
    thread.join()
    assert failures == []
    assert [path.read_bytes() for path in paths] == [bytes([n]) for n in range(50)]
