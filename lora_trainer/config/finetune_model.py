"""The keys of a finetune preset that choose the model, what of it is trained, and how memory is traded for time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from lora_trainer.config import common
from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    FileName,
    PathText,
    Positive,
    Recomputed,
    Seed,
    Switch,
    Text,
    Whole,
)
from lora_trainer.config.setting import no_effect, not_yet, setting

OLDER = "EveryDream2 itself reads it no more"


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that is trained on."""

    resume_ckpt: PathText = setting(
        "",
        "The base model: a .safetensors or .ckpt file, a diffusers folder, a run's folder for its newest model, "
        "findlast for the newest one in logdir, or a .json file that describes one to begin with random weights. "
        "Nothing is downloaded. Not needed after an interruption: the same command goes on by itself.",
        required=True,
        example="models/v1-5-pruned-emaonly.safetensors",
    )
    prediction_type: Annotated[Literal["auto", "epsilon", "v_prediction"], AnyCase()] = setting(
        "auto",
        "What the UNet predicts: noise (epsilon), or v. auto takes what the model says, or a .yaml file beside it; a "
        "single file of Stable Diffusion 2.x often does not say.",
    )
    clip_skip: Annotated[Whole, Ge(0), Le(4)] = setting(
        0,
        "From which layer of the text encoder the condition is taken: 0 and 1 the last, 2 the one before it, up to 4. "
        "SDXL always takes the one before the last.",
    )
    disable_unet_training: Switch = setting(False, "Leave the UNet as it is and train the text encoder alone.")
    disable_textenc_training: Switch = setting(False, "Leave the text encoder as it is and train the UNet alone.")
    unfreeze_last_n_layers: Count = setting(
        0, "Of the text encoder's layers only the last n are trained, and no embeddings; 0 trains all."
    )
    freeze_embeddings: Switch = setting(False, "Leave the text encoder's token and position embeddings as they are.")
    freeze_final_layer_norm: Switch = setting(False, "Leave the text encoder's last normalisation as it is.")


@dataclass(frozen=True, kw_only=True)
class Precision(common.Precision):
    """Number formats."""

    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], AnyCase()] = setting(
        "fp16",
        "The number format of the forward and backward pass; no is 32 bits. The trained weights stay in 32 bits. fp16 "
        "scales the loss and skips steps that overflow; bf16 needs neither.",
        old_names={"amp": {True: "fp16", False: "no"}},
    )
    disable_amp: Switch = setting(False, "The passes run in 32 bits, as with mixed_precision no.")
    full_bf16: Switch = setting(
        False,
        "The trained weights are bf16 too: half the memory. Each step is taken in 32 bits and rounded up or down by "
        "chance, so that small steps are not lost. Needs mixed_precision bf16.",
    )


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Memory against time."""

    gradient_checkpointing: Recomputed = setting(
        False,
        "Forget activations in the forward pass and compute them again in the backward pass. true forgets all but the "
        "inputs of blocks for about 40 % more time; feed_forward forgets the middles of feed-forwards, geglu their "
        "products alone, which costs least. auto takes the cheapest that fits. For train_vae every one but "
        "false is true.",
        may_change=True,
    )
    attn_type: Annotated[Literal["sdp", "xformers", "slice"], AnyCase()] = setting(
        "sdp",
        "The attention kernel. sdp is PyTorch's own, which saves as much memory as slice and takes its place, and that "
        "of xformers where the package or CUDA is missing.",
        may_change=True,
        old_names={"disable_xformers": {True: "sdp", False: "xformers"}},
    )
    torch_compile: Switch = setting(
        False,
        "Have PyTorch compile the blocks of the UNet, each shape by itself: minutes at the beginning, kept for later "
        "runs, for steps that are faster on a GPU. Results are equal up to rounding; where a compiler fails the run "
        "goes on without.",
        may_change=True,
    )
    cache_latents: Switch = setting(
        False, "Encode every picture once, cropped around its middle, instead of anew at every step."
    )
    cache_latents_to_disk: Switch = setting(
        False, "Keep what cache_latents encodes beside the pictures, for later runs.", may_change=True
    )
    max_data_loader_n_workers: Count = setting(
        0,
        "Processes that read and decode images, at most one for each CPU core; 0 reads in the training process.",
        may_change=True,
    )
    lowvram: Switch = setting(
        False,
        "For cards of 12 GB: batch_size 1, grad_accum 1, gradient_checkpointing, AdamW8bit and at most resolution 512.",
    )
    fused_backward_pass: Switch = setting(
        False,
        "Each weight is updated as soon as its gradient is there, so that one gradient at a time is in memory instead "
        "of all. Needs grad_accum 1, clip_grad_norm 0, one process, and a mixed_precision other than fp16.",
    )


@dataclass(frozen=True, kw_only=True)
class Run(common.Run):
    """What is trained, and where the results go."""

    output_dir: PathText = setting(
        "logs/myproj",
        "The folder of the run: models, previews, schedules, checkpoint and logs are written there. Without it, the "
        "folder project_name in logdir.",
        may_change=True,
    )
    output_name: FileName = setting(
        "myproj", "The name of the files that are written. Without it, project_name.", may_change=True
    )
    logdir: PathText = setting("logs", "The folder of all runs; read where output_dir is not given.", may_change=True)
    project_name: FileName = setting(
        "myproj",
        "The name of the run's folder in logdir, where output_dir is not given, and of its files, where output_name is "
        "not given.",
        may_change=True,
    )
    seed: Seed = setting(
        555,
        "Every random choice follows from this number; what is drawn for each epoch follows from it raised by one each "
        "epoch. -1 and 0 draw a new one for each run.",
        old_values={-1: 0},
    )
    max_epochs: Positive = setting(300, "Passes over all images.", may_change=True)


@dataclass(frozen=True, kw_only=True)
class Logging(common.Logging):
    """What is recorded while the run goes on."""

    log_every: Positive = setting(
        25, "Steps between two lines of the log.", may_change=True, key="log_step", old_names={"log_every": {}}
    )
    log_with: Annotated[Literal["tensorboard", "wandb", "swanlab", "all", "none"], AnyCase()] = setting(
        "tensorboard",
        "Where losses and rates are recorded; all means every tracker that is installed.",
        may_change=True,
        old_names={"wandb": {True: "wandb", False: "tensorboard"}, "use_wandb": {True: "wandb", False: "tensorboard"}},
    )
    wandb_run_name: Text = setting(
        "",
        "The name of the run in the tracker; without it, output_name.",
        may_change=True,
        old_names={"run_name": {}},
    )
    log_grad_norm: Switch = setting(
        False,
        "Record the length of the gradient before it is clipped.",
        may_change=True,
        effect=no_effect("it is always recorded"),
    )


@dataclass(frozen=True, kw_only=True)
class WithoutEffect:
    """What EveryDream2's files say that has no meaning here."""

    gpuid: Count = setting(
        0,
        "Which GPU.",
        may_change=True,
        effect=no_effect("an option of the launcher: accelerate launch --gpu_ids"),
    )
    load_settings_every_epoch: Switch = setting(
        False,
        "Read the preset anew at every epoch.",
        may_change=True,
        effect=no_effect("a preset holds for the whole run; stop it, change the preset, and the same command goes on"),
    )
    train_sampler: Annotated[Literal["ddpm", "pndm", "ddim"], AnyCase()] = setting(
        "ddpm", "The noise schedule of the training.", effect=no_effect("all of them add the same noise")
    )
    apply_grad_scaler_step_tweaks: Switch = setting(
        True,
        "Loosen the loss scaling of fp16 as the run goes on.",
        may_change=True,
        effect=no_effect("the scale of the loss adapts by itself", False),
    )
    plugins: Text = setting("", "Plugins of EveryDream2.", effect=not_yet())
    notebook: Switch = setting(
        False, "The run is in a notebook.", may_change=True, effect=no_effect(f"only progress bars; {OLDER}")
    )
    hf_repo_subfolder: Text = setting(
        "", "A folder in a repository of models.", effect=no_effect(f"nothing is downloaded; {OLDER}")
    )
