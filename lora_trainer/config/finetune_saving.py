"""The keys of a finetune preset about the models it writes, previews, and measuring on pictures that are held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    Number,
    PathText,
    Reads,
    Seed,
    Share,
    Switch,
    Text,
    Unfit,
)
from lora_trainer.config.setting import no_effect, setting


def _minutes(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        return float(str(value))
    except ValueError:
        raise Unfit from None


def _named_paths(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, Mapping) and all(isinstance(path, str) for path in value.values()):
        return tuple((str(name), path.strip()) for name, path in value.items())
    raise Unfit


MaybeMinutes = Annotated[Any, Reads("a number", _minutes, {"type": ["number", "string", "null"]})]
NamedPaths = Annotated[
    tuple[tuple[str, str], ...],
    Reads(
        "an object of paths with a name each",
        _named_paths,
        {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
    ),
]


# the names under which the losses of pictures are recorded
VALIDATION, STABILIZED, OF_ALL_PICTURES = "val", "stabilize-train", "_all_val_combined"


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The models that are written: a diffusers folder each and a single file."""

    save_ckpt_dir: PathText = setting(
        "", "The folder of the single files, such as that of a webui; without it, the run's.", may_change=True
    )
    save_every_n_epochs: Count = setting(
        0, "Write a model after every n-th epoch but the last; 0 is never.", may_change=True
    )
    save_ckpts_from_n_epochs: Count = setting(
        0, "No model is written by save_every_n_epochs before so many epochs are done.", may_change=True
    )
    ckpt_every_n_minutes: MaybeMinutes = setting(
        None,
        "Write a model every so many minutes; below 1 is never. Not set, it is 20, or never with save_every_n_epochs.",
        may_change=True,
    )
    no_save_ckpt: Switch = setting(False, "Write diffusers folders alone, and no single files.", may_change=True)
    save_full_precision: Switch = setting(
        False, "The models have 32 bits a number, twice the size; otherwise 16.", may_change=True
    )
    save_model_as: Annotated[Literal["safetensors", "ckpt"], AnyCase()] = setting(
        "safetensors", "The format of the single files. ckpt is a pickle, for old programs.", may_change=True
    )
    no_prepend_last: Switch = setting(
        False, "The last model is named like those before it, without last- in front.", may_change=True
    )
    save_optimizer: Switch = setting(
        False,
        "Keep the optimizer's state beside a model.",
        may_change=True,
        effect=no_effect("the rolling checkpoint holds it, and the same command goes on from there"),
    )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Previews: images drawn with the model as it is."""

    sample_prompts: Text = setting(
        "",
        "A .txt file with one prompt per line, or a .json file with samples and the sampler's settings; it is looked "
        "for beside the preset too.",
        may_change=True,
    )
    sample_steps: Count = setting(
        250,
        "Steps between previews; 0 is never. With train_vae they are pictures beside what the VAE makes of them.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Pictures that are measured. They are held out of data_root, or lie elsewhere."""

    validate_training: Switch = setting(
        True, "Measure the loss on pictures that are not trained on, if validation_config or val_split_mode say which."
    )
    val_split_mode: Annotated[Literal["none", "automatic", "manual"], AnyCase()] = setting(
        "none",
        "Where they come from: automatic takes them out of data_root, manual takes manual_data_root. In a "
        "validation_config without the key it is automatic.",
    )
    auto_split_proportion: Share = setting(
        0.15, "automatic: the share of the pictures that is taken out, at least one picture."
    )
    manual_data_root: PathText = setting("", "manual: the folder of the pictures.", may_change=True)
    extra_manual_datasets: NamedPaths = setting(
        (), "More folders to measure on, each with the name under which its loss is recorded.", may_change=True
    )
    stabilize_training_loss: Switch = setting(
        False, "Measure some of the trained pictures too, always with the same noise.", may_change=True
    )
    stabilize_split_proportion: Share = setting(
        0.15, "stabilize_training_loss: the share of the trained pictures.", may_change=True
    )
    val_every_n_epochs: Annotated[Number, Gt(0)] = setting(
        1.0, "Epochs between measurements; 0.5 is twice in each epoch.", may_change=True
    )
    val_seed: Seed = setting(555, "Which pictures are taken out, and their noise, follow from it.")
    val_batch_size: Count = setting(0, "Pictures that are measured at a time; 0 is batch_size.", may_change=True)
    use_relative_loss: Switch = setting(
        False,
        "Divide by the first measurement.",
        may_change=True,
        effect=no_effect("losses are recorded as they are"),
    )
