"""Measure a step of fine-tuning against plain scripts in the same run, with each lever by itself.

python -m tools.bench_finetune --size tiny
All ways train the whole UNet of an SDXL of random weights on the same cached latents; the text encoders are frozen. The
script is written the way that well-known ones are: diffusers, accelerate's prepared model and optimizer, autocast,
gradient checkpointing, captions encoded in every step, the loss read in every step, an average weight by weight. A line
of JSON for each way, then a table.
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

from lora_trainer.config.reader import load_preset
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.finetune.job import inspect_finetune
from lora_trainer.trainers.finetune.memory import fit_finetune
from lora_trainer.trainers.finetune.trainer import FinetuneTrainer, build_finetune
from tools.benches.lines import Parser, Row, add_ways, machine_of, measured, parser_of, run_bench, tell
from tools.benches.measuring import Course, course_of, flops_on_meta, on_meta
from tools.benches.random_sdxl import SEED, SIZES, Setting, setting_of
from tools.benches.sdxl_script import DECAY, LONGEST_GRADIENT, Script, accelerator_of

RATE = 1e-5
ONE_BY_ONE = ("mid", "full")  # whose models, gradients and optimizers do not fit into memory in all ways at once
TOLERANCE: Mapping[str, float] = {"no": 1e-3, "bf16": 0.01, "fp16": 0.01}  # of losses and gradients of a first step
AVERAGE = {"ema_decay_rate": DECAY, "ema_update_interval": 1, "ema_device": "cuda"}  # that is, beside the weights
FUSED = {"fused_backward_pass": True, "clip_grad_norm": 0}


@dataclass(frozen=True)
class Way:
    """`keys` None is the plain script, with checkpointing and an average or without; else the trainer's own."""

    keys: Mapping[str, Any] | None = None
    checkpoints: bool = True
    averages: bool = False


BASELINE = "script"
WAYS: Mapping[str, Way] = {
    BASELINE: Way(),
    "script, no checkpointing": Way(checkpoints=False),
    "script, EMA": Way(averages=True),
    "trainer": Way({}),
    "trainer, EMA": Way(AVERAGE),
    "trainer, fused backward pass": Way(FUSED),
    "trainer, full_bf16": Way({"full_bf16": True}),
    "trainer, fused and full_bf16": Way({"full_bf16": True, **FUSED}),
    "trainer, geglu": Way({"gradient_checkpointing": "geglu"}),
    "trainer, feed_forward": Way({"gradient_checkpointing": "feed_forward"}),
    "trainer, checkpointing": Way({"gradient_checkpointing": True}),
}


def ways_in(precision: str) -> dict[str, Way]:
    """Those that a number format allows: weights in bf16 want passes in bf16, and fp16 no step within the pass."""
    barred = {"bf16": (), "no": ("full_bf16",), "fp16": ("full_bf16", "fused_backward_pass")}[precision]
    return {name: way for name, way in WAYS.items() if not any(key in barred for key in way.keys or ())}


def open_way(setting: Setting, way: Way) -> Course:
    machine = setting.machine
    if way.keys is None:
        return open_script(setting, way)
    return course_of(open_trainer(setting, way.keys), machine.processes, machine.precision)


def open_trainer(setting: Setting, keys: Mapping[str, Any]) -> FinetuneTrainer:
    machine = setting.machine
    preset = {
        "trainer": "finetune", "resume_ckpt": str(setting.base), "data_root": str(setting.pictures),
        "output_dir": str(setting.folder / "output"), "output_name": "bench", "seed": SEED,
        "resolution": setting.side_px, "batch_size": setting.batch, "max_epochs": 10**4, "cache_latents": True,
        "disable_textenc_training": True, "optimizer": "AdamW", "lr": RATE, "lr_warmup_steps": 0,
        "clip_grad_norm": LONGEST_GRADIENT, "mixed_precision": machine.precision.name, "loss_type": "mse",
        "zero_frequency_noise_ratio": 0, "cond_dropout": 0, "log_with": "none", **keys,
    }  # fmt: skip
    job = inspect_finetune(load_preset(setting.preset(preset)), 1, SEED)
    trainer = build_finetune(job, machine.processes, machine.precision)
    assert isinstance(trainer, FinetuneTrainer)
    fit_finetune(trainer, machine.processes, machine.precision)
    return trainer


def open_script(setting: Setting, way: Way) -> Course:
    data = open_trainer(setting, {}).data
    accelerator = accelerator_of(setting.machine)
    device, half = setting.machine.device, setting.machine.precision.dtype
    base = load_base_model(detect(setting.base), dtype=torch.float32)
    encoders = [encoder.to(device, half) for encoder in base.text_encoders]
    base.unet.to(device).requires_grad_(True).train()
    if way.checkpoints:
        base.unet.enable_gradient_checkpointing()
    weights = list(base.unet.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    unet, optimizer = accelerator.prepare(base.unet, optimizer)
    scheduler = DDPMScheduler.from_config(base.configs["scheduler"])
    averages = [weight.detach().clone() for weight in weights] if way.averages else []
    script = Script(accelerator, unet, encoders, scheduler, weights, optimizer, False, averages)
    return script.course(data, device, ["loss", "grad_norm"])


def flops(setting: Setting) -> int:
    """Of a step of the trainer."""
    trainer = open_trainer(setting, {})
    (phase,) = trainer.phases
    micro = on_meta(trainer.data(0)[0])
    return flops_on_meta([phase.module], phase.weights.values(), lambda: phase.module(micro["noise"], micro).sum())


def measure(setting: Setting, rounds: int, only: Collection[str] = ()) -> list[Row]:
    precision = setting.machine.precision.name
    return measured(
        {"bench": "finetune", "size": setting.size},
        {name: partial(open_way, setting, way) for name, way in ways_in(precision).items()},
        BASELINE,
        setting.machine,
        rounds,
        batch=setting.batch,
        flops=partial(flops, setting),
        tolerance=TOLERANCE[precision],
        one_by_one=setting.size in ONE_BY_ONE,
        only=only,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return run_bench(_bench, _parser(), arguments)


def _parser() -> Parser:
    parser = parser_of("bench_finetune", __doc__, SIZES, batch=4, rounds=7, precision="bf16")
    add_ways(parser, WAYS, BASELINE)
    return parser


def _bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    for size in options.size:
        with setting_of(size, options.batch, machine, torch.float32) as setting:
            rows = measure(setting, options.rounds, options.way)
        tell(rows, f"fine-tuning, {size}, batch {options.batch}, {machine.precision.name}, {machine.device}")


if __name__ == "__main__":
    sys.exit(main())
