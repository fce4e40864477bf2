"""Open every picture once before training: which can be used, how large they are, what they contain, where they go."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from lora_trainer.data.buckets import BucketSettings, Placement, Size, aspect_error, place
from lora_trainer.data.folders import Picture
from lora_trainer.data.images import BadPicture, opacity, size_px
from lora_trainer.data.survey_memory import Look, SurveyMemory, stamp
from lora_trainer.errors import Refusal

NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Sample:
    """One usable picture with everything that the data's order, the caches and the metadata are made from.

    ``size_px`` is (height, width) as seen by a person, after the EXIF orientation. ``digest`` is of the file's bytes.
    ``subset`` is the number of its folder. A mask is a file, or with ``alpha_mask`` the picture's own transparency.
    """

    name: str
    path: Path
    folder: str
    repeats: int
    caption: str
    size_px: Size
    digest: str
    placement: Placement
    subset: int = 0
    is_reg: bool = False
    mask: Path | None = None
    alpha_mask: bool = False


@dataclass(frozen=True)
class Summary:
    """What the printed plan and the metadata of the exported file say about the data.

    ``pictures_in`` counts files per folder, ``repeats_of`` is each folder's number. ``uses_in`` counts, per bucket, how
    many pictures an epoch draws from it. ``mean_aspect_error`` is over files.
    """

    pictures: int
    uses: int
    pictures_in: dict[str, int]
    repeats_of: dict[str, int]
    uses_in: dict[Size, int]
    mean_aspect_error: float


def survey(pictures: Sequence[Picture], settings: BucketSettings, workers: int = 4) -> tuple[Sample, ...]:
    """A sample per picture, in their order. Pillow decodes outside Python's lock, so that threads help; what an earlier
    survey has seen of files that have not changed is not looked at again.

    Raises Refusal that names every file that cannot be used (the first 20 of them) with the reason.
    """
    memory = SurveyMemory()
    files = (file.absolute() for picture in pictures for file in (picture.path, picture.mask) if file is not None)
    memory.read({file.parent for file in files})
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(pool.map(lambda picture: _inspect(picture, settings, memory), pictures))
    memory.write()
    problems = [result for result in found if isinstance(result, str)]
    if problems:
        more = len(problems) - NAMED_AT_MOST
        raise Refusal(*problems[:NAMED_AT_MOST], *([f"... and {more} more pictures"] if more > 0 else []))
    return tuple(result for result in found if isinstance(result, Sample))


def data_fingerprint(samples: Sequence[Sample]) -> str:
    """Equal for two data sets of the same pictures, names, captions and repeats, wherever they lie."""
    facts = [(sample.name, sample.digest, sample.caption, sample.repeats, *_mask_facts(sample)) for sample in samples]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _mask_facts(sample: Sample) -> tuple[str, ...]:
    if sample.mask is None:
        return ("alpha",) if sample.alpha_mask else ()
    return (blake2b(sample.mask.read_bytes(), digest_size=16).hexdigest(),)


def summarize(samples: Sequence[Sample]) -> Summary:
    uses_in: Counter[Size] = Counter()
    for sample in samples:
        uses_in[sample.placement.bucket_px] += sample.repeats
    errors = [aspect_error(*sample.size_px, sample.placement) for sample in samples]
    return Summary(
        pictures=len(samples),
        uses=uses_in.total(),
        pictures_in=dict(sorted(Counter(sample.folder for sample in samples).items())),
        repeats_of=dict(sorted((sample.folder, sample.repeats) for sample in samples)),
        uses_in=dict(sorted(uses_in.items())),
        mean_aspect_error=sum(errors) / max(1, len(errors)),
    )


def _inspect(picture: Picture, settings: BucketSettings, memory: SurveyMemory) -> Sample | str:
    """The sample, or one sentence that says why there is none."""
    try:
        look = _look(picture.path, memory, with_alpha=picture.alpha_mask and picture.mask is None)
        placement = place(*look.size_px, settings)
    except OSError as error:
        return f"{picture.path}: cannot be read ({error.strerror})"
    except (BadPicture, ValueError) as error:
        return f"{picture.path}: {error}"
    try:
        if picture.mask is not None:
            _look(picture.mask, memory)
    except (OSError, BadPicture) as error:
        return f"{picture.mask}: the mask cannot be read ({error})"
    alpha_mask = picture.alpha_mask and picture.mask is None and bool(look.transparent)
    return Sample(
        picture.name, picture.path, picture.folder, picture.repeats, picture.caption, look.size_px, look.digest,
        placement, picture.subset, picture.is_reg, picture.mask, alpha_mask,
    )  # fmt: skip


def _look(path: Path, memory: SurveyMemory, with_alpha: bool = False) -> Look:
    """Decodes everything, so that damage is found. Raises OSError and BadPicture."""
    path = path.absolute()
    known = memory.recall(path)
    if known is not None and not (with_alpha and known.transparent is None):
        return known
    when, data = stamp(path), path.read_bytes()
    transparent = opacity(data) is not None if with_alpha else None
    look = Look(size_px(data), blake2b(data, digest_size=16).hexdigest(), transparent)
    memory.keep(path, when, look)
    return look
