"""EveryDream2's files as the flat keys of a finetune preset: its optimizer.json, its validation json, its folders.

What the preset itself says comes before what a file says. The places in messages are those of the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lora_trainer.config.entries import Entry
from lora_trainer.config.finetune_optimization import FORMER_OPTIMIZERS
from lora_trainer.config.json_source import read_json
from lora_trainer.config.kinds import FileName
from lora_trainer.config.problems import PresetError, shown
from lora_trainer.errors import Refusal

OPTIMIZER_FILE, VALIDATION_FILE = "optimizer_config", "validation_config"
COMMENTS = ("doc", "documentation", "comment", "_doc", "_comment")
SAME_WORDS = ("optimizer", "lr", "lr_scheduler", "lr_decay_steps", "lr_warmup_steps")  # of `base` and of the overrides
TEXT_SCALE = "text_encoder_lr_scale"
FREEZING = ("unfreeze_last_n_layers", "freeze_embeddings", "freeze_final_layer_norm")
ROOT = ("apply_grad_scaler_step_tweaks", "log_grad_norm")
VALIDATION = {
    **{key: key for key in (
        "validate_training", "val_split_mode", "auto_split_proportion", "manual_data_root", "extra_manual_datasets",
        "stabilize_training_loss", "stabilize_split_proportion", "use_relative_loss",
    )},
    "every_n_epochs": "val_every_n_epochs", "seed": "val_seed", "batch_size": "val_batch_size",
}  # fmt: skip
LOW_MEMORY: dict[str, object] = {
    "batch_size": 1, "grad_accum": 1, "gradient_checkpointing": True, "optimizer": "AdamW8bit",
}  # fmt: skip
LOW_MEMORY_PX = 512
# EveryDream2's options of an optimizer that go by another name in it; the others keep theirs
OPTION_WORDS = {"epsilon": "eps"}
# which of the options that every optimizer.json has an optimizer takes
COMMON_OPTIONS = {"betas", "eps", "weight_decay"}
LIKE_LION, LIKE_SGD = {"betas", "weight_decay"}, {"weight_decay"}
READ_OF_THEM = {
    **dict.fromkeys(("lion", "lion8bit", "pagedlion8bit", "dadaptlion"), LIKE_LION),
    **dict.fromkeys(("dadaptsgd", "adafactor", "sgd", "sgdnesterov", "sgdnesterov8bit"), LIKE_SGD),
}


def unfold_everydream(written: Mapping[str, Entry]) -> dict[str, Entry]:
    """Flat keys for everything, and output_dir and output_name where only logdir and project_name are given.

    Raises PresetError for a file that cannot be read.
    """
    flat = dict(written)
    _name_the_run(flat)
    if _is_on(flat.get("lowvram")):
        _spare_memory(flat)
    if _is_given(flat.get(OPTIMIZER_FILE)):
        _read_optimizer(flat, flat[OPTIMIZER_FILE])
    if _is_given(flat.get(VALIDATION_FILE)):
        _read_validation(flat, flat[VALIDATION_FILE])
    prompts = flat.get("sample_prompts")
    if prompts is not None and _is_given(prompts) and isinstance(prompts.value, str):
        beside = _beside(prompts, prompts.value)
        if _is_file(beside):
            flat["sample_prompts"] = replace(prompts, value=str(beside))
    return flat


def _name_the_run(flat: dict[str, Entry]) -> None:
    logdir, project = flat.get("logdir"), flat.get("project_name")
    name = _as_text(project)
    name = name if _is_file_name(name) else "myproj"
    root = _as_text(logdir) or "logs"
    source = project if project is not None and _is_given(project) else logdir
    if source is None or not _is_given(source):
        return
    if not _is_given(flat.get("output_dir")):
        flat["output_dir"] = replace(source, key="output_dir", value=f"{root.rstrip('/')}/{name}", text=None)
    if not _is_given(flat.get("output_name")):
        flat["output_name"] = replace(source, key="output_name", value=name, text=None)


def _spare_memory(flat: dict[str, Entry]) -> None:
    switch = flat["lowvram"]
    values = dict(LOW_MEMORY)
    resolution = flat.get("resolution")
    if resolution is not None and isinstance(resolution.value, int) and resolution.value > LOW_MEMORY_PX:
        values["resolution"] = LOW_MEMORY_PX
    for key, value in values.items():
        flat[key] = replace(switch, key=key, value=value, text=None)
    flat["lowvram"] = replace(switch, note=", ".join(f"{key} is {shown(value)}" for key, value in values.items()))


def _read_optimizer(flat: dict[str, Entry], named: Entry) -> None:
    """`base` for the UNet, `text_encoder_overrides` for the text encoder; null is not set."""
    content = _content(named)
    found = dict(_members(content))
    flat_file = "base" not in found and any(key in found for key in SAME_WORDS)  # as the file was until 2023
    base, text = (dict(_members(found.pop(name, None))) for name in ("base", "text_encoder_overrides"))
    freezing = dict(_members(found.pop("text_encoder_freezing", None)))
    new = {key: entry for key in ROOT if (entry := found.pop(key, None)) is not None}
    new |= {key: entry for key in FREEZING if (entry := freezing.pop(key, None)) is not None}
    if flat_file:
        base, found = found, {}
    if (scale := base.pop(TEXT_SCALE, None)) is not None:
        new[TEXT_SCALE] = scale
    notes = _rates_of_the_preset(flat, base, text)
    for section, prefix in ((base, ""), (text, "text_encoder_")):
        new |= {prefix + key: entry for key in SAME_WORDS if (entry := section.pop(key, None)) is not None}
    for section, prefix, name in ((base, "", "optimizer"), (text, "text_encoder_", "text_encoder_optimizer")):
        named_first = (each.get(key) for key in (name, "optimizer") for each in (flat, new))
        chosen = next((entry for entry in named_first if _is_given(entry)), None)
        entry, unread = _options(section, chosen)
        if entry is not None:
            new[f"{prefix}optimizer_args"] = replace(entry, key=f"{prefix}optimizer_args")
        if unread:
            notes.append(f"{', '.join(unread)} of the file: {chosen.value if chosen else ''} has no such option")
    leftover = [*found.values(), *freezing.values()]
    notes += _take(flat, named, new, leftover)
    if notes:
        flat[named.key] = replace(flat[named.key], note="; ".join(notes))


def _rates_of_the_preset(flat: Mapping[str, Entry], base: dict[str, Entry], text: dict[str, Entry]) -> list[str]:
    """As in EveryDream2, a rate in the preset is that of the UNet and of the text encoder, whatever the file says."""
    rate = flat.get("lr")
    if not _is_given(rate) or rate is None or rate.value == 0:
        return []
    sections = (("base", base), ("text_encoder_overrides", text))
    unused = {name: entry for name, section in sections if (entry := section.pop("lr", None)) and _is_given(entry)}
    differing = [f"{name}.lr {shown(entry.value)}" for name, entry in unused.items() if entry.value != rate.value]
    return [f"lr {shown(rate.value)} counts, not {' and '.join(differing)} of the file"] if differing else []


def _options(section: dict[str, Entry], chosen: Entry | None) -> tuple[Entry | None, list[str]]:
    """What is left of a section as `optimizer_args`, and what the chosen optimizer has no use for."""
    name = "".join(sign for sign in str(chosen.value if chosen else "").casefold() if sign.isalnum())
    name = name if name in READ_OF_THEM else str(FORMER_OPTIMIZERS.get(name, name)).casefold()
    reads = READ_OF_THEM.get(name, COMMON_OPTIONS)
    words, unread, first = [], [], None
    for key, entry in section.items():
        word = OPTION_WORDS.get(key, key)
        if not _is_given(entry):
            continue
        if word in COMMON_OPTIONS - reads:
            unread.append(key)
            continue
        first = first or entry
        values = entry.value if isinstance(entry.value, list) else [entry.value]
        words.append(f"{word}={','.join(map(repr, values))}")
    return (replace(first, value=words, text=None, source=None) if first else None), unread


def _read_validation(flat: dict[str, Entry], named: Entry) -> None:
    found = dict(_members(_content(named)))
    new = {flat_key: entry for key, flat_key in VALIDATION.items() if (entry := found.pop(key, None)) is not None}
    new.setdefault("val_split_mode", replace(named, key="val_split_mode", value="automatic", text=None))
    notes = _take(flat, named, new, list(found.values()))
    if notes:
        flat[named.key] = replace(flat[named.key], note="; ".join(notes))


def _take(flat: dict[str, Entry], named: Entry, new: Mapping[str, Entry], unknown: list[Entry]) -> list[str]:
    """The entries of a file, where the preset does not say otherwise; unknown ones go under their long name.

    What is to be told: where the preset does.
    """
    notes = []
    for key, entry in new.items():
        present = flat.get(key)
        unset = present is None or present.is_blank or (key.endswith("decay_steps") and not present.value)
        if _is_given(entry) and unset:
            flat[key] = replace(entry, key=key, order=named.order)
        elif _is_given(entry) and present is not None and present.value != entry.value:
            notes.append(f"{key} {shown(present.value)} counts, not {shown(entry.value)} of the file")
    for entry in unknown:
        name = f"{named.key}.{entry.key}"
        flat[name] = replace(entry, key=name, order=named.order)
    return notes


def _content(named: Entry) -> Entry:
    """The file beside the preset, or where its path leads from here. Raises PresetError."""
    if not isinstance(named.value, str):
        raise PresetError(named.wrong_value(f"found {shown(named.value)}; write the path of a .json file"))
    path = _beside(named, named.value.strip())
    if not _is_file(path):
        path = Path(named.value.strip())
    if not _is_file(path):
        raise PresetError(
            named.wrong_value(f"{path}: there is no such file; put it beside the preset, or remove the key")
        )
    try:
        source = read_json(path)
    except Refusal as refusal:
        raise PresetError(*(f"{named.key}: {problem}" for problem in refusal.problems)) from None
    if not isinstance(source.value, dict):
        raise PresetError(f"{source.value_place(())} {named.key}: found {shown(source.value)}; write an object")
    place = source.value_place(())
    return Entry("", source.value, place, place, named.order, source=source)


def _members(section: Entry | None) -> Iterator[tuple[str, Entry]]:
    """The keys of an object, without comments. What is no object has no keys."""
    if section is None or not isinstance(section.value, dict):
        return
    for key in section.value:
        if key not in COMMENTS:
            yield key, replace(section.inside(key), key=f"{section.key}.{key}".lstrip("."))


def _beside(entry: Entry, path: str) -> Path:
    folder = Path(entry.source.name).parent if entry.source is not None else Path()
    return folder / path


def _as_text(entry: Entry | None) -> str:
    """What is written, of an override even where it looks like a number; nothing where it is not set."""
    if entry is None or entry.is_blank:
        return ""
    return entry.value if isinstance(entry.value, str) else entry.text or ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or of signs that no path has
        return False


def _is_given(entry: Entry | None) -> bool:
    return entry is not None and not entry.is_blank


def _is_on(entry: Entry | None) -> bool:
    return entry is not None and str(entry.value).strip().casefold() in ("true", "1")


def _is_file_name(value: str) -> bool:
    if not value:
        return False
    try:
        TypeAdapter(FileName).validate_python(value)
    except ValidationError:
        return False
    return True
