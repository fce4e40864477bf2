"""The keys of a LoRA preset that choose the model, its number formats and how memory is traded for time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config import common
from lora_trainer.config.kinds import AnyCase, Count, PathText, Positive, Recomputed, Switch, Text
from lora_trainer.config.setting import no_effect, setting


@dataclass(frozen=True, kw_only=True)
class Model:
    """The base model that the LoRA is trained for."""

    pretrained_model_name_or_path: PathText = setting(
        "",
        "The base model: a .safetensors or .ckpt file, or a diffusers folder. Nothing is downloaded.",
        required=True,
        example="models/sd_xl_base_1.0.safetensors",
    )
    model_list: Text = setting(
        "custom",
        "The model drop-down of the GUI.",
        effect=no_effect("only the GUI's drop-down; the model is pretrained_model_name_or_path"),
    )
    sdxl: Switch = setting(False, "The base model is an SDXL (two text encoders); otherwise SD 1.x, or 2.x with v2.")
    v2: Switch = setting(False, "The base model is an SD 2.x: a 1024-wide text encoder of 23 layers.")
    v_parameterization: Switch = setting(
        False,
        "The model predicts v = alpha * noise - sigma * latents instead of the noise. True for SD 2.x at 768 "
        "pixels and for v-prediction SDXL models.",
    )
    vae: PathText = setting("", "Another VAE in place of the base model's own: a file or a diffusers folder.")


@dataclass(frozen=True, kw_only=True)
class Precision(common.Precision):
    """Number formats."""

    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], AnyCase()] = setting(
        "fp16",
        "The number format of frozen weights and of the forward and backward pass; no is 32 bits. The LoRA's "
        "own weights stay in 32 bits. fp16 scales the loss and skips steps that overflow; bf16 needs neither.",
    )
    full_fp16: Switch = setting(
        False, "The LoRA's weights and gradients are fp16 too: half the memory, and small steps are rounded away."
    )
    full_bf16: Switch = setting(
        False, "The LoRA's weights and gradients are bf16 too: half the memory, and small steps are rounded away."
    )
    fp8_base: Switch = setting(
        False,
        "The frozen weights of UNet and text encoders are stored in 8 bits (float8_e4m3fn): half the memory of 16. "
        "They are made 16 bits again where they are used.",
    )
    fp8_base_unet: Switch = setting(False, "The same for the UNet only.")
    int8_base: Switch = setting(
        False,
        "As fp8_base, in int8 with a factor for each row of a weight: the same memory, and a third of the rounding. "
        "For standard LoRA and LoCon, in any mixed_precision.",
    )
    int8_matmul: Switch = setting(
        False,
        "With int8_base: frozen linear layers multiply in 8 bits too (W8A8). Each token's numbers are rounded to int8 "
        "with a factor of their own, about 1 % of what passes, in the backward pass too. Cards since the RTX 20 "
        "series multiply int8 at two to four times the rate of 16 bits; rounding takes time and passing "
        "memory in turn, less with torch_compile. On a CPU it is slower; on a card it has not been measured.",
    )
    sdxl_no_half_vae: Switch = setting(
        False, "The VAE computes in 32 bits. The VAE of SDXL 1.0 overflows in fp16 and gives NaN latents."
    )


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Memory against time. None of these changes what is trained beyond rounding."""

    xformers: Annotated[Literal["xformers", "sdpa", "none"], AnyCase()] = setting(
        "xformers",
        "The attention kernel. Without the xformers package or without CUDA, PyTorch's sdpa takes its place.",
        may_change=True,
        old_values={True: "xformers", False: "none"},
    )
    mem_eff_attn: Switch = setting(
        False, "Attention that saves memory, when xformers is none: PyTorch's sdpa takes its place.", may_change=True
    )
    gradient_checkpointing: Recomputed = setting(
        False,
        "Forget activations in the forward pass and compute them again in the backward pass. true forgets all but the "
        "inputs of blocks: about 6 GiB less per SDXL image for about 40 % more time; feed_forward forgets the middles "
        "of feed-forwards, geglu their products alone, which costs least. auto takes the cheapest that fits.",
        may_change=True,
    )
    torch_compile: Switch = setting(
        False,
        "Have PyTorch compile the blocks of the UNet, each shape by itself: minutes at the beginning, kept for later "
        "runs, for steps that are faster on a GPU. Results are equal up to rounding; where a compiler fails the run "
        "goes on without.",
        may_change=True,
    )
    use_channels_last: Switch = setting(
        False,
        "Lay the UNet's convolutions and what passes through them out with the channels last, as tensor cores read "
        "them. Results are equal up to rounding. On a CPU it is slower; torch_compile lays out by itself.",
        may_change=True,
    )
    max_data_loader_n_workers: Count = setting(
        0,
        "Processes that read and decode images, at most one for each CPU core; 0 reads in the training process.",
        may_change=True,
    )
    persistent_data_loader_workers: Switch = setting(
        False,
        "Keep the reading processes from one epoch to the next.",
        may_change=True,
        effect=no_effect("reading processes always stay from one epoch to the next"),
    )
    vae_batch_size: Count = setting(0, "Images that the VAE encodes at a time; 0 is 1.", may_change=True)
    highvram: Switch = setting(
        False,
        "Do not empty the CUDA cache between images.",
        may_change=True,
        effect=no_effect("memory is handled without it"),
    )
    lowvram: Switch = setting(
        False,
        "Load the model straight into GPU memory.",
        may_change=True,
        effect=no_effect("memory is handled without it"),
    )
    blocks_to_swap: Count = setting(
        0,
        "Blocks of the network that wait in main memory.",
        may_change=True,
        effect=no_effect("blocks of Flux and SD 3 alone are swapped; fp8_base and gradient_checkpointing save memory"),
    )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How processes are started. All of it belongs to `accelerate launch`, not to a preset."""

    num_processes: Positive = setting(
        1,
        "Processes, one for each GPU.",
        may_change=True,
        effect=no_effect("an option of the launcher: accelerate launch --num_processes"),
    )
    num_machines: Positive = setting(
        1, "Machines.", may_change=True, effect=no_effect("an option of the launcher: accelerate launch --num_machines")
    )
    num_cpu_threads_per_process: Count = setting(
        2,
        "CPU threads of each process.",
        may_change=True,
        effect=no_effect("an option of the launcher: accelerate launch --num_cpu_threads_per_process"),
    )
    multi_gpu: Switch = setting(
        False,
        "Train on several GPUs.",
        may_change=True,
        effect=no_effect("an option of the launcher: accelerate launch --multi_gpu"),
    )
    gpu_ids: Text = setting(
        "", "Which GPUs.", may_change=True, effect=no_effect("an option of the launcher: accelerate launch --gpu_ids")
    )
    main_process_port: Count = setting(
        0,
        "The port at which processes meet.",
        may_change=True,
        effect=no_effect("an option of the launcher: accelerate launch --main_process_port"),
    )
    extra_accelerate_launch_args: Text = setting(
        "",
        "More options of the launcher.",
        may_change=True,
        effect=no_effect("options of the launcher: give them to accelerate launch"),
    )
    dynamo_backend: Text = setting(
        "no",
        "The compiler that the launcher is to use.",
        may_change=True,
        effect=no_effect("the dynamo_* keys are for the launcher and need no TensorRT here; torch_compile compiles"),
    )
    dynamo_mode: Text = setting(
        "default",
        "The compiler's mode.",
        may_change=True,
        effect=no_effect("an option of the launcher's compiler", told_with="dynamo_backend"),
    )
    dynamo_use_fullgraph: Switch = setting(
        False,
        "One graph or none.",
        may_change=True,
        effect=no_effect("an option of the launcher's compiler", told_with="dynamo_backend"),
    )
    dynamo_use_dynamic: Switch = setting(
        False,
        "Shapes may vary.",
        may_change=True,
        effect=no_effect("an option of the launcher's compiler", told_with="dynamo_backend"),
    )
    additional_parameters: Text = setting(
        "",
        "Arguments of sd-scripts' command line, as the GUI appends them: --max_grad_norm 0. Each is read as the key "
        "that it stands for and comes before that key.",
        may_change=True,
    )
