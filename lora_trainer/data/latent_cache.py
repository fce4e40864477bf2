"""Encode every picture once and keep the VAE's mean and standard deviation, in memory or on disk.

What is kept is the posterior and not a sample of it, so that training still sees the VAE's own noise.
Letters: b pictures, v versions (as it is, mirrored), c latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_trainer.data.buckets import Size
from lora_trainer.data.latent_encoding import Encode, encode_batches
from lora_trainer.data.latent_files import as_tensors, latent_path, read_latents
from lora_trainer.data.survey import Sample, named
from lora_trainer.data.tensor_file import writing_behind
from lora_trainer.errors import Refusal

Progress = Callable[[int, int], None]

BATCHES_BEHIND = 4  # that wait to be written


@dataclass(frozen=True)
class LatentSettings:
    """How pictures are encoded and where the result is kept.

    ``identity`` names everything else that changes the latents: the VAE's weights and the precision it runs in.
    ``mirrored`` keeps a second, mirrored version. ``folder`` None keeps everything in memory.
    """

    identity: str
    mirrored: bool = False
    dtype: torch.dtype = torch.float32
    batch_size: int = 1
    folder: Path | None = None
    workers: int = 4


@dataclass(frozen=True)
class Team:
    """The processes that share the work. ``exchange`` joins everyone's lists to one, in the order of the ranks."""

    rank: int = 0
    world: int = 1
    exchange: Callable[[list[Any]], list[Any]] = list


ALONE = Team()


class LatentCache:
    """The latents of all samples, by index.

    Either each bucket's latents are one tensor in memory, which spawned workers share instead of copying (few large
    tensors, since each shared one holds a file handle), or each sample has a file that is read when it is asked for.
    """

    def __init__(self, buckets: Sequence[Size], stacks: dict[Size, torch.Tensor], files: Sequence[Path]) -> None:
        rows: dict[Size, int] = dict.fromkeys(buckets, 0)
        self._rows: list[tuple[Size, int]] = []
        for bucket in buckets:
            self._rows.append((bucket, rows[bucket]))
            rows[bucket] += 1
        self._stacks = stacks  # per bucket (b, v, 2, c, h, w)
        self._files = tuple(files)

    def get(self, index: int, mirrored: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, standard deviation), each (c, h, w); views, not to be written to.

        Raises Refusal when the file was damaged after the run had begun.
        """
        if not self._files:
            bucket, row = self._rows[index]
            mean, std = self._stacks[bucket][row, int(mirrored)]
            return mean, std
        latents = read_latents(self._files[index])
        if latents is None:
            raise Refusal(f"{self._files[index]}: damaged or removed during the run; start again to make it anew")
        mean, std = latents[int(mirrored)]
        return mean, std

    @staticmethod
    def build(
        samples: Sequence[Sample],
        encode: Encode,
        settings: LatentSettings,
        team: Team = ALONE,
        on_progress: Progress = lambda done, total: None,
    ) -> LatentCache:
        """Encode what is not there yet. Every process of the team must call it, with the same samples.

        A picture's latents depend on its batch mates in the last digits; hence the batches are the same for any number
        of processes, and one of which a file is missing is encoded whole. ``on_progress`` hears (done, total) pictures
        of this process. Raises Refusal, in every process, for pictures that cannot be read or encoded.
        """
        files = _files(samples, settings)
        mine = _batches(samples, settings.batch_size)[team.rank :: team.world]
        latents: dict[int, torch.Tensor] = {}
        problems: tuple[str, ...] = ()
        try:
            latents = _encode_missing(samples, mine, encode, settings, files, on_progress)
        except Refusal as refusal:  # the others are waiting in the exchange, and must hear of it
            problems = refusal.problems
        except OSError as error:
            problems = (
                f"{settings.folder}: cannot write the latents ({error.strerror}); free some space, or set "
                "cache_latents_to_disk to false",
            )
        everyone = team.exchange([(latents, problems)])
        if any(problems for _, problems in everyone):
            raise Refusal(*named([problem for _, problems in everyone for problem in problems]))
        latents = {index: one for part, _ in everyone for index, one in part.items()}
        everyone.clear()  # so that stacking a bucket frees what it was stacked from
        buckets = [sample.placement.bucket_px for sample in samples]
        if files:
            return LatentCache(buckets, {}, _shared(files))
        return LatentCache(buckets, _stacked(buckets, latents), ())


def _files(samples: Sequence[Sample], settings: LatentSettings) -> list[Path]:
    if settings.folder is None:
        return []
    what = (settings.mirrored, settings.dtype, settings.identity)
    return [latent_path(settings.folder, sample, *what) for sample in samples]


def _batches(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """The indices of all samples, in batches of one bucket each."""
    buckets: dict[Size, list[int]] = {}
    for index, sample in enumerate(samples):
        buckets.setdefault(sample.placement.bucket_px, []).append(index)
    size = max(1, batch_size)
    return [members[at : at + size] for members in buckets.values() for at in range(0, len(members), size)]


def _encode_missing(
    samples: Sequence[Sample],
    batches: Sequence[list[int]],
    encode: Encode,
    settings: LatentSettings,
    files: Sequence[Path],
    on_progress: Progress,
) -> dict[int, torch.Tensor]:
    """The latents of these batches by index, (v, 2, c, h, w); empty when they went to files."""
    if settings.folder is not None:
        settings.folder.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, batches))
    kept = _readable(files, [index for batch in batches for index in batch], settings.workers)
    wanted = [batch for batch in batches if not kept.issuperset(batch)]
    done = total - sum(map(len, wanted))
    on_progress(done, total)
    encoded = encode_batches(
        [[samples[index] for index in batch] for batch in wanted],
        encode,
        mirrored=settings.mirrored,
        dtype=settings.dtype,
        workers=settings.workers,
    )
    latents: dict[int, torch.Tensor] = {}
    with writing_behind(BATCHES_BEHIND * settings.batch_size) as write:
        for batch, of_batch in zip(wanted, encoded, strict=True):
            for index, one in zip(batch, of_batch, strict=True):
                if not files:  # a copy, because a view is sent to other processes with everything that it is a view of
                    latents[index] = one.clone()
                elif index not in kept:
                    write(files[index], as_tensors(one))
            done += len(batch)
            on_progress(done, total)
    return latents


def _readable(files: Sequence[Path], indices: Sequence[int], workers: int) -> set[int]:
    """Those whose file is there and whole."""
    if not files:
        return set()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        whole = pool.map(lambda index: read_latents(files[index]) is not None, indices)
        return {index for index, is_whole in zip(indices, whole, strict=True) if is_whole}


def _stacked(buckets: Sequence[Size], latents: dict[int, torch.Tensor]) -> dict[Size, torch.Tensor]:
    members: dict[Size, list[torch.Tensor]] = {}
    for index, bucket in enumerate(buckets):
        members.setdefault(bucket, []).append(latents.pop(index))
    return {bucket: torch.stack(members.pop(bucket)) for bucket in list(members)}


def _shared(files: Sequence[Path]) -> Sequence[Path]:
    """The files, if what the other processes wrote can be seen from this one."""
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise Refusal(
            f"{absent[0].parent}: {len(absent)} of {len(files)} files that other processes wrote are not here; "
            "with several machines the cache must be in a folder that all of them share"
        )
    return files
