"""A preset becomes a frozen dataclass, or a list of sentences that each say where, what and how to mend it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.setting import keys_of
from lora_trainer.config.trainers import TRAINERS
from tests.conftest import PRESETS

ROOT = Path(__file__).resolve().parents[2]
PDXL = ROOT / "presets" / "pdxl.json"
GOLDEN = ROOT / "tests" / "golden" / "pdxl_keys.json"
REQUIRED = ("pretrained_model_name_or_path", "train_data_dir", "output_dir", "output_name")
FILLED = [f"{key}=some_{key}" for key in REQUIRED]
Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]
Write = Callable[[dict[str, object]], Path]


def test_the_shipped_pdxl_preset_is_the_published_one() -> None:
    assert list(json.loads(PDXL.read_text(encoding="utf-8")).items()) == [
        (key, value) for key, value in json.loads(GOLDEN.read_text(encoding="utf-8"))
    ]


def test_every_published_key_is_known() -> None:
    keys = [key for key, _ in json.loads(GOLDEN.read_text(encoding="utf-8"))]
    assert len(keys) == 140
    assert set(keys) <= set(keys_of(LoraPreset))


def test_pdxl_loads_with_its_placeholders_filled() -> None:
    loaded = load_preset(PDXL, FILLED)
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    assert (preset.sdxl, preset.network_dim, preset.network_alpha, preset.epoch) == (True, 32, 16.0, 36)
    assert (preset.noise_offset, preset.lr_scheduler, preset.optimizer) == (0.0357, "constant", "AdamW8bit")
    assert preset.resolution_px == (1024, 1024)
    assert (preset.unet_rate, preset.text_encoder_rate) == (1e-4, 1e-4)
    assert loaded.notes == ()
    assert loaded.inert == {
        "dynamo_backend": "the dynamo_* keys are for the launcher and need no TensorRT here; torch_compile compiles",
        "clip_skip": "SDXL always takes the layer before the last",
        "min_bucket_reso": "bucket_no_upscale takes the size from each image",
        "max_bucket_reso": "bucket_no_upscale takes the size from each image",
        "learning_rate": "unet_lr and text_encoder_lr are set, so that nothing takes this rate",
    }


def test_the_placeholders_of_pdxl_are_refused_all_at_once() -> None:
    with pytest.raises(PresetError) as caught:
        load_preset(PDXL)
    assert caught.value.problems == (
        f"{PDXL}:88:17 output_dir: still the placeholder ...; write it here or add --set output_dir=output/my_run "
        "(The folder of the run: models, previews, checkpoint and logs are written there)",
        f"{PDXL}:89:18 output_name: still the placeholder ...; write it here or add --set output_name=my_lora "
        "(The name of the files that are written, without an ending)",
        f"{PDXL}:91:36 pretrained_model_name_or_path: still the placeholder ...; write it here or add --set "
        "pretrained_model_name_or_path=models/sd_xl_base_1.0.safetensors "
        "(The base model: a .safetensors or .ckpt file, or a diffusers folder)",
        f"{PDXL}:123:21 train_data_dir: still the placeholder ...; write it here or add --set "
        "train_data_dir=data/my_character (The folder of folders named <repeats>_<words>, such as 10_my character)",
    )


WRONG_TYPE = (
    '6:16 LoRA_type: found "LoCom"; write one of Standard, Kohya LoCon, Kohya DyLoRA, LoRA-FA, LyCORIS/LoCon, '
    "LyCORIS/LoHa, LyCORIS/LoKr, LyCORIS/iA3, LyCORIS/DyLoRA, LyCORIS/GLoRA, LyCORIS/BOFT, LyCORIS/Diag-OFT, "
    "LyCORIS/Native Fine-Tuning"
)
WRONG_OPTIMIZER = (
    '6:16 optimizer: found "dadaptadan2"; write one of AdamW, AdamW8bit, Lion, Lion8bit, Adafactor, Prodigy, '
    "DAdaptation, DAdaptAdaGrad, DAdaptAdam, DAdaptAdan, DAdaptAdanIP, DAdaptAdamPreprint, DAdaptLion, DAdaptSGD, "
    "PagedAdamW, PagedAdamW8bit, PagedAdamW32bit, PagedLion8bit, SGDNesterov, SGDNesterov8bit, AdamWScheduleFree, "
    "RAdamScheduleFree, SGDScheduleFree, or the dotted path of a class; did you mean DAdaptAdan?"
)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_shipped_preset_loads(path: Path) -> None:
    keys = json.loads(path.read_text(encoding="utf-8"))
    loaded = load_preset(path, [f"{key}=some_{key}" for key, value in keys.items() if value == "..."])
    assert loaded.preset.trainer == keys.get("trainer", "lora")


def test_a_missing_key_gets_the_default_of_the_gui(load: Load) -> None:
    preset = load().preset
    assert isinstance(preset, LoraPreset)
    expected = {
        "lr_scheduler": "cosine", "lr_warmup": 10.0, "max_resolution": (512, 512), "network_dim": 8,
        "network_alpha": 1.0, "learning_rate": 1e-4, "unet_lr": 1e-4, "text_encoder_lr": 1e-4, "epoch": 1,
        "max_train_steps": 0, "max_train_epochs": 0, "train_batch_size": 1, "optimizer": "AdamW8bit",
        "mixed_precision": "fp16", "save_precision": "fp16", "caption_extension": ".txt", "enable_bucket": True,
        "bucket_no_upscale": True, "cache_latents": True, "multires_noise_discount": 0.3, "clip_skip": 1,
        "max_token_length": 75, "xformers": "xformers", "checkpoint_every_n_epochs": 1,
        "checkpoint_every_n_minutes": 10.0, "log_with": "tensorboard", "seed": 0, "trainer": "lora",
    }  # fmt: skip
    assert {key: getattr(preset, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("max_token_length", "75", 75),
        ("max_token_length", 225.0, 225),
        ("max_token_length", "150.0", 150),
        ("gradient_accumulation_steps", 1.0, 1),
        ("learning_rate", "0.0001", 1e-4),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("lr_scheduler_power", "", 1.0),
        ("lr_warmup", "", 0.0),
        ("text_encoder_lr", None, 0.0),
        ("epoch", "", 1),
        ("vae", None, ""),
        ("max_resolution", "1024,768", (1024, 768)),
        ("max_resolution", " 512 ", (512, 512)),
        ("max_resolution", 640, (640, 640)),
        ("max_resolution", [640, 512], (640, 512)),
        ("sdxl", "True", True),
        ("sdxl", "false", False),
        ("sdxl", 1, True),
        ("xformers", True, "xformers"),
        ("xformers", False, "none"),
        ("optimizer", "adamw", "AdamW"),
        ("optimizer", "PRODIGY", "Prodigy"),
        ("optimizer_args", ["weight_decay=0.1", "eps=1e-8"], ("weight_decay=0.1", "eps=1e-8")),
        ("train_data_dir", " C:\\my data ", "C:\\my data"),
        ("resume_from_huggingface", False, ""),
    ],
)
def test_the_habits_of_the_gui_are_understood(load: Load, key: str, written: object, value: object) -> None:
    found = getattr(load(**{key: written}).preset, key)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("keys", "field", "value", "note"),
    [
        ({"epoch": "4.0"}, "epoch", 4, 'epoch: "4.0" is read as 4; the kohya_ss GUI makes it 0'),
        ({"bucket_reso_steps": 1}, "bucket_reso_steps", 64, "bucket_reso_steps: 1 is read as 64"),
        ({"epoch": 0}, "epoch", 1, "epoch: 0 is read as 1"),
        ({"use_8bit_adam": False}, "optimizer", "AdamW", 'use_8bit_adam: read as optimizer "AdamW"'),
        ({"use_wandb": "True"}, "log_with", "wandb", 'use_wandb: read as log_with "wandb"'),
        ({"conv_dims": 4}, "conv_dim", 4, "conv_dims: read as conv_dim 4"),
        (
            {"use_8bit_adam": True, "optimizer": "Lion"},
            "optimizer",
            "Lion",
            "use_8bit_adam: the former name of optimizer, which is given too and counts",
        ),
        ({"max_timestep": 0}, "max_timestep", 1000, "max_timestep: 0 is read as 1000"),
        ({"huber_c": 0, "loss_type": "huber"}, "huber_c", 0.1, "huber_c: 0 is read as 0.1"),
        (
            {"max_bucket_reso": "0", "bucket_no_upscale": False},
            "max_bucket_reso",
            1024,
            'max_bucket_reso: "0" is read as 1024',
        ),
        (
            {"caption_extension": ""},
            "caption_extension",
            ".txt",
            "caption_extension: empty is read as .txt; for sd-scripts it is .caption",
        ),
        (
            {"max_grad_norm": 0},
            "max_grad_norm",
            0.0,
            "max_grad_norm: 0 turns clipping off; kohya_ss would have made it 1",
        ),
    ],
)
def test_what_is_read_in_another_way_is_noted(
    load: Load, keys: dict[str, object], field: str, value: object, note: str
) -> None:
    loaded = load(seed=1, lr_warmup=0, **keys)
    assert getattr(loaded.preset, field) == value
    assert loaded.notes == (note,)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"noise_ofset": 0.1}, "6:3 noise_ofset: unknown key; did you mean noise_offset?"),
        ({"Network_Dim": 4}, "6:3 Network_Dim: unknown key; did you mean network_dim?"),
        ({"qqq": 1}, "6:3 qqq: unknown key"),
        ({"a\nb": 1}, '6:3 "a\\nb": unknown key'),
        ({"network_dim": "many"}, '6:18 network_dim: found "many"; write a whole number from 1 upwards'),
        ({"network_dim": True}, "6:18 network_dim: found true; write a whole number from 1 upwards"),
        ({"network_dim": 4.5}, "6:18 network_dim: found 4.5; write a whole number from 1 upwards"),
        ({"network_dim": 0}, "6:18 network_dim: found 0; write a whole number from 1 upwards"),
        ({"noise_offset": 7}, "6:19 noise_offset: found 7; write a number from 0 to 1"),
        ({"noise_offset": "0,5"}, '6:19 noise_offset: found "0,5"; write the decimal point as a point: 0.5'),
        ({"noise_offset": "nan"}, '6:19 noise_offset: found "nan"; write a number from 0 to 1'),
        ({"noise_offset": {"a": 1}}, '6:19 noise_offset: found {"a": 1}; write a number from 0 to 1'),
        ({"sdxl": "yes"}, '6:11 sdxl: found "yes"; write true or false'),
        ({"seed": 2**32}, "6:11 seed: found 4294967296; write a whole number from 0 to 4294967295"),
        (
            {"bucket_reso_steps": 60},
            "6:24 bucket_reso_steps: found 60; write a whole number that is a multiple of 8 from 8 to 1024",
        ),
        ({"max_token_length": 100}, "6:23 max_token_length: found 100; write one of 75, 150, 225"),
        (
            {"max_resolution": "1024x768"},
            '6:21 max_resolution: found "1024x768"; write a size in pixels: 512 or "width,height"',
        ),
        ({"max_resolution": "4,4"}, '6:21 max_resolution: found "4,4"; each side must be from 8 to 16384 pixels'),
        (
            {"save_precision": "fp61"},
            '6:21 save_precision: found "fp61"; write one of fp16, bf16, float; did you mean fp16?',
        ),
        ({"vae": 5}, "6:10 vae: found 5; write a path"),
        (
            {"vae": "C:\new"},
            '6:10 vae: found "C:\\new"; a path holds no tabs or line breaks; write each backslash twice '
            '("C:\\\\new") or use /',
        ),
        (
            {"optimizer_args": "decouple"},
            '6:21 optimizer_args: found "decouple"; "decouple" is not of the form name=value',
        ),
        ({"use_wandb": "perhaps"}, '6:16 use_wandb: found "perhaps"; write true or false'),
        ({"LoRA_type": "LoCom"}, WRONG_TYPE),
        ({"optimizer": "dadaptadan2"}, WRONG_OPTIMIZER),
        (
            {"trainer": "lorra"},
            f'6:14 trainer: found "lorra"; write one of {", ".join(TRAINERS)}; did you mean lora?',
        ),
        ({"wandb_api_key": ["S3CRET"]}, "6:20 wandb_api_key: write text that is kept secret"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_cure(problems: Problems, keys: dict[str, object], problem: str) -> None:
    assert problems(**keys) == [problem]


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a:b", "what?", "ends.", "NUL", "con.txt"])
def test_a_name_that_no_file_can_have_is_refused(problems: Problems, name: str) -> None:
    (problem,) = problems(output_name=name)
    assert problem.startswith('5:18 output_name: found "')
    assert problem.endswith('a file name cannot hold < > : " / \\ | ? *, end with a point or be a Windows device')


def test_required_keys_that_are_missing_or_empty(write: Write) -> None:
    path = write({"output_dir": "", "output_name": "x"})
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    assert caught.value.problems == (
        f"{path}:1:1 pretrained_model_name_or_path: missing; write it, for example models/sd_xl_base_1.0.safetensors "
        "(The base model: a .safetensors or .ckpt file, or a diffusers folder)",
        f"{path}:1:1 train_data_dir: missing; write the folder that holds folders named like 10_my character, or name "
        "a dataset_config",
        f"{path}:2:17 output_dir: empty; write it, for example output/my_run "
        "(The folder of the run: models, previews, checkpoint and logs are written there)",
    )


def test_all_problems_come_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    found = problems(["seed=x"], noise_ofset=1, v2=True, network_dim=0, sdxl=True)
    assert found == [
        "6:3 noise_ofset: unknown key; did you mean noise_offset?",
        "7:9 v2: a model is either SD 2.x or SDXL; turn v2 or sdxl off",
        "8:18 network_dim: found 0; write a whole number from 1 upwards",
        '--set seed=x: found "x"; write a whole number from 0 to 4294967295',
    ]


def test_a_list_at_top_level(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text("\n [1]", encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    assert caught.value.problems == (f'{path}:2:2 found a list; a preset is an object: {{ "key": value, ... }}',)


def test_overrides_win_and_may_add_keys(load: Load) -> None:
    overrides = ["network_dim=4", "output_name=007", "network_dim=5", "sdxl=true", "vae=my vae=2.pt", "epoch="]
    preset = load(overrides, network_dim=3, epoch=9).preset
    assert isinstance(preset, LoraPreset)
    assert (preset.network_dim, preset.output_name, preset.sdxl, preset.vae, preset.epoch) == (
        5, "007", True, "my vae=2.pt", 1,
    )  # fmt: skip


def test_a_wrong_override_is_shown_as_it_was_typed(problems: Problems) -> None:
    assert problems(["noise_ofset=0.1", "sdxl=maybe", "v2=true"], sdxl=True) == [
        "--set noise_ofset=0.1: unknown key; did you mean noise_offset?",
        '--set sdxl=maybe: found "maybe"; write true or false',
    ]
    assert problems(["novalue"]) == ["--set novalue: write it as --set key=value"]


def test_a_preset_for_flux_is_refused_in_one_sentence(problems: Problems) -> None:
    found = problems(LoRA_type="Flux1", flux1_checkbox=True, ae="ae.sft", guidance_scale=3.5)
    assert found == [
        "6:3 LoRA_type: for Flux models, which lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL; "
        "so are flux1_checkbox, ae"
    ]


def test_what_the_gui_leaves_of_other_models_is_listed_once(load: Load) -> None:
    loaded = load(flux1_checkbox=False, ae="", guidance_scale=2.5, split_mode=False, train_blocks="single")
    assert loaded.inert == {"guidance_scale": "read for Flux models only, as are train_blocks"}


def test_a_secret_is_never_shown(load: Load, problems: Problems) -> None:
    loaded = load(wandb_api_key="S3CRET", huggingface_token="S3CRET")
    preset = loaded.preset
    assert preset.wandb_api_key.get_secret_value() == "S3CRET"
    assert loaded.inert["wandb_api_key"] == "log_with does not name wandb"
    assert loaded.given["wandb_api_key"] == "***"
    assert "S3CRET" not in repr(loaded) + str(loaded.steps_fingerprint()) + str(loaded.given)
    overrides = ["wandb_api_ky=S3CRET", "huggingface_tokn=S3CRET", "wandb_api_key=S3CRET", "seed=x"]
    found = problems(overrides, huggingface_token=["S3CRET"])
    assert len(found) == 4
    assert "S3CRET" not in " ".join(found)


def test_the_fingerprint_holds_what_touches_the_steps(load: Load) -> None:
    before = load(network_dim=4, max_resolution="640,512").steps_fingerprint()
    assert (before["network_dim"], before["max_resolution"]) == (4, [640, 512])
    assert json.loads(json.dumps(before)) == before
    longer = load(network_dim=4, max_resolution="640,512", epoch=9, save_every_n_steps=3, log_with="none")
    assert longer.steps_fingerprint() == before
    assert load(network_dim=5, max_resolution="640,512").steps_fingerprint() != before
    assert load(network_dim=4, max_resolution="640,512", seed=3).steps_fingerprint() != before


def test_a_preset_is_frozen_and_can_go_to_a_worker(load: Load) -> None:
    loaded = load(wandb_api_key="S3CRET")
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.preset.seed = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_reading_a_preset_needs_no_heavy_package() -> None:
    code = (
        "import sys, pathlib; from lora_trainer.config import explain, reader, schema;"
        f"reader.load_preset(pathlib.Path({str(PDXL)!r}), {FILLED!r}); explain.explain('seed');"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'accelerate'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
