"""Drawings as the npm packages of Iconify hold them: found by their emoji's code, rendered, padded to squares."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lora_trainer.errors import Refusal

VARIATION = "-fe0f"  # asks for the coloured form of an emoji; packages leave it out at will
Render = Callable[[str, int], Image.Image]
"""An SVG and the longer side in pixels to an RGBA picture."""


@dataclass(frozen=True)
class IconSet:
    """A package: SVG bodies by name, and which name an emoji's code has."""

    folder: Path
    bodies: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    width: float
    height: float

    def svg(self, code: str) -> str | None:
        """The drawing of an emoji as an SVG whose box is square; None where the package has none."""
        short = code.lower().replace(VARIATION, "")
        name = self.names.get(code.lower()) or self.names.get(short)
        if name not in self.bodies:
            return None
        icon = self.bodies[name]
        width, height = icon.get("width", self.width), icon.get("height", self.height)
        side = max(width, height)
        left, top = icon.get("left", 0) - (side - width) / 2, icon.get("top", 0) - (side - height) / 2
        box = " ".join(f"{number:g}" for number in (left, top, side, side))
        sizes = f'viewBox="{box}" width="{side:g}" height="{side:g}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {sizes}>{icon["body"]}</svg>'


def read_icon_set(modules: Path, package: str) -> IconSet:
    """Of the folder node_modules. Raises Refusal."""
    folder = modules / package
    icons, names = (read_json(folder / file, package) for file in ("icons.json", "chars.json"))
    short_names = {code.replace(VARIATION, ""): name for code, name in names.items()}
    side = icons.get("width", 16), icons.get("height", 16)
    return IconSet(folder, icons["icons"], {**short_names, **names}, *side)


def read_json(path: Path, package: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(
            f"{path}: cannot be read ({error.strerror}); run npm install --ignore-scripts {package}"
        ) from error
    except ValueError as error:
        raise Refusal(f"{path}: is damaged ({error}); run npm install --ignore-scripts {package} again") from error


def render_with_resvg(svg: str, side_px: int) -> Image.Image:
    """RGBA. Raises Refusal without resvg-py."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise Refusal("drawings are rendered by a package: pip install lora_trainer[drawings]") from error
    data = bytes(svg_to_bytes(svg_string=svg, width=side_px, height=side_px, skip_system_fonts=True))
    return Image.open(io.BytesIO(data)).convert("RGBA")
