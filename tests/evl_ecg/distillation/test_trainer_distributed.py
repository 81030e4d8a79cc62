"""Two processes train as one does: same losses, same weights, also when one of them leaves an example out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("train_worker.py")


@pytest.fixture(scope="module")
def run(tiny_vlm, ecg_examples, tmp_path_factory):
    """Run the worker with some processes and per-device batch size; returns its report and output folder."""
    folder = tmp_path_factory.mktemp("distributed")
    for example in ecg_examples:
        example["image"].save(folder / f"{example['id']}.png")
    examples = [{**e, "image": f"{e['id']}.png"} for e in ecg_examples]
    broken = {**examples[3], "id": "broken", "image": "no.png"}
    options = {
        "max_steps": 3, "learning_rate": 5e-3, "lr_scheduler_type": "constant", "logging_steps": 1,
        "report_to": "none", "save_strategy": "steps", "save_steps": 2, "mhca_num_heads": 4, "disable_tqdm": True,
        "use_cpu": True, "train_sampling_strategy": "sequential", "preflight_examples": 3, "lambda_uld": 1.0,
        "mhca_mode": "anchored", "per_device_eval_batch_size": 2,
    }  # fmt: skip

    def launch(name: str, processes: int, batch_size: int, resume: str | None = None, **changed):
        output = folder / name
        output.mkdir()
        job = {
            "student": tiny_vlm(changed.pop("student", "idefics3")).path,
            "teacher": tiny_vlm(changed.pop("teacher", "llava_next")).path,
            "stream": changed.pop("stream", False),
            "images": str(folder),
            "examples": [*examples[:3], broken, examples[4], examples[5], examples[0], examples[1]],
            "eval_examples": examples[:5],
            "output": str(output),
            "options": {**options, "per_device_train_batch_size": batch_size, **changed},
            "resume": resume,
        }
        (output / "job.json").write_text(json.dumps(job))
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [str(WORKER), str(output / "job.json")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads((output / "report.json").read_text()), output

    return launch


@pytest.fixture(scope="module")
def two(run):
    return run("two", processes=2, batch_size=2)


@pytest.fixture(scope="module")
def one(run):
    return run("one", processes=1, batch_size=4)


def logged(report):
    return [entry for entry in report["history"] if "loss" in entry]


def assert_equal_files(first: Path, second: Path, **tolerance):
    a, b = load_file(first), load_file(second)
    assert sorted(a) == sorted(b)
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


def test_two_processes_are_one(one, two):
    assert (one[0]["processes"], two[0]["processes"]) == (1, 2)
    assert len(logged(one[0])) == 3
    for name in ("loss", "ce", "mhca", "anchor_ce", "ot", "relation", "uld", "variance_ratio"):
        alone = [entry[name] for entry in logged(one[0])]
        tolerance = 0.03 if name == "variance_ratio" else 2e-4  # a ratio of means over the local batch
        assert [entry[name] for entry in logged(two[0])] == pytest.approx(alone, rel=tolerance), name
    for name in ("final.safetensors", "criterion.safetensors"):
        assert_equal_files(one[1] / name, two[1] / name, rtol=1e-3, atol=2e-4)


def test_aligner_and_projector_stay_equal_on_all_processes(two):
    first, second = two[0]["sums"]
    assert first == second
    assert len(first) == 5


def test_left_out_examples_are_counted_over_processes(one, two):
    assert one[0]["skipped"] == [2]
    assert sorted(two[0]["skipped"]) == [0, 2]
    for report in (one[0], two[0]):
        assert any(entry.get("skipped_examples") == 2 for entry in report["history"])


def test_evaluation_is_the_same(one, two):
    for name in ("eval_ce", "eval_mhca", "eval_loss"):
        assert two[0]["metrics"][name] == pytest.approx(one[0]["metrics"][name], rel=0.05), "the last batch is padded"


def test_interrupted_is_uninterrupted_on_two_processes(run, two):
    report, output = run("resumed", processes=2, batch_size=2, resume=str(two[1] / "checkpoint-2"))
    assert logged(report)[-1]["loss"] == pytest.approx(logged(two[0])[-1]["loss"], rel=1e-6)
    for name in ("final.safetensors", "criterion.safetensors"):
        assert_equal_files(two[1] / name, output / name, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_weights_that_the_loss_does_not_need(run, alpha):
    """The last layer of LLaVA-NeXT's tower and, without cross-entropy, an untied head; with gradient checkpointing."""
    options = {"student": "llava_next", "teacher": "idefics3", "gradient_checkpointing": True, "mhca_mode": "paper"}
    options |= {"alpha": alpha, "lambda_uld": 0.0, "save_strategy": "no", "max_steps": 2}
    alone, _ = run(f"untied_one_{alpha}", processes=1, batch_size=4, **options)
    both, _ = run(f"untied_two_{alpha}", processes=2, batch_size=2, **options)
    expected = [entry["loss"] for entry in logged(alone)]
    assert [entry["loss"] for entry in logged(both)] == pytest.approx(expected, rel=2e-4)
    assert all(("ce" in entry) == (alpha < 1) for entry in logged(both))


def test_a_stream_of_examples(run):
    """Each process draws its own share of a stream, with texts and batches of different sizes beside the tensors."""
    options = {"stream": True, "max_steps": 2, "save_strategy": "no"}
    alone, _ = run("stream_one", processes=1, batch_size=4, **options)
    both, _ = run("stream_two", processes=2, batch_size=2, **options)
    expected = [entry["loss"] for entry in logged(alone)]
    assert [entry["loss"] for entry in logged(both)] == pytest.approx(expected, rel=2e-4)
