"""One process of a distributed run: train as a json file says, and write down what came of it."""

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.utils.data import IterableDataset
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from two_processes import leave

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.drawing.image_file import ImageFile


class Stream(IterableDataset):
    """Examples of unknown number."""

    def __init__(self, examples: list) -> None:
        self.examples = examples

    def __iter__(self):
        return iter(self.examples)


def kill_while_saving(trainer: EVLECGTrainer, step: int) -> None:
    """Let the process be killed when the weights of this step's checkpoint are written and its random state is not."""
    save = trainer._save_rng_state

    def killed(folder: str) -> None:
        if trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(folder)

    trainer._save_rng_state = killed


def main(path: str) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(900, exit=True)
    torch.set_num_threads(1)
    job = json.loads(Path(path).read_text())
    trainer = EVLECGTrainer(
        AutoModelForImageTextToText.from_pretrained(job["student"]),
        EVLECGConfig(output_dir=job["output"], **job["options"]),
        teacher=AutoModelForImageTextToText.from_pretrained(job["teacher"]),
        processing_class=AutoProcessor.from_pretrained(job["student"]),
        teacher_processing_class=AutoProcessor.from_pretrained(job["teacher"]),
        load_image=ImageFile(job["images"]),
        train_dataset=Stream(job["examples"]) if job["stream"] else job["examples"],
        eval_dataset=job["eval_examples"],
    )
    if job["killed_at"]:
        kill_while_saving(trainer, job["killed_at"])
    trainer.train(resume_from_checkpoint=job.get("resume"))
    metrics = trainer.evaluate()
    criterion = {name: tensor.detach().clone() for name, tensor in trainer.criterion.state_dict().items()}
    sums = gather_object([{name: tensor.double().sum().item() for name, tensor in criterion.items()}])
    skipped = gather_object([len(trainer.skipped)])
    if trainer.is_world_process_zero():
        out = Path(job["output"])
        save_file({name: p.detach().clone() for name, p in trainer.model.named_parameters()}, out / "final.safetensors")
        save_file(criterion, out / "criterion.safetensors")
        report = {"history": trainer.state.log_history, "metrics": metrics, "sums": sums, "skipped": skipped}
        report["processes"] = int(os.environ.get("WORLD_SIZE", "1"))
        (out / "report.json").write_text(json.dumps(report))
    if trainer.accelerator.num_processes > 1:
        leave()


if __name__ == "__main__":
    main(sys.argv[1])
