"""Writing what a run has made: the trainer's own files, checked before and told after."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from lora_trainer.engine.checkpoints import CheckpointFolder
from lora_trainer.engine.hub import NO_UPLOADS, Uploads
from lora_trainer.engine.phase import Trainer, settled
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.step import NonFiniteError
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

SAVE_ERRORS = (OSError, RuntimeError, SafetensorError)  # what a full disk gives, by writer


@dataclass(frozen=True)
class Exports:
    """The files of a run that others will load."""

    trainer: Trainer
    folder: RunFolder
    checkpoints: CheckpointFolder
    processes: Processes
    uploads: Uploads = NO_UPLOADS

    def write(self, name: str, done: int) -> Path | None:
        """Under this name, in the main process; all must call it. Raises Refusal in all when the disk is full, and
        NonFiniteError before anything is overwritten."""
        self.check_weights()
        path, problem = None, ""
        if self.processes.is_main:
            try:
                path = self._export(name, done)
                self.uploads.file(path)
            except SAVE_ERRORS as error:
                free = self.checkpoints.free_gib()
                problem = f"{self.folder.path}: cannot write {name} ({free:.2f} GiB are free): {error}"
        problem = self.processes.from_main(problem)
        if problem:
            raise Refusal(f"{problem}. Make room and give the same command again: it goes on from the last checkpoint")
        return path

    def rescue(self, name: str, done: int) -> None:
        """What can be saved of a run that ends in an error or by a signal, whose own message must not be lost."""
        if not self.processes.is_main:
            return
        try:
            self.check_weights()
            self._export(name, done)
        except Exception as error:
            log.warning("cannot write %s: %s", name, error)

    def check_weights(self) -> None:
        """An update can overflow by itself. Saving waits for the device anyway, so looking costs nothing."""
        for phase in self.trainer.phases:
            weights = list(phase.weights.values())
            if not bool(torch.nn.utils.get_total_norm(weights).isfinite()):
                raise NonFiniteError(
                    f"the weights of {phase.name} hold NaN or Inf: the training has diverged. Nothing was overwritten; "
                    "lower the learning rate and begin anew with --restart"
                )

    def _export(self, name: str, done: int) -> Path:
        with settled(self.trainer.phases):
            path = self.trainer.export(self.folder.path / name, done)
        log.info("saved %s", path)
        return path
