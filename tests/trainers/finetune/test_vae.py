"""Whole trainings of a VAE: what is learnt, what is written, going on, and what is said of keys without effect."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_trainer.config.reader import load_preset
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.finetune.job import inspect_finetune
from lora_trainer.trainers.finetune.trainer import build_finetune
from lora_trainer.trainers.finetune.vae import VaeTrainer
from tests.trainers.test_run import run_python
from tests.trainers.waiting import stop_after

Rows = Callable[[], list[dict[str, Any]]]
Train = Callable[..., int]
Write = Callable[..., Path]

MODEL: dict[str, Any] = {
    "kind": "sdxl",
    "resolution": 64,
    "vae": {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1},
    "unet": {"block_out_channels": [8, 16], "layers_per_block": 1, "transformer_layers_per_block": 1},
    "text_encoder": {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 600},
    "text_encoder_2": {"hidden_size": 24, "num_hidden_layers": 2},
}
TERMS = ("l1", "mse", "gradient", "pooled", "chroma", "kl")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "klein ü.model.json"
    path.write_text(json.dumps(MODEL), encoding="utf-8")
    return path


@pytest.fixture
def write(tmp_path: Path, photos: Path, model: Path, out: Path) -> Write:
    """`write(key=value, ...)` writes a preset that trains a VAE in a second."""

    def made(**keys: Any) -> Path:
        preset: dict[str, Any] = {
            "trainer": "finetune", "train_vae": True, "resume_ckpt": str(model), "data_root": str(photos),
            "output_dir": str(out), "output_name": "tiny", "resolution": 64, "batch_size": 2, "max_epochs": 3,
            "flip_p": 0.5, "vae_crop_px": 32, "lr": 0.003, "optimizer": "AdamW", "mixed_precision": "no",
            "sample_steps": 0, "save_full_precision": True, "log_step": 1, "log_with": "none", "seed": 7, **keys,
        }  # fmt: skip
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(preset), encoding="utf-8")
        return path

    return made


def built(preset: Path) -> VaeTrainer:
    loaded = load_preset(preset)
    job = inspect_finetune(loaded, world=1, seed=loaded.preset.seed)
    return cast(VaeTrainer, build_finetune(job, Processes(), Precision("no", "cpu"), dry=True))


def last(folder: Path, ending: str = "") -> Path:
    """The model at the end."""
    (found,) = folder.glob(f"last-tiny-ep??-gs?????{ending}.safetensors")
    return found


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is warned of, whether or not a run has set up its console."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lora_trainer.trainers")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def test_the_file_is_a_whole_model_with_unit_latents(train: Train, write: Write, out: Path, model: Path) -> None:
    assert train(write(vae_crop_px=0)) == 0
    base, first = load_base_model(detect(last(out))), load_base_model(detect(model))
    folder = out / "ckpts" / last(out).stem
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(str(folder))
    for name, weight in base.vae.state_dict().items():
        assert torch.equal(weight, pipeline.vae.state_dict()[name]), name
    for name, weight in base.unet.state_dict().items():
        assert torch.equal(weight, first.unet.state_dict()[name]), name
        assert torch.equal(weight, pipeline.unet.state_dict()[name]), name
    assert pipeline.vae.config.scaling_factor == 0.13025
    pictures = [read_pixels(sample)[None] for sample in built(write()).job.pictures.trained.samples]
    with torch.no_grad():
        found = [pipeline.vae.encode(each).latent_dist for each in pictures]
    means = torch.cat([each.mean.transpose(0, 1).flatten(1) for each in found], dim=1) * 0.13025
    spread = torch.cat([each.std.transpose(0, 1).flatten(1) for each in found], dim=1) * 0.13025
    torch.testing.assert_close(means.mean(1), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close((means.square() + spread.square()).mean(1), torch.ones(4), rtol=1e-4, atol=0)


def test_unit_latents_change_no_picture_and_no_training(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    assert train(write(save_every_n_epochs=1)) == 0
    plain = tmp_path / "plain"
    assert train(write(vae_unit_latents=False, output_dir=str(plain))) == 0
    unit, own = load_base_model(detect(last(out))).vae, load_base_model(detect(last(plain))).vae
    pixels = read_pixels(built(write()).job.pictures.trained.samples[0])[None]
    with torch.no_grad():
        one, other = (each.decode(each.encode(pixels).latent_dist.mean).sample for each in (unit, own))
    assert (one - other).abs().max() < 1e-5
    for name, weight in own.state_dict().items():
        if "quant_conv" not in name:
            assert torch.equal(weight, unit.state_dict()[name]), name


def test_without_draws_the_latents_have_no_noise(train: Train, write: Write, out: Path) -> None:
    assert train(write(vae_sample_posterior=False, max_epochs=1, vae_kl_weight=0.1)) == 0
    vae = load_base_model(detect(last(out))).vae
    with torch.no_grad():
        pictures = [read_pixels(sample)[None] for sample in built(write()).job.pictures.trained.samples]
        found = [vae.encode(each).latent_dist for each in pictures]
    means = torch.cat([each.mean.transpose(0, 1).flatten(1) for each in found], dim=1) * 0.13025
    torch.testing.assert_close(means.square().mean(1), torch.ones(4), rtol=1e-3, atol=0)
    assert max(each.std.max() for each in found) < 1e-4


def test_pictures_are_learnt(train: Train, write: Write, out: Path, rows: Rows) -> None:
    keys = {"max_epochs": 40, "batch_size": 4, "val_split_mode": "automatic", "val_every_n_epochs": 40}
    assert train(write(**keys, lr=0.01, vae_hue_p=0.0)) == 0
    losses = [row["loss"] for row in rows() if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    near = {row["step"]: row["psnr/val"] for row in rows() if "psnr/val" in row}
    assert min(near) == 0
    assert near[max(near)] > near[0] + 1.5


def test_the_terms_add_up_and_the_kl_comes_in_along_a_line(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(vae_kl_weight=0.1, vae_kl_warmup_steps=4, lr=1e-9)) == 0
    for row in rows():
        assert sum(row[name] for name in TERMS) == pytest.approx(row["loss"], rel=1e-5)
    first, *_, late = [row["kl"] for row in rows()]
    assert late == pytest.approx(4 * first, rel=0.3)  # of other pictures


@pytest.mark.parametrize(
    ("keys", "absent"),
    [({"vae_kl_weight": 0.0}, {"kl"}), ({"vae_chroma_weight": 0, "vae_pooled_weight": 0}, {"chroma", "pooled"})],
)
def test_a_term_without_a_weight_is_left_out(
    train: Train, write: Write, rows: Rows, keys: dict[str, Any], absent: set[str]
) -> None:
    assert train(write(max_epochs=1, **keys)) == 0
    assert set(TERMS) - set(rows()[0]) == absent


def test_a_stopped_and_continued_run_writes_the_bytes_of_an_undisturbed_one(
    train: Train, write: Write, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"ema_decay_rate": 0.8, "ema_update_interval": 2, "vae_kl_warmup_steps": 5, "lr_scheduler": "cosine"}
    assert train(write(**keys, output_dir=str(tmp_path / "whole"))) == 0
    preset = write(**keys)
    stop_after(monkeypatch, 3)
    assert train(preset) == 143
    assert train(preset) == 0
    for ending in ("", "_ema"):
        assert last(out, ending).read_bytes() == last(tmp_path / "whole", ending).read_bytes()
    assert last(out).read_bytes() != last(out, "_ema").read_bytes()


def test_readers_and_passes_change_nothing(train: Train, write: Write, out: Path, rows: Rows, tmp_path: Path) -> None:
    data = built(write()).data
    again = pickle.loads(pickle.dumps(data))  # as a loader process has it
    for one, other in zip(data(5), again(5), strict=True):
        assert one["names"] == other["names"]
        assert all(torch.equal(one[key], other[key]) for key in ("pixels", "latent_noise", "loss_weight"))
    assert train(write(max_epochs=2)) == 0
    assert train(write(max_epochs=2, batch_size=1, grad_accum=2, output_dir=str(tmp_path / "b"))) == 0
    compare(rows(), tmp_path / "b")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(
    train: Train, write: Write, out: Path, rows: Rows, tmp_path: Path
) -> None:
    preset = write(batch_size=1, max_epochs=1, vae_kl_weight=0.01)
    assert train(preset, "--set", "batch_size=2", f"output_dir={tmp_path / 'one'}") == 0
    run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lora_trainer", "--preset",
        str(preset), ACCELERATE_USE_CPU="1",
    )  # fmt: skip
    compare(rows(), tmp_path / "one")


def compare(rows: list[dict[str, Any]], other: Path) -> None:
    """The losses and gradients of each step are those of the run in the other folder."""
    others = [json.loads(line) for line in (other / "metrics.jsonl").open(encoding="utf-8")]
    assert len(rows) == len(others) >= 2
    np.testing.assert_allclose([row["loss"] for row in rows], [row["loss"] for row in others], rtol=1e-4)
    np.testing.assert_allclose([row["grad_norm"] for row in rows], [row["grad_norm"] for row in others], rtol=1e-3)


def test_what_is_not_read_does_not_tell_runs_apart(write: Write) -> None:
    def fingerprint(**keys: Any) -> dict[str, Any]:
        return built(write(**keys)).job.fingerprint

    assert fingerprint(loss_type="mse", clip_skip=2) == fingerprint()
    assert fingerprint(vae_hue_p=0.1) != fingerprint()
    assert fingerprint(train_vae=False, vae_hue_p=0.1) == fingerprint(train_vae=False) != fingerprint()
    assert fingerprint(train_vae=False, clip_skip=2) != fingerprint(train_vae=False)


def test_the_decoder_alone_leaves_the_latents(
    train: Train, write: Write, out: Path, tmp_path: Path, model: Path
) -> None:
    assert train(write(vae_decoder_only=True, vae_kl_weight=0.5)) == 0
    before, after = (load_base_model(detect(path)).vae.state_dict() for path in (model, last(out)))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_pictures_of_a_colour_are_measured_by_themselves(
    train: Train, write: Write, photos: Path, rows: Rows, out: Path
) -> None:
    held_out = photos.parent / "held out"
    held_out.mkdir()
    for name, colour in (("frog", (30, 160, 40)), ("grapes", (110, 30, 150)), ("stone", (120, 120, 120))):
        Image.new("RGB", (80, 80), colour).save(held_out / f"{name}.png")
    keys = {"val_split_mode": "manual", "manual_data_root": str(held_out), "ema_decay_rate": 0.5}
    assert train(write(**keys, ema_update_interval=1, max_epochs=1, sample_steps=1)) == 0
    row = next(row for row in rows() if "psnr/val" in row)
    assert {name for name in row if name.startswith("psnr")} == {
        f"{name}/val{version}"
        for name in ("psnr", "psnr_turned", "psnr_green", "psnr_purple")
        for version in ("", "_ema")
    }
    assert row["psnr/val"] == row["psnr/val_ema"]  # before the first step
    assert row["psnr_green/val"] != row["psnr/val"] != row["psnr_turned/val"]
    sheets = sorted((out / "sample").glob("tiny_*_vae.png"))
    assert len(sheets) == 3
    with Image.open(sheets[0]) as sheet:
        pixels = np.array(sheet)
    assert tuple(pixels[18 + 32, 4 + 32]) == (30, 160, 40)  # the original, under its caption
    assert pixels.shape[0] == 2 * (64 + 4 + 18)


def test_a_trained_model_is_warned_of(write: Write, tiny_path: Callable[..., Path], warnings: list[str]) -> None:
    built(write())
    built(write(resume_ckpt=str(tiny_path("sd15", ".safetensors")), vae_decoder_only=True))
    assert not warnings
    built(write(resume_ckpt=str(tiny_path("sd15", ".safetensors"))))
    (warning,) = warnings
    assert warning.endswith("vae_decoder_only leaves them as they are")


def test_a_fresh_model_is_trained_in_two_runs(
    train: Train, write: Write, out: Path, tmp_path: Path, warnings: list[str]
) -> None:
    """The VAE first, then the rest with it, from what the first run has written or from a description that names it."""
    assert train(write(max_epochs=1)) == 0
    vae = load_base_model(detect(last(out))).vae.state_dict()
    described = tmp_path / "with a vae.model.json"
    described.write_text(json.dumps({**MODEL, "vae": str(last(out))}), encoding="utf-8")
    for number, base in enumerate((out / "ckpts" / last(out).stem, described)):
        second = tmp_path / f"second {number}"
        keys = {"train_vae": False, "resume_ckpt": str(base), "output_dir": str(second), "vae_crop_px": 256}
        assert train(write(**keys, max_epochs=1)) == 0
        found, first = load_base_model(detect(last(second))), load_base_model(detect(base))
        assert all(torch.equal(weight, vae[name]) for name, weight in found.vae.state_dict().items())
        assert not torch.equal(found.unet.conv_in.weight, first.unet.conv_in.weight)
    assert not warnings
    built(write(train_vae=False))
    assert warnings == ["the VAE of this model is random, and its latents say nothing; train it first, with train_vae"]


def test_bf16_weights_and_steps_within_the_backward_pass(train: Train, write: Write, out: Path) -> None:
    keys = {"full_bf16": True, "mixed_precision": "bf16", "fused_backward_pass": True}
    assert train(write(**keys, gradient_checkpointing=True, max_epochs=1)) == 0
    weights = load_file(last(out))
    of_vae = {name: weight for name, weight in weights.items() if name.startswith("first_stage_model.decoder")}
    assert all(torch.equal(weight, weight.bfloat16().float()) for weight in of_vae.values())


def test_a_dry_run_tells_what_is_trained(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(val_split_mode="automatic"), "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "parts of 32 px at most" in said
    assert "numbers of the VAE" in said
    assert "l1 1, mse 0.5, gradient 0.5, pooled 0.5, chroma 4" in said
    assert [path.name for path in out.iterdir()] == ["dataset.html"]
