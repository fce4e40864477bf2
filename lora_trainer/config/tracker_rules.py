"""What the keys of the trackers mean together, for every trainer."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.findings import Finding, inert

OF_TRACKERS = ("logging_dir", "wandb_run_name", "log_tracker_name", "log_tracker_config", "log_config")


def trackers(preset: CommonPreset) -> Iterator[Finding]:
    if preset.log_with not in ("wandb", "all") and preset.wandb_api_key.get_secret_value():
        yield inert("log_with does not name wandb", "wandb_api_key")
    if preset.log_with == "none":
        for key in OF_TRACKERS:
            if getattr(preset, key):
                yield inert("log_with is none", key)
