"""Files of a repository on the Hugging Face hub: found among its downloads, or downloaded where there is a network."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

log = logging.getLogger(__name__)

MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".json")
GIB = 2**30
TIMEOUT_S = 10.0

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class NotFetched(Exception):
    """Why the hub does not give something, in words that fit between parentheses."""


def is_hub_name(place: str) -> bool:
    """Whether it may be `owner/repository`. A relative path of two parts looks the same."""
    if not _NAME.fullmatch(place) or place.lower().endswith(MODEL_SUFFIXES):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(place)
    except HFValidationError:
        return False
    return True


def downloaded(repository: str, names: Collection[str]) -> Path | None:
    """The first of these files that was downloaded before, of the repository's main branch."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, constants.HF_HUB_CACHE) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def listed(repository: str) -> dict[str, int]:
    """The repository's files with their sizes in bytes. Raises NotFetched."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=TIMEOUT_S)
    except Exception as error:  # whatever the network or the service raises
        raise NotFetched(_reason(error)) from error
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def fetched(repository: str, names: Collection[str]) -> Path:
    """Download these files, but for those that were before, and give the folder in which all lie. Raises NotFetched."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(names)))
    except Exception as error:  # whatever the network, the service or the disk raises
        raise NotFetched(_reason(error)) from error
    if missing := [name for name in names if not (folder / name).is_file()]:  # the network went away meanwhile
        raise NotFetched(f"the download ended before {missing[0]}")
    return folder


def tell_download(repository: str, sizes: Mapping[str, int]) -> None:
    """Say in the log what a person is about to wait for."""
    from huggingface_hub import constants

    what = next(iter(sizes)) if len(sizes) == 1 else f"{len(sizes)} files"
    size = f"{sum(sizes.values()) / GIB:.2f} GiB"
    log.info("downloading %s of %s from the hub (%s) to %s", what, repository, size, constants.HF_HUB_CACHE)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    words: tuple[tuple[type[Exception], str], ...] = (  # the narrower class first
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so the hub is not asked"),
        (errors.GatedRepoError, "its owner must grant access first; type hf auth login after that"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or does not show it to everybody"),
    )
    first_line = str(error).strip().partition("\n")[0] or "no reason given"
    return next((text for kind, text in words if isinstance(error, kind)), f"{type(error).__name__}: {first_line}")
