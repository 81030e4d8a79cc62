"""Twenty visitors at once, for two minutes: each sees its own ECG, nothing is lost, nothing stays, memory does not grow."""

import itertools
import json
import threading
import time
import urllib.request

import httpx
import numpy as np
import psutil
import pytest
import wfdb
from served_page import PATIENCE_S, built_models, made_space, served

from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate

VISITORS = 20
SECONDS = 120
GROWTH_MB = 100  # of one process, from the first quarter to the end


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """One record per visitor, and one more that all have."""
    folder = tmp_path_factory.mktemp("records")
    names = {"sig_name": list(STANDARD_LEADS), "units": ["mV"] * 12, "fmt": ["16"] * 12}
    for number in range(VISITORS + 1):
        signal = simulate("PVC", seed=number, fs_hz=250.0).signal_mv.astype(np.float64)
        name = f"patient{number}" if number < VISITORS else "shared"
        wfdb.wrsamp(name, fs=250, p_signal=signal, write_dir=str(folder), **names)
    return folder


class Caller:
    """One visitor without a browser: the same requests."""

    def __init__(self, address: str, session: str, upload: int, ask: int) -> None:
        self.client = httpx.Client(base_url=address, timeout=PATIENCE_S, trust_env=False)
        self.session, self.upload, self.ask = session, upload, ask

    def call(self, index: int, data: list) -> list:
        """One event through the queue; the last of its outputs."""
        body = {"data": data, "fn_index": index, "session_hash": self.session}
        while self.client.post("gradio_api/queue/join", json=body).status_code == 503:  # the queue is full
            time.sleep(0.2)
        outputs: list = []
        with self.client.stream("GET", f"gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                if not line.startswith("data:"):
                    continue
                said = json.loads(line[5:])
                if said["msg"] in ("process_generating", "process_completed"):
                    assert said["success"], said
                    outputs.append(said["output"].get("data"))
                if said["msg"] == "process_completed":
                    return outputs
        raise AssertionError("the stream ended before the answer")

    def visit(self, records, name: str) -> str:
        """Upload a record, ask about it; everything that was said."""
        files = [("files", (f"{name}.{kind}", (records / f"{name}.{kind}").read_bytes())) for kind in ("hea", "dat")]
        answer = self.client.post("gradio_api/upload", files=files)
        assert answer.status_code == 200, answer.text
        given = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in answer.json()]
        shown = json.dumps(self.call(self.upload, [given, None, None]))
        assert f"{name} is ready" in shown, shown[-400:]
        return shown + json.dumps(self.call(self.ask, [None, "What is the rhythm of this ECG?"]))


@pytest.mark.slow
def test_twenty_visitors_for_two_minutes(records, tmp_path):
    pytest.importorskip("gradio")
    models, space = built_models(tmp_path / "models"), made_space(tmp_path)
    failures, visits = [], itertools.count()
    with served(space, models, tmp_path) as (process, address, folder):
        events = json.load(urllib.request.urlopen(f"{address}config"))["dependencies"]
        ends = next(event for event in events if event["targets"] and event["targets"][0][1] == "upload")
        upload = next(event["id"] for event in events if event["trigger_after"] == ends["id"])
        ask = next(event["id"] for event in events if any(target[1] == "submit" for target in event["targets"]))
        until, memory = time.monotonic() + SECONDS, []

        def run(number: int) -> None:
            caller = Caller(address, f"visitor{number}", upload, ask)
            for turn in itertools.count():
                if time.monotonic() > until:
                    return
                name = "shared" if turn % 2 else f"patient{number}"
                try:
                    said = caller.visit(records, name)
                    others = {f"patient{other}:" for other in range(VISITORS) if other != number}
                    assert f"Answered about {name}." in said, said[-400:]
                    assert not [other for other in others if other in said], "somebody else's ECG"
                    next(visits)
                except Exception as error:
                    failures.append(f"visitor {number}, {name}: {error!r}")

        threads = [threading.Thread(target=run, args=(number,)) for number in range(VISITORS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            time.sleep(1.0)
        assert failures == []
        assert next(visits) >= VISITORS, "each came at least once"
        assert not [path for path in folder.rglob("*") if path.is_file()]
    print(*(f"{value:.0f}" for value in memory[::5]))
    grown = memory[-1] - max(memory[: len(memory) // 4])
    print(f"{next(visits) - 1} visits in {SECONDS} s, memory {memory[-1]:.0f} MB, grown by {grown:.0f} MB")
    assert grown < GROWTH_MB
