"""Find the pictures of an EveryDream2 data set, in folders or in a JSON list, with captions and settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_trainer.config.yaml_file import read_yaml
from lora_trainer.data.everydream.captions import LONGEST, Caption, parse_caption
from lora_trainer.data.everydream.settings import (
    GLOBAL,
    Given,
    ItemSettings,
    item_settings,
    read_folder_settings,
    read_settings,
    read_yaml_settings,
)
from lora_trainer.data.folders import EXTENSIONS, Picture
from lora_trainer.errors import Refusal

TEXT_CAPTIONS, YAML_CAPTIONS = (".txt", ".caption"), (".yml", ".yaml")


@dataclass(frozen=True)
class Item:
    """One picture file of the data set; it has not been opened yet.

    ``name`` is the path below the data set's folder, written with ``/`` on every system.
    """

    path: Path
    name: str
    caption: Caption
    settings: ItemSettings = field(default_factory=ItemSettings)

    @property
    def picture(self) -> Picture:
        """For the survey, which does not know of multiply: that is the epochs' matter."""
        return Picture(self.path, self.name, self.name.rpartition("/")[0], 1, self.caption.text)


def read_data_root(data_root: Path, key: str = "data_root") -> tuple[Item, ...]:
    """All pictures below a folder, or of a .json list, sorted by name; those with multiply 0 are left out.

    Hidden files and folders are not read. Raises Refusal with everything that is wrong; ``key`` is the preset's.
    """
    problems: list[str] = []
    items = find_items(data_root, key, problems)
    if problems:
        raise Refusal(*problems)
    return items


def find_items(data_root: Path, key: str, problems: list[str]) -> tuple[Item, ...]:
    """The same; what is wrong with single pictures is added to ``problems``. Raises Refusal where there is no such
    folder or list."""
    if data_root.is_file() and data_root.suffix.lower() == ".json":
        found, wrong = _listed(data_root)
        problems += wrong
    elif data_root.is_dir():
        found = list(_of_folder(data_root, "", {}, problems))
    else:
        state = "is a file; name a folder or a .json list" if data_root.exists() else "does not exist"
        raise Refusal(f"{key}: {data_root}: the folder of the pictures {state}")
    items = [item for item in found if item.settings.multiply > 0]
    if not items and not problems:
        endings = ", ".join(extension[1:] for extension in EXTENSIONS)
        problems.append(f"{key}: {data_root}: holds no picture ({endings})")
    return tuple(sorted(items, key=lambda item: item.name))


def _of_folder(folder: Path, name: str, above: Given, problems: list[str]) -> Iterator[Item]:
    """``above`` is what global.yaml files of the folders around say; their tags go last."""
    everywhere = _over(above, read_yaml_settings(folder, GLOBAL, problems))
    here = _over(everywhere, read_folder_settings(folder, problems))
    entries = sorted((entry for entry in os.scandir(folder) if not entry.name.startswith(".")), key=lambda e: e.name)
    for entry in entries:
        if entry.is_dir():
            yield from _of_folder(Path(entry.path), f"{name}{entry.name}/", everywhere, problems)
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            path = Path(entry.path)
            given = _over(here, _beside(path, problems))
            yield Item(path, f"{name}{entry.name}", _caption(given, path), item_settings(given))


def _over(outer: Given, inner: Given) -> dict[str, Any]:
    """What the inner file says comes first; of tags, both count."""
    tags = (*inner.get("tags", ()), *outer.get("tags", ()))
    return {**outer, **inner, **({"tags": tags} if tags else {})}


def _beside(path: Path, problems: list[str]) -> dict[str, Any]:
    """What the picture's own files say: a text, which is the caption, and a YAML with settings."""
    given: dict[str, Any] = {}
    for file in (path.with_suffix(suffix) for suffix in YAML_CAPTIONS):
        if file.is_file():
            try:
                given = read_settings(read_yaml(file), str(file), problems)
            except Refusal as refusal:
                problems.extend(refusal.problems)
            break
    for file in (path.with_suffix(suffix) for suffix in TEXT_CAPTIONS):
        if file.is_file():
            return given | _text_caption(file, problems)
    return given


def _text_caption(file: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start}"
        problems.append(f"{file}: the caption is not UTF-8 ({where}); save the file as UTF-8")
        return {}
    if not text.strip(" ,\n"):
        problems.append(f"{file}: the caption file is empty; write a caption, or delete it to use the picture's name")
    return {"caption": text}


def _caption(given: Given, path: Path) -> Caption:
    """The text's, the YAML's or the file name's main prompt; then its tags, the settings' tags after them."""
    text = given.get("caption", given.get("main_prompt", path.stem.split("_")[0]))
    caption = parse_caption(text)
    longest = given.get("max_caption_length", LONGEST)
    return replace(caption, tags=(*caption.tags, *given.get("tags", ())), longest=longest)


def _listed(file: Path) -> tuple[list[Item], list[str]]:
    """The pictures of a JSON list, whose paths count from the list's folder."""
    try:
        listed = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refusal(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise Refusal(f"{file}:{error.lineno}:{error.colno}: is not JSON ({error.msg})") from error
    if not isinstance(listed, list):
        raise Refusal(f'{file}: must hold a list of pictures: [{{"image": "a.jpg", "caption": "a cat"}}]')
    items: list[Item] = []
    problems: list[str] = []
    for number, entry in enumerate(listed, 1):
        place = f"{file}: picture {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            problems.append(f'{place}: write an object with an "image"')
            continue
        path = file.parent / entry["image"]
        if not path.is_file():
            problems.append(f"{place}: {path}: there is no such file")
            continue
        given = read_settings({k: v for k, v in entry.items() if k != "image"}, place, problems)
        name = entry["image"].replace("\\", "/")
        items.append(Item(path, name, _caption(given, path), item_settings(given)))
    problems += _twice(items, file)
    return items, problems


def _twice(items: Sequence[Item], file: Path) -> list[str]:
    names = [item.name for item in items]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    return [f"{file}: {name} is listed twice; write multiply 2 instead" for name in repeated]


def items_fingerprint(items: Sequence[Item]) -> list[list[object]]:
    """What decides how the pictures are used besides their pixels and names, ready for JSON."""
    return [
        [
            item.caption.main_prompt,
            [[tag.text, tag.weight] for tag in item.caption.tags],
            item.caption.longest,
            *(getattr(item.settings, name) for name in ItemSettings.__dataclass_fields__),
        ]
        for item in items
    ]
