"""The state folders of sd-scripts, as accelerate writes them. Of these the network's weights can be used here."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.errors import Refusal

WEIGHTS, PROGRESS = "model.safetensors", "train_state.json"
OTHER_PARTS = ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "pytorch_model.bin", PROGRESS)


def sd_scripts_weights(folder: Path) -> Path | None:
    """The file of the network's weights under kohya's names; None when the folder is no such state.

    Refusal when its weights are in a form that would have to be unpickled.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if any((folder / name).exists() for name in OTHER_PARTS):
        raise Refusal(
            f"resume: {folder}: a state of sd-scripts without {WEIGHTS}, so that there are no weights to be read; give "
            "the LoRA file of the same moment as network_weights"
        )
    return None
