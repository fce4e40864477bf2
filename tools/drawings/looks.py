"""One look at a drawing: in which colour, how large and where, on which background, and the caption that says so."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tools.drawings.colours import BACKGROUNDS, CENTRES, NAMED_SHARE, WHITE, Rgb, background, colours_of, turned_to
from tools.drawings.concepts import COLOUR_WORDS, Concept

FRAME_PX = 128
# Height and width. What is larger is made smaller by the trainer and what is not square is cut, and the model is told.
FILES_PX = (*[(128, 128)] * 5, (192, 192), (256, 256), (128, 160), (160, 128))
LARGE, SMALL, PLAIN = (0.74, 0.96), (0.42, 0.64), 0.88  # of the frame
SMALL_P, TILT_P, TILT_DEGREES = 0.2, 0.5, 12.0
COLOURED_P, WHITE_NAMED_P = 0.5, 0.5
TURNED_P, COLOUR_NAMED_P, BEFORE_P = 0.25, 0.5, 0.6
MORE_P, MOST_KEYWORDS = 0.65, 3


@dataclass(frozen=True)
class Look:
    """``turned`` is the colour that the drawing is given; ``ground`` the background's name, "" for white."""

    turned: str
    ground: str
    ground_rgb: Rgb
    size_px: tuple[int, int]
    share: float
    tilt_degrees: float
    place: tuple[float, float]  # of the room beside the drawing; down and to the right, 0 to 1

    @property
    def small(self) -> bool:
        return self.share < LARGE[0]


def draw_look(draw: random.Random, colours: bool) -> Look:
    """Anything of the look by chance; ``colours`` is whether the style has any."""
    ground = draw.choice(list(BACKGROUNDS)) if draw.random() < COLOURED_P else ""
    turned = draw.choice(list(CENTRES)) if draw.random() < TURNED_P and colours else ""
    return Look(
        turned,
        ground,
        background(ground, draw) if ground else WHITE,
        draw.choice(FILES_PX),
        draw.uniform(*(SMALL if draw.random() < SMALL_P else LARGE)),
        draw.uniform(-TILT_DEGREES, TILT_DEGREES) if draw.random() < TILT_P else 0.0,
        (draw.random(), draw.random()),
    )


def plain_look(draw: random.Random, coloured: bool) -> Look:
    """The drawing as it is, upright and in the middle, on white or on a colour."""
    ground = draw.choice(list(BACKGROUNDS)) if coloured else ""
    rgb = background(ground, draw) if ground else WHITE
    return Look("", ground, rgb, FILES_PX[0], PLAIN, 0.0, (0.5, 0.5))


def recoloured(look: Look, concept: Concept, drawing: Image.Image) -> Image.Image | None:
    """In the look's colour; None where the drawing stays: it is in no single colour, or its name says in which."""
    return turned_to(drawing, look.turned) if look.turned and not has_colour(concept.name) else None


def paint(look: Look, drawing: Image.Image) -> Image.Image:
    """RGB, of the look's size."""
    height, width = look.size_px
    frame, share = min(height, width), look.share
    if look.tilt_degrees:
        straight = drawing.width
        drawing = drawing.rotate(look.tilt_degrees, Image.Resampling.BICUBIC, expand=True)
        share = min(1.0, share * drawing.width / straight)
    side = round(share * frame)
    small = drawing.resize((side, side), Image.Resampling.LANCZOS)
    picture = Image.new("RGBA", (width, height), (*look.ground_rgb, 255))
    picture.alpha_composite(small, (round(look.place[1] * (width - side)), round(look.place[0] * (height - side))))
    return picture.convert("RGB")


def caption(look: Look, concept: Concept, style: str, colours: Sequence[str] | None, draw: random.Random) -> str:
    """The name, which may begin with the colour, then tags: always the style, and the background unless it is white.

    ``colours`` are what may be named of the drawing; one that it was given is always named. None are of a style without
    colours, in which a red apple is an apple.
    """
    name, tags = concept.name if colours is not None else _without_colour(concept.name), [f"{style} style"]
    if colours and not has_colour(name) and (list(colours) == [look.turned] or draw.random() < COLOUR_NAMED_P):
        if draw.random() < BEFORE_P and len(colours) == 1:
            name = f"{colours[0]} {name}"
        else:
            tags.append(" and ".join(colours))
    if look.ground:
        tags.append(f"{look.ground} background")
    elif draw.random() < WHITE_NAMED_P:
        tags.append("white background")
    if look.small:
        tags.append("small")
    if draw.random() < MORE_P:
        known = draw.sample(concept.keywords, min(len(concept.keywords), draw.randint(0, MOST_KEYWORDS)))
        tags += [concept.kind, *known] if concept.kind else known
    return ", ".join(dict.fromkeys([name, *tags]))


def named_colours(drawing: Image.Image) -> list[str]:
    """One or two, the larger share first; none of a drawing that has many."""
    shares = [(name, share) for name, share in colours_of(drawing).items() if share >= NAMED_SHARE]
    return [name for name, _ in shares[:2]]


def has_colour(name: str) -> bool:
    return not COLOUR_WORDS.isdisjoint(name.replace("-", " ").split())


def _without_colour(name: str) -> str:
    plain = name.replace("light blue", "blue")
    return " ".join(word for word in plain.split() if word not in COLOUR_WORDS) or name
