"""Which checkpoint a run goes on from, and that a finished run is left as it is."""

import errno
import logging
import re
import shutil
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from small_disk import small_disk

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.checkpoints import CheckpointError, FolderInUseError, checkpoint_to_resume, newest_checkpoint


@pytest.fixture
def build(make_model, make_sentences, tmp_path):
    """A trainer of 24 pairs in batches of 4, six steps an epoch, with a checkpoint every second step."""
    pairs = Dataset.from_dict({"anchor": make_sentences(24, 0), "positive": make_sentences(24, 1)})

    def make(max_steps):
        arguments = MICTrainingArguments(
            str(tmp_path / "out"), max_steps=max_steps, per_device_train_batch_size=4, save_strategy="steps", save_steps=2,
            learning_rate=1e-3, report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        return MICTrainer(model=make_model(), args=arguments, train_dataset=pairs)

    return make


@pytest.fixture
def finished(build):
    trainer = build(4)
    trainer.train()
    return trainer


DAMAGES = {
    "trainer_state.json": lambda path: path.unlink(),
    "model.safetensors": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "optimizer.pt": lambda path: path.write_bytes(path.read_bytes()[:-100]),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_run_resumes_past_a_checkpoint_that_is_not_whole(finished, build, tmp_path, caplog, file):
    output = tmp_path / "out"
    assert newest_checkpoint(output) == str(output / "checkpoint-4")
    DAMAGES[file](output / "checkpoint-4" / file)
    resumed = build(4)
    with caplog.at_level(logging.WARNING):
        resumed.train("last")
    fault = "missing" if file == "trainer_state.json" else "damaged"
    assert f"checkpoint-4 is passed over: {file} is {fault}" in caplog.text
    assert f"goes on from {output / 'checkpoint-2'}" in caplog.text
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    assert newest_checkpoint(output) == str(output / "checkpoint-4")


@pytest.mark.parametrize("steps", [4, 6], ids=["within an epoch", "at the end of an epoch"])
def test_a_finished_run_has_nothing_left_to_train(build, caplog, steps):
    trainer = build(steps)
    trainer.train()
    again = build(steps)
    assert again.train("last").global_step == steps
    assert f"All {steps} steps were done before" in caplog.text
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert build(steps + 1).train(True).global_step == steps + 1


def test_what_a_run_goes_on_from(tmp_path, caplog):
    for nothing in (None, False, "", "none", "False"):
        assert checkpoint_to_resume(nothing, tmp_path) is None
    assert not caplog.records
    assert checkpoint_to_resume("last", tmp_path / "new") is None
    assert "training starts anew" in caplog.text
    for required in (True, "True", "true"):  # as text from a command line
        with pytest.raises(CheckpointError, match="no whole checkpoint"):
            checkpoint_to_resume(required, tmp_path)
    with pytest.raises(CheckpointError, match=r"trainer_state\.json is missing"):
        checkpoint_to_resume(str(tmp_path / "mistyped"), tmp_path)


def test_a_mistyped_folder_is_named(tmp_path, caplog):
    checkpoint = tmp_path / "student_nq" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    meant = f"did you mean {tmp_path / 'student_nq'}?"
    assert checkpoint_to_resume("last", tmp_path / "student_qn") is None
    assert f"There is no whole checkpoint in {tmp_path / 'student_qn'} ({meant}): training starts anew." in caplog.text
    with pytest.raises(CheckpointError, match=re.escape(meant)):
        checkpoint_to_resume(True, tmp_path / "student_qn")
    assert checkpoint_to_resume("last", tmp_path / "teacher") is None
    assert f"There is no whole checkpoint in {tmp_path / 'teacher'}: training starts anew." in caplog.text
    assert checkpoint_to_resume("true", tmp_path / "student_nq") == str(checkpoint)


def test_an_error_while_saving_leaves_nothing_that_fills_the_disk(build, tmp_path, monkeypatch):
    trainer = build(4)
    save = trainer._save_rng_state

    def full(folder):
        if trainer.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder)

    monkeypatch.setattr(trainer, "_save_rng_state", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-2"]


def test_a_full_disk_is_called_that_and_is_not_kept_full(build, tmp_path):
    """Writers have words of their own for it, such as ``unexpected pos 7822528 vs 7822416``."""
    build(2).train()
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "checkpoint-2").iterdir())
    (tmp_path / "out").rename(tmp_path / "measured")
    with small_disk(tmp_path / "out", 2 + 3 * size // 2**20) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(int(shutil.disk_usage(disk).free - 1.5 * size)))  # leaves room for one and a half
        with pytest.raises(OSError, match=r"No space left on device after .* MB.*make room") as caught:
            build(4).train()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename.endswith("checkpoint-4")
        assert [path.name for path in disk.iterdir() if path.is_dir()] == ["checkpoint-2"]
        assert newest_checkpoint(disk) == str(disk / "checkpoint-2")
        ballast.unlink()
        build(4).train("last")
        assert newest_checkpoint(disk) == str(disk / "checkpoint-4")


def test_a_second_training_in_one_folder_is_refused_until_the_first_has_ended(build, tmp_path):
    """Two in one folder end with mixed files, or one dies in the other's checkpoint; a killed one holds nothing."""
    code = f"from hf_mic.checkpoints import held_folder\nwith held_folder({str(tmp_path / 'out')!r}):\n    print('held', flush=True)\n    input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        second = build(max_steps=1)
        with pytest.raises(FolderInUseError, match=rf"output_dir=.*out: process {first.pid} on .* works there"):
            second.train()
        assert second.state.global_step == 0
        first.kill()
    second.train()
    assert second.state.global_step == 1
    assert not (tmp_path / "out" / ".training.lock").exists()


def test_a_state_that_no_parser_takes_is_damaged(tmp_path):
    """Nested too deep for a recursive parser: not a ValueError to it, and no reason to end."""
    for step, state in ((1, "{}"), (2, "[" * 3000)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
