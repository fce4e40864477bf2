"""What a training set is made of: data sets of one resolution and batch size, each of folders with own settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.captions import CaptionSettings

REGULARISATION = "regularisation/"  # before the names of folders of regularisation pictures


@dataclass(frozen=True)
class Subset:
    """One folder of pictures, under sd-scripts' names.

    ``name`` is unique in the training set. ``image_dir``'s pictures count ``num_repeats`` times in an epoch. A caption
    comes from ``metadata_file`` where there is one, otherwise from the file beside the picture, otherwise it is
    ``class_tokens``. With ``alpha_mask`` a picture's transparency is its mask; with ``conditioning_data_dir`` the mask
    is the picture of the same stem there.
    """

    image_dir: Path
    name: str
    dataset: int = 0
    num_repeats: int = 1
    class_tokens: str = ""
    is_reg: bool = False
    caption_extension: str = ".txt"
    captions: CaptionSettings = CaptionSettings()  # noqa: RUF009 - frozen
    flip_aug: bool = False
    color_aug: bool = False
    random_crop: bool = False
    alpha_mask: bool = False
    conditioning_data_dir: Path | None = None
    metadata_file: Path | None = None

    @property
    def is_masked(self) -> bool:
        return self.alpha_mask or self.conditioning_data_dir is not None


@dataclass(frozen=True)
class DataSet:
    """Folders whose pictures share batches. ``batch_size`` is for each device."""

    buckets: BucketSettings
    batch_size: int
    subsets: tuple[Subset, ...]
    validation_split: float = 0.0
    validation_seed: int = 0


def sets_fingerprint(sets: Sequence[DataSet]) -> str:
    """Equal where all settings are, wherever the folders lie."""
    facts = [asdict(data_set) for data_set in sets]
    for data_set in facts:
        for subset in data_set["subsets"]:
            subset |= {key: value is not None for key, value in subset.items() if isinstance(value, Path)}
    return blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
