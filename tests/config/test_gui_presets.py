"""What the GUI writes loads as it is, each key with its meaning or a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from tests.config.gui_presets import (
    FLUX,
    OF_2025,
    OTHER_MODELS_UNTOUCHED,
    SD15_PRESETS,
    SDXL_PRESETS,
    Preset,
)

Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]
PLACES = {
    "pretrained_model_name_or_path": "base.safetensors",
    "train_data_dir": "data",
    "output_dir": "out",
    "output_name": "mine",
}
PRESETS = {**{f"SDXL {name}": each for name, each in SDXL_PRESETS.items()},
           **{f"SD 1.5 {name}": each for name, each in SD15_PRESETS.items()}}  # fmt: skip


def loaded_from(load: Load, keys: Preset) -> tuple[LoraPreset, Loaded]:
    loaded = load(**{**keys, **{key: value for key, value in PLACES.items() if not keys.get(key)}})
    assert isinstance(loaded.preset, LoraPreset)
    return loaded.preset, loaded


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_with_its_meaning(load: Load, name: str) -> None:
    keys, expected = PRESETS[name]
    preset, _ = loaded_from(load, keys)
    assert {key: getattr(preset, key) for key in expected} == expected


def test_there_are_as_many_as_kohya_ss_ships() -> None:
    assert (len(SDXL_PRESETS), len(SD15_PRESETS)) == (19, 11)


def test_the_widgets_of_other_models_say_nothing_in_a_preset_of_sdxl(load: Load) -> None:
    _, loaded = loaded_from(load, OF_2025)
    assert not set(loaded.inert) & set(OTHER_MODELS_UNTOUCHED)
    assert loaded.notes == ("seed: 0 draws a new seed for each run",)


def test_what_was_left_in_them_is_listed_once(load: Load) -> None:
    _, loaded = loaded_from(load, {**OF_2025, "t5xxl": "t5.safetensors", "guidance_scale": 1.7, "mode_scale": 1})
    assert loaded.inert["guidance_scale"] == "read for Flux models only, as are t5xxl"
    assert loaded.inert["mode_scale"] == "read for SD 3 models only"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (FLUX, "LoRA_type: for Flux models, which lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL; "
               "so are ae, clip_l, flux1_checkbox, t5xxl"),
        ({**OF_2025, "sd3_checkbox": True, "sd3_t5xxl": "t5", "clip_g": "g"},
         "clip_g: for SD 3 models, which lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL; "
         "so are sd3_checkbox, sd3_t5xxl"),
        ({**OF_2025, "lumina_checkbox": True, "LoRA_type": "Lumina", "lumina_gemma2": "gemma"},
         "LoRA_type: for Lumina models, which lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL; "
         "so are lumina_checkbox, lumina_gemma2"),
        ({**OF_2025, "additional_parameters": "--network_module networks.lora_flux --ae models/ae.sft"},
         "additional_parameters --network_module: for Flux models, which lora_trainer does not train; it trains "
         "SD 1.x, SD 2.x and SDXL"),
    ],
)  # fmt: skip
def test_a_preset_for_another_family_is_refused_in_one_sentence(
    problems: Problems, keys: Preset, sentence: str
) -> None:
    (problem,) = problems(**{**keys, **PLACES})
    assert problem.partition(" ")[2] == sentence


@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_the_types_of_sd_scripts_own_are_those_of_lycoris(load: Load, kind: str) -> None:
    preset, loaded = loaded_from(load, {**OF_2025, "LoRA_type": f"Kohya {kind}"})
    assert preset.LoRA_type == f"LyCORIS/{kind}"
    assert f'LoRA_type: "Kohya {kind}" is read as "LyCORIS/{kind}"' in loaded.notes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" C:\\my data\\img\\ ", "C:\\my data\\img\\"),
        ("D:/data/img/ ", "D:/data/img/"),
        ("\\\\nas\\share\\img", "\\\\nas\\share\\img"),
        ('"C:\\my data"', "C:\\my data"),
    ],
)
def test_paths_as_people_paste_them(load: Load, written: str, read: str) -> None:
    assert load(train_data_dir=written).preset.train_data_dir == read  # type: ignore[attr-defined]
