"""The keys of a LoRA preset about the files it writes: models, states, previews and uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import SecretStr

from lora_trainer.config.kinds import AnyCase, Count, PathText, Secret, Switch, Text
from lora_trainer.config.setting import no_effect, not_yet, setting

NO_UPLOAD = "nothing is uploaded"


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The LoRA files. The last one is output_name without a number."""

    save_model_as: Annotated[Literal["safetensors", "ckpt", "pt"], AnyCase()] = setting(
        "safetensors", "The format of the LoRA file.", later=("ckpt", "pt"), may_change=True
    )
    save_precision: Annotated[Literal["fp16", "bf16", "float"], AnyCase()] = setting(
        "fp16", "The number format of every tensor in the file; float is 32 bits.", may_change=True
    )
    save_every_n_epochs: Count = setting(
        1, "Write a file at the end of every n-th epoch but the last; 0 is never.", may_change=True
    )
    save_every_n_steps: Count = setting(0, "Write a file at every n-th step; 0 is never.", may_change=True)
    training_comment: Text = setting("", "Text for the file's metadata, such as trigger words.", may_change=True)
    save_last_n_steps: Count = setting(
        0, "Delete files that are more than this many steps old.", effect=not_yet(), may_change=True
    )
    save_last_n_steps_state: Count = setting(
        0, "Delete states that are more than this many steps old.", effect=not_yet(), may_change=True
    )
    save_last_n_epochs: Count = setting(
        0, "Delete files that are more than this many epochs old.", effect=not_yet(), may_change=True
    )
    save_last_n_epochs_state: Count = setting(
        0, "Delete states that are more than this many epochs old.", effect=not_yet(), may_change=True
    )
    metadata_title: Text = setting("", "Metadata: title.", effect=not_yet(), may_change=True)
    metadata_author: Text = setting("", "Metadata: author.", effect=not_yet(), may_change=True)
    metadata_description: Text = setting("", "Metadata: description.", effect=not_yet(), may_change=True)
    metadata_license: Text = setting("", "Metadata: licence.", effect=not_yet(), may_change=True)
    metadata_tags: Text = setting("", "Metadata: tags.", effect=not_yet(), may_change=True)


@dataclass(frozen=True, kw_only=True)
class States:
    """The states from which kohya_ss resumes. Here the rolling checkpoint does that."""

    save_state: Switch = setting(False, "Keep a state beside every file.", effect=not_yet(), may_change=True)
    save_state_on_train_end: Switch = setting(False, "Keep a state at the end.", effect=not_yet(), may_change=True)
    resume: PathText = setting(
        "",
        "A state to go on from. Not needed after an interruption: the same command goes on by itself.",
        effect=not_yet(),
        may_change=True,
    )
    save_state_to_huggingface: Switch = setting(False, "Upload states.", effect=not_yet(), may_change=True)
    resume_from_huggingface: Text = setting(
        "", "Download a state.", effect=not_yet(), may_change=True, old_values={False: ""}
    )
    huggingface_repo_id: Text = setting("", "Upload: the repository.", effect=not_yet(), may_change=True)
    huggingface_token: Secret = setting(
        SecretStr(""), "Upload: the token.", effect=no_effect(NO_UPLOAD), may_change=True
    )
    huggingface_repo_type: Text = setting(
        "", "Upload: the repository's type.", effect=no_effect(NO_UPLOAD), may_change=True
    )
    huggingface_repo_visibility: Text = setting(
        "", "Upload: private or public.", effect=no_effect(NO_UPLOAD), may_change=True
    )
    huggingface_path_in_repo: Text = setting("", "Upload: the path.", effect=no_effect(NO_UPLOAD), may_change=True)
    async_upload: Switch = setting(
        False, "Upload while training goes on.", effect=no_effect(NO_UPLOAD), may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Previews: images drawn with the LoRA as it is."""

    sample_prompts: Text = setting(
        "",
        "One prompt per line, or the path of a .txt, .json or .toml file of them; a line that begins with # is "
        "skipped. Options follow the prompt: --n what to avoid, --w --h pixels, --d seed, --s steps, --l guidance, "
        "--ss sampler.",
        may_change=True,
    )
    sample_at_first: Switch = setting(
        True, "Draw the previews before the first step too, to compare with.", may_change=True
    )
    sample_every_n_epochs: Count = setting(
        0, "Epochs between previews; 0 is never. It comes before sample_every_n_steps.", may_change=True
    )
    sample_every_n_steps: Count = setting(0, "Steps between previews; 0 is never.", may_change=True)
    sample_sampler: Annotated[
        Literal[
            "ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++",
            "dpmsingle", "k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a",
        ],
        AnyCase(),
    ] = setting("euler_a", "The sampler of the previews.", may_change=True)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bookkeeping:
    """What the GUI writes about itself."""

    save_as_bool: Switch = setting(
        False, "The GUI's save dialogue.", may_change=True, effect=no_effect("only the GUI's save dialogue")
    )
