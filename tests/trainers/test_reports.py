"""What real runs of each trainer leave for their report, however they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.engine.loop import Loop
from lora_trainer.engine.run_facts import RunFacts, read_facts
from lora_trainer.trainers.gan import sheets
from lora_trainer.trainers.lora import material
from tests.trainers.gan.run import tiny, write_images
from tests.trainers.restoration.run import preset_writer

Train = Callable[..., int]
Write = Callable[..., Path]
PHOTOS = Path(__file__).parents[2] / "presets" / "photos" / "2_photo"


@pytest.fixture
def train_and_report(monkeypatch: pytest.MonkeyPatch) -> Train:
    """As `train`, with the report at the end."""
    from lora_trainer.__main__ import main
    from lora_trainer.engine.signals import StopRequest

    monkeypatch.setattr(StopRequest, "install", lambda self: None)
    return lambda preset, *words: main(["--preset", str(preset), *words])


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Have the next run hear a signal once."""
    whole, heard = Loop._step, []

    def step(self: Loop, number: int, *rest: Any) -> None:
        if number + 1 == steps and not heard:
            self.stop.signal = 15
            heard.append(number)
        whole(self, number, *rest)

    monkeypatch.setattr(Loop, "_step", step)


def facts(out: Path) -> RunFacts:
    found = read_facts(out / "facts.json")
    assert found is not None
    return found


def html(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_a_lora_that_is_stopped_and_goes_on_has_its_whole_curve(
    write_preset: Write, train_and_report: Train, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "photo of <b>a cat</b> --w 64 --h 64 --d 1 --s 2 --l 2"
    preset = write_preset(epoch=2, sample_prompts=prompt, sample_every_n_epochs=1, wandb_api_key="s3cret-key")
    stop_after(monkeypatch, 3)
    assert train_and_report(preset) == 128 + 15
    stopped = html(out)
    assert ">Stopped<" in stopped
    assert re.search(r"<b>3 of 8</b>", stopped)
    assert "python -m lora_trainer" in stopped
    assert train_and_report(preset) == 0
    finished = html(out)
    assert re.search(r"<b>8 of 8</b>", finished)
    assert "&lt;lora:tiny:1&gt;" in finished
    assert "photo of &lt;b&gt;a cat&lt;/b&gt;" in finished
    assert "epoch 1 (step 4)" in finished
    assert "s3cret-key" not in finished + (out / "facts.json").read_text(encoding="utf-8")
    assert str(out.parent) not in finished + (out / "facts.json").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))


@pytest.mark.slow
def test_a_loras_facts(write_preset: Write, train_and_report: Train, out: Path) -> None:
    preset = write_preset(epoch=1, network_dim=8, LoRA_type="LyCORIS/LoHa", unet_lr=0.002)
    assert train_and_report(preset) == 0
    found = facts(out)
    assert found.material.title == "LyCORIS/LoHa of rank 8 for Stable Diffusion XL, trained on 4 pictures"
    assert ("pictures", "4 pictures, 8 uses an epoch") in found.material.rows
    assert len(found.material.thumbnails) == 4
    assert sum(count for _, count in found.material.counts[0].rows) == 8
    assert found.material.how_to_use == material.LOADS["LyCORIS/LoHa"]
    changed = {key.name: (key.value, key.default) for key in found.changed}
    assert changed["unet_lr"] == ("0.002", "0.0001")
    assert changed["train_data_dir"] == ("bilder ä", "")
    assert "network_dim" not in changed  # 8 is the default


def test_a_run_that_diverges_tells_why(write_preset: Write, train_and_report: Train, out: Path) -> None:
    assert train_and_report(write_preset(epoch=3, unet_lr=1e30, text_encoder_lr=0)) == 1
    page = html(out)
    assert ">Failed<" in page
    assert "Why it failed, and what helps" in page
    assert "the weights were not touched" in page
    assert "then try a lower learning rate" in page


@pytest.mark.slow
def test_a_finetuning(write_finetune: Write, train_and_report: Train, out: Path) -> None:
    assert train_and_report(write_finetune(max_epochs=1)) == 0
    found = facts(out)
    assert found.material.title == "Fine-tuning of Stable Diffusion 1.x, trained on 4 pictures"
    assert [where for where, _ in found.material.how_to_use] == ["A1111, Forge", "ComfyUI", "diffusers"]
    (named,) = re.findall(r"from_pretrained\(&#34;(ckpts/[^&]*)&#34;\)", html(out))
    assert (out / named / "model_index.json").is_file()


def test_an_upscaler(tmp_path: Path, train_and_report: Train, out: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("coffee", "coins"):
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            image.crop((20, 20, 100, 84)).save(folder / f"{name}.png")
    preset = {
        "trainer": "super_resolution", "output_dir": str(out), "output_name": "tiny", "scale": 2,
        "network_g": {"type": "compact", "num_feat": 8, "num_conv": 2}, "dataroot_gt": str(folder), "lq_size": 16,
        "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "total_iter": 4, "val_enabled": True, "val_freq": 2,
        "val_dataroot_gt": str(folder), "log_every": 1, "log_with": "none", "mixed_precision": "no",
        "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False}},
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(preset), encoding="utf-8")
    assert train_and_report(tmp_path / "p.json") == 0
    found, page = facts(out), html(out)
    assert found.material.title == "An upscaler compact 2x, trained on 2 pictures"
    assert found.higher_is_better == {"val/psnr": True}
    assert "validation psnr" in page
    assert "models/upscale_models" in page
    assert "The samples over time beside the originals" in page


@pytest.mark.slow
def test_a_gan(tmp_path: Path, train_and_report: Train, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST", 4)
    preset = tiny(out, write_images(tmp_path / "shapes.zip"), cond=True, log_every=2)
    (tmp_path / "p.json").write_text(json.dumps(preset), encoding="utf-8")
    assert train_and_report(tmp_path / "p.json") == 0
    found, page = facts(out), html(out)
    assert found.material.title == "A GAN (stylegan2) of 16 px, trained on 24 images"
    assert [(each.title, dict(each.rows)) for each in found.material.counts] == [
        ("Classes, images", {"class 0": 12, "class 1": 12})
    ]
    assert "python -m tools.generate network-snapshot-000000.safetensors" in page
    assert "at first" in page


def test_a_restorer(tmp_path: Path, tiny_path: Callable[..., Path], train_and_report: Train, out: Path) -> None:
    assert train_and_report(preset_writer(tmp_path, tiny_path)(max_train_steps=2)) == 0
    found = facts(out)
    assert found.material.title == "A restorer, a LoRA of rank 2, trained on 3 pairs"
    assert "python -m lora_trainer.restore --weights tiny.safetensors --base BASE_MODEL pictures restored" in html(out)


def test_a_report_that_cannot_be_made_fails_no_run(
    write_preset: Write, train_and_report: Train, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from lora_trainer.report import write
    from lora_trainer.trainers import facts as making

    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(making, "facts_of", broken)
    monkeypatch.setattr(write, "render", broken)
    assert train_and_report(write_preset(epoch=1)) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "what the report tells of the preset and the pictures is missing: broken" in said
    assert "no report was written (RuntimeError: broken)" in said
    assert (out / "tiny.safetensors").is_file()
