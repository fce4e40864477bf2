"""Whole fine-tunings: what is trained, what is written and who can load it, going on, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import Stepper
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.finetune.job import inspect_finetune
from lora_trainer.trainers.finetune.trainer import FinetuneTrainer, build_finetune
from tests.trainers.lora.test_trainer import outputs
from tests.trainers.test_run import run_python
from tests.trainers.waiting import wait_for_steps

Rows = Callable[[], list[dict[str, Any]]]
Train = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[..., Path]


def built(preset: Path, dry: bool = True) -> FinetuneTrainer:
    """The trainer of a preset, without a loop."""
    loaded = load_preset(preset)
    job = inspect_finetune(loaded, world=1, seed=loaded.preset.seed)
    return build_finetune(job, Processes(), Precision("no", "cpu"), dry)


def trained(preset: Path, steps: int = 3) -> FinetuneTrainer:
    trainer = built(preset)
    stepper = Stepper(trainer.phases, Processes(), Precision("no", "cpu"))
    for step in range(steps):
        stepper.run(step, trainer.prepare(step, trainer.data(step)))
        trainer.after_step(step)
    return trainer


def loaded_by_diffusers(path: Path, like: BaseModel) -> BaseModel:
    """The model of a file or folder as diffusers reads it, in the shape of ours."""
    kind = diffusers.StableDiffusionXLPipeline if like.kind == "sdxl" else diffusers.StableDiffusionPipeline
    if path.is_dir():
        found = kind.from_pretrained(str(path), local_files_only=True)
    else:
        config = path.parent / "ckpts" / path.stem  # sizes that are not the published ones must be told
        found = kind.from_single_file(str(path), config=str(config), local_files_only=True)
    encoders = [found.text_encoder, *([found.text_encoder_2] if like.kind == "sdxl" else [])]
    assert found.scheduler.config.prediction_type == like.prediction
    return cast(BaseModel, type(like)(
        like.kind, like.prediction, like.zero_terminal_snr, like.configs, found.unet, found.vae, tuple(encoders),
        like.tokenizers,
    ))  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["sd15", pytest.param("sd21-v", marks=pytest.mark.slow), "sdxl", pytest.param("sdxl-v", marks=pytest.mark.slow)],
)
def test_others_read_the_trained_model_from_the_file_and_from_the_folder(
    write_finetune: Write, tmp_path: Path, kind: str
) -> None:
    keys = {"prediction_type": "v_prediction"} if kind == "sd21-v" else {}
    trainer = trained(write_finetune(kind=kind, save_full_precision=True, **keys))
    before = load_base_model(trainer.job.checkpoint)
    path = trainer.export(tmp_path / "model", done=3)
    assert path == tmp_path / "model.safetensors"
    expected = outputs(trainer.base)
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(expected, outputs(before), strict=True))
    for place in (path, tmp_path / "ckpts" / "model"):
        found = loaded_by_diffusers(place, trainer.base)
        for ours, theirs in zip(expected, outputs(found), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    ours = load_base_model(detect(path))
    for name, weight in trainer.base.unet.state_dict().items():
        assert ours.unet.state_dict()[name].equal(weight)


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".ckpt"])
def test_a_file_has_the_names_of_the_one_that_the_model_came_from_and_half_precision(
    write_finetune: Write, tmp_path: Path, tiny_path: Callable[..., Path], suffix: str
) -> None:
    trainer = trained(write_finetune(suffix=suffix, disable_textenc_training=True), steps=1)
    path = trainer.export(tmp_path / "model", done=1)
    with safe_open(path, "pt") as made, safe_open(tiny_path("sd15", ".safetensors"), "pt") as source:
        assert set(made.keys()) == set(source.keys())
        names = [name for name in made.keys() if made.get_tensor(name).is_floating_point()]  # noqa: SIM118
        assert {made.get_tensor(name).dtype for name in names} == {torch.float16}
        changed = {name.split(".")[0] for name in names if not made.get_tensor(name).equal(source.get_tensor(name))}
    assert changed == {"model"}  # UNet alone: the text encoder was not trained
    folder = tmp_path / "ckpts" / "model"
    assert diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet").dtype == torch.float32
    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as unet:
        assert unet.get_tensor("conv_in.weight").dtype == torch.float16


def test_ckpt_files_elsewhere_and_folders_alone(write_finetune: Write, tmp_path: Path) -> None:
    elsewhere = tmp_path / "webui" / "models"
    trainer = built(write_finetune(save_ckpt_dir=str(elsewhere), save_model_as="ckpt"))
    assert trainer.export(tmp_path / "model", done=1) == elsewhere / "model.ckpt"
    assert "state_dict" in torch.load(elsewhere / "model.ckpt", weights_only=True)
    trainer = built(write_finetune(no_save_ckpt=True))
    assert trainer.export(tmp_path / "model", done=1) == tmp_path / "ckpts" / "model"


VARIED: dict[str, Any] = {
    "optimizer": "AdamW8bit", "text_encoder_optimizer": "Lion", "text_encoder_lr": 1e-4, "lr_scheduler": "cosine",
    "flip_p": 0.5, "shuffle_tags": True, "cond_dropout": 0.2, "pyramid_noise_discount": 0.2, "min_snr_gamma": 5,
    "batch_size": 1, "grad_accum": 3, "clip_grad_norm": 1.0, "embedding_perturbation": 0.5,
    "ema_decay_rate": 0.9, "ema_update_interval": 2, "gradient_checkpointing": True, "checkpoint_every_n_steps": 3,
}  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_killed_writes_the_bytes_of_an_undisturbed_one(
    write_finetune: Write, start: Start, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    preset = write_finetune(max_epochs=8, write_schedule=True, **VARIED)
    undisturbed = tmp_path / "undisturbed"
    assert train(preset, "--set", f"output_dir={undisturbed}") == 0
    for steps in (1, 8):
        process = start(preset)
        wait_for_steps(process, out, steps)
        process.kill()
        process.communicate()
    assert train(preset) == 0
    names = ["last-tiny-ep08-gs00016.safetensors", "last-tiny-ep08-gs00016_ema.safetensors"]
    assert sorted(path.name for path in out.glob("*.safetensors")) == names
    for name in (*names, "ep7_batch_schedule.txt"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    assert (out / names[0]).read_bytes() != (out / names[1]).read_bytes()
    kept = ("step", "epoch", "loss", "grad_norm", "lr/unet", "lr/text_encoder")
    others = [json.loads(line) for line in (undisturbed / "metrics.jsonl").open(encoding="utf-8")]
    assert [[row[key] for key in kept] for row in rows()] == [[row[key] for key in kept] for row in others]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(
    write_finetune: Write, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    keys = {"optimizer": "AdamW", "grad_accum": 1, "batch_size": 1, "resolution": 128, "max_epochs": 3}
    preset = write_finetune(**VARIED | keys, kind="sdxl")
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lora_trainer", "--preset", str(preset)]
    run_python(*command, ACCELERATE_USE_CPU="1")
    two, single = rows(), tmp_path / "one"
    assert train(preset, "--set", "batch_size=2", f"output_dir={single}") == 0
    one = [json.loads(line) for line in (single / "metrics.jsonl").open(encoding="utf-8")]
    assert len(one) == len(two) >= 4
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_weights_in_bf16(
    write_finetune: Write, train: Train, rows: Rows, tmp_path: Path
) -> None:
    keys = {"full_bf16": True, "mixed_precision": "bf16", "optimizer": "SGD", "lr": 1e-2, "batch_size": 1}
    preset = write_finetune(**keys)
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lora_trainer", "--preset", str(preset)]
    run_python(*command, ACCELERATE_USE_CPU="1")
    two, single = rows(), tmp_path / "one"
    assert train(preset, "--set", "batch_size=2", f"output_dir={single}") == 0
    one = [json.loads(line) for line in (single / "metrics.jsonl").open(encoding="utf-8")]
    assert len(one) == len(two) == 4
    np.testing.assert_allclose([row["grad_norm"] for row in two], [row["grad_norm"] for row in one], rtol=0.1)


@pytest.mark.slow
def test_the_loss_falls_and_what_is_held_out_is_measured(
    write_finetune: Write, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    preset = write_finetune(
        max_epochs=30, lr=2e-3, val_split_mode="automatic", auto_split_proportion=0.25, stabilize_training_loss=True,
        val_every_n_epochs=7.5, sample_prompts=str(tmp_path / "prompts.txt"), sample_steps=100, cache_latents=True,
        ema_strength_target=0.1, ema_update_interval=10, ema_sample_nonema_model=True, ema_sample_ema_model=True,
    )  # fmt: skip
    assert train(preset) == 0
    measured = [row for row in rows() if "loss/val" in row]
    assert [row["step"] for row in measured] == [0, 15, 30, 45, 60]
    assert measured[-1]["loss/stabilize-train"] < 0.75 * measured[0]["loss/stabilize-train"]
    assert "loss/_all_val_combined" not in measured[0]
    drawn = sorted(path.name for path in (out / "sample").glob("*_000060_*"))
    assert drawn == [f"tiny{ending}_000060_0{number}_555.png" for ending in ("", "_ema") for number in range(3)]


def test_prompts_may_change_on_the_way(
    write_finetune: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.json"
    sample = {"prompt": "a cat", "size": [64, 64]}
    content: dict[str, Any] = {"cfgs": [1.0], "num_inference_steps": 1, "samples": [sample]}
    file.write_text(json.dumps(content), encoding="utf-8")
    trainer = built(write_finetune(sample_prompts=str(file)))
    (first,) = trainer.preview(tmp_path / "sample", "000001", 1)
    file.write_text(json.dumps({**content, "samples": [{**sample, "prompt": "a dog"}] * 2}), encoding="utf-8")
    assert [drawn.caption for drawn in trainer.preview(tmp_path / "sample", "000002", 2)] == ["a dog", "a dog"]
    file.write_text("{", encoding="utf-8")
    assert [drawn.caption for drawn in trainer.preview(tmp_path / "sample", "000003", 3)] == ["a cat"]
    assert first.caption == "a cat"


@pytest.mark.slow
def test_models_are_named_by_what_happened(
    write_finetune: Write, start: Start, train: Train, out: Path, rows: Rows
) -> None:
    preset = write_finetune(max_epochs=300, save_every_n_epochs=1, save_ckpts_from_n_epochs=2, no_save_ckpt=True)
    process = start(preset)
    wait_for_steps(process, out, 7)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    folders = {path.name for path in (out / "ckpts").iterdir()}
    done = json.loads((out / "status.json").read_text(encoding="utf-8"))["step"]
    whole = done // 2
    assert f"interrupted-tiny-ep{whole:02d}-gs{done:05d}" in folders
    assert "tiny-ep01-gs00002" not in folders
    assert {"tiny-ep02-gs00004", "tiny-ep03-gs00006"} <= folders
    assert f"saved {out}" in said.replace("\n", "")
    assert train(preset, "--set", f"max_epochs={whole + 2}", "no_prepend_last=true") == 0
    assert (out / "ckpts" / f"tiny-ep{whole + 2:02d}-gs{2 * whole + 4:05d}").is_dir()


def test_an_error_leaves_a_model_and_a_checkpoint(
    write_finetune: Write, train: Train, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_finetune(max_epochs=4, checkpoint_every_n_epochs=0, sample_steps=0)
    plain = FinetuneTrainer.after_step
    from lora_trainer.engine.metrics import Speed

    def add(self: Speed, pictures: int) -> None:
        if (out / "metrics.jsonl").exists() and len((out / "metrics.jsonl").read_text().splitlines()) == 2:
            raise KeyError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Speed, "add", add)
        with pytest.raises(KeyError):
            train(preset)
    assert FinetuneTrainer.after_step is plain
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["message"]) == ("failed", "KeyError: 'a fault of ours'")
    (errored,) = out.glob("errored-*.safetensors")
    (checkpoint,) = (out / "checkpoints" / "tiny").iterdir()
    assert errored.name[-17:-12] == checkpoint.name[-5:] == "00004"
    assert train(preset) == 0


@pytest.mark.slow
def test_bf16_weights_that_are_updated_in_the_backward_pass_go_on_exactly(
    write_finetune: Write, train: Train, out: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        "full_bf16": True, "fused_backward_pass": True, "mixed_precision": "bf16", "lr": 3e-4, "optimizer": "Adafactor",
        "optimizer_args": "relative_step=False scale_parameter=False warmup_init=False",
    }  # fmt: skip
    preset = write_finetune(max_epochs=10, checkpoint_every_n_steps=6, **keys)
    assert train(preset, "--set", f"output_dir={tmp_path / 'undisturbed'}") == 0

    def fail(self: FinetuneTrainer, step: int) -> None:
        if step == 8:
            raise KeyError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneTrainer, "after_step", fail)
        with pytest.raises(KeyError):
            train(preset)
    assert train(preset) == 0
    name = "last-tiny-ep10-gs00020.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    losses = [row["loss"] for row in rows()]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_the_clock_saves_models_too(
    write_finetune: Write, train: Train, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_trainer.engine.cadence import Timer

    monkeypatch.setattr(Timer, "due", lambda self: self.seconds == 120)
    assert train(write_finetune(ckpt_every_n_minutes=2)) == 0
    names = sorted(path.name for path in out.glob("*.safetensors"))
    assert names == ["last-tiny-ep02-gs00004.safetensors", *(
        f"tiny-ep0{epoch}-gs0000{done}.safetensors" for epoch, done in ((0, 1), (1, 2), (1, 3))
    )]  # fmt: skip


def test_a_rated_data_set_has_ever_shorter_epochs(write_finetune: Write, train: Train, rows: Rows, out: Path) -> None:
    keys = {"rated_dataset": True, "rated_dataset_target_dropout_percent": 25, "save_every_n_epochs": 1}
    assert train(write_finetune(max_epochs=4, batch_size=1, **keys)) == 0
    epochs = [row["epoch"] for row in rows()]
    assert [epochs.count(epoch) for epoch in (1, 2, 3, 4)] == [8, 7, 5, 4] or epochs.count(1) > epochs.count(4)
    ends = [sum(epoch <= last for epoch in epochs) for last in (1, 2, 3)]
    saved = {path.stem for path in out.glob("tiny-*.safetensors")}
    assert saved == {f"tiny-ep{number:02d}-gs{done:05d}" for number, done in enumerate(ends, 1)}


def test_an_average_may_begin_with_another_model(write_finetune: Write, tiny_path: Callable[..., Path]) -> None:
    other = load_base_model(detect(tiny_path("sd15")))
    trainer = built(write_finetune(ema_decay_rate=0.5, ema_resume_model=str(tiny_path("sd15"))))
    assert trainer.ema is not None
    state = trainer.ema.state_dict()
    name, weight = next(iter(dict(other.unet.named_parameters()).items()))
    assert state[f"unet.{name}"].equal(weight)
    with pytest.raises(Exception, match=r"is missing or of another size; give a model of the same kind"):
        built(write_finetune(ema_decay_rate=0.5, ema_resume_model=str(tiny_path("sdxl"))))


def test_an_average_of_bf16_weights_is_written_as_fine_as_it_is(write_finetune: Write, tmp_path: Path) -> None:
    keys = {"full_bf16": True, "mixed_precision": "bf16", "ema_decay_rate": 0.5, "save_full_precision": True}
    trainer = built(write_finetune(**keys))
    assert trainer.ema is not None
    trainer.ema.load_state_dict({name: value + 1e-4 for name, value in trainer.ema.state_dict().items()})
    trainer.export(tmp_path / "model", done=1)
    of_average, weight = trainer.ema.state_dict()["unet.conv_in.weight"], trainer.base.unet.conv_in.weight
    for name, wanted in (("model", weight.float()), ("model_ema", of_average)):
        with safe_open(tmp_path / "ckpts" / name / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
            assert file.get_tensor("conv_in.weight").equal(wanted)
    assert not of_average.equal(of_average.bfloat16())
    assert weight.dtype == torch.bfloat16


def test_rates_and_where_they_come_from_are_told(
    write_finetune: Write, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"lr": 2e-6, "scale_lr": True, "lr_scheduler": "cosine", "lr_decay_steps": 3, "text_encoder_lr": 1e-6}
    preset = write_finetune(**keys, ema_decay_rate=0.9)
    assert train(preset, "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "UNet: AdamW, learning rate 2.93e-06 (lr 2e-06, scaled by 2 ** 0.55), cosine over 3 steps" in said
    assert "text encoder: AdamW, learning rate 1.46e-06 (text_encoder_lr 1e-06, scaled by 2 ** 0.55)" in said
    assert "the average is never updated: ema_update_interval is 500, and the run has 4 steps; make it smaller" in said
    assert "would fit cards of 8 GiB and more" in said
    assert "GiB for each model that is saved" in said
    assert "UNet: the rate comes down to 0 in step 3 of 4 and rises again; set lr_decay_steps to 4 or more" in said


def test_what_a_model_predicts_must_be_known(
    write_finetune: Write, train: Train, tiny_path: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from safetensors.torch import load_file, save_file

    silent = tmp_path / "silent.safetensors"
    with safe_open(tiny_path("sd21", ".safetensors"), "pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if "prediction" not in key}
    save_file(load_file(tiny_path("sd21", ".safetensors")), silent, metadata)
    assert train(write_finetune(resume_ckpt=str(silent)), "--dry-run") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{silent}: nothing says whether this Stable Diffusion 2.x model predicts noise or v; set" in said
    silent.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: v\n", encoding="utf-8")
    assert built(write_finetune(resume_ckpt=str(silent))).base.prediction == "v_prediction"
    assert train(write_finetune(kind="sdxl-v", prediction_type="epsilon"), "--dry-run") == 2
    assert "this model predicts v_prediction" in " ".join(capsys.readouterr().err.split())


def test_everything_that_is_wrong_is_said_at_once(
    write_finetune: Write, train: Train, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "2_photo" / "cat.jpg").write_bytes(b"no picture")
    (photos / "2_photo" / "coins.txt").write_bytes(b"\xff\xfe")
    preset = write_finetune(resume_ckpt="nowhere.safetensors", sample_prompts="none.txt", optimizer_args="beta=3")
    assert train(preset) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nowhere.safetensors: there is no such file" in said
    assert "none.txt: there is no such file" in said
    assert "does not accept beta" in said
    assert "coins.txt: the caption is not UTF-8" in said
    assert not out.exists()
