"""Measure a step of a restoration, LoRA and discriminator, against the same by a plain loop in the same run.

python -m tools.bench_restoration
All ways restore the same squares of the example's photographs, with the same first weights. The plain loop works as
HYPIR's program does: peft's layers, accelerate's prepared networks and optimizers, gradient checkpointing, the prompts
encoded in every step, real and restored pictures judged one after the other, spectral norms brought up in every pass,
an average weight by weight, and every loss read. A line of JSON for each way, then a table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor, nn

from lora_trainer.config.reader import load_preset
from lora_trainer.config.restoration_model import LORA_MODULES, STAND_IN
from lora_trainer.draws import draw_key
from lora_trainer.engine.phase import Batch
from lora_trainer.losses.deep_similarity import open_lpips
from lora_trainer.models.restoration.backbone import open_backbone
from lora_trainer.models.restoration.checkpoint import lora_parameters
from lora_trainer.models.restoration.heads import build_heads
from lora_trainer.trainers.restoration.base import restoration_base
from lora_trainer.trainers.restoration.job import inspect_restoration
from lora_trainer.trainers.restoration.objective import JUDGED
from lora_trainer.trainers.restoration.trainer import RestorationTrainer, build_restoration
from tools.benches.lines import Machine, Parser, Row, add_ways, machine_of, measured, parser_of, run_bench, tell
from tools.benches.measuring import Course, course_of, flops_of, flops_on_meta, on_meta, placed
from tools.benches.sdxl_script import accelerator_of

PAIRS = Path(__file__).resolve().parents[1] / "presets" / "restoration" / "pairs" / "train"
SEED, RATE, DECAY, LONGEST_GRADIENT = 1, 1e-5, 0.999, 1.0
TIMESTEP, REAL_LABEL = 200, 0.8
WEIGHTS = {"mse": 1.0, "lpips": 5.0, "disc": 0.5}  # of the losses, as in HYPIR's configuration
TOLERANCE: Mapping[str, float] = {"no": 0.01, "bf16": 0.03, "fp16": 0.03}  # of losses and gradients of a first step
PUBLISHED = {"kind": "sd21", "prediction": "epsilon"}
SMALLER = {
    **PUBLISHED,
    "vae": {"block_out_channels": [16, 32, 64, 128], "layers_per_block": 1, "norm_num_groups": 4},
    "unet": {"block_out_channels": [96, 192, 384, 384]},
    "text_encoder": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """`base` describes Stable Diffusion 2.1 with random weights; without one it is the trainer's stand-in."""

    base: Mapping[str, Any] | None
    side_px: int
    rank: int


SIZES: Mapping[str, Size] = {
    "tiny": Size(None, 96, 32),
    "mid": Size(SMALLER, 128, 64),
    "full": Size(PUBLISHED, 512, 256),
}
ONE_BY_ONE = ("full",)


@dataclass(frozen=True)
class Way:
    """`trains` says whether it is the trainer; both may compute activations again."""

    trains: bool
    checkpoints: bool


BASELINE = "script"
WAYS: Mapping[str, Way] = {
    BASELINE: Way(False, True),
    "script, no checkpointing": Way(False, False),
    "trainer": Way(True, False),
    "trainer, checkpointing": Way(True, True),
}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common. Presets and outputs go into the folder."""

    size: Size
    batch: int
    machine: Machine
    folder: Path


def open_way(setting: Setting, way: Way) -> Course:
    if not way.trains:
        return open_script(setting, way.checkpoints)
    trainer = open_trainer(setting, way.checkpoints)
    return course_of(trainer, setting.machine.processes, setting.machine.precision)


def open_trainer(setting: Setting, checkpoints: bool = False) -> RestorationTrainer:
    size, folder, machine = setting.size, setting.folder, setting.machine
    base = folder / "base.json"
    base.write_text(json.dumps(size.base), encoding="utf-8")
    preset = {
        "trainer": "restoration", "output_dir": str(folder / "output"), "output_name": "bench", "seed": SEED,
        "base_model_path": str(base) if size.base else STAND_IN, "discriminator_backbone": STAND_IN,
        "lpips_weights": STAND_IN, "train_dir": [str(PAIRS)], "out_size": size.side_px, "crop_type": "random",
        "batch_size": setting.batch, "dataloader_num_workers": 0, "lora_rank": size.rank, "model_t": TIMESTEP,
        "coeff_t": TIMESTEP, "lambda_l2": WEIGHTS["mse"], "lambda_lpips": WEIGHTS["lpips"], "lambda_ssim": 0,
        "lambda_gan": WEIGHTS["disc"], "lr_G": RATE, "lr_D": RATE, "ema_decay": DECAY,
        "max_grad_norm": LONGEST_GRADIENT, "gradient_checkpointing": checkpoints, "max_train_steps": 10**6,
        "mixed_precision": machine.precision.name, "log_grad_steps": 0, "log_with": "none",
    }  # fmt: skip
    path = folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    job = inspect_restoration(load_preset(path), 1, SEED)
    return build_restoration(job, machine.processes, machine.precision)


# -- the plain loop ----------------------------------------------------------------------------------------------------


@dataclass
class Script:
    """Prepared UNet, heads and optimizers, and the frozen networks. Pictures go from -1 to 1."""

    accelerator: Accelerator
    device: torch.device
    unet: Any
    heads: nn.Module
    optimizers: Sequence[Any]  # of the LoRA and of the heads
    weights: Sequence[Sequence[Tensor]]
    averages: Sequence[Tensor]
    vae: Any
    encoder: Any
    tokenizer: Any
    scheduler: Any
    backbone: nn.Module
    lpips: nn.Module

    def output(self, lq: Tensor, prompts: Sequence[str], noise: Tensor) -> Tensor:
        """(b, 3, h, w) the restored pictures."""
        with torch.no_grad():
            words = self.tokenizer(
                list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            )
            text = self.encoder(words.input_ids.to(self.device))[0]
            posterior = self.vae.encode(lq.to(self.vae.dtype)).latent_dist
            latents = (posterior.mean + posterior.std * noise) * self.vae.config.scaling_factor
        answer = self.unet(latents, TIMESTEP, encoder_hidden_states=text, return_dict=False)[0]
        clean = self.scheduler.step(answer.float(), TIMESTEP, latents.float()).pred_original_sample
        image: Tensor = self.vae.decode((clean / self.vae.config.scaling_factor).to(self.vae.dtype), return_dict=False)[
            0
        ]
        return image.float()

    def verdict(self, images: Tensor, label: float) -> tuple[Tensor, float]:
        """The cross entropy of calling them so, added up over the heads, and the mean logit."""
        logits = self.heads(self.backbone(images))
        loss = sum(F.binary_cross_entropy_with_logits(each, torch.full_like(each, label)) for each in logits)
        return loss, sum(each.mean().item() for each in logits) / len(logits)  # type: ignore[return-value]

    def generator_step(self, gt: Tensor, lq: Tensor, prompts: Sequence[str], noise: Tensor) -> dict[str, float]:
        self.heads.eval().requires_grad_(False)
        with self.accelerator.autocast():
            made = self.output(lq, prompts, noise)
            terms = {
                "mse": F.mse_loss(made, gt),
                "lpips": self.lpips((made + 1) / 2, (gt + 1) / 2).mean(),
                "disc": self.verdict(made, REAL_LABEL)[0],
            }
        weighted = {name: WEIGHTS[name] * term for name, term in terms.items()}
        loss = torch.stack(list(weighted.values())).sum()
        norm = self._update(0, loss)
        for average, weight in zip(self.averages, self.weights[0], strict=True):
            average.mul_(DECAY).add_(weight.detach(), alpha=1 - DECAY)
        return {"loss": loss.item(), "grad_norm": norm, **{name: each.item() for name, each in weighted.items()}}

    def discriminator_step(self, gt: Tensor, lq: Tensor, prompts: Sequence[str], noise: Tensor) -> dict[str, float]:
        self.heads.train().requires_grad_(True)
        with self.accelerator.autocast():
            with torch.no_grad():
                made = self.output(lq, prompts, noise)
            real, of_real = self.verdict(gt, REAL_LABEL)
            fake, of_fake = self.verdict(made, 0.0)
            loss = real + fake
        norm = self._update(1, loss)
        return {"d/loss": loss.item(), "d/grad_norm": norm, "real": of_real, "fake": of_fake}

    def _update(self, number: int, loss: Tensor) -> float:
        """The norm of the gradient, which such a program logs."""
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.weights[number], LONGEST_GRADIENT)
        self.optimizers[number].step()
        self.optimizers[number].zero_grad()
        return float(norm)

    def step(self, micro: Batch) -> dict[str, float]:
        """Of both networks, each on pictures of its own."""
        found: dict[str, float] = {}
        for prefix, run in (("", self.generator_step), (JUDGED, self.discriminator_step)):
            gt, lq = (micro[f"{prefix}{key}"].float() / 255 * 2 - 1 for key in ("gt", "lq"))
            found |= run(gt, lq, micro[f"{prefix}prompts"], micro[f"{prefix}noise"])
        return found


def open_script(setting: Setting, checkpoints: bool) -> Course:
    """It takes data, the first LoRA and the seed of the heads from a trainer, which then goes."""
    machine, device = setting.machine, setting.machine.device
    trainer = open_trainer(setting)
    data, checkpoint = trainer.data, trainer.job.checkpoint
    first = {name: weight.detach().clone() for name, weight in lora_parameters(trainer.painter.networks.unet).items()}
    del trainer
    accelerator = accelerator_of(machine)
    base = restoration_base(checkpoint, machine.precision, device)
    unet = _with_lora(base.unet, setting.size.rank, first)
    if checkpoints:
        unet.enable_gradient_checkpointing()
    backbone = open_backbone(STAND_IN, "", machine.precision.dtype).to(device)
    heads = build_heads(backbone.channels, draw_key(SEED, "discriminator")).to(device)
    weights = [[weight for weight in unet.parameters() if weight.requires_grad], list(heads.parameters())]
    optimizers = [torch.optim.AdamW(each, lr=RATE) for each in weights]
    unet, heads, *optimizers = accelerator.prepare(unet, heads, *optimizers)
    (encoder,), (tokenizer,) = base.text_encoders, base.tokenizers
    script = Script(
        accelerator, device, unet, heads, optimizers, weights, [weight.detach().clone() for weight in weights[0]],
        base.vae, encoder.to(device), tokenizer, DDPMScheduler.from_config(base.configs["scheduler"]), backbone,
        open_lpips(STAND_IN, "").requires_grad_(False).eval().to(device),
    )  # fmt: skip
    numbers = itertools.count()

    def prepared() -> Batch:
        (micro,) = data(next(numbers))
        return placed(micro, device)

    return Course(prepared, script.step, script.step(prepared()))


def _with_lora(unet: Any, rank: int, first: Mapping[str, Tensor]) -> Any:
    """peft's layers, which begin with these weights."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_MODULES)))
    cast_training_params(unet, dtype=torch.float32)
    unet.train()
    weights = dict(unet.named_parameters())
    with torch.no_grad():
        for name, value in first.items():
            weights[name].copy_(value)
    return unet


# -- measuring ---------------------------------------------------------------------------------------------------------


def flops(setting: Setting) -> int:
    """Of a step of the trainer: what goes into the networks is prepared and counted, the rest counted alone."""
    trainer = open_trainer(setting)
    micros = [placed(micro, setting.machine.device) for micro in trainer.data(0)]
    prepared: list[Batch] = []
    found = flops_of(lambda: prepared.extend(trainer.prepare(0, micros)))
    batch = on_meta(prepared[0])
    generator, discriminator = trainer.phases
    networks = trainer.painter.networks
    objective: Any = generator.loss.__self__  # type: ignore[attr-defined]
    whole = [networks.unet, networks.vae, objective.lpips, objective.judge.backbone, objective.judge.heads]
    for phase in (generator, discriminator):
        found += flops_on_meta(
            whole,
            phase.weights.values(),
            lambda phase=phase: phase.loss(phase.module, batch).per_sample.sum(),  # type: ignore[misc]
        )
    return found


def measure(setting: Setting, size: str, rounds: int, only: Collection[str] = ()) -> list[Row]:
    return measured(
        {"bench": "restoration", "size": size},
        {name: partial(open_way, setting, way) for name, way in WAYS.items()},
        BASELINE,
        setting.machine,
        rounds,
        batch=setting.batch,
        flops=partial(flops, setting),
        tolerance=TOLERANCE[setting.machine.precision.name],
        one_by_one=size in ONE_BY_ONE,
        only=only,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return run_bench(_bench, _parser(), arguments)


def _parser() -> Parser:
    parser = parser_of("bench_restoration", __doc__, SIZES, batch=2, rounds=7, precision="bf16")
    add_ways(parser, WAYS, BASELINE)
    return parser


def _bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    for name in options.size:
        size = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Setting(size, options.batch, machine, Path(folder)), name, options.rounds, options.way)
        what = f"restoration, {name} ({size.side_px} px, rank {size.rank})"
        tell(rows, f"{what}, batch {options.batch}, {machine.precision.name}, {machine.device}")


if __name__ == "__main__":
    sys.exit(main())
