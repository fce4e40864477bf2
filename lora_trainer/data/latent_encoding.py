"""Turn pictures into latents batch by batch, with the next pictures being decoded while the VAE works.

Letters: b pictures, v versions (as it is, mirrored), c latent channels, h w latent pixels.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from lora_trainer.data.buckets import Placement
from lora_trainer.data.images import BadPicture, Pixels, read_picture, resize_and_crop
from lora_trainer.data.survey import Sample
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

Batch = Sequence[Sample]  # of one bucket
Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(b, 3, height, width) float32 in -1..1 on the CPU to mean and standard deviation, both (b, c, h, w) on any device."""

NOT_FINITE = (
    "the VAE makes NaN or infinity of this picture; set sdxl_no_half_vae to true, "
    "or use a VAE that was made for half precision"
)


def encode_batches(
    batches: Iterable[Batch], encode: Encode, *, mirrored: bool, dtype: torch.dtype, workers: int
) -> Iterator[torch.Tensor]:
    """For each batch its latents, (b, v, 2, c, h, w) on the CPU, where 2 is mean and standard deviation.

    ``mirrored`` adds the second version. Once a picture cannot be read nothing more is encoded, but the others are
    decoded too: the Refusal names all that are bad. It comes at once for a batch in which the VAE makes numbers that
    are not finite: the cure is a setting, and then a new start.
    """
    problems: list[str] = []
    for batch, pixels in _decoded_ahead(batches, max(1, workers)):
        broken = [one for one in pixels if isinstance(one, str)]
        if broken and not problems:
            log.info("a picture cannot be read: nothing more is encoded, but the others are looked at too")
        problems += broken
        if problems:
            continue
        latents = _encoded(torch.stack([one for one in pixels if not isinstance(one, str)]), encode, mirrored, dtype)
        bad = [
            f"{sample.path}: {NOT_FINITE}" for sample, finite in zip(batch, _finite(latents), strict=True) if not finite
        ]
        if bad:
            raise Refusal(*bad)
        yield latents
    if problems:
        raise Refusal(*problems)


def read_pixels(
    sample: Sample, placement: Placement | None = None, change: Callable[[Pixels], Pixels] | None = None
) -> torch.Tensor:
    """(3, height, width) float32 in -1..1, placed in its bucket, or otherwise, and changed on the way.

    Where the transparency is a mask, the colours below it stay. Raises Refusal when the file has gone bad.
    """
    try:
        whole = read_picture(sample.path, on_white=not sample.alpha_mask)
        pixels = resize_and_crop(whole, placement or sample.placement)
        pixels = change(pixels) if change is not None else pixels
    except BadPicture as error:
        raise Refusal(f"{sample.path}: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def _encoded(pixels: torch.Tensor, encode: Encode, mirrored: bool, dtype: torch.dtype) -> torch.Tensor:
    versions = [_posterior(encode, pixels)]
    if mirrored:
        versions.append(_posterior(encode, pixels.flip(-1)))
    return torch.stack(versions, dim=1).to(dtype)


def _posterior(encode: Encode, pixels: torch.Tensor) -> torch.Tensor:
    return torch.stack(encode(pixels), dim=1).cpu()  # (b, 2, c, h, w)


def _finite(latents: torch.Tensor) -> list[bool]:
    return [bool(one.isfinite().all()) for one in latents]


def _decoded_ahead(batches: Iterable[Batch], workers: int) -> Iterator[tuple[Batch, list[torch.Tensor | str]]]:
    """Each batch with its pictures' pixels, or a sentence in their place; so many pictures are in the making that no
    worker idles."""
    waiting: deque[tuple[Batch, list[Future[torch.Tensor | str]]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                waiting.append((batch, [pool.submit(_pixels_or_problem, sample) for sample in batch]))
                ahead += len(batch)
                while ahead > workers + len(waiting[0][0]):
                    ahead -= len(waiting[0][0])
                    yield _gathered(*waiting.popleft())
            while waiting:
                yield _gathered(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _pixels_or_problem(sample: Sample) -> torch.Tensor | str:
    try:
        return read_pixels(sample)
    except Refusal as refusal:
        return refusal.problems[0]


def _gathered(batch: Batch, pixels: Iterable[Future[torch.Tensor | str]]) -> tuple[Batch, list[torch.Tensor | str]]:
    return batch, [future.result() for future in pixels]
