"""How a picture of an EveryDream2 data set is used at one moment: with which caption, mirrored or not."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.data.everydream.captions import DROPPED, compose, dropped
from lora_trainer.data.everydream.pictures import Item
from lora_trainer.draws import uniform


@dataclass(frozen=True)
class Usage:
    """The preset's keys; a picture's own settings come before them. ``seed`` is the run's."""

    seed: int
    cond_dropout: float = 0.0
    flip_p: float = 0.0
    shuffle_tags: bool = False
    keep_tags: int = 0

    def caption(self, item: Item, epoch: int, *key: int | str) -> str:
        """The caption in the epoch, counted from 0; whether it is dropped is a function of the key.

        The key should hold the seed, the step and the position in the whole batch.
        """
        own = item.settings.cond_dropout
        if dropped(self.cond_dropout if own is None else own, *key):
            return DROPPED
        return self.undropped(item, epoch)

    def undropped(self, item: Item, epoch: int) -> str:
        """The caption in the epoch as it is when it is not dropped."""
        shuffle = self.shuffle_tags if item.settings.shuffle_tags is None else item.settings.shuffle_tags
        return compose(item.caption, self.seed + epoch, shuffle=shuffle, keep_tags=self.keep_tags, name=item.name)

    def mirrored(self, item: Item, *key: int | str) -> bool:
        """Whether the picture is mirrored this time, as a function of the key."""
        probability = self.flip_p if item.settings.flip_p is None else item.settings.flip_p
        return probability > 0 and uniform(*key, "flip") < probability

    def may_mirror(self, item: Item) -> bool:
        """Whether it ever is: what a cache of latents must hold."""
        return (self.flip_p if item.settings.flip_p is None else item.settings.flip_p) > 0

    def forms(self, item: Item, epochs: int) -> tuple[str, ...]:
        """Every caption that the picture can have in so many epochs: what a cache of texts must hold."""
        own = item.settings.cond_dropout
        drops = (self.cond_dropout if own is None else own) > 0
        seen = dict.fromkeys(self.undropped(item, epoch) for epoch in range(epochs))
        return (*seen, *([DROPPED] if drops else []))
