"""The command line of sd-scripts that a GUI preset may hold: each argument becomes the key that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lora_trainer.config.arguments import split_arguments
from lora_trainer.config.entries import SECRET_KEYS, Entry
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.problems import shown
from lora_trainer.config.public import without_secrets
from lora_trainer.config.sd_scripts_arguments import Meaning, meaning_of, read_words
from lora_trainer.config.setting import keys_of

KEY = "additional_parameters"
OFF = ("", "0", "0.0", "none")


@dataclass
class Spread:
    """The preset's entries with those of the arguments in place of their own, and what there is to say about it."""

    entries: dict[str, Entry]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    idle: dict[str, str] = field(default_factory=dict)


def spread_parameters(written: Mapping[str, Entry]) -> Spread:
    """An argument comes before the preset's own key, as on the GUI's command line, and a --set comes before both."""
    spread = Spread(dict(written))
    source = written.get(KEY)
    if source is None or source.is_blank or not isinstance(source.value, str):
        return spread
    given, problems = read_words(split_arguments(source.value))
    meaning = meaning_of(given)
    _complete(meaning, written)
    spread.problems = [source.wrong_value(problem) for problem in (*problems, *meaning.problems)]
    spread.notes = [f"{KEY}: {note}" for note in meaning.notes]
    spread.idle = {f"{KEY} --{name}": reason for name, reason in meaning.idle.items()}
    for key, (value, argument) in meaning.keys.items():
        before = written.get(key)
        if before is not None and before.text is not None:
            spread.notes.append(f"{KEY}: --set {key} comes before --{argument}")
            continue
        if before is not None and not before.is_blank and _differ(before.value, value):
            told = "another value" if key in SECRET_KEYS else shown(before.value)
            spread.notes.append(f"{key}: --{argument} in {KEY} comes before {told}")
        place = source.value_place
        spread.entries[key] = Entry(f"{KEY} --{argument}", value, place, place, source.order)
    spread.entries[KEY] = replace(source, value=without_secrets(source.value))
    return spread


def _differ(before: object, after: object) -> bool:
    return _plain(before) != _plain(after)


def _plain(value: object) -> str:
    """A value without the spellings that mean the same."""
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    try:
        return repr(float(text))
    except ValueError:
        return text.replace('"', "").strip().casefold()


def _complete(meaning: Meaning, written: Mapping[str, Entry]) -> None:
    """What follows from an argument together with the preset's own keys."""
    rates = {"network_train_unet_only": "unet_lr", "network_train_text_encoder_only": "text_encoder_lr"}
    by_argument = {argument: key for key, (_, argument) in meaning.keys.items()}
    if all(argument in by_argument for argument in rates):
        meaning.problems.append(
            "--network_train_unet_only and --network_train_text_encoder_only leave nothing to train"
        )
        return
    for argument, key in rates.items():
        if argument in by_argument and _given(meaning, written, key) in OFF:
            meaning.put(argument, {key: _given(meaning, written, "learning_rate")})
    if "conv_dim" in meaning.keys and _given(meaning, written, "LoRA_type") in ("", "Standard"):
        meaning.put("network_args conv_dim", {"LoRA_type": "Kohya LoCon"})


def _given(meaning: Meaning, written: Mapping[str, Entry], key: str) -> str:
    """The value that counts so far, as text."""
    if key in meaning.keys:
        return str(meaning.keys[key][0]).strip()
    value = written[key].value if key in written else keys_of(LoraPreset)[key].default
    return "" if value is None else str(value).strip()
