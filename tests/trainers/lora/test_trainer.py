"""What the LoRA trainer makes of its keys, and that other programs get out of the file what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor
from torch.nn import Conv2d

from lora_trainer.models.adapters.targets import lora_targets
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import check_agreement, detect
from lora_trainer.models.kohya_keys import by_module_path, kohya_names
from lora_trainer.models.text_encoding import encode_prompts, tokenize
from lora_trainer.trainers.diffusion.base import parts_of
from tests.models.standard_lora import add_lora, load_lora_weights, read_lora_file

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]

CAPTION = "photo of a cat, close-up, green eyes"


def trained_models(path: Path, file: Path, kind: str) -> Any:
    """The base with the file's weights in our own layers: the model as it was trained."""
    switches = {"sdxl": kind == "sdxl", "v2": kind.startswith("sd21"), "v_parameterization": kind.endswith("-v")}
    base = load_base_model(check_agreement(detect(path), **switches))
    models = parts_of(base)
    config = base.unet.config
    names = {part: kohya_names(base.kind, part, lora_targets(model), config) for part, model in models.items()}
    weights = by_module_path(names, read_lora_file(file).weights)
    for part, model in models.items():
        add_lora(model, names[part], rank=4, alpha=4, seed=0)
        assert load_lora_weights(model, weights[part]) == ()
    return base


def diffusers_pipeline(base: Any, scheduler: Any) -> Any:
    parts = {"unet": base.unet, "vae": base.vae, "scheduler": scheduler}
    parts |= {"text_encoder": base.text_encoders[0], "tokenizer": base.tokenizers[0]}
    if base.kind == "sdxl":
        parts |= {"text_encoder_2": base.text_encoders[1], "tokenizer_2": base.tokenizers[1]}
        return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    off = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**parts, **off)


@torch.no_grad()
def outputs(base: Any) -> list[torch.Tensor]:
    """What text encoders and UNet answer to a fixed question."""
    ids = [tokenize(tokenizer, CAPTION)[None] for tokenizer in base.tokenizers]
    condition = encode_prompts(base.kind, base.text_encoders, ids)
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    extra = None
    if condition.pooled is not None:
        extra = {"text_embeds": condition.pooled, "time_ids": torch.tensor([[64.0, 96, 0, 0, 64, 96]])}
    timestep = torch.tensor([500])
    answer = base.unet(latents, timestep, condition.hidden, added_cond_kwargs=extra, return_dict=False)[0]
    return [answer, condition.hidden] + ([condition.pooled] if condition.pooled is not None else [])


@pytest.mark.parametrize(
    ("kind", "suffix", "precision", "tolerance"),
    [
        ("sdxl", ".safetensors", "float", 1e-5),
        ("sdxl", "", "fp16", 2e-3),
        ("sd15", ".ckpt", "float", 1e-5),
        ("sd15", ".safetensors", "fp16", 2e-3),
        ("sd21-v", ".safetensors", "float", 1e-5),
        ("sd21", "", "bf16", 2e-2),
    ],
)
def test_diffusers_gets_the_trained_model_out_of_the_file(
    write_preset: WritePreset, train: Train, out: Path, tiny_path: Callable[..., Path], kind: str, suffix: str,
    precision: str, tolerance: float, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    preset = write_preset(kind, suffix, epoch=3, unet_lr=0.02, text_encoder_lr=0.02, save_precision=precision)
    assert train(preset) == 0
    file = out / "tiny.safetensors"
    path = tiny_path(kind, suffix)
    trained = trained_models(path, file, kind)
    switches = {"sdxl": kind == "sdxl", "v2": kind.startswith("sd21"), "v_parameterization": kind.endswith("-v")}
    fresh = load_base_model(check_agreement(detect(path), **switches))
    before = outputs(fresh)
    pipeline = diffusers_pipeline(fresh, diffusers.DDIMScheduler())
    pipeline.load_lora_weights(str(out), weight_name=file.name)
    layers = [m for part in parts_of(fresh).values() for m in part.modules() if isinstance(m, LoraLayer)]
    with safe_open(file, "pt") as opened:
        assert len(layers) == len(list(opened.keys())) // 3  # every layer of the file has a place in the pipeline
    for ours, theirs, base in zip(outputs(trained), outputs(fresh), before, strict=True):
        assert (ours - theirs).norm() / ours.norm() < tolerance
        assert (theirs - base).norm() / base.norm() > 3 * tolerance  # the training did something to compare


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer": "AdamW8bit"},
        {"optimizer": "Lion"},
        {"optimizer": "Lion8bit", "optimizer_args": "weight_decay=0.1 betas=0.9,0.99"},
        {"optimizer": "Adafactor"},
        {"optimizer": "Adafactor", "optimizer_args": "relative_step=False scale_parameter=False"},
        {"optimizer": "Prodigy", "optimizer_args": "decouple=True"},
        {"lr_scheduler": "linear", "lr_warmup": 50},
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 2},
        {"lr_scheduler": "polynomial", "lr_scheduler_power": 2},
        {"cache_latents": False, "flip_aug": True, "adaptive_noise_scale": 0.1, "noise_offset": 0.1},
        {"noise_offset_type": "Multires", "multires_noise_iterations": 6, "multires_noise_discount": 0.3},
        {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
        {"min_snr_gamma": 5, "debiased_estimation_loss": True, "v_pred_like_loss": 0.1},
        {"min_timestep": 100, "max_timestep": 500},
        {"max_token_length": 225, "caption_dropout_rate": 0.3, "caption_dropout_every_n_epochs": 2},
        {"gradient_checkpointing": True},
        {"mixed_precision": "bf16"},
        {"text_encoder_lr": 0, "shuffle_caption": False, "sdxl_cache_text_encoder_outputs": True},
        {"xformers": "none", "enable_bucket": False},
        {"max_data_loader_n_workers": 1},
        {"loss_type": "huber", "huber_schedule": "exponential"},
        {"loss_type": "smooth_l1", "huber_c": 0.5, "huber_scale": 2},
        {"loss_type": "l1"},
        {"optimizer": "DAdaptAdam", "optimizer_args": "decouple=True weight_decay=0.01"},
        {"optimizer": "torch.optim.NAdam"},
        {"optimizer": "AdamWScheduleFree"},
        {"optimizer": "PagedAdamW8bit"},
        {"optimizer": "SGDNesterov", "max_grad_norm": 0},
        {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.5, "lr_warmup": 30},
        {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": "step_rules='1:2,0.1'"},
        {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_args": '"T_max=3" "eta_min=0e-0"'},
        {"lr_scheduler_type": "torch.optim.lr_scheduler.StepLR", "lr_scheduler_args": "step_size=2 gamma=0.5"},
        {"mixed_precision": "bf16", "fp8_base": True},
        {"mixed_precision": "bf16", "fp8_base": True, "LoRA_type": "LyCORIS/LoCon"},
        {"int8_base": True, "use_channels_last": True},
        {"int8_base": True, "int8_matmul": True, "mixed_precision": "bf16"},
        {"mixed_precision": "bf16", "full_bf16": True, "optimizer": "AdamW8bit"},
        {"network_dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1},
        {"block_dims": ",".join(["2"] * 12 + ["0"] * 11), "block_alphas": ",".join(["1"] * 23)},
    ],
    ids=lambda keys: " ".join(f"{key}={value}" for key, value in list(keys.items())[:2]),
)
def test_a_key_trains_and_leaves_its_trace(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows, keys: dict[str, Any]
) -> None:
    assert train(write_preset(epoch=1, max_train_steps=3, **keys)) == 0
    found = rows()
    assert [row["step"] for row in found] == [1, 2, 3]
    assert all(0 < row["loss"] < 30 and row["grad_norm"] > 0 for row in found)
    weights = read_lora_file(out / "tiny.safetensors").weights
    assert any(layer.up.abs().max() > 0 for layer in weights.values())


PLAIN = {"epoch": 1, "max_train_steps": 2}


def losses_with(train: Train, write_preset: WritePreset, rows: Rows, **keys: Any) -> list[float]:
    assert train(write_preset(**PLAIN, **keys), "--restart") == 0
    return [row["loss"] for row in rows()]


def test_products_in_int8_round_where_the_device_has_them(
    write_preset: WritePreset,
    train: Train,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = losses_with(train, write_preset, rows, int8_base=True)
    multiplied = losses_with(train, write_preset, rows, int8_base=True, int8_matmul=True)
    assert multiplied != stored
    assert multiplied == pytest.approx(stored, rel=0.02)
    monkeypatch.setattr("lora_trainer.trainers.lora.trainer.multiplies_int8", lambda device: False)
    capsys.readouterr()
    assert losses_with(train, write_preset, rows, int8_base=True, int8_matmul=True) == stored
    said = " ".join("".join(capsys.readouterr()).split())
    assert "int8_matmul: this device multiplies no int8, so the weights are made wide instead" in said


@pytest.mark.slow
def test_what_changes_the_loss_and_what_does_not(write_preset: WritePreset, train: Train, rows: Rows) -> None:
    plain = losses_with(train, write_preset, rows)
    assert losses_with(train, write_preset, rows) == plain
    assert losses_with(train, write_preset, rows, max_data_loader_n_workers=1) == plain
    checkpointed = losses_with(train, write_preset, rows, gradient_checkpointing=True)
    assert checkpointed == pytest.approx(plain, rel=1e-5)
    for keys in (
        {"noise_offset": 0.2},
        {"min_snr_gamma": 1},
        {"max_timestep": 300},
        {"flip_aug": True, "seed": 8},
        {"noise_offset_type": "Multires", "multires_noise_iterations": 4},
        {"ip_noise_gamma": 0.5},
        {"max_token_length": 150},
        {"caption_dropout_rate": 1},
    ):
        assert losses_with(train, write_preset, rows, **keys) != plain, keys


def test_channels_last_is_the_layout_alone(
    write_preset: WritePreset, train: Train, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = losses_with(train, write_preset, rows)
    results: list[Tensor] = []
    normal = Conv2d.forward

    def seen(layer: Conv2d, x: Tensor) -> Tensor:
        results.append(normal(layer, x))
        return results[-1]

    keys = {"use_channels_last": True, "cache_latents_to_disk": True}
    losses_with(train, write_preset, rows, **keys)  # whose second run encodes nothing
    monkeypatch.setattr(Conv2d, "forward", seen)
    assert losses_with(train, write_preset, rows, **keys) == pytest.approx(plain, rel=1e-5)
    assert results
    assert all(result.is_contiguous(memory_format=torch.channels_last) for result in results)


def test_only_the_parts_with_a_rate_are_in_the_file(write_preset: WritePreset, train: Train, out: Path) -> None:
    for keys, prefixes in (
        ({"text_encoder_lr": 0}, {"lora_unet"}),
        ({"unet_lr": 0}, {"lora_te1", "lora_te2"}),
        ({}, {"lora_unet", "lora_te1", "lora_te2"}),
    ):
        assert train(write_preset(**PLAIN, **keys), "--restart") == 0
        found = {"_".join(name.split("_")[:2]) for name in read_lora_file(out / "tiny.safetensors").weights}
        assert found == prefixes


def test_latents_on_disk_are_used_again_and_made_anew_when_damaged(
    write_preset: WritePreset, train: Train, out: Path, photos: Path, rows: Rows
) -> None:
    plain = losses_with(train, write_preset, rows)
    assert losses_with(train, write_preset, rows, cache_latents_to_disk=True) == plain
    files = sorted((photos / ".latents").iterdir())
    assert len(files) == 4
    before = [file.stat().st_mtime_ns for file in files]
    assert losses_with(train, write_preset, rows, cache_latents_to_disk=True) == plain
    assert [file.stat().st_mtime_ns for file in files] == before
    good = files[0].read_bytes()
    files[0].write_bytes(good[:-7])
    assert losses_with(train, write_preset, rows, cache_latents_to_disk=True) == plain
    assert files[0].read_bytes() == good


def test_the_files_metadata_tell_what_was_trained(write_preset: WritePreset, train: Train, out: Path) -> None:
    assert train(write_preset(**PLAIN, training_comment="say cat", learning_rate=0.5)) == 0
    metadata = read_lora_file(out / "tiny.safetensors").metadata
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["ss_training_comment"] == "say cat"
    assert metadata["ss_learning_rate"] == "0.001"  # not the 0.5, which trained nothing
    assert metadata["ss_steps"] == "2"
    assert metadata["ss_dataset_dirs"] == '{"2_photo": {"n_repeats": 2, "img_count": 4}}'
    assert '"photo of a cat": 1' in metadata["ss_tag_frequency"]
    assert not [value for value in metadata.values() if str(out.parent) in value]
    assert "ss_training_started_at" not in metadata


def test_each_block_is_trained_at_its_own_rate(write_preset: WritePreset, train: Train, out: Path, rows: Rows) -> None:
    keys = {
        "down_lr_weight": "0,0,0,0,1,1,1,1,1",
        "mid_lr_weight": "0.5,0.5,0.5",
        "up_lr_weight": "zeros",
        "text_encoder_lr": 0,
    }
    assert train(write_preset("sdxl", max_train_steps=1, **keys)) == 0
    row = rows()[0]
    assert (row["lr/unet"], row["lr/unet x0.5"]) == (1e-3, 5e-4)
    names = read_lora_file(out / "tiny.safetensors").weights
    assert {name.split("_transformer")[0].split("_proj")[0] for name in names} == {
        f"lora_unet_{block}" for block in ("input_blocks_4_1", "input_blocks_5_1", "input_blocks_7_1",
                                           "input_blocks_8_1", "middle_block_1")
    }  # fmt: skip


def test_loraplus_raises_the_rate_of_up(write_preset: WritePreset, train: Train, rows: Rows) -> None:
    keys = {"loraplus_lr_ratio": 4, "loraplus_text_encoder_lr_ratio": 2}
    assert train(write_preset("sd15", max_train_steps=1, **keys)) == 0
    row = {key: value for key, value in rows()[0].items() if key.startswith("lr/")}
    assert row == pytest.approx(
        {"lr/unet": 1e-3, "lr/unet up": 4e-3, "lr/text_encoder": 5e-4, "lr/text_encoder up": 1e-3}
    )


def test_the_text_encoder_rests_after_its_share_of_the_steps(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows
) -> None:
    keys = {"stop_text_encoder_training_pct": 50, "save_every_n_steps": 2, "optimizer_args": "weight_decay=0.1"}
    assert train(write_preset("sd15", max_train_steps=4, **keys)) == 0
    assert [row["lr/text_encoder"] for row in rows()] == [5e-4, 5e-4, 0, 0]
    half, whole = (read_lora_file(out / f"tiny{end}.safetensors").weights for end in ("-step00000002", ""))
    changed = {"_".join(name.split("_")[:2]) for name in half if not torch.equal(half[name].up, whole[name].up)}
    assert changed == {"lora_unet"}
    assert all(torch.equal(half[n].down, whole[n].down) for n in half if n.startswith("lora_te"))
    assert any(layer.up.any() for name, layer in half.items() if name.startswith("lora_te"))


def test_norms_stay_below_the_largest(write_preset: WritePreset, train: Train, out: Path) -> None:
    keys = {"scale_weight_norms": 0.05, "unet_lr": 0.1, "text_encoder_lr": 0.1}
    assert train(write_preset("sd15", max_train_steps=3, **keys)) == 0
    weights = read_lora_file(out / "tiny.safetensors").weights.values()
    norms = [float((w.up.flatten(1) @ w.down.flatten(1) * w.alpha / w.rank).norm()) for w in weights]
    assert max(norms) == pytest.approx(0.05, rel=1e-3)


def test_training_starts_from_a_file_with_its_ranks(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_preset("sd15", max_train_steps=2, network_dim=3, network_alpha=2, output_name="first", unet_lr=0.01)
    assert train(first) == 0
    file = out / "first.safetensors"
    capsys.readouterr()
    wrong = write_preset("sd15", max_train_steps=1, network_weights=str(file))
    assert train(wrong) == 2
    assert "has rank 3, this training 4; set network_dim to 3, or dim_from_weights to true" in capsys.readouterr().err
    still = {"unet_lr": 1e-12, "text_encoder_lr": 1e-12, "dim_from_weights": True, "network_weights": str(file)}
    assert train(write_preset("sd15", max_train_steps=1, **still)) == 0
    before, after = (read_lora_file(out / f"{name}.safetensors").weights for name in ("first", "tiny"))
    assert before.keys() == after.keys()
    assert {(layer.rank, layer.alpha) for layer in after.values()} == {(3, 2.0)}
    assert all(torch.allclose(before[name].up, after[name].up, atol=1e-9) for name in before)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"network_weights": "nowhere.safetensors"}, "network_weights: nowhere.safetensors: there is no such file"),
        ({"block_dims": "4,4"}, "block_dims: 2 numbers; this base model has 25 blocks, so write as many"),
        ({"up_lr_weight": "cosinus"}, "up_lr_weight: 'cosinus' is no number from 0 upwards; write numbers or one of"),
        ({"LoRA_type": "LoHa", "LyCORIS_preset": "ful"}, 'LyCORIS_preset: there is no preset "ful"'),
        ({"optimizer_args": "weigth_decay=1"}, "does not accept weigth_decay; it takes"),
        ({"optimizer": "torch.optim.Adamm"}, "did you mean Adam"),
        ({"lr_scheduler_args": "power=2"}, 'the schedule "constant" does not accept power; it takes no options'),
        ({"lr_scheduler_type": "CosineAnealingLR"}, "did you mean CosineAnnealingLR"),
    ],
)
def test_wrong_layers_and_options_are_named_at_their_place(
    write_preset: WritePreset, train: Train, keys: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset("sd15", **keys)
    assert train(preset) == 2
    said = capsys.readouterr().err
    assert message in said
    assert f"{preset}:" in said or "network_weights" in said
