"""What a diffusion training is said to need is what its models, its batch and its optimizer take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.errors import Refusal
from lora_trainer.models.recomputation import RUNGS
from lora_trainer.trainers.diffusion.fit import Measure, memory_rows, other_optimizer, spoken
from lora_trainer.trainers.diffusion.memory import GIB, RUNTIME, Choices, DiffusionMemory, Needs, Owner, vae_format
from lora_trainer.trainers.finetune import memory as finetune_memory
from lora_trainer.trainers.finetune.job import inspect_finetune
from lora_trainer.trainers.finetune.trainer import FinetuneTrainer, build_finetune
from lora_trainer.trainers.lora import plan
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.trainer import LoraTrainer, build_lora

Write = Callable[..., Path]
SOME: list[dict[str, Any]] = [
    {"LoRA_type": "Standard"},
    {"LoRA_type": "Kohya DyLoRA", "unit": 2, "conv_dim": 0},
    {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True},
    {"LoRA_type": "LyCORIS/LoHa", "rank_dropout": 0.1},
    {"LoRA_type": "LyCORIS/BOFT", "network_dim": 8},
    {"LoRA_type": "LyCORIS/Native Fine-Tuning", "train_norm": True, "unet_lr": 1e-4},
]
RUNG_WORDS = [f"gradient_checkpointing {word}" for word in ("geglu", "feed_forward", "true")]
Asked = list[tuple[DiffusionMemory, Choices, list[str]]]


def finetune(preset: Path) -> FinetuneTrainer:
    loaded = load_preset(preset)
    return build_finetune(inspect_finetune(loaded, world=1, seed=1), Processes(), Precision("no", "cpu"), True)


def lora(preset: Path) -> LoraTrainer:
    loaded = load_preset(preset)
    return build_lora(inspect_lora(loaded, world=1, seed=1), Processes(), Precision("no", "cpu"), True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the trainers ask about: the models, the choices, and the words of the measures."""
    found: Asked = []

    def rows(memory: DiffusionMemory, choices: Choices, measures: list[Measure], card: int | None) -> Any:
        found.append((memory, choices, [measure.words for measure in measures]))
        return [("memory", "")]

    monkeypatch.setattr(finetune_memory, "memory_rows", rows)
    monkeypatch.setattr(plan, "memory_rows", rows)
    return found


def kept(memory: DiffusionMemory) -> int:
    """The bytes that PyTorch keeps of the batch, without autocast."""
    resident = {tensor.untyped_storage()._cdata for tensor in (*memory.model.parameters(), *memory.model.buffers())}
    found: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in resident:
            found[storage._cdata] = storage
        return tensor

    for name, weight in memory.model.named_parameters():
        weight.requires_grad_(name in memory.trained)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        memory.model(memory.batch["noise"], dict(memory.batch))
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_fine_tuning_needs_its_components(write_finetune: Write, asked: Asked, kind: str) -> None:
    trainer = finetune(write_finetune(kind, ema_decay_rate=0.99, ema_device="cuda"))
    finetune_memory.finetune_memory_rows(trainer)
    memory, choices, words = asked[0]
    needs = memory.needs(choices)
    numbers = {
        part: sum(weight.numel() for name, weight in memory.model.named_parameters() if name.startswith(part))
        for part in ("unet", "text_encoders")
    }
    trained = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    assert needs.components["UNet"] == numbers["unet"] * 4
    assert needs.components["gradients"] == needs.components["moving average"] == trained * 4
    assert needs.components["optimizer"] == pytest.approx(trained * 8, abs=8 * len(memory.trained))
    assert needs.components["activations"] == kept(memory)
    assert needs.peak > RUNTIME + numbers["unet"] * 4 + trained * 16
    assert words == [
        *RUNG_WORDS, "cache_latents", "ema_device cpu", "fused_backward_pass", "optimizer AdamW8bit",
        "batch_size 1",
    ]  # fmt: skip


def test_every_choice_counts(write_finetune: Write, asked: Asked) -> None:
    finetune_memory.finetune_memory_rows(finetune(write_finetune(mixed_precision="bf16", ema_decay_rate=0.9)))
    memory, choices, words = asked[0]
    assert "full_bf16" in words
    whole = memory.needs(choices)
    assert whole.components["16-bit copies of the weights"] > 0

    def changed(**facts: Any) -> Needs:
        return memory.needs(replace(choices, **facts))

    half = changed(rounded=True)
    trained = {name: dict(memory.model.named_parameters())[name] for name in memory.trained}
    less = sum(weight.numel() for weight in trained.values()) * 2
    assert whole.components["gradients"] - half.components["gradients"] == less
    assert "16-bit copies of the weights" not in half.components
    assert half.components["optimizer"] == whole.components["optimizer"]
    assert half.peak < whole.peak
    fused = changed(fused=True)
    assert fused.components["gradients"] == 4 * max(weight.numel() for weight in trained.values())
    assert changed(fused=True, rounded=True).components["gradients"] * 2 == fused.components["gradients"]
    assert changed(average=True).peak - whole.peak == 2 * less
    kept_on = {rung: changed(rung=rung).components["activations"] for rung in RUNGS}
    assert sorted(kept_on.values(), reverse=True) == list(kept_on.values())
    assert kept_on["everything"] < whole.components["activations"] / 2
    assert changed(share=0.5).components["activations"] * 2 == whole.components["activations"]
    assert changed(gradients_stay=True).peak >= whole.peak
    assert whole.components["VAE"] == sum(weight.numel() for weight in memory.vae.parameters()) * 2
    assert "VAE" not in changed(encodes=False).components
    images, _, height, width = memory.batch["noise"].shape
    first = memory.vae.config.block_out_channels[0]
    assert whole.components["the VAE at work"] == 3 * images * height * 8 * width * 8 * first * 2


def test_what_is_not_trained_has_the_format_of_the_passes(write_finetune: Write, asked: Asked) -> None:
    preset = write_finetune(disable_textenc_training=True, mixed_precision="bf16", clip_grad_norm=1, grad_accum=2)
    finetune_memory.finetune_memory_rows(finetune(preset))
    memory, choices, words = asked[0]
    text = sum(weight.numel() for weight in memory.model.text_encoders.parameters())
    positions = sum(buffer.numel() * 8 for buffer in memory.model.text_encoders.buffers())
    assert memory.needs(choices).components["text encoders"] == text * 2 + positions
    assert choices.gradients_stay
    assert "fused_backward_pass" not in words
    assert [owner.name for owner in choices.owners] == ["AdamW"]


@pytest.mark.parametrize("keys", SOME)
def test_kinds_of_lora_are_measured(write_preset: Write, asked: Asked, keys: dict[str, Any]) -> None:
    trainer = lora(write_preset("sd15", **keys))
    plan.memory_of(trainer)
    memory, choices, words = asked[0]
    needs = memory.needs(choices)
    assert needs.components["activations"] == pytest.approx(kept(memory), rel=0.02)  # masks of dropout
    trained = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    assert needs.components["gradients"] == trained * 4
    assert words == ["cache_latents", *RUNG_WORDS, "optimizer AdamW8bit", "train_batch_size 1"]


@pytest.mark.parametrize("value", ["geglu", "feed_forward"])
def test_the_rungs_between_are_measured(write_preset: Write, asked: Asked, value: str) -> None:
    """What PyTorch keeps is what the plan tells, for the rung that the preset names."""
    plan.memory_of(lora(write_preset("sdxl", gradient_checkpointing=value)))
    memory, choices, _ = asked[0]
    assert choices.rung == value
    found = {rung: memory.needs(replace(choices, rung=rung)).components["activations"] for rung in RUNGS}
    assert found[value] == pytest.approx(kept(memory), rel=0.01)
    assert found[value] < found["nothing"]


def test_captions_that_are_encoded_before_leave_their_encoders_out(write_preset: Write, asked: Asked) -> None:
    keys = {"sdxl_cache_text_encoder_outputs": True, "text_encoder_lr": 0, "cache_latents": True}
    plan.memory_of(lora(write_preset("sdxl", **keys)))
    memory, choices, _ = asked[0]
    components = memory.needs(choices).components
    assert not {"text encoders", "VAE", "the VAE at work"} & components.keys()


def test_the_format_of_a_vae() -> None:
    plain = cast(Any, type("Vae", (), {"config": {"force_upcast": False}}))
    wide = cast(Any, type("Vae", (), {"config": {"force_upcast": True}}))
    assert vae_format(plain, torch.float16) == torch.float16
    assert vae_format(wide, torch.float16) == torch.float32
    assert vae_format(wide, torch.bfloat16) == torch.bfloat16
    assert vae_format(plain, torch.bfloat16, full=True) == torch.float32


class Numbers:
    """Needs that are told: 10 GiB, less by checkpointing and by the VAE."""

    def needs(self, choices: Choices) -> Needs:
        peak = 30.0 - 12 * (choices.rung == "everything") - 0.01 * (not choices.encodes) - 8 * choices.fused
        activations = (2 if choices.rung == "everything" else 14) * GIB
        return Needs({"UNet": 3 * GIB, "VAE": 2**20, "activations": activations}, round(peak * GIB))


MEASURES = [
    Measure("cache_latents", lambda choices: replace(choices, encodes=False)),
    Measure("gradient_checkpointing", lambda choices: replace(choices, rung="everything")),
    Measure("fused_backward_pass", lambda choices: replace(choices, fused=True)),
]

DONE = {"rung": "everything", "fused": True}


@pytest.mark.parametrize(
    ("card", "facts", "verdict"),
    [
        (32, {}, "30.0 GiB of the card's 32.0 GiB: fits"),
        (24, {}, "30.0 GiB of the card's 24.0 GiB: does not fit. gradient_checkpointing would save 12.0 GiB: "
         "18.0 GiB, which fits"),
        (12, {}, "30.0 GiB of the card's 12.0 GiB: does not fit. gradient_checkpointing would save 12.0 GiB, then "
         "fused_backward_pass 8.0 GiB: 10.0 GiB, which fits"),
        (8, {"rung": "everything"}, "18.0 GiB of the card's 8.0 GiB: does not fit. fused_backward_pass would save "
         "8.0 GiB: 10.0 GiB, which does not fit either"),
        (8, DONE, "10.0 GiB of the card's 8.0 GiB: does not fit; no key would make it less"),
        (None, {}, "30.0 GiB: would fit cards of 32 GiB and more, not of 24 GiB. gradient_checkpointing would "
         "save 12.0 GiB, then fused_backward_pass 8.0 GiB: 10.0 GiB"),
        (None, DONE, "10.0 GiB: would fit cards of 12 GiB and more, not of 8 GiB"),
    ],
)  # fmt: skip
def test_whether_it_fits_is_said(card: int | None, facts: dict[str, Any], verdict: str) -> None:
    choices = Choices([Owner("AdamW", {}, [])], **facts)
    rows = dict(memory_rows(cast(Any, Numbers()), choices, MEASURES, card and card * GIB))
    assert rows["at the most"] == f"about {verdict}"
    other = (
        "without gradient checkpointing 14.00" if choices.rung == "everything" else "with gradient checkpointing 2.00"
    )
    here = "2.00" if choices.rung == "everything" else "14.00"
    assert rows["memory"] == f"UNet 3.00 GiB, VAE 1.0 MiB, activations {here} GiB ({other} GiB)"


def test_an_optimizer_that_is_not_there_is_not_recommended() -> None:
    class Missing(Numbers):
        def needs(self, choices: Choices) -> Needs:
            if choices.owners[0].name == "AdamW8bit":
                raise Refusal("not installed")
            return super().needs(choices)

    measures = [Measure("optimizer AdamW8bit", other_optimizer("AdamW8bit")), MEASURES[1]]
    rows = memory_rows(cast(Any, Missing()), Choices([Owner("AdamW", {}, [])]), measures, 24 * GIB)
    assert "does not fit. gradient_checkpointing would save 12.0 GiB: 18.0 GiB" in rows[1][1]


def test_layers_that_look_at_numbers_are_no_reason_to_stop(write_preset: Write) -> None:
    trainer = lora(write_preset("sd15", LoRA_type="LyCORIS/Diag-OFT", constrain=0.5))
    (row,) = plan.memory_of(trainer)
    assert row[0] == "memory"
    assert row[1].startswith("is not known before the trial step: RuntimeError: ")
    assert "\n" not in row[1]


def test_a_dry_run_tells_it(write_preset: Write, train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write_preset("sdxl", gradient_checkpointing=True), "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "(without gradient checkpointing " in said
    assert "at the most about 1.2 GiB: would fit cards of 8 GiB and more" in said
    assert spoken(GIB / 4) == "256.0 MiB"
