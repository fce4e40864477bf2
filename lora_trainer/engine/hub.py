"""The Hugging Face hub: what a run saves is uploaded, and a state is downloaded to go on from."""

from __future__ import annotations

import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_trainer.engine.kept_files import remove
from lora_trainer.engine.signals import Stopped
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

RepoType = Literal["model", "dataset", "space"]


@dataclass(frozen=True)
class HubSettings:
    """Where uploads go. An empty token stands for the one of `hf auth login` or the variable HF_TOKEN."""

    repo_id: str
    token: str = field(default="", repr=False)
    repo_type: RepoType = "model"
    private: bool = True
    folder: str = ""  # within the repository
    in_background: bool = False
    with_states: bool = False


@dataclass(frozen=True)
class HubPlace:
    """A folder of a repository: `user/repo/path[:revision[:repo_type]]`, as in kohya_ss."""

    repo_id: str
    path: str
    revision: str = "main"
    repo_type: RepoType = "model"

    @classmethod
    def read(cls, text: str) -> HubPlace:
        """Raises Refusal for what has another form."""
        address, _, rest = text.partition(":")
        revision, _, repo_type = rest.partition(":")
        parts = address.strip("/").split("/")
        kinds: tuple[RepoType, ...] = ("model", "dataset", "space")
        kind = next((each for each in kinds if each == (repo_type or "model")), None)
        if len(parts) < 3 or not all(parts) or kind is None:
            raise Refusal(
                f'resume_from_huggingface: found "{text}"; write user/repository/folder, and after it, if need be, '
                ":revision and :model, :dataset or :space, such as me/loras/tiny-000002-state:main"
            )
        return cls("/".join(parts[:2]), "/".join(parts[2:]), revision or "main", kind)


class Uploads:
    """Sends files and states away, in their order, and deletes what is to go after that. Never ends a training.

    Without settings nothing is sent. In the background a thread does it while the training goes on.
    """

    def __init__(self, hub: HubSettings | None = None) -> None:
        self.hub = hub
        self.failed: list[Path] = []
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: list[Path] = []
        self._given_up = False
        self._thread: threading.Thread | None = None
        if hub is not None and hub.in_background:
            self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
            self._thread.start()

    def file(self, path: Path) -> None:
        """Upload a file under its own name."""
        if self.hub is not None:
            self._waiting.append(path)
            self._do(lambda: self._send(path))

    def state(self, path: Path) -> None:
        """Upload a state's folder, if states are wanted."""
        if self.hub is not None and self.hub.with_states:
            self.file(path)

    def remove(self, path: Path) -> None:
        """Delete a local file or state once it has been sent."""
        self._do(lambda: remove(path))

    def close(self, *, wait: bool) -> None:
        """Finish what is waiting, or leave it, and say what has not arrived."""
        if self._thread is not None:
            self._given_up = not wait
            if wait and self._waiting:
                log.info("waiting for %d uploads", len(self._waiting))
            self._tasks.put(None)
            if wait:
                self._thread.join()
        left = [*self.failed, *self._waiting]
        if left and self.hub is not None:
            names = ", ".join(path.name for path in left)
            log.warning("not uploaded: %s; `hf upload %s %s` sends one of them", names, self.hub.repo_id, left[0])

    def _do(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            task()
        else:
            self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._given_up:
            task()

    def _send(self, path: Path) -> None:
        assert self.hub is not None
        hub = self.hub
        place = f"{hub.folder.strip('/')}/{path.name}".lstrip("/")
        common = {"repo_id": hub.repo_id, "repo_type": hub.repo_type, "path_in_repo": place}
        try:
            api = hub_api(hub.token)
            if path.is_dir():
                api.upload_folder(folder_path=path, commit_message=f"State {path.name}", **common)
            else:
                api.upload_file(path_or_fileobj=path, commit_message=path.name, **common)
            log.info("uploaded %s to %s", path.name, hub.repo_id)
        except Exception as error:  # whatever the network or the service raises is no reason to end a training
            log.warning("%s was not uploaded to %s: %s", path.name, hub.repo_id, spoken_error(error, hub.token))
            self.failed.append(path)
        self._waiting.remove(path)


NO_UPLOADS = Uploads()


@contextlib.contextmanager
def open_uploads(hub: HubSettings | None, is_main: bool) -> Iterator[Uploads]:
    """Uploads for the time of the block, in the main process. A run that is stopped or fails waits for none."""
    if hub is None or not is_main:
        yield NO_UPLOADS
        return
    uploads, well = Uploads(hub), False
    try:
        yield uploads
        well = True
    except Stopped as stopped:
        well = stopped.exit_status == 0
        raise
    finally:
        uploads.close(wait=well)


def check_hub(hub: HubSettings | None) -> None:
    """Make the repository where it is missing. Refusal when it cannot be made or written to."""
    if hub is None:
        return
    try:
        api = hub_api(hub.token)
        sdk = {"space_sdk": "static"} if hub.repo_type == "space" else {}
        api.create_repo(hub.repo_id, private=hub.private, repo_type=hub.repo_type, exist_ok=True, **sdk)
        if "write" in inspect.signature(api.auth_check).parameters:  # older releases cannot ask that
            api.auth_check(hub.repo_id, repo_type=hub.repo_type, write=True)
    except Exception as error:  # whatever the network or the service raises
        raise Refusal(
            f"huggingface_repo_id: {hub.repo_id} cannot be written to: {spoken_error(error, hub.token)}; "
            "correct it, or huggingface_token, or leave huggingface_repo_id empty"
        ) from error


def download(place: HubPlace, token: str) -> Path:
    """The folder of a repository, in the hub's cache. Refusal when it cannot be had."""
    try:
        from huggingface_hub import snapshot_download

        root = snapshot_download(
            place.repo_id,
            repo_type=place.repo_type,
            revision=place.revision,
            allow_patterns=f"{place.path}/*",
            token=token or None,
        )
    except Exception as error:  # whatever the network or the service raises
        raise Refusal(
            f"resume_from_huggingface: {place.repo_id} cannot be downloaded: {spoken_error(error, token)}"
        ) from error
    if not (folder := Path(root, place.path)).is_dir():
        raise Refusal(f"resume_from_huggingface: {place.repo_id} has no folder {place.path} at {place.revision}")
    return folder


def hub_api(token: str) -> Any:
    """The hub's own client, without progress bars of its own."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return HfApi(token=token or None)


def spoken_error(error: BaseException, token: str) -> str:
    """The error on one line, without the token."""
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text.replace(token, '***') if token else text}"
