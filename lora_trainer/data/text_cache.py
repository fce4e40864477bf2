"""Encode every caption once and keep what the text encoders make of it, in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.data.latent_cache import ALONE, Progress, Team
from lora_trainer.data.tensor_file import read_tensors, writing_behind
from lora_trainer.errors import Refusal

FORMAT = 1  # raise it when the same key would mean other numbers
CAPTIONS_BEHIND = 16  # that wait to be written

EncodeText = Callable[[str], Mapping[str, Tensor]]


@dataclass(frozen=True)
class TextSettings:
    """``identity`` names everything besides the caption that changes the result: encoders, length, number format.
    ``folder`` None keeps everything in memory."""

    identity: str
    folder: Path | None = None


class TextCache:
    """The tensors of each caption, all of the same names and shapes.

    In memory they are one stack for each name, since every tensor that is shared with a loader process holds a file
    handle. On disk each caption has a file that is read when it is asked for.
    """

    def __init__(self, rows: Mapping[str, int], stacks: Mapping[str, Tensor], files: Sequence[Path]) -> None:
        self._rows = dict(rows)
        self._stacks = dict(stacks)
        self._files = tuple(files)

    def batch(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Each name's tensors of these captions, stacked. Refusal when a file was damaged after the run had begun."""
        rows = [self._rows[caption] for caption in captions]
        if not self._files:
            return {name: stack[rows] for name, stack in self._stacks.items()}
        found = [self._read(self._files[row]) for row in rows]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def _read(self, path: Path) -> dict[str, Tensor]:
        tensors = read_tensors(path)
        if tensors is None:
            raise Refusal(f"{path}: damaged or removed during the run; start again to make it anew")
        return tensors

    @staticmethod
    def build(
        captions: Iterable[str],
        encode: EncodeText,
        settings: TextSettings,
        team: Team = ALONE,
        on_progress: Progress = lambda done, total: None,
    ) -> TextCache:
        """Encode what is not there yet, each caption by itself. Every process of the team must call it, with the same
        captions; each encodes its part. Raises Refusal, in every process."""
        distinct = list(dict.fromkeys(captions))
        files = [_path(settings.folder, caption, settings.identity) for caption in distinct if settings.folder]
        encoded: dict[int, dict[str, Tensor]] = {}
        problems: tuple[str, ...] = ()
        try:
            encoded = _encode_mine(distinct, encode, files, team, on_progress)
        except Refusal as refusal:  # the others are waiting in the exchange, and must hear of it
            problems = refusal.problems
        except OSError as error:
            problems = (
                f"{settings.folder}: cannot write the encoded captions ({error.strerror}); free some space, or set "
                "cache_text_encoder_outputs_to_disk to false",
            )
        everyone = team.exchange([(encoded, problems)])
        if any(problems for _, problems in everyone):
            raise Refusal(*(problem for _, problems in everyone for problem in problems))
        rows = {caption: row for row, caption in enumerate(distinct)}
        if files:
            return TextCache(rows, {}, _shared(files))
        whole = {row: one for part, _ in everyone for row, one in part.items()}
        stacks = {name: torch.stack([whole[row][name] for row in range(len(rows))]) for name in whole[0]}
        return TextCache(rows, stacks, ())


def _path(folder: Path, caption: str, identity: str) -> Path:
    key = json.dumps([FORMAT, caption, identity])
    return folder / f"{blake2b(key.encode(), digest_size=20).hexdigest()}.safetensors"


def _encode_mine(
    captions: Sequence[str], encode: EncodeText, files: Sequence[Path], team: Team, on_progress: Progress
) -> dict[int, dict[str, Tensor]]:
    """The tensors of this process's captions by row; empty when they went to files."""
    if files:
        files[0].parent.mkdir(parents=True, exist_ok=True)
    mine = range(team.rank, len(captions), team.world)
    encoded: dict[int, dict[str, Tensor]] = {}
    with writing_behind(CAPTIONS_BEHIND) as write:
        for done, row in enumerate(mine, 1):
            if not files or read_tensors(files[row]) is None:
                tensors = dict(encode(captions[row]))
                if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
                    text = "the text encoders make NaN or infinity of this caption; use mixed_precision bf16 or no"
                    raise Refusal(f'"{captions[row]}": {text}')
                if files:
                    write(files[row], tensors)
                else:
                    encoded[row] = tensors
            on_progress(done, len(mine))
    return encoded


def _shared(files: Sequence[Path]) -> Sequence[Path]:
    """The files, if what the other processes wrote can be seen from this one."""
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise Refusal(
            f"{absent[0].parent}: {len(absent)} of {len(files)} encoded captions that other processes wrote are not "
            "here; with several machines the cache must be in a folder that all of them share"
        )
    return files
