"""The metric as a folder: `evaluate.load` runs it without this package and without a network."""

import json
import os
import subprocess
import sys

from hf_evl_ecg.hub.metric_space import _write_metric
from hf_evl_ecg.qa.evaluate_metric import ECGAnswerMetric

SCRIPT = """
import json, socket, sys

def refuse(*_):
    raise OSError("no network in this test")

socket.socket.connect = socket.create_connection = refuse
sys.modules["hf_mic"] = sys.modules["hf_evl_ecg"] = None
import evaluate

given = json.load(sys.stdin)
print(json.dumps(evaluate.load(sys.argv[1]).compute(predictions=given["texts"], references=given["items"])))
"""


def test_the_published_folder_loads_by_its_path_offline(tmp_path):
    folder = tmp_path / "ecg_answers"
    folder.mkdir()
    _write_metric(folder, "ann/ecg_answers", "ecg_answers")
    about = {"question": "Is there AF?", "format": "closed", "task": "rhythm", "labels": ["AF"]}
    about |= dict.fromkeys(("options", "value", "tolerance", "unit"))
    items = [{**about, "record": f"r{n}", "answer": answer} for n, answer in enumerate(("yes", "no", "no", "yes"))]
    texts = ["Yes.", "There is no AF.", "yes", "perhaps"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(folder)],
        input=json.dumps({"items": items, "texts": texts}),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | offline,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rhythm_closed_accuracy"] == 0.5
    assert found["rhythm_closed_unparsed"] == 0.25
    assert found == ECGAnswerMetric().compute(predictions=texts, references=items)
