"""The configurations of the base models: the published ones, which come with the package, or those a file carries.

A set of configurations maps a part's name (`unet`, `vae`, `text_encoder`, `text_encoder_2`, `scheduler`) to what
stands in that part's config.json in a diffusers folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lora_trainer.errors import Refusal

Kind = Literal["sd15", "sd21", "sdxl"]
Configs = Mapping[str, Mapping[str, Any]]

KINDS: tuple[Kind, ...] = get_args(Kind)
CONFIGS_KEY = "lora_trainer.configs"  # metadata of a single file whose sizes are not the published ones

_BASES = Path(__file__).parent / "bases"


def published_configs(kind: Kind) -> dict[str, dict[str, Any]]:
    """The configurations under which Stable Diffusion 1.5, 2.1 (768 px) or XL 1.0 was published."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((_BASES / kind).glob("*.json"))}


def without_path(config: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers keeps from where on this computer a model was loaded, which is nobody's business."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def configs_to_metadata(kind: Kind, configs: Configs) -> str:
    """The text that a single file carries under `CONFIGS_KEY`."""
    told = {part: without_path(config) for part, config in configs.items()}
    return json.dumps({"kind": kind, **told}, sort_keys=True, separators=(",", ":"))


def configs_from_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[Kind, dict[str, dict[str, Any]]] | None:
    """What the file carries, or None. Raises Refusal when it is damaged; the path is for its words."""
    text = metadata.get(CONFIGS_KEY)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    kind = content.pop("kind", None) if isinstance(content, dict) else None
    if kind not in KINDS:
        raise _damaged(path, f"the kind is {kind!r}")
    if missing := published_configs(kind).keys() - content.keys():
        raise _damaged(path, f"without {', '.join(sorted(missing))}")
    return kind, content


def _damaged(path: Path, reason: str) -> Refusal:
    return Refusal(f"{path}: {CONFIGS_KEY} in its metadata is damaged ({reason}); make or copy the file again")
