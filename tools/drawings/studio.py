"""Drawings become pictures with captions: each drawing of a thing is rendered once and painted in many looks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lora_trainer import atomic
from lora_trainer.draws import python_random
from tools.drawings.concepts import Concept
from tools.drawings.filters import sketch, watercolour
from tools.drawings.icons import IconSet, Render
from tools.drawings.looks import caption, draw_look, named_colours, paint, plain_look, recoloured
from tools.drawings.sources import FLAT, HIGH_CONTRAST, NOTO

RENDERED_PX = 256
PLAIN_LOOKS = 2
NOT_MIRRORED = "not_mirrored"
Filter = Callable[[Image.Image, random.Random], Image.Image]


@dataclass(frozen=True)
class Style:
    """``sources`` take turns; ``share`` is of the variants."""

    sources: tuple[str, ...]
    filter: Filter | None = None
    share: float = 1.0
    colours: bool = True


STYLES: Mapping[str, Style] = {
    "glossy": Style((NOTO,)),
    "flat": Style((FLAT,)),
    "sketch": Style((NOTO, FLAT), sketch, 0.5, colours=False),
    "watercolour": Style((NOTO, FLAT), watercolour, 0.5),
}
OUTLINE: Mapping[str, Style] = {"outline": Style((HIGH_CONTRAST,), colours=False)}  # what a LoRA is to learn


@dataclass
class Studio:
    """``written`` are the pictures, in the order in which they were. ``plain`` has two of each thing and style: as it
    is drawn, on white and on a colour."""

    sets: Mapping[str, IconSet]
    render: Render
    seed: int
    out: Path
    plain: bool = False
    written: list[Path] = field(default_factory=list)
    _rendered: dict[tuple[str, str], Image.Image] = field(default_factory=dict)

    def has(self, concept: Concept, styles: Mapping[str, Style]) -> bool:
        sources = {source for style in styles.values() for source in style.sources}
        return all(self.sets[source].svg(concept.code) for source in sources)

    def write(self, folder: str, concept: Concept, styles: Mapping[str, Style], variants: int) -> None:
        """Each style's share of the variants, at least one of each source."""
        self._rendered.clear()
        for name, style in styles.items():
            place = self._place(folder, name, concept)
            count = PLAIN_LOOKS if self.plain else max(len(style.sources), round(variants * style.share))
            for number in range(count):
                stem = place / f"{concept.file_name}_{number}"
                self._write_one(stem, concept, name, style, number)

    def _place(self, folder: str, style: str, concept: Concept) -> Path:
        """The folder of a style and kind, or the one in it whose pictures the trainer does not mirror."""
        place = self.out / folder / style / (concept.kind or "other").replace(" ", "_")
        place = place / NOT_MIRRORED if concept.reads_one_way else place
        if not place.is_dir():
            place.mkdir(parents=True)
            if concept.reads_one_way:
                atomic.write_text(place / "flip_p.txt", "0")
        return place

    def _write_one(self, stem: Path, concept: Concept, name: str, style: Style, number: int) -> None:
        draw = python_random(self.seed, concept.code, name, number)
        look = plain_look(draw, bool(number)) if self.plain else draw_look(draw, style.colours)
        source = style.sources[0 if self.plain else number % len(style.sources)]
        drawing = self._drawing(concept, source)
        turned = recoloured(look, concept, drawing)
        drawing = turned or drawing
        colours = ([look.turned] if turned else named_colours(drawing)) if style.colours else None
        shown = style.filter(drawing, draw) if style.filter else drawing
        path = stem.with_name(f"{stem.name}.png")
        paint(look, shown).save(path)
        stem.with_name(f"{stem.name}.txt").write_text(caption(look, concept, name, colours, draw), encoding="utf-8")
        self.written.append(path)

    def _drawing(self, concept: Concept, source: str) -> Image.Image:
        key = (source, concept.code)
        if key not in self._rendered:
            self._rendered[key] = self.render(self.sets[source].svg(concept.code) or "", RENDERED_PX)
        return self._rendered[key]
