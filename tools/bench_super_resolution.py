"""Measure an upscaler's training step against a plain loop on the same machine in the same run.

python -m tools.bench_super_resolution
It trains a network (SPAN_S 2x) on the photographs that lie here, once by the trainer and once by a loop as a script has
it: decode the picture for every crop, step, average weight by weight, ask for the loss in every step. A line of JSON
for each way, then a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.config.reader import load_preset
from lora_trainer.models.sr_networks import NETWORKS, build_network
from lora_trainer.trainers.super_resolution.job import inspect_super_resolution
from lora_trainer.trainers.super_resolution.trainer import SuperResolutionTrainer, build_super_resolution
from tools.benches.lines import Machine, Parser, Row, add_names, machine_of, measured, parser_of, run_bench, tell
from tools.benches.measuring import Course, course_of, flops_on_meta, on_meta, placed

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "presets" / "photos" / "2_photo"
SCALE, SEED, RATE, BETAS, DECAY = 2, 1, 2e-4, (0.9, 0.99), 0.999
CHARBONNIER_EPS = 1e-12
SIZES: Mapping[str, int] = {"tiny": 32, "mid": 64, "full": 128}  # pixels of a low-resolution crop's side
BASELINE, TRAINER = "a plain loop", "the trainer"
TOLERANCE = 1e-3  # of loss and gradient of a first step


@dataclass(frozen=True)
class Setting:
    """What both ways have in common."""

    network: str
    side_px: int
    batch: int
    machine: Machine
    folder: Path


def open_trainer(setting: Setting) -> SuperResolutionTrainer:
    preset = {
        "trainer": "super_resolution", "output_dir": str(setting.folder), "output_name": "bench", "seed": SEED,
        "scale": SCALE, "network_g": {"type": setting.network}, "dataroot_gt": str(PHOTOS),
        "lq_size": setting.side_px, "batch_size_per_gpu": setting.batch, "num_worker_per_gpu": 0, "total_iter": 10**6,
        "losses": [{"type": "charbonnierloss"}], "log_with": "none", "ema_decay": DECAY,
        "optim_g": {"type": "AdamW", "lr": RATE, "betas": BETAS},
        "scheduler": {"type": "MultiStepLR", "milestones": [10**6]},
    }  # fmt: skip
    path = setting.folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    machine = setting.machine
    job = inspect_super_resolution(load_preset(path), 1, SEED)
    return build_super_resolution(job, machine.processes, machine.precision)


def open_way(setting: Setting) -> Course:
    """The trainer's."""
    return course_of(open_trainer(setting), setting.machine.processes, setting.machine.precision)


@dataclass
class PlainLoop:
    """The same network, optimizer and average without the trainer."""

    module: nn.Module
    device: torch.device
    averages: dict[str, Tensor] = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=RATE, betas=BETAS)
        self.averages = {name: weight.detach().clone() for name, weight in self.module.named_parameters()}

    def step(self, pair: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The loss as a number, and the gradients' norm, which the loop has no use for."""
        lq, gt = (each.to(self.device) for each in pair)
        loss = ((self.module(lq) - gt) ** 2 + CHARBONNIER_EPS).sqrt().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for name, weight in self.module.named_parameters():
            self.averages[name] = DECAY * self.averages[name] + (1 - DECAY) * weight.detach()
        return {"loss": loss.item()}

    def gradient_norm(self) -> float:
        """Of the last step."""
        return float(nn.utils.get_total_norm([each.grad for each in self.module.parameters() if each.grad is not None]))


def open_plain(setting: Setting) -> Course:
    """Its first step is on the trainer's batch, with the trainer's first weights."""
    trainer, device = open_trainer(setting), setting.machine.device
    module = build_network(setting.network, SCALE, {}).module.to(device).train()
    module.load_state_dict(trainer.network.module.state_dict())
    loop = PlainLoop(module, device)
    (micro,) = trainer.prepare(0, [placed(each, device) for each in trainer.data(0)])
    values = loop.step((micro["lq"], micro["gt"]))
    draw = np.random.default_rng(SEED)
    return Course(partial(_crops, setting, draw), loop.step, {**values, "grad_norm": loop.gradient_norm()})


def _crops(setting: Setting, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of low and high resolution, from 0 to 1."""
    files = sorted(PHOTOS.glob("*.jpg"))
    small, side = setting.side_px, setting.side_px * SCALE
    pairs = []
    for _ in range(setting.batch):
        with Image.open(files[draw.integers(len(files))]) as image:
            pixels = np.array(image.convert("RGB"))
        top, left = (int(draw.integers(0, size - side + 1)) for size in pixels.shape[:2])
        gt = Image.fromarray(pixels[top : top + side, left : left + side])
        pairs.append((np.array(gt.resize((small, small), Image.Resampling.BICUBIC)), np.array(gt)))
    stacked = [np.stack(each).transpose(0, 3, 1, 2) for each in zip(*pairs, strict=True)]
    lq, gt_batch = (torch.from_numpy(np.ascontiguousarray(each)).float() / 255 for each in stacked)
    return lq, gt_batch


def flops(setting: Setting) -> int:
    """Of a step of the trainer, which forms products of convolutions first."""
    trainer = open_trainer(setting)
    phase = trainer.phases[0]
    micro = on_meta(trainer.prepare(0, trainer.data(0))[0])
    return flops_on_meta([phase.module], phase.weights.values(), lambda: phase.module(micro["lq"]).sum())


def measure(setting: Setting, size: str, rounds: int) -> list[Row]:
    return measured(
        {"bench": "super_resolution", "network": setting.network, "size": size},
        {BASELINE: partial(open_plain, setting), TRAINER: partial(open_way, setting)},
        BASELINE,
        setting.machine,
        rounds,
        batch=setting.batch,
        flops=partial(flops, setting),
        tolerance=TOLERANCE,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return run_bench(_bench, _parser(), arguments)


def _parser() -> Parser:
    parser = parser_of("bench_super_resolution", __doc__, SIZES, batch=2, rounds=40)
    add_names(parser, "--network", NETWORKS, "span_s", "networks, several with commas")
    return parser


def _bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    for size in options.size:
        for network in options.network:
            with tempfile.TemporaryDirectory() as folder:
                setting = Setting(network, SIZES[size], options.batch, machine, Path(folder))
                rows = measure(setting, size, options.rounds)
            what = f"{network} {SCALE}x, {size} ({SIZES[size]} px)"
            tell(rows, f"{what}, batch {options.batch}, {machine.device}")


if __name__ == "__main__":
    sys.exit(main())
