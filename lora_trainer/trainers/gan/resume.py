"""A GAN's training that had ended goes on where its preset asks for more kimg."""

from __future__ import annotations

from lora_trainer.config.gan import GanPreset
from lora_trainer.engine.checkpoints import read_state
from lora_trainer.engine.kept_files import STATE_ENDING
from lora_trainer.engine.resume import NOTHING_RESUMED, Resumed
from lora_trainer.engine.run_folder import RunFolder


def find_end(preset: GanPreset, folder: RunFolder, restart: bool) -> Resumed:
    """The state that the run left at its end, unless it has been begun anew since, or is long enough."""
    status = folder.status()
    state = None if restart or status is None else read_state(folder.file(STATE_ENDING))
    if state is None or status is None or state.step >= preset.total_steps:
        return NOTHING_RESUMED
    if status.get("state") != "finished" and int(status.get("step", 0)) < state.step:
        return NOTHING_RESUMED
    return Resumed(f"the end of the run at step {state.step}", state)
