"""sd-scripts' description of a training set: [general], [[datasets]] and [[datasets.subsets]], in TOML or JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, MultipleOf
from pydantic import TypeAdapter, ValidationError

from lora_trainer.config.kinds import (
    Count,
    NotNegative,
    Number,
    PathText,
    Positive,
    Share,
    Size,
    Switch,
    Text,
    Whole,
    legal,
)
from lora_trainer.config.toml_file import read_toml
from lora_trainer.data.buckets import VAE_STEP_PX, BucketSettings
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.subsets import REGULARISATION, DataSet, Subset
from lora_trainer.errors import Refusal, did_you_mean

log = logging.getLogger(__name__)

OF_DATA_SETS: Mapping[str, Any] = {
    "batch_size": Positive,
    "resolution": Size,
    "enable_bucket": Switch,
    "bucket_no_upscale": Switch,
    "bucket_reso_steps": Annotated[Whole, Ge(VAE_STEP_PX), Le(1024), MultipleOf(VAE_STEP_PX)],
    "min_bucket_reso": Positive,
    "max_bucket_reso": Positive,
    "validation_split": Annotated[Number, Ge(0), Le(0.9)],
    "validation_seed": Count,
}
OF_CAPTIONS: Mapping[str, Any] = {
    "shuffle_caption": Switch,
    "keep_tokens": Count,
    "keep_tokens_separator": Text,
    "caption_separator": Text,
    "secondary_separator": Text,
    "enable_wildcard": Switch,
    "caption_dropout_rate": Share,
    "caption_dropout_every_n_epochs": Count,
    "caption_tag_dropout_rate": Share,
    "caption_prefix": Text,
    "caption_suffix": Text,
    "token_warmup_min": Count,
    "token_warmup_step": NotNegative,
}
OF_FOLDERS: Mapping[str, Any] = {  # what the other levels may give for all folders
    "caption_extension": Text,
    "class_tokens": Text,
    "flip_aug": Switch,
    "color_aug": Switch,
    "random_crop": Switch,
    "alpha_mask": Switch,
    "num_repeats": Positive,
    **OF_CAPTIONS,
}
OF_ONE_FOLDER: Mapping[str, Any] = {
    "image_dir": PathText,
    "is_reg": Switch,
    "conditioning_data_dir": PathText,
    "metadata_file": PathText,
}
OF_ALL = {**OF_DATA_SETS, **OF_FOLDERS, **OF_ONE_FOLDER}
SPELLINGS = {"caption_extention": "caption_extension"}  # sd-scripts' documentation has both
NOT_BLANK = ("caption_separator", "caption_extension")
OLD_VALUES: Mapping[str, Mapping[Any, Any]] = {"bucket_reso_steps": {1: 64}}  # as in the preset
WITHOUT_EFFECT = {
    "cache_info": "the sizes of the pictures are found at every start, when all of them are checked",
    "resize_interpolation": "pictures are averaged when they shrink, and enlarged with Lanczos",
    "custom_attributes": "no trainer reads it",
}
NOT_HERE = {
    "face_crop_aug_range": "crops around faces are not supported; cut the pictures beforehand",
    "network_multiplier": "a strength for each data set is not supported; take it out",
    "skip_image_resolution": "small pictures are not left out; take them out of the folder",
}
NEUTRAL: Mapping[str, Any] = {"network_multiplier": 1, "skip_image_resolution": 0}


@dataclass
class _Reading:
    """The file so far, with what is wrong in it."""

    path: Path
    problems: list[str] = field(default_factory=list)

    def values(self, table: Any, place: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
        """The table's values by their present names."""
        if not isinstance(table, dict):
            self.problems.append(f"{self.path}: {place} must be a table")
            return {}
        found: dict[str, Any] = {}
        for written, value in table.items():
            name = str(SPELLINGS.get(written, written))
            where = f"{self.path}: {place}: {written}"
            if name in kinds:
                self._take(found, name, value, where)
            elif name in WITHOUT_EFFECT:
                log.info("%s has no effect: %s", where, WITHOUT_EFFECT[name])
            elif name not in NOT_HERE:
                self.problems.append(f"{where}: {_misplaced(name) or 'unknown key' + did_you_mean(written, kinds)}")
            elif value and value != NEUTRAL.get(name):
                self.problems.append(f"{where}: {NOT_HERE[name]}")
        return found

    def _take(self, found: dict[str, Any], name: str, value: Any, where: str) -> None:
        if (now := OLD_VALUES.get(name, {}).get(value)) if isinstance(value, int) else None:
            log.info("%s: %r is read as %r", where, value, now)
            value = now
        try:
            found[name] = TypeAdapter(OF_ALL[name]).validate_python(value)
        except ValidationError:
            self.problems.append(f"{where}: found {value!r}; write {legal(OF_ALL[name])}")
        else:
            if name in NOT_BLANK and not found[name]:
                self.problems.append(f"{where}: empty; write it, or leave the key out")


def read_dataset_config(path: Path, usual: Mapping[str, Any]) -> tuple[DataSet, ...]:
    """The data sets of a TOML file; `usual` has what the preset says, by the names of the file's keys.

    A folder's own value comes before its data set's, that before the general one, and that before the usual one.
    Relative folders are below the working directory, as in sd-scripts. Raises Refusal with every problem of the file.
    """
    reading = _Reading(path)
    content = _content(path)
    shared = {**OF_DATA_SETS, **OF_FOLDERS}
    for key in content:
        if key not in ("general", "datasets"):
            guess = did_you_mean(key, ("general", "datasets"))
            reading.problems.append(f"{path}: {key}: unknown table{guess}")
    general = {**usual, **reading.values(content.get("general", {}), "general", shared)}
    tables = content.get("datasets", [])
    if not isinstance(tables, list) or not tables:
        reading.problems.append(f"{path}: has no [[datasets]]; write one with a [[datasets.subsets]] and its image_dir")
        tables = []
    names: set[str] = set()
    found = [_data_set(reading, number, table, general, names) for number, table in enumerate(tables)]
    if reading.problems:
        raise Refusal(*reading.problems)
    return tuple(data_set for data_set in found if data_set is not None)


def _content(path: Path) -> dict[str, Any]:
    if path.suffix.lower() != ".json":
        return read_toml(path, "dataset_config")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refusal(f"dataset_config: {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise Refusal(f"dataset_config: {path}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refusal(f"dataset_config: {path}: must hold an object with datasets")
    return found


def _misplaced(name: str) -> str:
    """Where a key belongs that stands at a level that does not have it."""
    if name in OF_ONE_FOLDER:
        return "is for one folder; write it in its [[datasets.subsets]]"
    return "is for a whole data set; write it in [[datasets]] or [general]" if name in OF_DATA_SETS else ""


def _data_set(
    reading: _Reading, number: int, table: Any, general: Mapping[str, Any], names: set[str]
) -> DataSet | None:
    place = f"datasets[{number}]"
    folders = table.get("subsets", []) if isinstance(table, dict) else []
    own = {key: value for key, value in table.items() if key != "subsets"} if isinstance(table, dict) else table
    values = {**general, **reading.values(own, place, {**OF_DATA_SETS, **OF_FOLDERS})}
    if not isinstance(folders, list) or not folders:
        reading.problems.append(f"{reading.path}: {place} has no [[datasets.subsets]]; write one with its image_dir")
        return None
    subsets = list(_subsets(reading, number, folders, values, names))
    width, height = values["resolution"]
    try:
        buckets = BucketSettings(
            (height, width), values["min_bucket_reso"], values["max_bucket_reso"], values["bucket_reso_steps"],
            upscale=not values["bucket_no_upscale"], enabled=values["enable_bucket"],
        )  # fmt: skip
    except Refusal as refusal:
        reading.problems += [f"{reading.path}: {place}: {problem}" for problem in refusal.problems]
        return None
    split, seed = values["validation_split"], values["validation_seed"]
    return DataSet(buckets, values["batch_size"], tuple(subsets), split, seed)


def _subsets(
    reading: _Reading, number: int, tables: Sequence[Any], usual: Mapping[str, Any], names: set[str]
) -> Iterator[Subset]:
    for index, table in enumerate(tables):
        place = f"datasets[{number}].subsets[{index}]"
        values = {**usual, **reading.values(table, place, {**OF_FOLDERS, **OF_ONE_FOLDER})}
        folder = values.get("image_dir")
        if not folder:
            reading.problems.append(f"{reading.path}: {place} has no image_dir; write the folder of its pictures")
            continue
        if not Path(folder).is_dir():
            reading.problems.append(f"{reading.path}: {place}: image_dir: {folder}: there is no such folder")
            continue
        plain = f"{REGULARISATION if values.get('is_reg') else ''}{Path(folder).resolve().name}"
        name, copy = plain, 1
        while name in names:
            copy += 1
            name = f"{plain} ({copy})"
        names.add(name)
        chosen = {each.name for each in fields(CaptionSettings)}
        files = ("conditioning_data_dir", "metadata_file")
        paths = {key: Path(values[key]) if values.get(key) else None for key in files}
        yield Subset(
            Path(folder), name, number, values["num_repeats"], values.get("class_tokens", ""),
            values.get("is_reg", False), values["caption_extension"],
            CaptionSettings(**{key: value for key, value in values.items() if key in chosen}), values["flip_aug"],
            values["color_aug"], values["random_crop"], values["alpha_mask"], **paths,
        )  # fmt: skip
