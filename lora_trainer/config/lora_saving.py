"""The keys of a LoRA preset about the files it writes: models, states, previews and uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import SecretStr

from lora_trainer.config.kinds import AnyCase, Count, PathText, Secret, Switch, Text
from lora_trainer.config.setting import no_effect, setting


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The LoRA files. The last one is output_name without a number."""

    save_model_as: Annotated[Literal["safetensors", "ckpt", "pt"], AnyCase()] = setting(
        "safetensors",
        "The format of the LoRA file. ckpt and pt are pickles without metadata; no tool needs them any more.",
        may_change=True,
    )
    save_precision: Annotated[Literal["fp16", "bf16", "float"], AnyCase()] = setting(
        "fp16", "The number format of every tensor in the file; float is 32 bits.", may_change=True
    )
    save_every_n_epochs: Count = setting(
        1, "Write a file at the end of every n-th epoch but the last; 0 is never.", may_change=True
    )
    save_every_n_steps: Count = setting(0, "Write a file at every n-th step; 0 is never.", may_change=True)
    no_metadata: Switch = setting(
        False,
        "Leave everything out of the file's metadata but what tells the kind of the base model and of the layers.",
        may_change=True,
    )
    training_comment: Text = setting("", "Text for the file's metadata, such as trigger words.", may_change=True)
    save_last_n_epochs: Count = setting(
        0, "How many of the files saved by epochs stay; 0 is all of them.", may_change=True
    )
    save_last_n_steps: Count = setting(
        0,
        "How many of the files saved by steps stay; 0 is all of them. In sd-scripts it is a distance in steps.",
        may_change=True,
    )
    save_last_n_epochs_state: Count = setting(
        0, "How many of the states saved by epochs stay; 0 is as many as of the files.", may_change=True
    )
    save_last_n_steps_state: Count = setting(
        0,
        "How many of the states saved by steps stay; 0 is as many as of the files. In sd-scripts it is a distance in "
        "steps.",
        may_change=True,
    )
    metadata_title: Text = setting("", "The title in the file's metadata; without it, output_name.", may_change=True)
    metadata_author: Text = setting("", "The author in the file's metadata.", may_change=True)
    metadata_description: Text = setting("", "The description in the file's metadata.", may_change=True)
    metadata_license: Text = setting("", "The licence in the file's metadata.", may_change=True)
    metadata_tags: Text = setting("", "Tags in the file's metadata, separated by commas.", may_change=True)


@dataclass(frozen=True, kw_only=True)
class States:
    """Lasting states to go on from, beside the rolling checkpoint that an interrupted run goes on from by itself."""

    save_state: Switch = setting(
        False,
        "Keep a state beside every file, in a folder such as my_lora-000002-state, and one at the end: the weights in "
        "full precision and the optimizer's state.",
        may_change=True,
    )
    save_state_on_train_end: Switch = setting(
        False, "Keep a state at the end, in a folder such as my_lora-state.", may_change=True
    )
    resume: PathText = setting(
        "",
        "The folder of a state to go on from, of this or another training with layers of the same size; of a state of "
        "sd-scripts the weights are taken. Not needed after an interruption: the same command goes on by itself.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """Uploads to the Hugging Face hub, and states from there."""

    huggingface_repo_id: Text = setting(
        "",
        "The repository to which every file is uploaded, such as me/my-loras; it is made when missing.",
        may_change=True,
    )
    huggingface_token: Secret = setting(
        SecretStr(""),
        "The access token; never logged, shown or saved. Without it, that of `hf auth login` or the variable HF_TOKEN, "
        "which are safer.",
        may_change=True,
    )
    huggingface_repo_type: Annotated[Literal["model", "dataset", "space"], AnyCase()] = setting(
        "model", "The type of that repository.", may_change=True
    )
    huggingface_repo_visibility: Annotated[Literal["private", "public"], AnyCase()] = setting(
        "private", "Who can see the repository, if it is made.", may_change=True
    )
    huggingface_path_in_repo: Text = setting("", "The folder in the repository; without it, its root.", may_change=True)
    save_state_to_huggingface: Switch = setting(False, "Upload the states too.", may_change=True)
    async_upload: Switch = setting(False, "Upload while the training goes on, instead of waiting.", may_change=True)
    resume_from_huggingface: Text = setting(
        "",
        "A state on the hub to go on from: user/repository/folder[:revision[:type]]. The word resume, or true, says "
        "that the key resume holds it.",
        may_change=True,
        old_values={False: "", True: "resume"},
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
