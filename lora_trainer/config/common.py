"""The keys that every trainer's preset has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import SecretStr

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    FileName,
    NotNegative,
    PathText,
    Positive,
    Secret,
    Seed,
    Switch,
    Text,
)
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained, and where the results go."""

    trainer: Text = setting("lora", "Which trainer reads this preset. A preset without the key is for lora.")
    about: Text = setting(
        "", "What the preset is for, on which card, how long it takes, where its numbers come from.", may_change=True
    )
    schema_: Text = setting(
        "", "The JSON Schema from which an editor completes and checks the keys.", key="$schema", may_change=True
    )
    output_dir: PathText = setting(
        "",
        "The folder of the run: models, previews, checkpoint and logs are written there. It is made when missing.",
        required=True,
        example="output/my_run",
        may_change=True,
    )
    output_name: FileName = setting(
        "",
        "The name of the files that are written, without an ending.",
        required=True,
        example="my_lora",
        may_change=True,
    )
    seed: Seed = setting(0, "Every random choice follows from this number; 0 draws a new one for each run.")


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is recorded while the run goes on."""

    log_every: Positive = setting(10, "Steps between two lines of the log.", may_change=True)
    log_with: Annotated[Literal["tensorboard", "wandb", "swanlab", "all", "none"], AnyCase()] = setting(
        "tensorboard",
        "Where losses and rates are recorded; all means every tracker that is installed.",
        may_change=True,
        old_names={"use_wandb": {True: "wandb", False: "tensorboard"}},
    )
    logging_dir: PathText = setting(
        "", "The folder of the trackers' files; without it they go into a folder logs in output_dir.", may_change=True
    )
    wandb_api_key: Secret = setting(
        SecretStr(""),
        "The key of the wandb account; never logged, shown or saved. The variable WANDB_API_KEY is safer.",
        may_change=True,
    )
    wandb_run_name: Text = setting("", "The name of the run in the tracker; without it, output_name.", may_change=True)
    log_tracker_name: FileName = setting(
        "",
        "The project in wandb and swanlab, lora_trainer without it; in TensorBoard a folder around the run's.",
        may_change=True,
    )
    log_tracker_config: PathText = setting(
        "",
        "A TOML file of options for the trackers, in tables of their names: [wandb] with entity, tags, mode and so on.",
        may_change=True,
    )
    log_config: Switch = setting(
        False,
        "Record the preset in the tracker, without secrets and with the last part of each path.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the rolling checkpoint is written, from which the same command continues a run that was stopped."""

    checkpoint_every_n_epochs: Count = setting(1, "Epochs between two checkpoints; 0 is never.", may_change=True)
    checkpoint_every_n_minutes: NotNegative = setting(
        10.0, "Minutes between two checkpoints, besides those of the epochs; 0 is never.", may_change=True
    )
    checkpoint_every_n_steps: Count = setting(
        0, "Steps between two checkpoints, besides those above; 0 is never.", may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Number formats."""

    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], AnyCase()] = setting(
        "no", "The number format of the forward and backward pass; no is 32 bits."
    )


@dataclass(frozen=True, kw_only=True)
class CommonPreset(Run, Logging, Checkpoints, Precision):
    """The part of a preset that the engine reads."""
