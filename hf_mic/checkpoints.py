"""Checkpoints that are whole or absent, and pushes without pickled arguments."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import upload_folder
from sentence_transformers import SentenceTransformerTrainer
from torch import nn
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints

__all__ = ["STAGING_FOLDER", "AtomicCheckpointTrainer"]

STAGING_FOLDER = "_incomplete"
"""Where a checkpoint grows. The underscore keeps it out of pushes, and no search for checkpoints looks into it."""

TRAINING_STATE = ("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json", "global_step*")


class AtomicCheckpointTrainer(SentenceTransformerTrainer):
    """Write each checkpoint aside and rename it when it is complete.

    A killed run then leaves whole checkpoints only; ``resume_from_checkpoint=True`` takes the last of them. The folder
    ``_incomplete`` that it may leave in ``output_dir`` is removed at the next save.

    ``training_args.bin``, a pickle, is never written: not beside the model, nor in a checkpoint, nor on the Hub.
    """

    _staging = False

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
            super()._save_checkpoint(model, trial)
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


def _publish(staging: Path, name: str) -> None:
    """Move a complete checkpoint out of the staging folder, replacing one of the same name."""
    final = staging.parent / name
    if final.exists():
        os.replace(final, staging / "replaced")
    os.replace(staging / name, final)
    shutil.rmtree(staging)
