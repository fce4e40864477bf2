"""Which caption a picture gets this time: a line and a wildcard chosen, tags shuffled, left out, kept in place.

The order: whole dropout, line, prefix and suffix, wildcards, then the tags: the fixed ones set aside, those of the
warm-up taken, shuffled, left out by chance; at the end the secondary separator becomes an ordinary one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lora_trainer.draws import python_random, uniform
from lora_trainer.errors import Refusal

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


@dataclass(frozen=True)
class CaptionSettings:
    """sd-scripts' caption keys under their own names; what is 0, false or empty is off. A rate is a probability.

    ``token_warmup_step`` below 1 is a share of all steps.
    """

    shuffle_caption: bool = False
    keep_tokens: int = 0
    keep_tokens_separator: str = ""
    caption_separator: str = ","
    secondary_separator: str = ""
    enable_wildcard: bool = False
    caption_prefix: str = ""
    caption_suffix: str = ""
    caption_dropout_rate: float = 0.0
    caption_dropout_every_n_epochs: int = 0
    caption_tag_dropout_rate: float = 0.0
    token_warmup_min: int = 1
    token_warmup_step: float = 0.0

    @property
    def moves_tags(self) -> bool:
        """Whether the tags differ from use to use."""
        return self.shuffle_caption or self.caption_tag_dropout_rate > 0 or self.token_warmup_step > 0

    @property
    def varies(self) -> bool:
        """Whether a caption can have more than two forms: itself and the empty one."""
        return self.moves_tags or self.enable_wildcard


@dataclass(frozen=True)
class Moment:
    """When a caption is used: the epoch is counted from 1, the step from 0."""

    epoch: int = 1
    step: int = 0
    total_steps: int = 0


def choose_caption(caption: str, settings: CaptionSettings, moment: Moment, *key: int | str) -> str:
    """The caption to train on at this moment, as a function of the key.

    The key should hold the seed, the step and the position in the whole batch: an item that is repeated within a batch
    then gets different captions. Without anything that moves tags the caption passes as it was written, spaces and all.
    """
    every = settings.caption_dropout_every_n_epochs
    if every > 0 and moment.epoch % every == 0:
        return ""
    rate = settings.caption_dropout_rate
    if rate > 0 and uniform(*key, "caption dropout") < rate:
        return ""
    if settings.enable_wildcard:
        caption = _one_line(caption, *key)
    caption = " ".join(part for part in (settings.caption_prefix, caption, settings.caption_suffix) if part)
    if settings.enable_wildcard:
        caption = _choose_wildcards(caption, *key)
    mark = settings.keep_tokens_separator
    if settings.moves_tags or (mark and mark in caption):
        caption = _arranged(caption, settings, moment, *key)
    if settings.secondary_separator:
        caption = caption.replace(settings.secondary_separator, settings.caption_separator)
    return caption


def unvaried_captions(caption: str, settings: CaptionSettings) -> tuple[str, ...]:
    """Each line of the caption as the model would read it, had nothing been drawn: all tags, in their order."""
    still = replace(
        settings,
        shuffle_caption=False,
        enable_wildcard=False,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    return tuple(choose_caption(line, still, Moment()) for line in caption.split("\n"))


def constant_captions(caption: str, settings: CaptionSettings) -> tuple[str, ...]:
    """All forms of a caption where the settings do not vary it: itself, and the empty one where it may be dropped.

    Raises Refusal where they do.
    """
    if settings.varies:
        keys = ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step", "enable_wildcard")
        given = " and ".join(key for key in keys if getattr(settings, key))
        raise Refusal(f"captions that are encoded once cannot change from use to use; turn {given} off, or the cache")
    drops = settings.caption_dropout_rate > 0 or settings.caption_dropout_every_n_epochs > 0
    return (*unvaried_captions(caption, settings), *([""] if drops else []))


def tags_in_warmup(tags: int, settings: CaptionSettings, moment: Moment) -> int:
    """How many of so many tags are used: from ``token_warmup_min`` in the first step to all in the last of them."""
    steps = settings.token_warmup_step
    if steps < 1:
        steps = int(steps * moment.total_steps)
    if moment.step >= steps:
        return tags
    least = min(settings.token_warmup_min, tags)
    return least + int(moment.step * (tags - least) / steps)


def _one_line(caption: str, *key: int | str) -> str:
    lines = caption.split("\n")
    return lines[0] if len(lines) == 1 else python_random(*key, "caption line").choice(lines)


def _choose_wildcards(caption: str, *key: int | str) -> str:
    """One of the alternatives of each ``{a|b}``; ``{{`` and ``}}`` stand for the signs themselves."""
    draw = python_random(*key, "wildcard")

    def choose(found: re.Match[str]) -> str:
        return draw.choice(found[1].split("|")) if found[1] else found[0][0]

    return _BRACES.sub(choose, caption)


def _arranged(caption: str, settings: CaptionSettings, moment: Moment, *key: int | str) -> str:
    """The tags put together anew: the fixed front, what is left of the moving ones, the fixed end."""
    front, moving, end = _parts(caption, settings)
    if settings.token_warmup_step > 0:
        moving = moving[: tags_in_warmup(len(moving), settings, moment)]
    if settings.shuffle_caption:
        python_random(*key, "caption shuffle").shuffle(moving)
    if settings.caption_tag_dropout_rate > 0:
        draw = python_random(*key, "tag dropout")
        moving = [tag for tag in moving if draw.random() >= settings.caption_tag_dropout_rate]
    return f"{settings.caption_separator} ".join(front + moving + end)


def _parts(caption: str, settings: CaptionSettings) -> tuple[list[str], list[str], list[str]]:
    """(front, moving, end). The mark comes before ``keep_tokens``, which is for captions without one."""
    separator, mark = settings.caption_separator, settings.keep_tokens_separator
    if mark and mark in caption:
        front, moving, *end = caption.split(mark, 2)
        rest = "".join(end).replace(mark, separator)
        return split_tags(front, separator), split_tags(moving, separator), split_tags(rest, separator)
    tags = split_tags(caption, separator)
    return tags[: settings.keep_tokens], tags[settings.keep_tokens :], []


def split_tags(caption: str, separator: str) -> list[str]:
    """The tags without the blanks around them; what a doubled or trailing comma leaves empty is no tag."""
    return [tag for part in caption.split(separator) if (tag := part.strip())]
