"""Checkpoints that are whole or absent, which of them a run goes on from, and pushes without pickled arguments."""

from __future__ import annotations

import difflib
import fcntl
import logging
import os
import platform
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub import upload_folder
from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformerTrainer
from torch import nn
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints

from .files import full_disk_named, read_json

__all__ = [
    "STAGING_FOLDER",
    "AtomicCheckpointTrainer",
    "CheckpointError",
    "FolderInUseError",
    "checkpoint_to_resume",
    "held_folder",
    "newest_checkpoint",
]

logger = logging.getLogger(__name__)

STAGING_FOLDER = "_incomplete"
"""Where a checkpoint grows. The underscore keeps it out of pushes, and no search for checkpoints looks into it."""

TRAINING_STATE = ("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json", "global_step*")


class CheckpointError(ValueError):
    """A checkpoint that is incomplete or damaged, so that no run can go on from it."""


class FolderInUseError(ValueError):
    """A folder that another process trains in."""


@contextmanager
def held_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep a folder to this process while the block runs. The system frees it when the process ends, however it ends.

    Args:
        folder: Made if it is not there.

    Raises:
        FolderInUseError: Another process holds it; the text says which, and since when.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, held_folder(folder):
        ...     os.listdir(folder)
        ['.training.lock']
    """
    path = Path(folder, ".training.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        while True:
            file = opened.enter_context(path.open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise FolderInUseError(
                    f"output_dir={folder}: {holder} works there (give another folder, or wait for its end)"
                ) from None
            except OSError:  # a file system without locks
                yield
                return
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break  # else it was removed by its holder after it was opened here
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class AtomicCheckpointTrainer(SentenceTransformerTrainer):
    """Write each checkpoint aside and rename it when it is complete.

    A killed run then leaves whole checkpoints only. The folder ``_incomplete`` that it may leave in ``output_dir`` is removed at
    the next save; an error while saving, such as a full disk, removes it at once.

    ``training_args.bin``, a pickle, is never written: not beside the model, nor in a checkpoint, nor on the Hub.
    """

    _staging = False

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, from the checkpoint that :func:`checkpoint_to_resume` finds.

        Raises:
            CheckpointError: See there.
            FolderInUseError: Another training writes into ``output_dir``.
        """
        output_dir = str(self.args.output_dir)
        with held_folder(output_dir) if self.is_world_process_zero() else nullcontext():
            folder = checkpoint_to_resume(resume_from_checkpoint, output_dir)
            output = super().train(folder, *args, **kwargs)
        if folder and _steps_done(folder) == self.state.global_step:
            logger.warning("All %d steps were done before: nothing was left to train.", self.state.global_step)
        return output

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # The host asks after a step whether it was the last: a finished run that is resumed would take one more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, STAGING_FOLDER) if self._staging else run_dir

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        staging, name = run_dir / STAGING_FOLDER, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = True
        try:
            with full_disk_named(run_dir / name, staging):
                super()._save_checkpoint(model, trial)
        except Exception:  # a full disk: what was written would keep it full
            shutil.rmtree(staging, ignore_errors=True)
            raise
        finally:
            self._staging = False
        if self.state.best_model_checkpoint == str(staging / name):
            self.state.best_model_checkpoint = str(run_dir / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))
            _publish(staging, name)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / name))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the model in one process; the host class writes in each that calls this, and recent transformers call it in all."""
        if not self.args.should_save:
            return
        super()._save(output_dir, state_dict)
        Path(str(output_dir or self.args.output_dir), TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a complete checkpoint as ``hub_strategy`` says, and wait for it."""
        strategy = self.args.hub_strategy
        if self._staging or strategy == HubStrategy.END or not self.is_world_process_zero():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        target: dict[str, Any] = {
            "repo_id": self.hub_model_id,
            "folder_path": checkpoint_folder,
            "token": self.args.hub_token,
            "revision": self.args.hub_revision,
        }
        message = f"Training in progress, step {self.state.global_step}"
        upload_folder(**target, commit_message=message, ignore_patterns=list(TRAINING_STATE))
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = strategy == HubStrategy.CHECKPOINT
            path = "last-checkpoint" if last else Path(checkpoint_folder).name
            upload_folder(**target, commit_message=f"{message}, checkpoint", path_in_repo=path)


def _steps_done(folder: str | Path) -> int:
    """Steps after which a checkpoint was written; the host has no public word for where it went on from."""
    return TrainerState.load_from_json(str(Path(folder, TRAINER_STATE_NAME))).global_step


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint that a value of ``resume_from_checkpoint`` names.

    Args:
        wanted: A folder; ``"last"`` for the newest whole checkpoint, or a new start where there is none yet, so that one
            command serves a run from its start to its end; True, or that word, for the newest whole one, which must be there.
        output_dir: Where the run keeps its checkpoints.

    Returns:
        Its folder; None: start anew.

    Raises:
        CheckpointError: The folder is no whole checkpoint, or True was given and there is none.

    Example:
        >>> checkpoint_to_resume(None, "outputs/encoder") is None
        True
    """
    if not wanted or str(wanted).lower() in ("false", "none"):
        return None
    required = wanted is True or wanted.lower() == "true"
    if wanted is not True and wanted.lower() not in ("last", "true"):
        if fault := _fault(Path(wanted)):
            raise CheckpointError(f"resume_from_checkpoint={wanted}: {fault} (name another checkpoint, or last)")
        return wanted
    found = newest_checkpoint(output_dir)
    if found is not None:
        logger.warning("Training goes on from %s.", found)
    elif required:
        raise CheckpointError(
            f"output_dir={output_dir}: holds no whole checkpoint to resume from{_meant(output_dir)} (start anew)"
        )
    else:
        logger.warning("There is no whole checkpoint in %s%s: training starts anew.", output_dir, _meant(output_dir))
    return found


def _meant(output_dir: str | Path) -> str:
    """The folder beside one without checkpoints that holds some and whose name is almost the same, as a question."""
    folder = Path(output_dir)
    names = {path.parent.name for path in folder.parent.glob(f"*/{PREFIX_CHECKPOINT_DIR}-*")} - {folder.name}
    near = difflib.get_close_matches(folder.name, names, 1)
    return f" (did you mean {folder.with_name(near[0])}?)" if near else ""


def newest_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint of a run; newer ones that are incomplete are named in the log and passed over.

    Args:
        folder: The run's ``output_dir``; it need not exist.

    Returns:
        Folder of the checkpoint; None: there is none.

    Example:
        >>> newest_checkpoint("no/such/run") is None
        True
    """
    steps = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.rpartition("-")[2]
        if step.isdecimal() and path.is_dir():
            steps[int(step)] = path
    for _, path in sorted(steps.items(), reverse=True):
        if (fault := _fault(path)) is None:
            return str(path)
        logger.warning("%s is passed over: %s.", path, fault)
    return None


def _fault(checkpoint: Path) -> str | None:
    """Why no run can go on from a checkpoint; None: it is whole. Reads no tensors."""
    state = checkpoint / TRAINER_STATE_NAME  # what the host writes last
    try:
        read_json(state)
    except (OSError, ValueError) as error:
        return f"{state.name} is {'missing' if isinstance(error, FileNotFoundError) else 'damaged'}"
    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt"):
                    pass
            except (OSError, SafetensorError):
                return f"{path.name} is damaged"
        # The directory of a zip file stands at its end, so one that was cut off is none.
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
    return None


def _publish(staging: Path, name: str) -> None:
    """Move a complete checkpoint out of the staging folder, replacing one of the same name."""
    final = staging.parent / name
    if final.exists():
        os.replace(final, staging / "replaced")
    os.replace(staging / name, final)
    shutil.rmtree(staging)
