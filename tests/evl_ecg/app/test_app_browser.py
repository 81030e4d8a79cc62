"""examples/evl_ecg/app.py as a visitor of a Space meets it: served by its own command, used in headless Chromium, offline."""

import importlib.util
import json
import shutil
import signal
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import wfdb
from PIL import Image
from served_page import PATIENCE_S, built_models, made_space, served, status_code, until

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CHROMIUM_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1400",
]
# Small models answer faster than a test can look, so the page itself clicks as soon as it shows that it is at work.
CLICK_WHILE_BUSY = """
const selector = arguments[0];
const observer = new MutationObserver(() => {
    if (document.querySelector("#status .busy")) {
        observer.disconnect();
        document.querySelector(selector).click();
        window.clickedWhileBusy = true;
    }
});
observer.observe(document.body, {childList: true, subtree: true, characterData: true, attributes: true});
"""
EVIL = "Is <b id=evil>this</b> {{value}} ${1+1}?"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return built_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return made_space(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What visitors upload: a record, a damaged one, a picture, and a file that is too large."""
    folder = tmp_path_factory.mktemp("files")
    names = {"sig_name": list(STANDARD_LEADS), "units": ["mV"] * 12, "fmt": ["16"] * 12}
    ecg = simulate("PVC", seed=2, fs_hz=250.0)
    for record in ("patient1", "damaged"):
        wfdb.wrsamp(record, fs=250, p_signal=ecg.signal_mv.astype(np.float64), write_dir=str(folder), **names)
    (folder / "damaged.dat").write_bytes((folder / "damaged.dat").read_bytes()[:1000])
    render(ecg, RenderConfig(width_px=660, height_px=510)).save(folder / "scan.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)).save(folder / "large.png")
    return folder


@contextmanager
def browsing(profile: Path):
    """A browser with an empty profile that logs what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


class Visitor:
    """What a person does with the page, in a browser."""

    def __init__(self, browser, address: str):
        self.browser = browser
        browser.get(address)
        self.find("#ask")

    def find(self, selector: str, text: str = ""):
        """The first element that matches and shows the text, when it is there."""

        def look():
            found = self.browser.find_elements("css selector", selector)
            return next((element for element in found if text in element.text), None)

        return until(look, f"{selector} with {text!r}; the page says {self.text('#status')!r}")

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.browser.find_elements("css selector", selector))

    def click(self, selector: str, text: str = "") -> None:
        element = self.find(selector, text)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def give(self, *paths: Path) -> None:
        self.click("button[role=tab]", "Upload")
        found = until(
            lambda: self.browser.find_elements("css selector", "#files input[type=file]"), "a place for files"
        )
        found[0].send_keys("\n".join(map(str, paths)))

    def write(self, question: str) -> None:
        area = self.find("#question textarea")
        area.clear()
        area.send_keys(question)

    def ask(self, record: str, question: str) -> list[str]:
        """Ask, and return what the student and the teacher answered to just this."""
        self.click("#ask")
        self.find("#status", f"Answered about {record}.")
        cards = [self.find(f"#card-{role} .done") for role in ("student", "teacher")]
        assert all(f"{record}: {question}" in card.text for card in cards)
        return [card.find_element("css selector", ".answer").text for card in cards]

    def picture(self) -> list[int]:
        """Size of the ECG's picture as the browser decoded it."""
        return self.browser.execute_script(
            "const i = document.querySelector('#figure img'); return [i.naturalWidth, i.naturalHeight]"
        )

    def screenshot(self, path: Path) -> None:
        height = self.browser.execute_script("return document.documentElement.scrollHeight")
        self.browser.set_window_size(1500, max(900, int(height) + 100))
        self.browser.save_screenshot(str(path))

    def complaints(self) -> list[str]:
        """Errors in the browser's console since the last look."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def elsewhere(self) -> list[str]:
        """Addresses that the page asked for beside its own server."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        pages = [p["request"]["url"] for p in asked if not p.get("documentURL", "").startswith("chrome")]
        own = self.browser.execute_script("return location.origin")
        return [url for url in pages if not url.startswith((own, "data:", "blob:", "chrome:"))]


@pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver (Debian: chromium, chromium-driver)"
)
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed (extra: app)")
def test_page_in_chromium(space, models, files, tmp_path):
    with served(space, models, tmp_path) as (process, address, folder), browsing(tmp_path / "profile") as browser:
        visitor = Visitor(browser, address)
        assert "not a diagnostic device" in visitor.text(".disclaimer")
        assert browser.execute_script("return window.gradio_config.analytics_enabled") is False
        ask_without_an_ecg(visitor)
        simulate_and_ask(visitor, tmp_path / "simulated.png")
        change_the_ecg_while_it_is_asked_about(visitor)
        upload_a_record_and_ask(visitor, files, folder)
        upload_bad_files_and_go_on(visitor, files)
        upload_a_picture_and_ask(visitor, files, tmp_path / "picture.png")
        assert visitor.elsewhere() == []
        assert visitor.complaints() == []
        assert "Traceback" not in (tmp_path / "app.log").read_text()
        files_outside_stay_closed(address, files, space)
        uploaded = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
        assert uploaded == []
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        assert not list(folder.glob("evl_ecg_app_*"))


def ask_without_an_ecg(visitor):
    visitor.click("#ask")
    visitor.find("#status [role=alert]", "There is no ECG yet")


def simulate_and_ask(visitor, screenshot):
    visitor.click("button[role=tab]", "Simulate")
    visitor.click("#simulate")
    visitor.find("#figure .badge", "simulated, not a patient")
    assert visitor.picture() == [1600, 900]
    student, teacher = visitor.ask("simulated-NORM-0", "Write a report on this ECG.")
    assert student
    assert student != teacher
    labels = visitor.find("#scores tbody", "atrial fibrillation")
    assert len(labels.find_elements("css selector", "tr")) == 9
    assert "Student" in visitor.text("#scores thead")
    assert "Teacher" in visitor.text("#scores thead")
    visitor.screenshot(screenshot)
    colours = np.unique(np.asarray(Image.open(screenshot).convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 1000  # a page with an ECG on it


def change_the_ecg_while_it_is_asked_about(visitor):
    field = visitor.find("#seed input")
    field.clear()
    field.send_keys("7")
    visitor.browser.execute_script(CLICK_WHILE_BUSY, "#simulate")
    visitor.click("#ask")
    until(lambda: visitor.browser.execute_script("return window.clickedWhileBusy === true"), "the page was seen busy")
    visitor.find("#status", "simulated-NORM-7 is ready")
    time.sleep(1)  # for what might still arrive
    assert [visitor.text(f"#card-{role} .waiting") for role in ("student", "teacher")] == ["No answer yet."] * 2
    assert visitor.text("#scores") == ""


def upload_a_record_and_ask(visitor, files, folder):
    visitor.give(files / "patient1.hea", files / "patient1.dat")
    visitor.find("#figure figcaption", "patient1")
    assert "10 s at 250 Hz" in visitor.text("#figure figcaption")
    assert "simulated" not in visitor.text("#figure")
    assert "No answer yet" in visitor.text("#card-student")
    assert not [path for path in folder.rglob("patient1*") if path.is_file()]
    visitor.click(".gallery-item", "What is the rhythm of this ECG?")
    question = visitor.find("#question textarea")
    until(lambda: question.get_attribute("value") == "What is the rhythm of this ECG?", "the preset is taken over")
    visitor.ask("patient1", "What is the rhythm of this ECG?")
    visitor.write(EVIL)
    visitor.ask("patient1", EVIL)
    assert not visitor.browser.find_elements("css selector", "#evil")


def upload_bad_files_and_go_on(visitor, files):
    for given, reason in [
        (["damaged.hea", "damaged.dat"], "damaged.dat has 1000 bytes, too few for 2500 frames"),
        (["patient1.hea"], "patient1.hea came without its signal file"),
    ]:
        visitor.give(*(files / name for name in given))
        visitor.find("#status [role=alert]", reason)
        assert "patient1" in visitor.text("#figure figcaption")
    assert visitor.complaints() == []
    visitor.give(files / "large.png")
    visitor.find("[data-testid=toast-body]", "File")
    visitor.write("Is there an error?")
    visitor.ask("patient1", "Is there an error?")
    complaints = visitor.complaints()
    others = [complaint for complaint in complaints if "upload" not in complaint]  # than the refused request
    assert others == []
    assert "Traceback" not in visitor.browser.page_source


def upload_a_picture_and_ask(visitor, files, screenshot):
    visitor.browser.refresh()
    visitor.find("#ask")
    visitor.give(files / "scan.png")
    visitor.find("#figure figcaption", "scan.png")
    assert visitor.picture() == [660, 510]
    visitor.ask("scan.png", "Write a report on this ECG.")
    visitor.screenshot(screenshot)


def files_outside_stay_closed(address, files, space):
    """Not by their path, and not by a made-up upload."""
    for path in (files / "patient1.hea", Path("/etc/hostname"), space / "app.py"):
        assert status_code(f"{address}gradio_api/file={path}") in (403, 404)
    config = json.load(urllib.request.urlopen(f"{address}config"))
    events = config["dependencies"]
    ends = next(event for event in events if event["targets"][0][1] == "upload")
    upload = next(event for event in events if event["trigger_after"] == ends["id"])
    made_up = [
        {"path": str(files / name), "meta": {"_type": "gradio.FileData"}} for name in ("patient1.hea", "patient1.dat")
    ]
    body = {"data": [made_up, None, None], "fn_index": upload["id"], "session_hash": "outsider"}
    joined = json.load(
        urllib.request.urlopen(
            urllib.request.Request(
                f"{address}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
        )
    )
    assert joined["event_id"]
    stream = urllib.request.urlopen(f"{address}gradio_api/queue/data?session_hash=outsider", timeout=PATIENCE_S)
    done = next(
        message
        for line in stream
        if line.startswith(b"data:") and (message := json.loads(line[5:]))["msg"] == "process_completed"
    )
    assert done["success"] is False
    assert "10 s at 250 Hz" not in json.dumps(done)
    assert (files / "patient1.hea").exists()
