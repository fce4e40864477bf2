"""A description of a new model: what follows from what is written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import Refusal
from lora_trainer.models.base_weights import open_base
from lora_trainer.models.detect import check_agreement, detect
from lora_trainer.models.fresh_description import read_description
from lora_trainer.models.fresh_sizes import VOCABULARY
from lora_trainer.models.weights_identity import weights_identity

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]

SMALL: dict[str, Any] = {
    "kind": "sdxl",
    "resolution": 128,
    "vae": {"block_out_channels": [16, 32, 64, 128], "layers_per_block": 1},
    "unet": {"block_out_channels": [64, 96, 160], "transformer_layers_per_block": 1, "addition_time_embed_dim": 32},
    "text_encoder": {"hidden_size": 128, "num_hidden_layers": 3, "vocab_size": 2048},
    "text_encoder_2": {"hidden_size": 192, "num_hidden_layers": 2},
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(unet={...})` writes `SMALL` with other parts; None leaves one out."""

    def made(**keys: Any) -> Path:
        path = tmp_path / "neu ü.json"
        content = {key: value for key, value in {**SMALL, **keys}.items() if value is not None}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return made


def problems(path: Path) -> list[str]:
    with pytest.raises(Refusal) as refusal:
        detect(path)
    return [problem.replace(str(path), "neu.json") for problem in refusal.value.problems]


def test_what_is_not_written_follows_from_what_is(write: Write) -> None:
    configs = read_description(write()).configs
    unet, vae = configs["unet"], configs["vae"]
    assert unet["cross_attention_dim"] == 128 + 192
    assert unet["projection_class_embeddings_input_dim"] == 6 * 32 + 192
    assert (unet["attention_head_dim"], unet["norm_num_groups"], unet["sample_size"]) == ([2, 3, 5], 32, 16)
    assert (vae["norm_num_groups"], vae["sample_size"]) == (8, 128)
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    first, second = configs["text_encoder"], configs["text_encoder_2"]
    keys = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "projection_dim", "intermediate_size")
    assert [first[key] for key in keys] == [2048, 2046, 2047, 2047, 128, 512]
    assert [second[key] for key in keys] == [2048, 2046, 2047, 0, 192, 768]
    assert (first["num_attention_heads"], second["num_attention_heads"]) == (2, 3)


def test_the_published_sizes_stay_where_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_text('{"kind": "sdxl"}')
    configs = read_description(path).configs
    assert (configs["unet"]["cross_attention_dim"], configs["unet"]["sample_size"]) == (2048, 128)
    assert configs["unet"]["projection_class_embeddings_input_dim"] == 2816
    assert configs["unet"]["transformer_layers_per_block"] == [1, 2, 10]
    assert configs["text_encoder_2"]["num_hidden_layers"] == 32


@pytest.mark.parametrize(
    ("kind", "down", "up"),
    [
        ("sdxl", ["DownBlock2D", "CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D", "UpBlock2D"]),
        ("sd15", ["CrossAttnDownBlock2D", "DownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"]),
    ],
)
def test_another_number_of_blocks_gets_its_own_types(write: Write, kind: str, down: list[str], up: list[str]) -> None:
    unet = {"block_out_channels": [96, 160]}
    if kind == "sdxl":
        unet["transformer_layers_per_block"] = [1, 1]
    second = SMALL["text_encoder_2"] if kind == "sdxl" else None
    found = read_description(write(kind=kind, unet=unet, text_encoder_2=second)).configs["unet"]
    assert (found["down_block_types"], found["up_block_types"]) == (down, up)


def test_a_velocity_model_says_so_in_its_schedule(write: Write) -> None:
    fresh = read_description(write(prediction="v_prediction", zero_terminal_snr=True))
    schedule = fresh.configs["scheduler"]
    assert (schedule["prediction_type"], schedule["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert (fresh.checkpoint.prediction, fresh.checkpoint.zero_terminal_snr) == ("v_prediction", True)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"unet": {"block_out_chanels": [64]}},
            "unet.block_out_chanels: unknown key; did you mean block_out_channels?",
        ),
        ({"unets": {}}, "unets: unknown key; did you mean unet?"),
        ({"vae": {"latent_channels": 16}}, "vae.latent_channels: is always that of the published model; remove it"),
        ({"text_encoder": {"eos_token_id": 3}}, "text_encoder.eos_token_id: follows from vocab_size; remove it"),
        (
            {"unet": {"num_attention_heads": 4}},
            "unet.num_attention_heads: diffusers calls the number of heads attention_head_dim; write that",
        ),
        ({"unet": {"norm_num_groups": 0}}, "unet.norm_num_groups: found 0; write a whole number above 0"),
        ({"unet": {"block_out_channels": "64"}}, 'found "64"; write a list of whole numbers above 0'),
        ({"unet": {"down_block_types": ["Down"]}}, "write a list of DownBlock2D and CrossAttnDownBlock2D"),
        ({"unet": [1]}, "unet: found [1]; write an object with what differs from the published model"),
        ({"kind": "sd3"}, 'kind: found "sd3"; a description of a new model says sd15 or sd21 or sdxl, for example'),
        ({"kind": None}, "there is no kind in it; a description of a new model says sd15 or sd21 or sdxl"),
        ({"kind": "sd15", "unet": {}}, "text_encoder_2: Stable Diffusion 1.x has no such part; remove it"),
        ({"prediction": "x0"}, 'prediction: found "x0"; write epsilon or v_prediction'),
        (
            {"zero_terminal_snr": True},
            "zero_terminal_snr: from noise alone no noise can be learnt; set prediction to",
        ),
        ({"zero_terminal_snr": "yes"}, 'zero_terminal_snr: found "yes"; write true or false'),
        ({"seed": -1}, "seed: found -1; write a whole number from 0 to 4294967295"),
        ({"resolution": 100}, "resolution: found 100; write its pictures' side, a multiple of 8 pixels"),
        ({"vae": "no such.safetensors"}, "vae: no such.safetensors: there is no such file or folder beside it or here"),
        ({"vae": {"block_out_channels": [16, 32, 64]}}, "vae.block_out_channels: 3 numbers; write 4, as latents are 8"),
        (
            {"vae": {"block_out_channels": [16, 32, 64, 100], "norm_num_groups": 8}},
            "vae.norm_num_groups: 8 does not divide 100 of block_out_channels; leave it out",
        ),
        (
            {"unet": {**SMALL["unet"], "attention_head_dim": [2, 5, 5]}},
            "unet.attention_head_dim: 5 heads do not divide 96 of block_out_channels; leave it out",
        ),
        (
            {"unet": {"block_out_channels": [64, 96]}},
            "unet.transformer_layers_per_block: 3 in the list, and block_out_channels has 2; write one for each",
        ),
        (
            {"unet": {**SMALL["unet"], "cross_attention_dim": 256}},
            "unet.cross_attention_dim: 256 must be 320, by the text encoders' widths; leave it out",
        ),
        (
            {"unet": {**SMALL["unet"], "projection_class_embeddings_input_dim": 2816}},
            "unet.projection_class_embeddings_input_dim: 2816 must be 384, by the text encoders' widths; leave it out",
        ),
        (
            {"text_encoder": {"hidden_size": 128, "num_attention_heads": 3}},
            "text_encoder.num_attention_heads: 3 does not divide hidden_size, 128; leave it out",
        ),
        (
            {"text_encoder_2": {"hidden_size": 192, "vocab_size": 100}},
            "text_encoder_2.vocab_size: found 100; write a number from 514 to 49408",
        ),
        (
            {"kind": "sd21", "unet": {}, "text_encoder": {"hidden_size": 768}, "text_encoder_2": None},
            "text_encoder.hidden_size: 768 is the width by which sd15 is known; write another one",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_cure(write: Write, keys: dict[str, Any], problem: str) -> None:
    (found,) = problems(write(**keys))
    assert found.startswith("neu.json: ")
    assert problem in found


def test_all_problems_are_told_at_once(write: Write) -> None:
    assert len(problems(write(seed="x", unet={"a": 1, "b": 2}, vae=3))) == 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"kind": "sdxl",}', "neu.json:1:1"),
        (b"[]", "neu.json: this is no description of a new model; write an object, for example"),
        (b'{"about": "\xff"}', "neu.json: is not UTF-8 (byte 11); save it as UTF-8"),
        (b'{"_class_name": "StableDiffusionXLPipeline"}', "neu.json: there is no kind in it"),
    ],
)
def test_a_file_that_is_no_description(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "neu.json"
    path.write_bytes(content)
    (found,) = problems(path)
    assert found.startswith(problem)


def test_the_vocabulary_is_the_tokenizers() -> None:
    from lora_trainer.models.tokenizers import _FIXED_TOKENS, VOCAB_SIZE

    assert VOCABULARY == (_FIXED_TOKENS, VOCAB_SIZE)


def test_a_description_is_known_by_its_content_and_by_its_trained_vae(write: Write, tmp_path: Path) -> None:
    (tmp_path / "trained.safetensors").write_bytes(b"one")
    random, seeded = weights_identity(write()), weights_identity(write(seed=1))
    trained = weights_identity(write(vae="trained.safetensors"))
    (tmp_path / "trained.safetensors").write_bytes(b"two")
    assert len({random, seeded, trained, weights_identity(write(vae="trained.safetensors"))}) == 4
    assert weights_identity(write()) == random


def test_others_know_what_to_say_of_it(write: Write) -> None:
    with pytest.raises(Refusal, match=r"this describes a model that has no weights yet"), open_base(write()):
        pass
    with pytest.raises(Refusal, match=r'set "v_parameterization": false, or correct its prediction'):
        check_agreement(detect(write()), sdxl=True, v2=False, v_parameterization=True)


@pytest.mark.parametrize("path", sorted((ROOT / "presets").rglob("*.model.json")), ids=lambda path: path.name)
def test_every_shipped_description_is_right(path: Path) -> None:
    assert detect(path).kind == json.loads(path.read_text(encoding="utf-8"))["kind"]
