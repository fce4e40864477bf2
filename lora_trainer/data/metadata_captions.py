"""Captions in one JSON file for a whole folder, as sd-scripts' fine-tuning method keeps them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def captions_of_metadata(file: Path, pictures: Sequence[Path], problems: list[str]) -> dict[Path, str]:
    """The caption of each picture that the file names by its path, its name or its stem; the others are not used.

    The file holds `{"picture": {"caption": "...", "tags": "..."}}`; tags follow the caption after a comma. What is
    wrong with the file is added to ``problems``.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        problems.append(f"metadata_file: {file}: cannot be read ({error.strerror})")
        return {}
    except ValueError as error:
        problems.append(f"metadata_file: {file}: is not JSON ({error})")
        return {}
    if not isinstance(content, dict):
        problems.append(f"metadata_file: {file}: must hold an object of pictures")
        return {}
    found = {}
    for picture in pictures:
        entry = next((content[name] for name in _names(picture) if name in content), None)
        if entry is None:
            continue
        caption = _caption(entry)
        if caption:
            found[picture] = caption
        else:
            problems.append(f'metadata_file: {file}: {picture.name} has neither "caption" nor "tags"')
    if len(found) < len(pictures):
        left_out = len(pictures) - len(found)
        log.info("%s: %d of %d pictures are not in it and are not used", file, left_out, len(pictures))
    return found


def _names(picture: Path) -> tuple[str, ...]:
    return (str(picture), picture.as_posix(), picture.name, picture.stem)


def _caption(entry: Any) -> str:
    texts = [entry.get(key) for key in ("caption", "tags")] if isinstance(entry, dict) else []
    return ", ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())
