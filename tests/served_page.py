"""examples/evl_ecg/app.py served by its own command, as on a Space, for tests that visit it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "evl_ecg"
PATIENCE_S = 300  # a busy machine, not the page


def built_models(folder: Path) -> Path:
    """Exported folders of a teacher and a student of two architectures, with random weights: the answers mean nothing."""
    sys.path.insert(0, str(FOLDER))
    try:
        import small_models

        texts = list(small_models.training_texts([]))
        for kind in ("teacher", "student"):
            model, processor = getattr(small_models, f"build_{kind}")(texts, small_models.Sizes(16, 1, 24, 1))
            model.save_pretrained(folder / kind)
            processor.save_pretrained(folder / kind)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("small_models", None)
    return folder


def made_space(folder: Path) -> Path:
    """The folder that docs/app.md tells to upload as a Space, made by its own commands."""
    for name in ("examples", "hf_evl_ecg"):
        (folder / name).symlink_to(ROOT / name)
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "app.md").read_text(encoding="utf-8"), re.S)
    subprocess.run(
        ["bash", "-e"], input=next(block for block in blocks if "mkdir" in block), cwd=folder, text=True, check=True
    )
    return folder / "outputs" / "space"


def serve(space: Path, models: Path, folder: Path) -> tuple[subprocess.Popen, str]:
    """Start the app of a Space, models and port given by the environment as there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--max_upload_mb", "1", "--max_new_tokens", "24", "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}
    environment |= {"EVL_ECG_MODEL": str(models / "student"), "EVL_ECG_TEACHER": str(models / "teacher")}
    environment |= {"GRADIO_SERVER_PORT": str(port)}
    with open(folder.parent / "app.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=space)
    return process, f"http://127.0.0.1:{port}/"


@contextmanager
def served(space: Path, models: Path, tmp_path: Path):
    """The app in a process of its own: its address and the folder it keeps temporary files in."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    process, address = serve(space, models, folder)
    try:
        until(lambda: process.poll() is not None or answers(address), "the app starts")
        if process.poll() is not None:
            pytest.fail((tmp_path / "app.log").read_text())
        yield process, address, folder
    finally:
        process.kill()
        process.wait()


def until(condition, what: str):
    """Wait for a condition; elements that are just being replaced count as not there yet."""
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except StaleElementReferenceException:
            pass
        time.sleep(0.1)
    pytest.fail(f"not within {PATIENCE_S} s: {what}")


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=10).status == 200
    except (urllib.error.URLError, OSError):
        return False


def status_code(address: str, body: dict | None = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
