"""States that are kept, and what is gone on from: through whole trainings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.engine.hub_stand_in import TOKEN, stand_in
from tests.trainers.waiting import wait_for_steps

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]
Said = pytest.CaptureFixture[str]


def names_in(out: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in out.glob(pattern))


def test_states_are_kept_beside_files_and_a_run_goes_on_from_one_to_the_same_bytes(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, capsys: Said
) -> None:
    keys: dict[str, Any] = {"save_every_n_epochs": 1, "save_last_n_epochs": 2, "save_last_n_epochs_state": 1}
    preset = write_preset(epoch=4, save_state=True, optimizer="Prodigy", unet_lr=1, text_encoder_lr=1, **keys)
    assert train(preset) == 0
    assert names_in(out, "*.safetensors") == ["tiny-000002.safetensors", "tiny-000003.safetensors", "tiny.safetensors"]
    assert names_in(out, "*-state") == ["tiny-000003-state", "tiny-state"]
    assert names_in(out / "tiny-state", "*") == ["manifest.json", "state.pt"]
    assert not (out / "checkpoints").exists()

    there = [f"output_dir={tmp_path / 'elsewhere'}", f"resume={out / 'tiny-000003-state'}"]
    assert train(preset, "--set", *there) == 0
    assert "going on from step 12 of 16" in capsys.readouterr().out
    elsewhere = tmp_path / "elsewhere" / "tiny.safetensors"
    assert elsewhere.read_bytes() == (out / "tiny.safetensors").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "elsewhere" / "metrics.jsonl").open(encoding="utf-8")]
    assert [row["step"] for row in rows] == [13, 14, 15, 16]

    # the finished run made longer, from its own state; what is made is what a longer run makes
    assert train(preset, "--set", "epoch=5") == 2
    assert "is finished after 16 steps, and this preset asks for 20" in capsys.readouterr().err
    assert train(preset, "--set", "epoch=5", f"resume={out / 'tiny-state'}") == 0
    assert train(preset, "--set", "epoch=5", f"output_dir={tmp_path / 'whole'}") == 0
    assert (out / "tiny.safetensors").read_bytes() == (tmp_path / "whole" / "tiny.safetensors").read_bytes()


def test_a_state_of_a_run_that_was_made_differently(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, capsys: Said
) -> None:
    assert train(write_preset(epoch=1, save_state_on_train_end=True)) == 0
    assert names_in(out, "*-state") == ["tiny-state"]
    capsys.readouterr()
    there = ["--set", f"output_dir={tmp_path / 'elsewhere'}", f"resume={out / 'tiny-state'}"]
    assert train(write_preset(epoch=2), *there, "unet_lr=0.0005", "optimizer_args=weight_decay=0.3") == 0
    said = capsys.readouterr().out
    assert "made differently from here on: unet_lr was 0.001 and is now 0.0005" in said
    assert "begins anew" not in said
    rows = [json.loads(line) for line in (tmp_path / "elsewhere" / "metrics.jsonl").open(encoding="utf-8")]
    assert [(row["step"], row["lr/unet"]) for row in rows] == [(step, 0.0005) for step in (5, 6, 7, 8)]

    again = ["--set", f"output_dir={tmp_path / 'again'}", f"resume={out / 'tiny-state'}"]
    assert train(write_preset(epoch=2), *again, "optimizer=Lion") == 0
    assert "the optimizer of lora begins anew: it is Lion and was AdamW" in capsys.readouterr().out
    assert train(write_preset(epoch=2), *again, "network_dim=2", "output_name=other") == 2
    said = capsys.readouterr().err
    assert "holds other weights than this model trains" in said
    assert "network_dim was 4 and is now 2" in said
    assert train(write_preset(epoch=1), *again, "output_name=short") == 2
    said = capsys.readouterr().err
    assert "the state is at step 4, and this preset ends at step 4, counted from the beginning" in said


def test_an_interrupted_run_goes_on_from_its_own_checkpoint_though_the_state_is_gone(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, capsys: Said
) -> None:
    source = write_preset(epoch=1, save_state=True, seed=0)
    assert train(source, "--set", f"output_dir={tmp_path / 'source'}") == 0
    seed = json.loads((tmp_path / "source" / "status.json").read_text(encoding="utf-8"))["seed"]
    state = tmp_path / "source" / "tiny-state"
    preset = write_preset(epoch=3, seed=0, resume=str(state))
    out.mkdir()
    (out / "stop.now").touch()  # of another run: removed, not obeyed
    assert train(preset, "--set", "epoch=2") == 0
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["seed"], status["resumed"]) == ("finished", seed, str(state))
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    capsys.readouterr()
    assert train(preset, "--set", "epoch=2") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert train(preset, "--restart") == 2
    assert f"resume: {state}: there is no such folder" in capsys.readouterr().err


def test_the_weights_of_an_sd_scripts_state_are_taken(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, capsys: Said
) -> None:
    assert train(write_preset(epoch=1)) == 0
    trained = load_file(out / "tiny.safetensors")
    state = tmp_path / "last-state"
    state.mkdir()
    save_file(trained, state / "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        (state / name).write_bytes(b"\x80\x04")
    (state / "train_state.json").write_text('{"current_epoch": 1, "current_step": 4}', encoding="utf-8")
    still = ["unet_lr=1e-12", "text_encoder_lr=1e-12", f"resume={state}", f"output_dir={tmp_path / 'there'}"]
    capsys.readouterr()
    assert train(write_preset(epoch=1), "--set", *still) == 0
    said = capsys.readouterr().out
    assert "is a state of sd-scripts: the weights are taken over; steps and optimizer begin anew" in said
    after = load_file(tmp_path / "there" / "tiny.safetensors")
    assert trained.keys() == after.keys()
    assert all(torch.allclose(trained[name], after[name], atol=1e-9) for name in trained)
    (state / "model.safetensors").unlink()
    assert train(write_preset(epoch=1), "--set", *still, "output_name=other") == 2
    assert "a state of sd-scripts without model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["ckpt", "pt"])
def test_pickles_hold_the_same_tensors_and_the_same_bytes_each_time(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, ending: str
) -> None:
    said = {name: f"the {name} ü" for name in ("title", "author", "description", "license", "tags")}
    about = {f"metadata_{name}": text for name, text in said.items()}
    preset = write_preset(epoch=1, training_comment="say: tiny", **about)
    assert train(preset) == 0
    with safe_open(out / "tiny.safetensors", "pt") as file:
        metadata = file.metadata()
    assert {name: metadata[f"modelspec.{name}"] for name in said} == said
    assert metadata["ss_training_comment"] == "say: tiny"
    assert train(preset, "--set", f"save_model_as={ending}", "--restart") == 0
    there = tmp_path / "there"
    assert train(preset, "--set", f"save_model_as={ending}", f"output_dir={there}", "output_name=other") == 0
    file = out / f"tiny.{ending}"
    assert file.read_bytes() == (there / f"other.{ending}").read_bytes()
    tensors, whole = torch.load(file, weights_only=True), load_file(out / "tiny.safetensors")
    assert tensors.keys() == whole.keys()
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)


def test_files_and_states_are_uploaded_and_a_run_goes_on_from_the_hub(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = {"huggingface_repo_id": "me/loras", "huggingface_path_in_repo": "cats", "huggingface_token": TOKEN}
    preset = write_preset(epoch=2, save_every_n_epochs=1, save_state=True, **place)
    with stand_in(tmp_path / "hub cache") as hub:
        assert train(preset, "--set", "huggingface_token=hf_wrong") == 2
        assert "huggingface_repo_id: me/loras cannot be written to" in capfd.readouterr().err
        assert train(preset, "--set", "save_state_to_huggingface=true", "async_upload=true") == 0
        files = hub.repositories["me/loras"]
        there = ["tiny-000001-state/manifest.json", "tiny-000001-state/state.pt", "tiny-000001.safetensors"]
        there += ["tiny-state/manifest.json", "tiny-state/state.pt", "tiny.safetensors"]
        assert sorted(files) == [f"cats/{name}" for name in there]
        assert files["cats/tiny.safetensors"] == (out / "tiny.safetensors").read_bytes()
        address = ["resume=me/loras/cats/tiny-000001-state", "resume_from_huggingface=true", "huggingface_repo_id="]
        assert train(preset, "--set", f"output_dir={tmp_path / 'there'}", *address) == 0
    said = capfd.readouterr()
    assert "going on from step 4 of 8" in said.out
    assert TOKEN not in said.out + said.err
    assert (tmp_path / "there" / "tiny.safetensors").read_bytes() == files["cats/tiny.safetensors"]
    written = [path for folder in (out, tmp_path / "there") for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_a_running_training_draws_and_stops_when_it_is_asked(
    write_preset: WritePreset, train: Train, start: Start, out: Path, tmp_path: Path
) -> None:
    prompt = "photo of a cat --w 64 --h 64 --d 1 --s 2 --l 2"
    preset = write_preset(epoch=400, sample_prompts=prompt)
    process = start(preset)
    wait_for_steps(process, out, 2)
    for name in ("sample.now", "stop.epoch"):
        (out / name).touch()
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    done = status["step"]
    assert (status["state"], status["exit_status"], done % 4) == ("stopped", 0, 0)
    assert names_in(out, "*.now") == names_in(out, "*.epoch") == []
    assert names_in(out, "tiny*") == [f"tiny-{done // 4:06d}.safetensors"]
    assert len(list((out / "sample").glob("tiny_*_00_1.png"))) == 1
    length = f"max_train_steps={done + 2}"
    assert train(preset, "--set", length) == 0
    assert train(preset, "--set", length, f"output_dir={tmp_path / 'at once'}") == 0
    assert (out / "tiny.safetensors").read_bytes() == (tmp_path / "at once" / "tiny.safetensors").read_bytes()
