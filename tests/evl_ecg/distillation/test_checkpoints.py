"""Checkpoints are whole or absent, and a run goes on from the newest whole one."""

import errno
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_disk import small_disk

from hf_evl_ecg.distillation.checkpoints import CheckpointError, checkpoint_to_resume, newest_checkpoint
from hf_evl_ecg.files import FolderInUseError

SAVED = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}


def folders(path):
    return sorted(entry.name for entry in Path(path).iterdir())


@pytest.fixture
def finished(build, tmp_path):
    """A finished run of four steps with checkpoints 2 and 4."""
    trainer = build(max_steps=4, **SAVED)
    trainer.train()
    return trainer


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(run):
    """SIGKILL between the weights and the random state of a checkpoint."""
    options = {"save_steps": 1, "max_steps": 3}
    straight, _ = run("straight", 1, 4, **options)
    _, output = run("killed", 1, 4, killed_at=2, **options)
    assert {"checkpoint-1", "_incomplete"} <= set(folders(output))
    assert "checkpoint-2" not in folders(output)
    assert (output / "_incomplete" / "checkpoint-2" / "model.safetensors").is_file()
    again, output = run("killed", 1, 4, resume="last", **options)
    assert f"goes on from {output / 'checkpoint-1'}" in again["stderr"]
    assert again["metrics"]["eval_loss"] == pytest.approx(straight["metrics"]["eval_loss"], rel=1e-6)
    assert {"checkpoint-1", "checkpoint-2", "checkpoint-3"} <= set(folders(output))
    assert "_incomplete" not in folders(output)


@pytest.mark.parametrize("victim", ["save_criterion", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_checkpoint_gets_its_name_when_all_of_it_is_written(build, tmp_path, monkeypatch, victim):
    trainer = build(max_steps=4, **SAVED)
    owner = trainer if victim.startswith("_") else "hf_evl_ecg.distillation.trainer"
    place = (owner, victim) if owner is trainer else (f"{owner}.{victim}",)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(*place, killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert folders(tmp_path / "out") == ["_incomplete"]


def test_an_error_while_saving_leaves_nothing_that_fills_the_disk(build, tmp_path, monkeypatch):
    trainer = build(max_steps=4, **SAVED)
    save = trainer._save_rng_state

    def full(folder):
        if trainer.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder)

    monkeypatch.setattr(trainer, "_save_rng_state", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert folders(tmp_path / "out") == ["checkpoint-2"]


def test_a_full_disk_is_called_that_and_is_not_kept_full(build, tmp_path):
    """Writers have words of their own for it, such as ``unexpected pos 7822528 vs 7822416``."""
    build(max_steps=2, **SAVED).train()
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "checkpoint-2").iterdir())
    (tmp_path / "out").rename(tmp_path / "measured")
    with small_disk(tmp_path / "out", 2 + 3 * size // 2**20) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(int(shutil.disk_usage(disk).free - 1.5 * size)))  # leaves room for one and a half
        with pytest.raises(OSError, match=r"No space left on device after .* MB.*make room") as caught:
            build(max_steps=4, **SAVED).train()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename.endswith("checkpoint-4")
        assert [path.name for path in disk.iterdir() if path.is_dir()] == ["checkpoint-2"]
        ballast.unlink()
        build(max_steps=4, **SAVED).train("last")
        assert newest_checkpoint(disk) == str(disk / "checkpoint-4")


DAMAGES = {
    "trainer_state.json": lambda path: path.unlink(),
    "model.safetensors": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "distillation.safetensors": lambda path: path.write_bytes(b""),
    "optimizer.pt": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "rng_state.pth": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_named(finished, build, caplog, file):
    output = Path(finished.args.output_dir)
    assert newest_checkpoint(output) == str(output / "checkpoint-4")
    DAMAGES[file](output / "checkpoint-4" / file)
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(output) == str(output / "checkpoint-2")
    fault = "missing" if file == "trainer_state.json" else "damaged"
    assert f"checkpoint-4 is passed over: {file} is {fault}" in caplog.text
    with pytest.raises(CheckpointError, match=rf"checkpoint-4: {file} is {fault}"):
        build(max_steps=4, **SAVED).train(str(output / "checkpoint-4"))


def test_a_run_resumes_past_an_incomplete_checkpoint(finished, build, caplog):
    output = Path(finished.args.output_dir)
    (output / "checkpoint-4" / "trainer_state.json").unlink()
    resumed = build(max_steps=4, **SAVED)
    resumed.train("last")
    assert f"goes on from {output / 'checkpoint-2'}" in caplog.text
    for name, tensor in finished.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=1e-7)
    assert newest_checkpoint(output) == str(output / "checkpoint-4")


def test_newest_is_by_number_not_by_name(tmp_path):
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


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


@pytest.mark.parametrize("steps", [3, 4], ids=["within an epoch", "at the end of an epoch"])
def test_a_finished_run_has_nothing_left_to_train(build, caplog, steps):
    trainer = build(max_steps=steps, **SAVED)
    trainer.train()
    again = build(max_steps=steps, **SAVED)
    assert again.train("last").global_step == steps
    assert f"All {steps} steps were done before" in caplog.text
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    longer = build(max_steps=steps + 1, **SAVED)
    assert longer.train("last").global_step == steps + 1


def test_the_best_checkpoint_is_known_by_its_final_name(build, tmp_path, ecg_examples):
    trainer = build(
        max_steps=4, **SAVED, save_total_limit=1, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="eval_ce", greater_is_better=True, trainer_kwargs={"eval_dataset": ecg_examples[:2]},
    )  # fmt: skip
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path / "out"
    state = json.loads((best / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)


def test_no_pickled_arguments_lie_beside_weights(finished, tmp_path):
    finished.save_model(str(tmp_path / "student"))
    assert (tmp_path / "student" / "model.safetensors").is_file()
    assert list(tmp_path.rglob("training_args.bin")) == []


def test_a_second_training_in_one_folder_is_refused_until_the_first_has_ended(build, tmp_path):
    """Two in one folder end with mixed files, or one dies in the other's checkpoint; a killed one holds nothing."""
    code = f"from hf_evl_ecg.files import held_folder\nwith held_folder({str(tmp_path / 'out')!r}):\n    print('held', flush=True)\n    input()"
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
