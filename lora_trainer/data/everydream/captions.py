"""A caption of a main prompt and tags, and the form that it has in an epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lora_trainer.draws import python_random, uniform

DROPPED = " "  # what a picture without its caption is trained with: a blank, not an empty text
LONGEST = 2048
SEPARATOR = ", "


@dataclass(frozen=True)
class Tag:
    """A part of a caption; with unequal weights the heavier ones tend to come first."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Caption:
    """The main prompt and the tags after it; ``longest`` is in characters."""

    main_prompt: str
    tags: tuple[Tag, ...] = ()
    longest: int = LONGEST

    @property
    def text(self) -> str:
        """All of it, in its order."""
        return SEPARATOR.join([self.main_prompt, *(tag.text for tag in self.tags)])

    @property
    def is_weighted(self) -> bool:
        return len({tag.weight for tag in self.tags}) > 1


def parse_caption(text: str) -> Caption:
    """The first part between commas is the main prompt, the others are tags; empty parts are none."""
    main, *tags = [part for piece in text.split(",") if (part := " ".join(piece.split()))] or [""]
    return Caption(main, tuple(map(Tag, tags)))


def compose(caption: Caption, seed: int, *, shuffle: bool, keep_tags: int = 0, name: str = "") -> str:
    """The caption as it is read in an epoch, whose seed is the run's raised by one each epoch.

    The main prompt and ``keep_tags`` tags stay in front. The others are shuffled by ``random.Random(seed)``, so that
    captions of as many tags are shuffled alike; with unequal weights they are drawn instead, by the ``name`` of the
    picture too, the heavier ones rather first. Tags that would make the text longer than ``caption.longest`` are left
    out, from the end.
    """
    kept, moving = list(caption.tags[:keep_tags]), list(caption.tags[keep_tags:])
    if caption.is_weighted:
        moving = _drawn(moving, python_random(seed, name, "tags"))
    elif shuffle:
        random.Random(seed).shuffle(moving)
    text = caption.main_prompt
    for tag in kept + moving:
        longer = SEPARATOR.join(filter(None, (text, tag.text)))
        if len(longer) > caption.longest:
            break
        text = longer
    return text


def dropped(probability: float, *key: int | str) -> bool:
    """Whether a picture is trained without its caption this time, as a function of the key."""
    return probability > 0 and uniform(*key, "caption dropout") < probability


def _drawn(tags: Sequence[Tag], draw: random.Random) -> list[Tag]:
    """All of them, each next one drawn by its weight; those of weight 0 are never drawn."""
    left, order = [tag for tag in tags if tag.weight > 0], list[Tag]()
    while left:
        (index,) = draw.choices(range(len(left)), [tag.weight for tag in left])
        order.append(left.pop(index))
    return order
