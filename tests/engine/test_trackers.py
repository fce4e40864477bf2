"""Numbers, pictures and the preset arrive in each tracker; what cannot be recorded is refused beforehand."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.reader import load_preset
from lora_trainer.engine import trackers
from lora_trainer.engine.phase import DrawnPicture
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.trackers import Trackers, check_trackers, open_trackers, tracker_names
from lora_trainer.errors import Refusal

Read = Callable[..., CommonPreset]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The preset of `read(key=value)`; its output folder is `tmp_path / "out"`."""

    def load(**keys: Any) -> CommonPreset:
        preset = {
            "pretrained_model_name_or_path": "/home/someone/models/base.safetensors",
            "train_data_dir": "C:\\Users\\someone\\photos",
            "output_dir": str(tmp_path / "out"),
            "output_name": "my",
            "wandb_api_key": "S3CRET",
            "training_comment": "made with --huggingface_token=S3CRET",
            **keys,
        }
        file = tmp_path / "preset.json"
        file.write_text(json.dumps(preset), encoding="utf-8")
        return load_preset(file).preset

    return load


def record(preset: CommonPreset, start: int = 0, steps: range = range(1, 4)) -> None:
    """Open the trackers, as a run does that has made so many steps, and log a loss and a picture at each step."""
    folder = RunFolder(Path(preset.output_dir), preset.output_name)
    folder.path.mkdir(exist_ok=True)
    picture = folder.path / "cat.png"
    Image.new("RGB", (24, 16), (200, 100, 50)).save(picture)
    with open_trackers(preset, folder, Processes(), start) as opened:
        for step in steps:
            opened.log({"loss": step / 2}, step)
            opened.log_pictures([DrawnPicture("sample/00", picture, "a cat")], step)


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_tensorboard_has_numbers_pictures_and_the_preset(read: Read, tmp_path: Path) -> None:
    record(read(log_config=True, log_tracker_name="cats", wandb_run_name="third"))
    found = events(tmp_path / "out" / "logs" / "cats" / "third")
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert [(each.step, each.width, each.height) for each in found.Images("sample/00")] == [
        (step, 24, 16) for step in (1, 2, 3)
    ]
    (shown,) = found.Tensors("preset/text_summary")
    text = shown.tensor_proto.string_val[0].decode()
    values = json.loads("".join(line.removeprefix("    ") for line in text.splitlines()))
    assert (values["output_name"], values["network_dim"]) == ("my", 8)
    assert (values["pretrained_model_name_or_path"], values["train_data_dir"]) == ("base.safetensors", "photos")
    assert values["training_comment"] == "made with --huggingface_token=***"
    assert b"S3CRET" not in everything(tmp_path / "out")


def test_the_preset_is_recorded_on_request_only(read: Read, tmp_path: Path) -> None:
    record(read(logging_dir=str(tmp_path / "elsewhere")))
    assert events(tmp_path / "elsewhere" / "my").Tags()["tensors"] == []


def test_what_is_done_again_replaces_what_was_recorded(read: Read, tmp_path: Path) -> None:
    preset = read()
    record(preset, steps=range(1, 9))
    record(preset, start=5, steps=range(6, 8))
    found = events(tmp_path / "out" / "logs" / "my")
    assert [each.step for each in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [each.step for each in found.Images("sample/00")] == [1, 2, 3, 4, 5, 6, 7]


def test_no_tracker_no_folder(read: Read, tmp_path: Path) -> None:
    record(read(log_with="none", log_config=True))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["cat.png"]
    Trackers().log_pictures([DrawnPicture("sample/00", tmp_path / "none.png")], 1)


def test_a_table_of_options_reaches_the_tracker(read: Read, tmp_path: Path) -> None:
    options = tmp_path / "options.toml"
    options.write_text('[tensorboard]\nfilename_suffix = ".mine"\n[wandb]\nmode = "offline"\n', encoding="utf-8")
    record(read(log_tracker_config=str(options)))
    assert [file.suffix for file in (tmp_path / "out" / "logs" / "my").iterdir()] == [".mine"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[wandbb]\nx = 1", "wandbb: write a table for a tracker, such as [wandb]; did you mean wandb?"),
        ("tensorboard = 1", "tensorboard: write a table for a tracker, such as [wandb]"),
        ("[wandb", "is not TOML: "),
    ],
)
def test_a_wrong_file_of_options_is_refused_before_the_run(
    read: Read, tmp_path: Path, content: str, problem: str
) -> None:
    options = tmp_path / "options.toml"
    options.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal) as refused:
        check_trackers(read(log_tracker_config=str(options)))
    assert str(refused.value).startswith(f"log_tracker_config: {options}: {problem}")
    check_trackers(read(log_tracker_config=str(options), log_with="none"))


def test_an_option_that_the_tracker_does_not_know_is_refused(read: Read, tmp_path: Path) -> None:
    options = tmp_path / "options.toml"
    options.write_text("[tensorboard]\ncolour = 1\n", encoding="utf-8")
    with pytest.raises(Refusal, match=r"tensorboard cannot be started \(TypeError: .*'colour'\); look at log_tracker_"):
        record(read(log_tracker_config=str(options)))


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_missing_package_is_refused_with_its_extra(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(Refusal) as refused:
        tracker_names(name)
    assert str(refused.value) == (
        f'log_with "{name}": the package {name} is not installed; type `pip install "lora_trainer[{name}]"`, or set '
        'log_with to "tensorboard" or "none"'
    )


def test_all_are_those_that_are_installed() -> None:
    there = tuple(name for name in ("tensorboard", "wandb", "swanlab") if importlib.util.find_spec(name) is not None)
    assert tracker_names("all") == there
    assert tracker_names("none") == ()


def offline(folder: Path, name: str) -> str:
    """A file of options for a run that sends nothing."""
    file = folder / "offline.toml"
    quiet = '[wandb.settings]\nconsole = "off"\n' if name == "wandb" else ""
    file.write_text(f'[{name}]\nmode = "offline"\n{quiet}', encoding="utf-8")
    return str(file)


def test_wandb_offline(read: Read, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    keys = {"log_with": "wandb", "log_config": True, "log_tracker_name": "cats", "wandb_run_name": "third"}
    preset = read(**keys, log_tracker_config=offline(tmp_path, "wandb"))
    record(preset)
    (run,) = (tmp_path / "out" / "logs" / "wandb").glob("offline-run-*")
    pictures = list((run / "files" / "media" / "images" / "sample").iterdir())
    assert sorted(file.name.rsplit("_", 1)[0] for file in pictures) == ["00_1", "00_2", "00_3"]
    with Image.open(pictures[0]) as image:
        assert (image.size, image.getpixel((0, 0))) == ((24, 16), (200, 100, 50))
    (content,) = (file.read_bytes() for file in run.glob("*.wandb"))
    for written in (b"loss", b"a cat", b"cats", b"third", b"network_dim", b"base.safetensors"):
        assert written in content
    assert b"S3CRET" not in everything(run)
    record(preset, start=2, steps=range(3, 5))
    ids = {run.name.split("-")[-1] for run in (tmp_path / "out" / "logs" / "wandb").glob("offline-run-*")}
    assert ids == {(tmp_path / "out" / "logs" / "my-wandb-id.txt").read_text().strip()}
    record(preset, steps=range(1, 2))
    assert (tmp_path / "out" / "logs" / "my-wandb-id.txt").read_text().strip() not in ids


def test_swanlab_offline(read: Read, tmp_path: Path) -> None:
    pytest.importorskip("swanlab")
    record(read(log_with="swanlab", log_tracker_config=offline(tmp_path, "swanlab"), log_config=True))
    (run,) = (tmp_path / "out" / "logs").glob("run-*")
    (id_,) = (tmp_path / "out" / "logs").glob("my-swanlab-id.txt")
    assert run.name.endswith(id_.read_text().strip())
    pictures = list((run / "media" / "image").iterdir())
    assert sorted(file.name.split("-")[0] for file in pictures) == ["001", "002", "003"]
    assert "base.safetensors" in (run / "files" / "config.yaml").read_text(encoding="utf-8")
    assert b"S3CRET" not in everything(run)


def test_swanlab_without_a_key_records_offline(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker itself stands for the package, which is not installed everywhere."""
    modes: list[str] = []
    said: list[str] = []

    class Tracker:
        name = "swanlab"

        def __init__(self, project: str, mode: str = "online", **options: object) -> None:
            modes.append(mode)

        def start(self) -> None: ...

        def finish(self) -> None: ...

    monkeypatch.delenv("SWANLAB_MODE", raising=False)
    monkeypatch.setattr(trackers.log, "info", lambda text, *rest: said.append(text % rest))
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", {"swanlab": Tracker})
    monkeypatch.setattr(trackers, "tracker_names", lambda log_with: ("swanlab",))
    preset = read(log_with="none")
    for key in (False, True):
        monkeypatch.setattr(trackers, "_has_swanlab_key", lambda key=key: key)
        with open_trackers(preset, RunFolder(Path(preset.output_dir), preset.output_name), Processes(), 0):
            pass
    assert modes == ["offline", "online"]
    assert len(said) == 1
    assert "no API key here, so the run is recorded offline" in said[0]


def test_swanlab_itself_goes_on_without_a_key(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("swanlab")
    monkeypatch.delenv("SWANLAB_MODE", raising=False)
    monkeypatch.delenv("SWANLAB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    record(read(log_with="swanlab"))
    assert list((tmp_path / "out" / "logs").glob("run-*"))
