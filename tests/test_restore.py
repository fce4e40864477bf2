"""`python -m lora_trainer.restore`: what it writes for folders, files, prompts and options, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_trainer import restore
from lora_trainer.models.restoration.tiles import Tiling
from lora_trainer.trainers.restoration.inference import Wishes
from lora_trainer.trainers.restoration.weights import Told
from tests.trainers.restoration.restorer_files import write_lora
from tests.trainers.restoration.run import PHOTOS

TinyPath = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder for the stand-in; its LoRA changes nothing, and its average changes something."""
    folder = tmp_path_factory.mktemp("run ü") / "checkpoint-8"
    write_lora(folder, None, 0.0, coeff_t="200")
    write_lora(folder, None, 0.05, "ema_state_dict", coeff_t="200")
    return folder


@pytest.fixture(scope="module")
def tiny_lora(tmp_path_factory: pytest.TempPathFactory, tiny_path: TinyPath) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora"), tiny_path("sd21"), 0.3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "größe").mkdir(parents=True)
    with Image.open(PHOTOS / "cat.jpg") as image:
        image.crop((0, 0, 90, 70)).save(folder / "cat.png")
        image.crop((30, 20, 94, 84)).save(folder / "größe" / "kätzchen.png")
    return folder


def run(*words: object) -> int:
    return restore.main([str(word) for word in words])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_a_folder_is_restored_and_a_broken_off_run_goes_on(
    silent: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, weights = tmp_path / "out", silent / "state_dict.safetensors"
    assert run("--weights", weights, pictures, out) == 0
    said = capsys.readouterr().out
    assert "the base model is stand-in, a tiny network that has learnt nothing" in said
    assert "on cpu: model_t 150, coeff_t 200, tiles of 64 px, 32 apart, colour fix wavelet" in said
    assert f"2 pictures in {out}, " in said
    assert files(out) == ["cat.png", "größe/kätzchen.png"]
    for name in files(out):
        assert np.array_equal(pixels(out / name), pixels(pictures / name))
    (out / "cat.png").unlink()
    Image.new("RGB", (4, 4)).save(out / "größe" / "kätzchen.png")
    assert run("--weights", weights, pictures, out) == 0
    assert "1 picture in" in (said := capsys.readouterr().out)
    assert "1 skipped that were there already (--overwrite does them again)" in said
    assert pixels(out / "größe" / "kätzchen.png").shape == (4, 4, 3)
    assert run("--weights", weights, pictures, out, "--overwrite") == 0
    assert pixels(out / "größe" / "kätzchen.png").shape == (64, 64, 3)


def test_a_checkpoints_average_is_taken_unless_it_is_not_wanted(silent: Path, pictures: Path, tmp_path: Path) -> None:
    source = pictures / "cat.png"
    changed = []
    for name, more in (("ema", ()), ("plain", ("--no-ema",))):
        assert run("--weights", silent, source, tmp_path / f"{name}.png", "--colour-fix", "none", *more) == 0
        changed.append(bool((pixels(tmp_path / f"{name}.png") != pixels(source)).any()))
    assert changed == [True, False]


def test_size_format_and_tiles_are_as_the_options_say(silent: Path, pictures: Path, tmp_path: Path) -> None:
    weights, out = silent / "state_dict.pth", tmp_path / "out"
    source = pictures / "cat.png"
    assert run("--weights", weights, source, out / "x.jpg", "--upscale", "1.5", "--quality", "80", "--tile", 0) == 0
    assert pixels(out / "x.jpg").shape == (105, 135, 3)
    options = ("--target-size", 180, "--format", "webp", "--tile", 64, "--stride", 48, "--batch", 4)
    assert run("--weights", weights, source, out, *options) == 0
    with Image.open(source) as image:
        wanted = np.array(image.resize((180, 140), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels(out / "cat.webp").astype(int) - wanted).mean() < 1


def test_both_files_of_a_restorer_give_the_same_bytes_at_any_time(
    tiny_lora: Path, tiny_path: TinyPath, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    """What a .pth does not tell, the .safetensors beside it tells; a file alone is restored with HYPIR's settings."""
    found = []
    alone = tmp_path / "HYPIR_sd2.pth"
    alone.write_bytes(tiny_lora.with_suffix(".pth").read_bytes())
    same = ("--model-t", 150, "--coeff-t", 120, "--tile", 64, "--prompt", "a photo")
    uses = ((tiny_lora, ()), (tiny_lora.with_suffix(".pth"), ()), (alone, same), (alone, same[4:]))
    for number, (weights, more) in enumerate(uses):
        out = tmp_path / f"{number}.png"
        arguments = ("--weights", weights, "--base", tiny_path("sd21"), pictures / "cat.png", out, "--sample-latents")
        assert run(*arguments, *more) == 0
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2] != found[3]
    assert "model_t 200, coeff_t 200, tiles of 64 px, 32 apart" in capsys.readouterr().out


def test_without_anything_told_the_settings_are_hypirs() -> None:
    options = restore.parser().parse_args(["--weights", "HYPIR_sd2.pth", "in", "out"])
    assert restore._wishes(options, Told()) == Wishes(200, 200, Tiling(512, 256, "centred"), least_px=512)
    options = restore.parser().parse_args(["--weights", "x", "in", "out", "--tile", "128"])
    assert restore._wishes(options, Told()) == Wishes(200, 200, Tiling(128, 64, "centred"), least_px=128, at_once=16)
    options = restore.parser().parse_args(["--weights", "x", "in", "out", "--tile", "0", "--sample-latents"])
    wishes = restore._wishes(options, Told(model_t=100, out_size=256, colour_fix="none"))
    assert wishes == Wishes(100, 200, Tiling(0, 0, "centred"), least_px=256, fixes_colours=False, seed=231)
    options = restore.parser().parse_args(["--weights", "x", "in", "out", "--colour-fix", "wavelet"])
    assert restore._wishes(options, Told(colour_fix="none")).fixes_colours


def test_prompts_come_from_files(tiny_lora: Path, tiny_path: TinyPath, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "texts" / "größe").mkdir(parents=True)
    (tmp_path / "texts" / "cat.txt").write_text("an old photo of a grey cat", encoding="utf-8")
    (pictures / "größe" / "kätzchen.txt").write_text("schnee", encoding="utf-8")
    out = {}
    for name, more in (
        ("said", ("--prompt", "a photo")),
        ("files", ("--prompts", tmp_path / "texts", "--prompt", "a photo")),
        ("beside", ("--captions-beside", "--prompt", "a photo")),
    ):
        base = ("--weights", tiny_lora, "--base", tiny_path("sd21"), pictures, tmp_path / name)
        assert run(*base, *more) == 0
        out[name] = [(tmp_path / name / each).read_bytes() for each in ("cat.png", "größe/kätzchen.png")]
    assert [mine == other for mine, other in zip(out["files"], out["said"], strict=True)] == [False, True]
    assert [mine == other for mine, other in zip(out["beside"], out["said"], strict=True)] == [True, False]


def test_a_damaged_picture_is_named_and_the_others_are_done(
    silent: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "cat.png").read_bytes()[:200])
    assert run("--weights", silent, pictures, tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert f"{pictures / 'broken.png'}: damaged" in captured.err
    assert "2 pictures in" in captured.out
    assert "1 failed" in captured.out
    assert files(tmp_path / "out") == ["cat.png", "größe/kätzchen.png"]


def kohya(folder: Path, lora: Path) -> Path:
    save_file(
        {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)}, folder / "k.safetensors"
    )
    return folder / "k.safetensors"


def two_ranks(folder: Path, lora: Path) -> Path:
    state = load_file(lora)
    name = next(name for name in state if "lora_B" in name)
    save_file({**state, name: state[name][:, :2].contiguous()}, folder / "r.safetensors")
    return folder / "r.safetensors"


def without_a_layer(folder: Path, lora: Path) -> Path:
    state = load_file(lora)
    del state[next(name for name in state if "lora_B" in name)]
    save_file(state, folder / "half.safetensors")
    return folder / "half.safetensors"


def renamed(folder: Path, lora: Path) -> Path:
    save_file({f"other.{name}": tensor for name, tensor in load_file(lora).items()}, folder / "o.safetensors")
    return folder / "o.safetensors"


def told_wrongly(folder: Path, lora: Path) -> Path:
    save_file(load_file(lora), folder / "t.safetensors", {"trainer": "restoration", "model_t": "1000"})
    return folder / "t.safetensors"


def of_velocity(folder: Path, lora: Path) -> Path:
    told = {"trainer": "restoration", "prediction": "v_prediction"}
    save_file(load_file(lora), folder / "v.safetensors", told)
    return folder / "v.safetensors"


def cut(folder: Path, lora: Path) -> Path:
    (folder / "cut.pth").write_bytes(lora.with_suffix(".pth").read_bytes()[:3000])
    return folder / "cut.pth"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (kohya, "k.safetensors: this is no LoRA of a restorer, it has lora_unet_mid_block"),
        (two_ranks, "r.safetensors: the LoRA has layers of the ranks [2, 4], but a restorer has one for all"),
        (without_a_layer, "half.safetensors: the file lacks "),
        (renamed, "o.safetensors: the LoRA has layers that the base model has not (other."),
        (told_wrongly, 't.safetensors: its metadata has model_t "1000", no number from 0 to 999; mend or remove it'),
        (
            of_velocity,
            "v.safetensors was trained on a base model that predicts v_prediction, and this one predicts eps",
        ),
        (cut, "cut.pth: this is a ZIP archive that is incomplete"),
        (lambda folder, lora: PHOTOS / "cat.jpg", "cat.jpg: this is a JPEG picture; give the state_dict.pth"),
    ],
)
def test_what_is_no_restorer_is_refused(
    make: Callable[[Path, Path], Path], text: str, tiny_lora: Path, tiny_path: TinyPath, pictures: Path,
    tmp_path: Path, capsys: Capture,
) -> None:  # fmt: skip
    weights = make(tmp_path, tiny_lora)
    assert run("--weights", weights, "--base", tiny_path("sd21"), pictures, tmp_path / "out") == 2
    assert_one_sentence(capsys.readouterr().err, text)
    assert not (tmp_path / "out").exists()


def assert_one_sentence(said: str, text: str) -> None:
    assert text in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("--weights nowhere.pth", "--weights nowhere.pth: there is no such file or folder"),
        ("--weights PICTURES", "there is no ema_state_dict.safetensors or .pth and no state_dict.safetensors or .pth"),
        ("--weights RUN", "checkpoint-8"),
        ("--weights TINY --no-ema", "--no-ema chooses in a folder, and --weights "),
        ("--base ", "tells only the name of its base model, sd21; Stability AI removed"),
        ("--base nowhere/at/all", "--base: there is no file or folder nowhere/at/all; "),
        ("--base SDXL", "--base: "),
        ("--base stand-in", "give the base model that it was trained on"),
        (
            "--weights SILENT",
            "conv_out.lora_A.default.weight has the shape (4, 96, 3, 3) instead of (4, 8, 3, 3); give a file",
        ),
        ("--tile 64 --stride 96", "--stride: tiles of 64 pixels cannot be 96 apart; write 1 to 64, best 32"),
        ("--tile 60", "--tile: 60 is no multiple of 8; write 64"),
        ("--tile 0 --stride 8", "--stride: --tile 0 is the whole picture at once; leave out one of them"),
        ("--seed 3", "--seed: without --sample-latents nothing is drawn; give both or none"),
        ("--quality 90", "--quality: png loses nothing; give --format jpg or webp, or leave it out"),
        ("--device gpu", "--device gpu cannot be used ("),
        ("--prompts nowhere", "--prompts nowhere: there is no such folder"),
    ],
)
def test_wrong_uses_are_refused(
    change: str, text: str, silent: Path, tiny_lora: Path, tiny_path: TinyPath, pictures: Path, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    places = {"PICTURES": pictures, "RUN": silent.parent, "TINY": tiny_lora, "SILENT": silent}
    if "SDXL" in change:
        places["SDXL"] = tiny_path("sdxl")
    words = ["--weights", tiny_lora, "--base", tiny_path("sd21"), *(places.get(w, w) for w in change.split(" "))]
    assert run(*words, pictures, tmp_path / "out") == 2
    assert_one_sentence(capsys.readouterr().err, text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--upscale 0", "--upscale: 0 is no number from 0.015625 to 64"),
        ("--upscale 2 --target-size 900", "not allowed with argument"),
        ("--fidelity 1.5", "--fidelity: 1.5 is no number from 0 to 1"),
        ("--fidelity much", "--fidelity: much is no number from 0 to 1"),
        ("--model-t 1000", "--model-t: 1000 is no whole number from 0 to 999"),
        ("--batch 0", "--batch: 0 is no whole number from 1 to 1024"),
        ("--prompts x --captions-beside", "not allowed with argument"),
    ],
)
def test_options_out_of_their_range_are_refused(words: str, text: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("--weights", "w", "in", "out", *words.split())
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(
    silent: Path, pictures: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> dict[str, torch.Tensor]:
        raise KeyboardInterrupt

    monkeypatch.setattr("lora_trainer.trainers.restoration.inference.read_restorer", interrupted)
    assert run("--weights", silent, pictures, tmp_path / "out") == 130
    assert capsys.readouterr().err == "stopped; the same command goes on with the pictures that are left\n"


def test_help_needs_no_torch_and_the_module_runs(silent: Path, pictures: Path, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['restore', '--help']\n"
        "try: runpy.run_module('lora_trainer.restore', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'PIL' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    out = tmp_path / "out ü"
    assert run("--weights", silent, pictures / "cat.png", out) == 0
    command = [sys.executable, "-m", "lora_trainer.restore", "--weights", silent, pictures / "cat.png", out]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, encoding="utf-8")
    assert done.stdout.startswith(f"0 pictures in {out}, 1 skipped")
