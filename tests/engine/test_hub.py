"""Files and states go to the hub and come back; no trouble there ends a training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from lora_trainer.engine.hub import (
    NO_UPLOADS,
    HubPlace,
    HubSettings,
    Uploads,
    check_hub,
    download,
    open_uploads,
)
from lora_trainer.engine.signals import Stopped
from lora_trainer.errors import Refusal
from tests.engine.hub_stand_in import TOKEN, Hub, stand_in


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with stand_in(tmp_path / "hub cache") as found:
        yield found


def settings(**changes: object) -> HubSettings:
    return HubSettings(**{"repo_id": "me/loras", "token": TOKEN, "folder": "/cats/", **changes})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ein lora ü.safetensors"
    path.write_bytes(b"tensors")
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-state"
    folder.mkdir()
    (folder / "state.pt").write_bytes(b"state")
    (folder / "manifest.json").write_bytes(b"{}")
    return folder


def test_the_repository_is_made_once(hub: Hub) -> None:
    check_hub(None)
    check_hub(settings())
    check_hub(settings(private=False))
    assert [asked["visibility"] for asked in hub.made] == ["private", "public"]
    assert list(hub.repositories) == ["me/loras"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"token": "hf_wrong"}, "401"), ({"repo_id": "no/such/id"}, "Repo id must"), ({"read_only": True}, "403")],
)
def test_what_cannot_be_written_to_is_refused(hub: Hub, changes: dict[str, object], words: str) -> None:
    hub.read_only = bool(changes.pop("read_only", False))
    with pytest.raises(Refusal, match=rf"huggingface_repo_id: .* cannot be written to: .*{words}.*; correct it, or"):
        check_hub(settings(**changes))


def test_offline_is_refused_before_the_training(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Refusal, match="offline mode is enabled"):
        check_hub(settings())


@pytest.mark.parametrize("in_background", [False, True])
def test_files_and_states_arrive_under_their_names(hub: Hub, file: Path, state: Path, in_background: bool) -> None:
    check_hub(settings())
    with open_uploads(settings(in_background=in_background, with_states=True), True) as uploads:
        uploads.file(file)
        uploads.state(state)
        uploads.remove(file)
        uploads.remove(state)
    assert hub.repositories["me/loras"] == {
        "cats/ein lora ü.safetensors": b"tensors",
        "cats/tiny-state/state.pt": b"state",
        "cats/tiny-state/manifest.json": b"{}",
    }
    assert not file.exists()
    assert not state.exists()


def test_states_stay_at_home_unless_wanted_and_without_a_repository_all_do(hub: Hub, file: Path, state: Path) -> None:
    check_hub(settings())
    with open_uploads(settings(), True) as uploads:
        uploads.state(state)
    NO_UPLOADS.file(file)
    NO_UPLOADS.remove(file)
    assert hub.repositories == {"me/loras": {}}
    assert not file.exists()
    with open_uploads(settings(), False) as elsewhere:
        assert elsewhere is NO_UPLOADS


def test_the_training_does_not_wait_for_what_is_sent_in_the_background(hub: Hub, file: Path) -> None:
    check_hub(settings())
    hub.held.clear()
    uploads = Uploads(settings(in_background=True))
    uploads.file(file)
    uploads.remove(file)
    assert file.exists()
    assert hub.commits == []
    hub.held.set()
    uploads.close(wait=True)
    assert [paths for _, paths in hub.commits] == [["cats/ein lora ü.safetensors"]]
    assert not file.exists()


@pytest.mark.parametrize("in_background", [False, True])
def test_an_upload_that_fails_is_told_and_nothing_more(
    hub: Hub, file: Path, state: Path, in_background: bool, caplog: pytest.LogCaptureFixture
) -> None:
    check_hub(settings())
    hub.broken = True
    with open_uploads(settings(in_background=in_background), True) as uploads:
        uploads.file(file)
        uploads.file(state)
    assert "ein lora ü.safetensors was not uploaded to me/loras: " in caplog.text
    assert "the storage is full" in caplog.text
    assert f"not uploaded: ein lora ü.safetensors, tiny-state; `hf upload me/loras {file}` sends one" in caplog.text
    assert TOKEN not in caplog.text


def test_a_stopped_run_waits_for_no_upload(hub: Hub, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_hub(settings())
    hub.held.clear()
    with pytest.raises(Stopped), open_uploads(settings(in_background=True), True) as uploads:
        uploads.file(file)
        uploads.file(file)
        raise Stopped(15)
    assert "not uploaded: ein lora ü.safetensors" in caplog.text


def test_addresses_are_those_of_kohya_ss() -> None:
    assert HubPlace.read("me/loras/a/tiny-state") == HubPlace("me/loras", "a/tiny-state", "main", "model")
    assert HubPlace.read("me/loras/tiny-state:v2:dataset") == HubPlace("me/loras", "tiny-state", "v2", "dataset")
    assert HubPlace.read("me/loras/tiny-state::space").repo_type == "space"
    for wrong in ("me/loras", "", "me//x", "me/loras/a:main:pictures"):
        with pytest.raises(Refusal, match=r'resume_from_huggingface: found ".*"; write user/repository/folder'):
            HubPlace.read(wrong)


def test_a_state_comes_back(hub: Hub, state: Path) -> None:
    check_hub(settings())
    with open_uploads(settings(with_states=True), True) as uploads:
        uploads.state(state)
    folder = download(HubPlace("me/loras", "cats/tiny-state"), TOKEN)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "state.pt": b"state",
        "manifest.json": b"{}",
    }
    with pytest.raises(Refusal, match="me/loras has no folder dogs at main"):
        download(HubPlace("me/loras", "dogs"), TOKEN)
    with pytest.raises(Refusal, match="resume_from_huggingface: me/other cannot be downloaded"):
        download(HubPlace("me/other", "cats"), TOKEN)
