"""What starts a training with sd-scripts, a TOML file or a command line, as a preset of the LoRA trainer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lora_trainer.config.kinds import is_text
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.sd_scripts_arguments import Meaning, meaning_of, read_words
from lora_trainer.config.setting import keys_of
from lora_trainer.config.toml_file import parse_toml, read_toml
from lora_trainer.errors import Refusal
from tools.presets.conversion import Converted
from tools.presets.shell_words import command_words, variables_left

SCRIPT = re.compile(
    r"(?:^|[\\/])((?:sdxl_|flux_|sd3_|lumina_|hunyuan_image_|anima_)?train_network)\.py$", re.IGNORECASE
)
OTHER_SCRIPT = re.compile(r"[\\/]?[\w-]*train[\w-]*\.py$", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

# What a run of sd-scripts does where an argument is not given, and a preset here would do something else
DEFAULTS: Mapping[str, object] = {
    "lr_scheduler": "constant", "lr_warmup": 0, "optimizer": "AdamW", "mixed_precision": "no", "network_dim": 4,
    "network_alpha": 1, "save_every_n_epochs": 0, "caption_extension": ".caption", "enable_bucket": False,
    "bucket_no_upscale": False, "max_bucket_reso": 1024, "cache_latents": False, "max_data_loader_n_workers": 8,
    "xformers": "none",
}  # fmt: skip
LAYER_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "Kohya DyLoRA": {"conv_dim": 0},
    "LyCORIS/iA3": {"train_on_input": False},
    "LyCORIS/DyLoRA": {"unit": 4},
}
STEPS = 1600
RATE = 2e-6


@dataclass(frozen=True)
class Command:
    """`given` are the arguments by name; `script` is the training script's name without .py; `launcher` the words
    before it."""

    given: dict[str, object]
    script: str = ""
    launcher: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def is_command_line(text: str) -> bool:
    """Whether a training script of sd-scripts is called in it."""
    return bool(_command_words(text))


def read_command_line(text: str, *folders: Path) -> Command:
    """The first call of a training script in a text, a shell script or a batch file. Raises Refusal.

    A --config_file is looked for in the folders and read as well; what stands on the line comes before it.
    """
    return read_command(_command_words(text), *folders)


def read_command(words: Sequence[str], *folders: Path) -> Command:
    """The same for words that a shell has made already."""
    at = next((number for number, word in enumerate(words) if SCRIPT.search(word)), None)
    if at is None:
        other = next((word for word in words if OTHER_SCRIPT.search(word)), " ".join(words)[:60])
        raise Refusal(f"{other}: trains no LoRA; in sd-scripts train_network.py and sdxl_train_network.py do")
    found = SCRIPT.search(words[at])
    assert found
    given, problems = read_words(words[at + 1 :])
    if isinstance(given.get("config_file"), str):
        given = {**_config_file(str(given.pop("config_file")), folders or [Path()]), **given}
    problems += [
        f"--{name}: nothing says what {left} is; write the value"
        for name, value in given.items()
        for left in variables_left(str(value))
    ]
    return Command(given, found.group(1).casefold(), tuple(words[:at]), tuple(problems))


def _command_words(text: str) -> list[str]:
    return command_words(text, lambda word: bool(OTHER_SCRIPT.search(word)))


def _config_file(name: str, folders: Sequence[Path]) -> dict[str, object]:
    """What the file of --config_file holds; the ending .toml may be left out. Raises Refusal."""
    paths = [folder / name for folder in folders]
    paths = [path if path.suffix else path.with_suffix(".toml") for path in paths]
    return flat(read_toml(next((path for path in paths if path.is_file()), paths[0]), "--config_file"))


def flat(content: Mapping[str, Any]) -> dict[str, object]:
    """sd-scripts reads a TOML file's tables as if their keys stood at the top."""
    found: dict[str, object] = {}
    for name, value in content.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def toml_arguments(path: Path, text: str) -> dict[str, object] | None:
    """The arguments that a TOML file holds; None for a text that is no TOML. Raises Refusal for another TOML file."""
    try:
        content = flat(parse_toml(text))
    except ValueError:
        return None
    if not {"pretrained_model_name_or_path", "network_module", "network_dim"} & set(content):
        if "datasets" in content:
            raise Refusal(f"{path}: describes a data set; name it in a preset's dataset_config")
        raise Refusal(f"{path}: no arguments of sd-scripts: it has no pretrained_model_name_or_path")
    return content


def convert_sd_scripts(command: Command) -> Converted:
    """A preset that says everything in which sd-scripts' defaults differ from those here. Raises Refusal."""
    if command.script and command.script.split("train_network")[0] not in ("", "sdxl_"):
        raise Refusal(f"{command.script}.py: trains another family of models; lora_trainer trains SD 1.x, 2.x and SDXL")
    given = {name: value for name, value in command.given.items() if value is not False and value != ""}
    meaning = meaning_of({name: value for name, value in given.items() if name not in ("epoch", "sdxl")})
    known = {key: value for key, (value, _) in meaning.keys.items() if key not in _without_effect()}
    preset: dict[str, Any] = {"trainer": "lora", "sdxl": _is_sdxl(command, given)}
    preset |= _defaults(known, command.launcher) | known | _rates(known, meaning)
    preset |= _length(known)
    converted = Converted({key: _tidy(key, preset[key]) for key in keys_of(LoraPreset) if key in preset})
    others = [key for key in preset if key not in converted.preset]
    converted.problems = [f"{key}: for models that lora_trainer does not train" for key in others]
    converted.left = {f"--{name}": reason for name, reason in meaning.idle.items()} | {
        f"--{name}": keys_of(LoraPreset)[key].effect.reason
        for key, (_, name) in meaning.keys.items()
        if key in _without_effect()
    }
    if "epoch" in given:
        converted.left["epoch"] = "sd-scripts does not read it; max_train_steps is the length"
    if command.launcher:
        launcher = " ".join(command.launcher)
        converted.left[launcher] = "starts the script; the preset is started by accelerate launch -m lora_trainer"
    converted.notes = meaning.notes
    converted.problems += [*command.problems, *meaning.problems]
    return converted


def _without_effect() -> set[str]:
    return {key.name for key in keys_of(LoraPreset).values() if key.effect.kind == "none"}


def _is_sdxl(command: Command, given: Mapping[str, object]) -> bool:
    """From the script's name, or from arguments that only the SDXL script has."""
    if command.script:
        return command.script.startswith("sdxl_")
    return bool(given.get("sdxl")) or any(name in given for name in ("no_half_vae", "cache_text_encoder_outputs"))


def _defaults(known: Mapping[str, object], launcher: tuple[str, ...]) -> dict[str, object]:
    """What is not given and has another default here."""
    found = dict(DEFAULTS)
    launched = [word.partition("=")[2] for word in launcher if word.startswith("--mixed_precision=")]
    launched += [after for word, after in pairwise(launcher) if word == "--mixed_precision"]
    if launched:
        found["mixed_precision"] = launched[-1]
    halves = [key.removeprefix("full_") for key in ("full_fp16", "full_bf16") if known.get(key)]
    found["save_precision"] = halves[0] if halves else "float"
    layers = str(known.get("LoRA_type", ""))
    found |= LAYER_DEFAULTS.get(layers, {})
    if layers.startswith("LyCORIS/"):
        rank = known.get("network_dim", found["network_dim"])
        found |= {"conv_dim": rank, "conv_alpha": known.get("network_alpha", found["network_alpha"])}
    if "sample_prompts" in known:
        found |= {"sample_at_first": False, "sample_sampler": "ddim"}
    idle = ["lr_warmup"] if "lr_warmup_steps" in known else []
    idle += [] if known.get("enable_bucket") else ["bucket_no_upscale", "max_bucket_reso"]
    for key in idle:
        del found[key]
    return found


def _rates(known: Mapping[str, object], meaning: Meaning) -> dict[str, object]:
    """A part without a rate of its own takes learning_rate; one that is not trained has 0."""
    rate = known.get("learning_rate", RATE)
    found = {key: known.get(key, rate) for key in ("unet_lr", "text_encoder_lr")}
    arguments = {argument for _, argument in meaning.keys.values()}
    for flag, key in (("network_train_unet_only", "unet_lr"), ("network_train_text_encoder_only", "text_encoder_lr")):
        if flag in arguments and str(found[key]) in ("0", "0.0"):
            found[key] = rate
    return found


def _length(known: Mapping[str, object]) -> dict[str, object]:
    return {} if known.get("max_train_epochs") or known.get("max_train_steps") else {"max_train_steps": STEPS}


def _tidy(key: str, value: object) -> object:
    """A number as a number."""
    plain = isinstance(value, str) and NUMBER.fullmatch(value) and not is_text(keys_of(LoraPreset)[key].annotation)
    if not plain:
        return value
    number = float(str(value))
    return int(number) if number.is_integer() and re.fullmatch(r"[+-]?\d+", str(value)) else number
