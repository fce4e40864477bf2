"""Measure a LoRA step against plain scripts in the same run, with each lever by itself, on the device that is there.

python -m tools.bench_lora --size tiny,mid
All ways train an SDXL of random weights on the same cached latents. The script is written the way that well-known ones
are: diffusers with peft's layers, accelerate's prepared model and optimizer, autocast, gradient checkpointing, text
encoders in every step, the loss read in every step. A line of JSON for each way, then a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision, choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import Stepper
from lora_trainer.models.base_folder import save_folder
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import fit_lora
from lora_trainer.trainers.lora.trainer import LoraTrainer, build_lora

SEED, RANK, PICTURES = 1, 16, 8
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

TINY = {
    "kind": "sdxl", "prediction": "epsilon", "resolution": 128,
    "vae": {"block_out_channels": [16, 32, 64, 128], "layers_per_block": 1, "norm_num_groups": 4},
    "unet": {"block_out_channels": [64, 96, 160], "layers_per_block": 1, "transformer_layers_per_block": [1, 1, 1],
             "addition_time_embed_dim": 32},
    "text_encoder": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384},
    "text_encoder_2": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384},
}  # fmt: skip
MID = {
    "kind": "sdxl", "prediction": "epsilon", "resolution": 256, "vae": TINY["vae"],
    "unet": {"block_out_channels": [192, 384, 576], "transformer_layers_per_block": [1, 1, 2]},
    "text_encoder": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
    "text_encoder_2": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
}  # fmt: skip
SIZES: Mapping[str, tuple[dict[str, Any], int]] = {  # what differs from the published SDXL, and pixels a side
    "tiny": (TINY, 128),
    "mid": (MID, 256),
    "full": ({"kind": "sdxl", "prediction": "epsilon"}, 1024),
}


@dataclass(frozen=True)
class Way:
    """`script` None is the trainer with these keys; else the plain script, with checkpointing or without."""

    keys: Mapping[str, Any] | None = None
    checkpoints: bool = True


WAYS: Mapping[str, Way] = {
    "script": Way(),
    "script, no checkpointing": Way(checkpoints=False),
    "trainer": Way({}),
    "trainer, layers not fused": Way({"fused_lora": False}),
    "trainer, geglu": Way({"gradient_checkpointing": "geglu"}),
    "trainer, feed_forward": Way({"gradient_checkpointing": "feed_forward"}),
    "trainer, checkpointing": Way({"gradient_checkpointing": True}),
}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    size: str
    batch: int
    precision: Precision
    processes: Processes
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.processes.device


# -- a step of each way ------------------------------------------------------------------------------------------------


def trainer_step(setting: Setting, keys: Mapping[str, Any]) -> Callable[[], torch.Tensor]:
    """What the loop does in a step, without logs."""
    trainer = open_trainer(setting, keys)
    stepper = Stepper(trainer.phases, setting.processes, setting.precision)
    numbers = iter(range(10**9))

    def step() -> torch.Tensor:
        number = next(numbers)
        micros = [_placed(micro, setting.device) for micro in trainer.data(number)]
        result = stepper.run(number, trainer.prepare(number, micros))
        return result.values["loss"]

    return step


def open_trainer(setting: Setting, keys: Mapping[str, Any]) -> LoraTrainer:
    preset = {
        "pretrained_model_name_or_path": str(setting.folder / "base"), "sdxl": True, "xformers": "sdpa", "seed": SEED,
        "train_data_dir": str(setting.folder / "pictures"), "output_dir": str(setting.folder / "output"),
        "output_name": "bench", "max_resolution": f"{SIZES[setting.size][1]},{SIZES[setting.size][1]}",
        "mixed_precision": setting.precision.name, "train_batch_size": setting.batch, "network_dim": RANK,
        "network_alpha": RANK, "optimizer": "AdamW", "unet_lr": 1e-4, "text_encoder_lr": 1e-4, "cache_latents": True,
        "max_train_steps": 10**6, "log_with": "none", **keys,
    }  # fmt: skip
    path = setting.folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    job = inspect_lora(load_preset(path), 1, SEED)
    trainer = build_lora(job, setting.processes, setting.precision)
    fit_lora(trainer, setting.processes, setting.precision)
    return trainer


def script_step(setting: Setting, checkpoints: bool) -> Callable[[], float]:
    """A training script as they are written, with cached latents, which the well-known ones have too."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from diffusers import DDPMScheduler
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    AcceleratorState._reset_state()  # of which there is one in a process, and the trainer's says no
    accelerator = Accelerator(mixed_precision=setting.precision.name)
    base = load_base_model(detect(setting.folder / "base"), dtype=setting.precision.dtype)
    models: list[Any] = [base.unet, *base.text_encoders]
    for model, layers in zip(models, [UNET_LAYERS, TEXT_LAYERS, TEXT_LAYERS], strict=True):
        model.requires_grad_(False)
        model.to(setting.device)
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers))
        model.train()
    cast_training_params(models, dtype=torch.float32)
    if checkpoints:
        base.unet.enable_gradient_checkpointing()
        for encoder in base.text_encoders:
            encoder.gradient_checkpointing_enable()
    weights = [weight for model in models for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    unet, one, two, optimizer = accelerator.prepare(*models, optimizer)
    scheduler = DDPMScheduler.from_config(base.configs["scheduler"])
    reference = open_trainer(setting, {})
    micros = [_placed(micro, setting.device) for number in range(4) for micro in reference.data(number)]
    numbers = iter(range(10**9))

    def step() -> float:
        micro = micros[next(numbers) % len(micros)]
        latents = micro["latents"]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=setting.device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        with accelerator.autocast():
            hidden, pooled = [], None
            for number, encoder in enumerate((one, two)):
                found = encoder(micro["token_ids"][number][:, 0], output_hidden_states=True)
                hidden.append(found.hidden_states[-2])
                pooled = found[0]
            extra = {"text_embeds": pooled, "time_ids": micro["size_condition"]}
            text = torch.cat(hidden, dim=-1)
            prediction = unet(noisy, timesteps, text, added_cond_kwargs=extra, return_dict=False)[0]
            loss = F.mse_loss(prediction.float(), noise.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def _placed(micro: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in micro.items()}


# -- measuring ---------------------------------------------------------------------------------------------------------


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Of one step: on a CPU of the process's own time, so that other work counts little; on a GPU by the clock."""
    if device.type != "cuda":
        began = time.process_time()
        step()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def flops_of(step: Callable[[], Any]) -> int:
    """Of one step without recomputation, as PyTorch counts them: matrix products, convolutions, attention."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """What a large matrix product attains here, a second."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    found = [seconds_of(lambda: a @ b, device) for _ in range(5)]
    return float(2 * side**3 / min(found))


def measure(setting: Setting, ways: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """The ways in turn, so that what slows the machine down slows all of them."""
    steps: dict[str, Callable[[], Any]] = {}
    memory: dict[str, float] = {}
    for name in ways:
        way = WAYS[name]
        steps[name] = (
            script_step(setting, way.checkpoints) if way.keys is None else trainer_step(setting, dict(way.keys))
        )
        memory[name] = _peak_gib(steps[name], setting.device)
    flops = flops_of(steps["trainer"])
    peak = peak_flops(setting.device, setting.precision.dtype)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(seconds_of(step, setting.device))
    script = statistics.median(seconds["script"])
    return [
        {
            "size": setting.size, "way": name, "batch": setting.batch, "precision": setting.precision.name,
            "device": str(setting.device), "images_per_second": setting.batch / statistics.median(found),
            "seconds": statistics.median(found), "least": min(found), "most": max(found),
            "times": script / statistics.median(found), "tflop": flops / 1e12,
            "share_of_peak": flops / statistics.median(found) / peak, "peak_tflops": peak / 1e12,
            "peak_gib": memory[name],
        }
        for name, found in seconds.items()
    ]  # fmt: skip


def _peak_gib(step: Callable[[], Any], device: torch.device) -> float:
    """Of two steps on a GPU, beside whatever the other ways keep; also warms up."""
    if device.type != "cuda":
        step()
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for _ in range(2):
        step()
    return float(torch.cuda.max_memory_allocated(device) - before) / 2**30


# -- the command -------------------------------------------------------------------------------------------------------


def write_base(size: str, folder: Path, dtype: torch.dtype) -> None:
    """A model of this size and a few pictures of noise: what they show makes no step faster."""
    description = folder / "base.json"
    description.write_text(json.dumps(SIZES[size][0]), encoding="utf-8")
    base = load_base_model(detect(description), dtype=dtype)
    (folder / "base").mkdir()
    save_folder(folder / "base", base.kind, base.parts, base.configs["scheduler"], dtype)
    pictures = folder / "pictures" / "1_noise"
    pictures.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    side = SIZES[size][1]
    for number in range(PICTURES):
        pixels = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"noise number {number}, of all colours", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    processes = Processes()
    if processes.device.type == "cpu":
        torch.set_num_threads(options.threads)
    precision, _ = choose_precision(options.precision, processes.device)
    for size in options.size.split(","):
        with tempfile.TemporaryDirectory() as name:
            setting = Setting(size, options.batch, precision, processes, Path(name))
            write_base(size, setting.folder, precision.dtype)
            _tell(setting, measure(setting, list(WAYS), options.rounds))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_lora", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="tiny", help=f"of {', '.join(SIZES)}, several with commas (default tiny)")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (default 4)")
    parser.add_argument("--precision", default="bf16", choices=("no", "bf16", "fp16"), help="(default bf16)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each way (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (default 1)")
    return parser


def _tell(setting: Setting, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))
    first = rows[0]
    print(
        f"{setting.size}, batch {setting.batch}, {setting.precision.name}, {setting.device}: "
        f"{first['tflop']:.4f} TFLOP a step; a large matrix product attains {first['peak_tflops']:.3f} TFLOP/s"
    )
    print(f"{'':28}{'images/s':>10}{'s a step':>10}{'least':>9}{'most':>9}{'times':>7}{'of peak':>9}{'GiB':>7}")
    for row in rows:
        numbers = f"{row['images_per_second']:10.2f}{row['seconds']:10.4f}{row['least']:9.4f}{row['most']:9.4f}"
        gib = f"{row['peak_gib']:7.2f}" if row["peak_gib"] else f"{'':>7}"
        print(f"{row['way']:28}{numbers}{row['times']:7.2f}{row['share_of_peak']:9.1%}{gib}")


if __name__ == "__main__":
    sys.exit(main())
