"""The LoRA trainer: one phase over UNet and text encoders, exported in kohya's format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lora_trainer import atomic
from lora_trainer.data.batches import Share, largest_batch_step
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.latent_cache import LatentCache, LatentSettings, Team
from lora_trainer.engine.console import counted
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, Phase, Stateful
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.schedules import Curve, Schedule, make_schedule
from lora_trainer.losses.weighting import Weighting
from lora_trainer.models.attention import use_attention
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.kohya_keys import Part, by_kohya_name, kohya_names
from lora_trainer.models.lora_file import SAVE_DTYPES, lora_file_bytes
from lora_trainer.models.lora_layers import add_lora, freeze_unreachable, lora_targets, lora_weights
from lora_trainer.models.text_encoding import TextCondition, encode_prompts, reachable_layers, token_count, tokenize
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.diffusion_data import CaptionTokens, DiffusionData, NoiseSettings
from lora_trainer.trainers.diffusion_model import DiffusionModel
from lora_trainer.trainers.diffusion_objective import Objective, encode
from lora_trainer.trainers.lora_job import LoraJob
from lora_trainer.trainers.lora_metadata import LoraFacts
from lora_trainer.trainers.sampling import Drawing, Sampler

log = logging.getLogger(__name__)

TEXT_PARTS: tuple[Part, ...] = ("text_encoder", "text_encoder_2")


@dataclass
class LoraTrainer:
    """What the loop runs (engine.phase.Trainer)."""

    job: LoraJob
    base: BaseModel
    phases: Sequence[Phase]
    data: DiffusionData
    total_steps: int
    names: Mapping[Part, Mapping[str, str]]  # kohya's name of each layer, by part and path
    facts: LoraFacts
    state: Mapping[str, Stateful] = field(default_factory=dict)
    suffix: str = ".safetensors"

    @property
    def steps_per_epoch(self) -> int:
        return self.data.plan.steps_per_epoch

    @property
    def total_batch(self) -> int:
        return self.job.total_batch

    @property
    def largest_step(self) -> int:
        return largest_batch_step(self.data.plan)

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        return micros

    def after_step(self, step: int) -> None:
        """Nothing: a LoRA has no state beside its weights."""

    def export(self, stem: Path, done: int) -> Path:
        models = parts_of(self.base)
        weights = by_kohya_name(self.names, {part: lora_weights(models[part]) for part in self.names})
        path = stem.with_name(stem.name + self.suffix)
        metadata = self.facts.metadata(done, self.total_steps, self.steps_per_epoch)
        atomic.write_bytes(path, lora_file_bytes(weights, SAVE_DTYPES[self.job.preset.save_precision], metadata))
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[Path]:
        base, preset = self.base, self.job.preset
        device = base.unet.device
        sampler = Sampler(preset.sample_sampler, base.prediction == "v_prediction", base.zero_terminal_snr)
        homes = [(model, model.device) for model in (base.vae, *base.text_encoders)]
        for model, _ in homes:
            model.to(device)
        drawing = Drawing(
            base.kind, base.unet, base.vae, base.text_encoders, base.tokenizers, preset.clip_skip, sampler
        )
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, prompt in enumerate(self.job.prompts):
            path = folder / f"{preset.output_name}_{label}_{number:02d}_{prompt.seed}.png"
            drawing.draw(prompt).save(path)
            paths.append(path)
        for model, home in homes:
            model.to(home)
        return paths

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        return {}


def build_lora(job: LoraJob, processes: Processes, precision: Precision, dry: bool = False) -> LoraTrainer:
    """Load the models, put the LoRA in, encode the pictures. A dry build encodes none; its steps do it themselves."""
    preset, device = job.preset, processes.device
    log.info("loading %s", job.checkpoint.path)
    base = load_base_model(job.checkpoint, dtype=precision.dtype, vae=Path(preset.vae) if preset.vae else None)
    if note := use_attention(base.unet, preset.xformers, device):
        log.info("%s", note)
    _place(base, preset, precision, device)
    names = _add_lora(job, base)
    tokens = _tokens(job, base, device)
    latents = _latents(job, base, processes) if preset.caches_latents and not dry else None
    if latents is not None and device.type == "cuda":
        base.vae.to("cpu")
    data = DiffusionData(
        job.samples,
        job.plan,
        CaptionSettings(
            preset.shuffle_caption,
            preset.keep_tokens,
            preset.caption_dropout_rate,
            preset.caption_dropout_every_n_epochs,
        ),
        tokens,
        _noise_settings(job),
        Share(processes.rank, processes.world, preset.train_batch_size),
        latents,
        float(base.vae.config.scaling_factor),
        preset.flip_aug,
    )
    total_steps = job.total_steps
    log.info(
        "%d pictures, %d with their repeats, in %d buckets: %d steps an epoch, %d in all",
        job.summary.pictures,
        job.summary.uses,
        len(job.summary.uses_in),
        data.plan.steps_per_epoch,
        total_steps,
    )
    phase = _phase(job, base, device, total_steps)
    return LoraTrainer(job, base, [phase], data, total_steps, names, LoraFacts(job, base))


def parts_of(base: BaseModel) -> dict[Part, nn.Module]:
    """The models that can have a LoRA."""
    return {"unet": base.unet, **dict(zip(TEXT_PARTS, base.text_encoders, strict=False))}


def _place(base: BaseModel, preset: Any, precision: Precision, device: torch.device) -> None:
    """Onto the device, in the number formats of the preset, forgetting activations where asked."""
    base.unet.to(device)
    for encoder in base.text_encoders:
        encoder.to(device)
    half = precision.dtype if device.type == "cuda" and not preset.sdxl_no_half_vae else torch.float32
    if half == torch.float16 and base.vae.config.get("force_upcast", False):
        log.info("the base model's VAE overflows in fp16, by its own configuration; it runs in fp32")
        half = torch.float32
    base.vae.to(device)
    if half != torch.float32:
        base.vae.to(dtype=half)
    if preset.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
        base.unet.train()
        for encoder in base.text_encoders:
            # the new name since transformers 5.20; the old one will go in 6
            name = "activation_checkpointing_enable"
            getattr(encoder, name if hasattr(encoder, name) else "gradient_checkpointing_enable")(
                {"use_reentrant": False}
            )
            encoder.train()


def _add_lora(job: LoraJob, base: BaseModel) -> dict[Part, dict[str, str]]:
    """Put a LoRA into each part that is trained. Gives kohya's names of its layers."""
    preset = job.preset
    rates = {"unet": preset.unet_rate, **dict.fromkeys(TEXT_PARTS, preset.text_encoder_rate)}
    names: dict[Part, dict[str, str]] = {}
    for index, (part, model) in enumerate(parts_of(base).items()):
        if rates[part] is None:
            model.requires_grad_(False)
            continue
        names[part] = kohya_names(base.kind, part, lora_targets(model), base.unet.config)
        add_lora(model, names[part], rank=preset.network_dim, alpha=preset.effective_network_alpha, seed=job.seed)
        if part != "unet":
            layers = cast(Any, model).config.num_hidden_layers
            freeze_unreachable(model, reachable_layers(base.kind, index - 1, layers, preset.clip_skip))
    return names


def _phase(job: LoraJob, base: BaseModel, device: torch.device, total_steps: int) -> Phase:
    preset = job.preset
    model = DiffusionModel(base.kind, base.unet, base.text_encoders, preset.clip_skip)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    groups = []
    for name, prefix, rate in (
        ("unet", "unet.", preset.unet_rate),
        ("text_encoder", "text_encoders.", preset.text_encoder_rate),
    ):
        weights = {key: weight for key, weight in trained.items() if key.startswith(prefix)}
        if weights and rate is not None:
            groups.append(Group(name, rate, weights))
    optimizer = make_optimizer(preset.optimizer, groups, preset.optimizer_options)
    weighting = Weighting(
        base.prediction == "v_prediction",
        preset.min_snr_gamma,
        preset.scale_v_pred_loss_like_noise_pred,
        preset.v_pred_like_loss,
        preset.debiased_estimation_loss,
    )
    objective = Objective(base.vae, weighting, preset.adaptive_noise_scale, base.zero_terminal_snr, device)
    weights = {key: weight for group in groups for key, weight in group.weights.items()}
    return Phase("lora", model, weights, optimizer, objective, schedule_of(job, total_steps), preset.max_grad_norm)


def schedule_of(job: LoraJob, total_steps: int) -> Schedule:
    preset = job.preset
    curve = Curve(
        total_steps,
        int(total_steps * preset.lr_warmup / 100),
        preset.lr_scheduler_num_cycles,
        preset.lr_scheduler_power,
        preset.unet_rate or preset.text_encoder_rate or 1.0,
    )
    return make_schedule(preset.lr_scheduler, curve)


def _noise_settings(job: LoraJob) -> NoiseSettings:
    preset = job.preset
    plain = preset.noise_offset_type == "Original"
    return NoiseSettings(
        offset=preset.noise_offset if plain else 0.0,
        offset_random_strength=preset.noise_offset_random_strength,
        offset_adaptive_scale=preset.adaptive_noise_scale if plain else 0.0,
        multires_iterations=0 if plain else preset.multires_noise_iterations,
        multires_discount=preset.multires_noise_discount,
        input_gamma=preset.ip_noise_gamma,
        input_gamma_random_strength=preset.ip_noise_gamma_random_strength,
        min_timestep=preset.min_timestep,
        max_timestep=preset.max_timestep,
    )


def _tokens(job: LoraJob, base: BaseModel, device: torch.device) -> CaptionTokens:
    preset = job.preset
    counts = [max(token_count(tokenizer, s.caption) for tokenizer in base.tokenizers) for s in job.samples]
    beyond = sum(count > preset.max_token_length for count in counts)
    if beyond:
        log.info(
            "%d of %d captions are longer than max_token_length %d; what is beyond it is not trained",
            beyond,
            len(counts),
            preset.max_token_length,
        )
    tokens = CaptionTokens(base.tokenizers, preset.max_token_length)
    if not preset.sdxl_cache_text_encoder_outputs:
        return tokens
    encoded = {caption: _encoded(tokens, base, caption, device) for caption in _captions(job)}
    for encoder in base.text_encoders:
        encoder.to("cpu")
    return CaptionTokens(base.tokenizers, preset.max_token_length, encoded)


def _captions(job: LoraJob) -> list[str]:
    captions = dict.fromkeys(sample.caption for sample in job.samples)
    if job.preset.caption_dropout_every_n_epochs:
        captions[""] = None
    return list(captions)


@torch.no_grad()
def _encoded(tokens: CaptionTokens, base: BaseModel, caption: str, device: torch.device) -> TextCondition:
    ids = [tokenize(t, caption, tokens.max_token_length)[None].to(device) for t in tokens.tokenizers]
    dtype = base.unet.dtype
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        condition = encode_prompts(base.kind, base.text_encoders, ids, 1)
    pooled = condition.pooled
    return TextCondition(condition.hidden.cpu(), None if pooled is None else pooled.cpu())


def _latents(job: LoraJob, base: BaseModel, processes: Processes) -> LatentCache:
    preset = job.preset
    source = Path(preset.vae) if preset.vae else job.checkpoint.path
    half = base.vae.dtype != torch.float32
    settings = LatentSettings(
        identity=f"{weights_identity(source)} {base.vae.dtype}",
        mirrored=preset.flip_aug,
        dtype=torch.float16 if half else torch.float32,
        batch_size=max(1, preset.vae_batch_size),
        folder=Path(preset.train_data_dir) / ".latents" if preset.cache_latents_to_disk else None,
    )
    team = Team(processes.rank, processes.world, processes.gather)
    encode_here: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = lambda pixels: encode(base.vae, pixels)  # noqa: E731
    log.info("encoding %d pictures", len(job.samples))
    with counted("encoding pictures", len(job.samples)) as advance:
        return LatentCache.build(job.samples, encode_here, settings, team, advance)
