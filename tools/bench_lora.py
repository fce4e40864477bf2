"""Measure a LoRA step against plain scripts in the same run, with each lever by itself, on the device that is there.

python -m tools.bench_lora --size tiny,mid
All ways train an SDXL of random weights on the same cached latents. The script is written the way that well-known ones
are: diffusers with peft's layers, accelerate's prepared model and optimizer, autocast, gradient checkpointing, text
encoders in every step, the loss read in every step. A line of JSON for each way, then a table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import cast_training_params
from peft import LoraConfig

from lora_trainer.config.reader import load_preset
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import fit_lora
from lora_trainer.trainers.lora.trainer import LoraTrainer, build_lora
from tools.benches.lines import Parser, Row, add_ways, machine_of, measured, parser_of, run_bench, tell
from tools.benches.measuring import Course, course_of, flops_on_meta, on_meta
from tools.benches.random_sdxl import SEED, SIZES, Setting, setting_of
from tools.benches.sdxl_script import Script, accelerator_of

RANK, RATE = 16, 1e-4
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
ONE_BY_ONE = ("full",)  # in all ways at once it wants some 60 GiB
TOLERANCE = 0.01  # of the losses of a first step: scripts keep frozen weights in another order of roundings


@dataclass(frozen=True)
class Way:
    """`keys` None is the plain script, with checkpointing or without; else the trainer with these keys."""

    keys: Mapping[str, Any] | None = None
    checkpoints: bool = True


BASELINE, TRAINER = "script", "trainer"
WAYS: Mapping[str, Way] = {
    BASELINE: Way(),
    "script, no checkpointing": Way(checkpoints=False),
    TRAINER: Way({}),
    "trainer, layers not fused": Way({"fused_lora": False}),
    "trainer, geglu": Way({"gradient_checkpointing": "geglu"}),
    "trainer, feed_forward": Way({"gradient_checkpointing": "feed_forward"}),
    "trainer, checkpointing": Way({"gradient_checkpointing": True}),
    "trainer, int8_base": Way({"int8_base": True}),
    "trainer, int8_matmul": Way({"int8_base": True, "int8_matmul": True}),
}


def open_way(setting: Setting, way: Way) -> Course:
    machine = setting.machine
    if way.keys is None:
        return open_script(setting, way.checkpoints)
    return course_of(open_trainer(setting, way.keys), machine.processes, machine.precision)


def open_trainer(setting: Setting, keys: Mapping[str, Any]) -> LoraTrainer:
    machine = setting.machine
    preset = {
        "pretrained_model_name_or_path": str(setting.base), "sdxl": True, "xformers": "sdpa", "seed": SEED,
        "train_data_dir": str(setting.pictures), "output_dir": str(setting.folder / "output"),
        "output_name": "bench", "max_resolution": f"{setting.side_px},{setting.side_px}",
        "mixed_precision": machine.precision.name, "train_batch_size": setting.batch, "network_dim": RANK,
        "network_alpha": RANK, "optimizer": "AdamW", "unet_lr": RATE, "text_encoder_lr": RATE, "cache_latents": True,
        "max_train_steps": 10**6, "log_with": "none", **keys,
    }  # fmt: skip
    job = inspect_lora(load_preset(setting.preset(preset)), 1, SEED)
    trainer = build_lora(job, machine.processes, machine.precision)
    fit_lora(trainer, machine.processes, machine.precision)
    return trainer


def open_script(setting: Setting, checkpoints: bool) -> Course:
    """The gradients are not compared: a LoRA of peft's begins elsewhere."""
    data = open_trainer(setting, {}).data
    accelerator = accelerator_of(setting.machine)
    device = setting.machine.device
    base = load_base_model(detect(setting.base), dtype=setting.machine.precision.dtype)
    models: list[Any] = [base.unet, *base.text_encoders]
    for model, layers in zip(models, [UNET_LAYERS, TEXT_LAYERS, TEXT_LAYERS], strict=True):
        model.requires_grad_(False)
        model.to(device)
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers))
        model.train()
    cast_training_params(models, dtype=torch.float32)
    if checkpoints:
        base.unet.enable_gradient_checkpointing()
        for encoder in base.text_encoders:
            encoder.gradient_checkpointing_enable()
    weights = [weight for model in models for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    unet, one, two, optimizer = accelerator.prepare(*models, optimizer)
    scheduler = DDPMScheduler.from_config(base.configs["scheduler"])
    script = Script(accelerator, unet, (one, two), scheduler, weights, optimizer, trains_text=True)
    return script.course(data, device, ["loss"])


def flops(setting: Setting) -> int:
    """Of a step of the trainer."""
    trainer = open_trainer(setting, {})
    (phase,) = trainer.phases
    micro = on_meta({key: value for key, value in trainer.data(0)[0].items() if key != "layer_seed"})
    return flops_on_meta([phase.module], phase.weights.values(), lambda: phase.module(micro["noise"], micro).sum())


def measure(setting: Setting, rounds: int, only: Collection[str] = ()) -> list[Row]:
    return measured(
        {"bench": "lora", "size": setting.size},
        {name: partial(open_way, setting, way) for name, way in WAYS.items()},
        BASELINE,
        setting.machine,
        rounds,
        batch=setting.batch,
        flops=partial(flops, setting),
        tolerance=TOLERANCE,
        one_by_one=setting.size in ONE_BY_ONE,
        only=only,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return run_bench(_bench, _parser(), arguments)


def _parser() -> Parser:
    parser = parser_of("bench_lora", __doc__, SIZES, batch=4, rounds=7, precision="bf16")
    add_ways(parser, WAYS, BASELINE)
    return parser


def _bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    for size in options.size:
        with setting_of(size, options.batch, machine, machine.precision.dtype) as setting:
            rows = measure(setting, options.rounds, options.way)
        tell(rows, f"LoRA, {size}, batch {options.batch}, {machine.precision.name}, {machine.device}")


if __name__ == "__main__":
    sys.exit(main())
