"""A trainer at tiny size, in this process or in others."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.trainer import EVLECGTrainer

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

    def launch(name: str, processes: int, batch_size: int, resume: str | None = None, killed_at: int = 0, **changed):
        output = folder / name
        output.mkdir(exist_ok=True)
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
            "killed_at": killed_at,
        }
        (output / "job.json").write_text(json.dumps(job))
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [str(WORKER), str(output / "job.json")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000)
        assert done.returncode == (-signal.SIGKILL if killed_at else 0), done.stderr[-4000:]
        report = {} if killed_at else json.loads((output / "report.json").read_text())
        return {**report, "stderr": done.stderr}, output

    return launch


@pytest.fixture
def build(tiny_vlm, tmp_path, ecg_examples):
    """A trainer of Idefics3 under LlavaNext on four examples; keyword arguments go to EVLECGConfig."""

    def make(*, student=None, teacher="llava_next", examples=None, trainer_kwargs=None, **options):
        small = tiny_vlm("idefics3")
        defaults = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "max_steps": 2,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "mhca_num_heads": 4,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        if isinstance(teacher, str):
            teacher = tiny_vlm(teacher).load()
        arguments = {
            "processing_class": small.processor,
            "teacher_processing_class": tiny_vlm("llava_next").processor,
            "train_dataset": examples or ecg_examples[:4],
            **(trainer_kwargs or {}),
        }
        return EVLECGTrainer(
            student or small.load(), EVLECGConfig(**{**defaults, **options}), teacher=teacher, **arguments
        )

    return make
