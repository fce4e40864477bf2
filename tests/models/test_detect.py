"""Every kind of base model is recognised without being loaded, and everything else is refused by its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import build_text_encoder, build_unet, build_vae
from lora_trainer.models.base_configs import CONFIGS_KEY, KINDS, Kind, published_configs
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.detect import check_agreement, confirm, detect, detect_tensors
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, to_ldm
from lora_trainer.models.safetensors_header import Shapes

TinyPath = Callable[..., Path]

PATH = Path("models/somé model.safetensors")
GIVE = "give a base model of Stable Diffusion 1.x, 2.x or XL"
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
TO_K = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
SIZES = "model.diffusion_model.label_emb.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
SD15_SHAPES: Shapes = {FIRST: (320, 4, 3, 3), TO_K: (640, 768), CLIP: (768,)}


def _published_shapes(kind: Kind) -> Shapes:
    configs = published_configs(kind)
    with torch.device("meta"):
        parts = {"unet": build_unet(configs["unet"]).state_dict(), "vae": build_vae(configs["vae"]).state_dict()}
        for text in TEXT_PARTS[kind]:
            encoder = build_text_encoder(configs[text.name], projection=text.projection)
            parts[text.name] = encoder.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in to_ldm(kind, configs, parts).items()}


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refusal:
        call()
    assert len(refusal.value.problems) == 1
    return refusal.value.problems[0]


# ------------------------------------------------------------------------------------------------------ single files


@pytest.mark.parametrize(
    ("kind", "count", "evidence"),
    [
        ("sd15", 1130, "texts of width 768 in the UNet; no mark of what the UNet predicts"),
        ("sd21", 1228, "texts of width 1024 in the UNet; no mark of what the UNet predicts"),
        ("sdxl", 2514, "texts of width 2048 in the UNet; no mark of what the UNet predicts"),
    ],
)
def test_the_published_checkpoints_are_known_by_their_shapes(kind: Kind, count: int, evidence: str) -> None:
    shapes = _published_shapes(kind)
    assert len(shapes) == count  # the published files have the position ids besides
    assert detect_tensors(PATH, shapes, {}) == Checkpoint(PATH, "single_file", kind, None, False, evidence)


@pytest.mark.parametrize(
    ("marks", "metadata", "prediction", "zero_terminal_snr"),
    [
        ([], {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ([], {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ([], {"modelspec.prediction_type": "something"}, None, False),
        (["v_pred"], {}, "v_prediction", False),
        (["v_pred", "ztsnr"], {}, "v_prediction", True),
        (["v_pred"], {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_what_the_unet_predicts(
    marks: list[str], metadata: Mapping[str, str], prediction: str | None, zero_terminal_snr: bool
) -> None:
    found = detect_tensors(PATH, {**SD15_SHAPES, **dict.fromkeys(marks, (0,))}, metadata)
    assert (found.prediction, found.zero_terminal_snr) == (prediction, zero_terminal_snr)


TINY = {  # kind, prediction, zero terminal SNR
    "sd15": ("sd15", "epsilon", False),
    "sd21": ("sd21", "epsilon", False),
    "sd21-v": ("sd21", "v_prediction", False),
    "sdxl": ("sdxl", "epsilon", False),
    "sdxl-v": ("sdxl", "v_prediction", True),
}


@pytest.mark.parametrize("tiny", TINY)
@pytest.mark.parametrize(("suffix", "layout"), [("", "folder"), (".safetensors", "single_file")])
def test_tiny_models_are_known(tiny: str, suffix: str, layout: str, tiny_path: TinyPath) -> None:
    path = tiny_path(tiny, suffix)
    found = detect(path)
    assert (found.path, found.layout) == (path, layout)
    assert (found.kind, found.prediction, found.zero_terminal_snr) == TINY[tiny]


def test_a_ckpt_is_only_known_to_be_a_pytorch_file(tiny_path: TinyPath) -> None:
    path = tiny_path("sdxl", ".ckpt")
    evidence = "a PyTorch file, which is looked into when loaded"
    assert detect(path) == Checkpoint(path, "single_file", None, None, False, evidence)


def test_content_counts_and_not_the_suffix(tmp_path: Path, tiny_path: TinyPath) -> None:
    shutil.copy(tiny_path("sd15", ".safetensors"), tmp_path / "renamed.ckpt")
    assert detect(tmp_path / "renamed.ckpt").kind == "sd15"
    torch.save({"a": torch.zeros(1)}, tmp_path / "legacy.safetensors", _use_new_zipfile_serialization=False)
    assert detect(tmp_path / "legacy.safetensors").kind is None


def test_detection_loads_no_library() -> None:
    code = (
        "import sys, lora_trainer.models.detect; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --------------------------------------------------------------------------------------------- what is no base model

STRANGERS = {
    "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": "this is a LoRA, not a base model",
    "unet.mid_block.attentions.0.to_q.lora_A.weight": "this is a LoRA, not a base model",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": "this is a LoRA, not a base model",
    "emb_params": "this is a textual inversion embedding, not a base model",
    "control_model.input_blocks.0.0.weight": "this is a ControlNet, not a base model",
    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": "this is Flux or a relative of it, not a base model",
    "model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight": "this is Stable Diffusion 3, not a base model",
    "edm_mean": "this is Playground v2.5, which is trained with another noise schedule (EDM), not a base model",
    "edm_vpred.sigma_max": "this is a model with the EDM noise schedule, not a base model",
    "conditioner.embedders.0.model.ln_final.weight": "this is the refiner of Stable Diffusion XL, not a base model",
    "first_stage_model.encoder.down.0.block.0.conv1.weight": "this is only a VAE, not a base model",
    "encoder.down_blocks.0.resnets.0.conv1.weight": "this is only a VAE, not a base model",
    "down_blocks.0.resnets.0.conv1.weight": "this is only a UNet, without text encoders and VAE, not a base model",
    "input_blocks.0.0.weight": "this is only a UNet, without text encoders and VAE, not a base model",
    "text_model.final_layer_norm.weight": "this is only a text encoder, not a base model",
    "body.0.weight": "no tensor is named like a UNet's (model.diffusion_model.*), not a base model",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_are_named(name: str) -> None:
    assert _refusal(lambda: detect_tensors(PATH, {name: (1,)}, {})) == f"{PATH}: {STRANGERS[name]}; {GIVE}"


def test_marks_of_strangers_count_inside_a_complete_checkpoint_too() -> None:
    shapes = {**SD15_SHAPES, "edm_mean": (1, 4, 1, 1)}
    assert "Playground v2.5" in _refusal(lambda: detect_tensors(PATH, shapes, {}))


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (9, "an inpainting model (9 input channels)"),
        (8, "an instruct-pix2pix model (8 input channels)"),
        (7, "another kind of model (7 input channels)"),
    ],
)
def test_other_input_channels(channels: int, words: str) -> None:
    shapes = {**SD15_SHAPES, FIRST: (320, channels, 3, 3)}
    assert _refusal(lambda: detect_tensors(PATH, shapes, {})) == f"{PATH}: this is {words}; {GIVE}"


def test_parts_that_are_missing_or_unknown() -> None:
    no_text = {
        FIRST: (320, 4, 3, 3),
        TO_K: (640, 2048),
        SIZES: (1280, 2816),
        "conditioner.embedders.0.transformer.a": (),
    }
    assert _refusal(lambda: detect_tensors(PATH, no_text, {})) == (
        f"{PATH}: this is a Stable Diffusion XL UNet without its text encoder (conditioner.embedders.1.model.* is not "
        "there); give a complete checkpoint"
    )
    strange = {**SD15_SHAPES, TO_K: (640, 640)}
    assert _refusal(lambda: detect_tensors(PATH, strange, {})) == (
        f"{PATH}: the UNet reads texts of width 640 without image sizes, which no supported model does; {GIVE}"
    )
    unclip = {**SD15_SHAPES, TO_K: (640, 1024), SIZES: (1280, 2048)}
    assert "of width 1024 with image sizes" in _refusal(lambda: detect_tensors(PATH, unclip, {}))
    assert _refusal(lambda: detect_tensors(PATH, {}, {})) == f"{PATH}: there are no tensors in this file; {GIVE}"
    damaged = {CONFIGS_KEY: '{"kind": "sd15"}'}
    assert _refusal(lambda: detect_tensors(PATH, SD15_SHAPES, damaged)) == (
        f"{PATH}: {CONFIGS_KEY} in its metadata is damaged (without scheduler, text_encoder, unet, vae); "
        "make or copy the file again"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"GGUF\x03\x00", "a GGUF file"),
        (b"<!DOCTYPE html>", "a web page; the download has failed"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            'a Git LFS pointer, not the model it stands for (run "git lfs pull" in its folder)',
        ),
        (b"PK\x03\x04 cut off", "a ZIP archive that is incomplete or holds no PyTorch model"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content + bytes(64))
    assert _refusal(lambda: detect(path)) == f"{path}: this is {words}; {GIVE}"


def test_text_and_archives(tmp_path: Path) -> None:
    text = tmp_path / "readme.txt"
    text.write_text("This is how to use the model.", encoding="utf-8")
    assert _refusal(lambda: detect(text)) == (
        f"{text}: this is not a .safetensors file, its header has an impossible length; give the file that was meant, "
        "or copy it again"
    )
    archive = tmp_path / "model.ckpt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.txt", "no")
    assert "a ZIP archive that is incomplete or holds no PyTorch model" in _refusal(lambda: detect(archive))


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    hub_id = Path("stabilityai/stable-diffusion-xl-base-1.0")
    assert _refusal(lambda: detect(hub_id)) == (
        "stabilityai/stable-diffusion-xl-base-1.0: there is no such file or folder, and models are not downloaded; "
        "download it yourself, then give the path of the file or of the folder"
    )
    for path in (Path("models/base.safetensors"), tmp_path / "base"):
        assert _refusal(lambda path=path: detect(path)) == (
            f"{path}: there is no such file or folder; correct the path of the base model"
        )


# ----------------------------------------------------------------------------------------------------------- folders


def _copy(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out))


def _change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_folders_that_are_no_diffusers_model(tmp_path: Path, tiny_path: TinyPath) -> None:
    assert _refusal(lambda: detect(tmp_path)) == (
        f"{tmp_path}: this folder is no diffusers model, there is no model_index.json in it; {GIVE}"
    )
    (tmp_path / "a.safetensors").touch()
    assert _refusal(lambda: detect(tmp_path)) == (
        f"{tmp_path}: this is a folder with model files; give one of them, for example {tmp_path / 'a.safetensors'}"
    )
    part = tiny_path("sd15") / "vae"
    assert _refusal(lambda: detect(part)) == (
        f"{part}: this is one part of a diffusers model; give the folder above it, the one with model_index.json"
    )
    index = tmp_path / "model_index.json"
    index.write_text("{", encoding="utf-8")
    assert f"{index}: cannot be read (" in _refusal(lambda: detect(tmp_path))
    index.write_text("[]", encoding="utf-8")
    assert f"{index}: this is not a configuration" in _refusal(lambda: detect(tmp_path))
    index.write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8")
    assert _refusal(lambda: detect(tmp_path)) == f"{tmp_path}: this is Flux (FluxPipeline in model_index.json); {GIVE}"
    index.write_text('{"_class_name": "SanaPipeline"}', encoding="utf-8")
    assert "describes SanaPipeline, which has no unet/" in _refusal(lambda: detect(tmp_path))


def test_folders_of_another_architecture(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sdxl"), tmp_path / "refiner")
    shutil.rmtree(folder / "text_encoder")
    assert _refusal(lambda: detect(folder)) == (
        f"{folder}: this is the refiner of Stable Diffusion XL, not a base model; {GIVE}"
    )
    folder = _copy(tiny_path("sd15"), tmp_path / "inpainting")
    _change(folder / "unet" / "config.json", in_channels=9)
    assert _refusal(lambda: detect(folder)) == f"{folder}: this is an inpainting model (9 input channels); {GIVE}"
    _change(folder / "unet" / "config.json", in_channels=4)
    _change(folder / "text_encoder" / "config.json", hidden_act="relu")
    assert "reads texts of width 32, which no supported model does" in _refusal(lambda: detect(folder))


def test_an_incomplete_folder_names_all_that_is_missing(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sdxl"), tmp_path / "incomplete")
    shutil.rmtree(folder / "text_encoder_2")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Refusal) as refusal:
        detect(folder)
    assert refusal.value.problems == (
        f"{folder / 'vae'}: there are no weights in it (.safetensors or .bin); copy them",
        f"{folder / 'text_encoder_2'}: Stable Diffusion XL needs this part, and there is no config.json in it; copy it",
    )


def test_a_folder_without_schedule_does_not_tell_its_prediction(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sd21-v"), tmp_path / "bare")
    shutil.rmtree(folder / "scheduler")
    assert detect(folder).prediction is None


# ------------------------------------------------------------------------------------------------------ the preset


def _checkpoint(kind: Kind | None, prediction: str | None) -> Checkpoint:
    return Checkpoint(Path("m.safetensors"), "single_file", kind, prediction, False, "the file")  # type: ignore[arg-type]


def test_switches_decide_what_the_model_does_not_tell() -> None:
    unknown = _checkpoint(None, None)
    v21 = check_agreement(unknown, sdxl=False, v2=True, v_parameterization=True)
    assert (v21.kind, v21.prediction) == ("sd21", "v_prediction")
    plain = check_agreement(unknown, sdxl=False, v2=False, v_parameterization=False)
    assert (plain.kind, plain.prediction) == ("sd15", "epsilon")
    sdxl = check_agreement(_checkpoint("sdxl", None), sdxl=True, v2=False, v_parameterization=False)
    assert (sdxl.kind, sdxl.prediction) == ("sdxl", "epsilon")


CURES = {
    "sd15": '"sdxl": false and "v2": false',
    "sd21": '"v2": true and "sdxl": false',
    "sdxl": '"sdxl": true and "v2": false',
}
WORDS = {"sd15": "Stable Diffusion 1.x", "sd21": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_another_kind_than_the_preset_says(kind: Kind, wanted: Kind) -> None:
    def agree() -> Checkpoint:
        switches = {"sdxl": wanted == "sdxl", "v2": wanted == "sd21"}
        return check_agreement(_checkpoint(kind, "epsilon"), **switches, v_parameterization=False)

    if kind == wanted:
        assert agree() == _checkpoint(kind, "epsilon")
        return
    assert _refusal(agree) == (
        f"m.safetensors: this is a {WORDS[kind]} model (the file), but the preset says {WORDS[wanted]}; "
        f"set {CURES[kind]}, or give another base model"
    )


def test_another_prediction_than_the_preset_says() -> None:
    v_model, eps_model = _checkpoint("sdxl", "v_prediction"), _checkpoint("sdxl", "epsilon")
    switches = {"sdxl": True, "v2": False}
    assert _refusal(lambda: check_agreement(v_model, **switches, v_parameterization=False)) == (
        "m.safetensors: this model predicts v_prediction (the file), but the preset says epsilon; "
        'set "v_parameterization": true, or give another base model'
    )
    assert _refusal(lambda: check_agreement(eps_model, **switches, v_parameterization=True)) == (
        "m.safetensors: this model predicts epsilon (the file), but the preset says v_prediction; "
        'set "v_parameterization": false, or give another base model'
    )


def test_all_contradictions_are_said_at_once() -> None:
    with pytest.raises(Refusal) as refusal:
        check_agreement(_checkpoint("sdxl", "v_prediction"), sdxl=False, v2=False, v_parameterization=False)
    assert len(refusal.value.problems) == 2
    assert '"sdxl" and "v2" are both true' in _refusal(
        lambda: check_agreement(_checkpoint(None, None), sdxl=True, v2=True, v_parameterization=False)
    )


def test_a_file_that_was_looked_into_late_must_be_what_was_expected() -> None:
    expected = _checkpoint("sdxl", "v_prediction")
    assert confirm(expected, _checkpoint("sdxl", None)).prediction == "v_prediction"
    assert confirm(_checkpoint(None, None), _checkpoint("sd15", "epsilon")) == _checkpoint("sd15", "epsilon")
    assert "a Stable Diffusion 1.x model (the file), but Stable Diffusion XL was expected" in _refusal(
        lambda: confirm(expected, _checkpoint("sd15", None))
    )
    assert "predicts epsilon (the file), but" in _refusal(lambda: confirm(expected, _checkpoint("sdxl", "epsilon")))
