"""`tools.generate` with tiny snapshots: the images are the network's, and the files what their names say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lora_trainer.models.gan.generation import (
    interpolated,
    mixed_styles,
    picture_transform,
    read_generator,
    seed_latents,
    sheet,
)
from lora_trainer.models.gan.snapshot import save_snapshot
from lora_trainer.models.gan.table import GanSize, build_generator, build_r3gan
from tools import generate, moving_pictures

REPOSITORY = Path(__file__).parents[2]
SIDE = 16
Snapshot = Callable[..., Path]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """`snapshot("creps", c_dim=3)` writes one of random weights."""

    def write(cfg: str = "stylegan2", c_dim: int = 0, channels: int = 3) -> Path:
        size = GanSize(32 if "3-" in cfg else SIDE, channels, c_dim, 64, 8)
        facts: dict[str, Any] = {"resolution": size.resolution, "img_channels": channels, "c_dim": c_dim}
        facts |= {"cbase": 64, "cmax": 8}
        if cfg == "r3gan":
            network: Any = build_r3gan(size, seed=1)[0]
        else:
            network = build_generator(cfg, size, seed=1, dims=(6, 7), map_depth=2)
            facts |= {"map_depth": 2, "z_dim": 6, "w_dim": 7}
            with torch.no_grad():
                network.mapping.w_avg.normal_(generator=torch.Generator().manual_seed(2))
                for name, weight in network.named_parameters():
                    if name.endswith("noise_strength"):
                        weight.fill_(0.5)
        path = tmp_path / f"schnappschuss ü {cfg}.safetensors"
        save_snapshot(path, cfg, {"G_ema": network.state_dict()}, facts)
        return path

    return write


def run(*arguments: object) -> int:
    return generate.main([str(each) for each in arguments])


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def drawn(path: Path, z: Tensor, **options: Any) -> np.ndarray:
    """By the network itself, as (h, w, c) of 0 to 255."""
    synthesis = {name: options.pop(name) for name in ("points",) if name in options}
    generator = read_generator(path).network
    if hasattr(generator.synthesis, "noise_size"):
        synthesis["noise"] = "const"
    with torch.no_grad():
        image = generator(z, options.pop("c", None), **options, **synthesis)[0]
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


# -- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t", "stylegan3-r", "creps", "r3gan"])
def test_each_seed_is_an_image_of_numpys_numbers(
    cfg: str, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = snapshot(cfg), tmp_path / "aus gabe"
    assert run(path, "--seeds", "1,3, 5-6", "--output", out, "--batch", 3) == 0
    assert sorted(file.name for file in out.iterdir()) == [f"seed000{seed}.png" for seed in (1, 3, 5, 6)]
    z_dim = read_generator(path).network.z_dim
    for seed in (3, 6):
        z = torch.tensor(np.random.RandomState(seed).randn(1, z_dim), dtype=torch.float32)
        assert np.abs(pixels(out / f"seed000{seed}.png").astype(int) - drawn(path, z).astype(int)).max() <= 1
    assert not np.array_equal(pixels(out / "seed0003.png"), pixels(out / "seed0005.png"))
    assert f"4 images in {out}" in capsys.readouterr().out


def test_truncation(snapshot: Snapshot, tmp_path: Path) -> None:
    path = snapshot()
    run(path, "--seeds", "4", "--trunc", 0.5, "--cutoff", 2, "--output", tmp_path / "half")
    wanted = drawn(path, seed_latents([4], 6), truncation_psi=0.5, truncation_cutoff=2)
    assert np.array_equal(pixels(tmp_path / "half" / "seed0004.png"), wanted)
    run(path, "--seeds", "1,2", "--trunc", 0, "--output", tmp_path / "mean")
    assert np.array_equal(pixels(tmp_path / "mean" / "seed0001.png"), pixels(tmp_path / "mean" / "seed0002.png"))


def test_classes(snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = snapshot(c_dim=3)
    assert run(path, "--seeds", "4", "--class", 2, "--output", tmp_path / "a") == 0
    assert np.array_equal(
        pixels(tmp_path / "a" / "seed0004.png"), drawn(path, seed_latents([4], 6), c=torch.eye(3)[2:])
    )
    assert run(path, "--seeds", "4", "--output", tmp_path / "b") == 2
    assert run(path, "--seeds", "4", "--class", 3, "--output", tmp_path / "b") == 2
    plain = snapshot()
    assert run(plain, "--seeds", "4", "--class", 0, "--output", tmp_path / "b") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: the network has the classes 0 to 2, say which with --class",
        f"{path}: the network has the classes 0 to 2, there is no class 3 with --class",
        f"{plain}: the network has no classes; leave out --class",
    ]


def test_noise_follows_from_the_seed(snapshot: Snapshot, tmp_path: Path) -> None:
    path = snapshot()
    for folder, noise, seeds in (("a", "random", "1,2"), ("b", "random", "2"), ("c", "none", "2"), ("d", "const", "2")):
        run(path, "--seeds", seeds, "--noise", noise, "--output", tmp_path / folder)
    a, b, c, d = (pixels(tmp_path / folder / "seed0002.png") for folder in "abcd")
    assert np.array_equal(a, b)
    assert not np.array_equal(b, c) and not np.array_equal(c, d) and not np.array_equal(b, d)


def test_a_gray_network_with_a_sheet(snapshot: Snapshot, tmp_path: Path) -> None:
    assert run(snapshot(channels=1), "--seeds", "0-4", "--grid", "3x2", "--output", tmp_path / "a") == 0
    grid = pixels(tmp_path / "a" / "grid.png")
    assert grid.shape == (2 * SIDE, 3 * SIDE)
    assert np.array_equal(grid[SIDE:, SIDE : 2 * SIDE], pixels(tmp_path / "a" / "seed0004.png"))
    assert not grid[SIDE:, 2 * SIDE :].any()


def test_creps_draws_any_size(snapshot: Snapshot, tmp_path: Path) -> None:
    path = snapshot("creps")
    for scale, side in (("2", 32), ("4", 64), ("1.5", 24)):
        assert run(path, "--seeds", "7", "--scale", scale, "--output", tmp_path / scale) == 0
        found = pixels(tmp_path / scale / "seed0007.png")
        assert found.shape == (side, side, 3)
        assert np.abs(found.astype(int) - drawn(path, seed_latents([7], 6), points=side).astype(int)).max() <= 1


def test_stylegan3_is_shifted_and_turned(snapshot: Snapshot, tmp_path: Path) -> None:
    """To the right by a quarter of the side; and by a quarter turn counterclockwise, which R follows."""
    path = snapshot("stylegan3-r")
    for folder, moves in (
        ("still", []), ("right", ["--translate", "0.25,0"]), ("turned", ["--rotate", "90"]),
        ("both", ["--translate", "0.25,0", "--rotate", "90"]),
    ):  # fmt: skip
        assert run(path, "--seeds", "3", *moves, "--output", tmp_path / folder) == 0
    still, right, turned, both = (
        pixels(tmp_path / folder / "seed0003.png").astype(int) for folder in ("still", "right", "turned", "both")
    )
    assert np.abs(right[:, 8:] - still[:, :-8]).max() <= 1
    assert np.abs(right - still).max() > 1
    assert np.abs(turned - np.rot90(still)).max() <= 1
    assert np.abs(both[:, 8:] - turned[:, :-8]).max() <= 1  # first turned, then shifted


def test_projected_ws(snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = snapshot(), tmp_path / "w.npz"
    generator = read_generator(path)
    ws = generator.ws(seed_latents([8, 9], 6), None)
    np.savez(file, w=ws.numpy())
    assert run(path, "--projected", file, "--output", tmp_path / "a") == 0
    run(path, "--seeds", "8,9", "--output", tmp_path / "a")
    for number, seed in enumerate((8, 9)):
        assert np.array_equal(pixels(tmp_path / f"a/proj0{number}.png"), pixels(tmp_path / f"a/seed000{seed}.png"))
    np.savez(file, w=ws.numpy()[:, :2])
    assert run(path, "--projected", file, "--output", tmp_path / "a") == 2
    np.savez(file, w=np.array([{"a": 1}]))
    assert run(path, "--projected", file, "--output", tmp_path / "a") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("w.npz: its w is (2, 2, 7), and the network takes (n, 6, 7)")
    assert "w.npz cannot be read as .npz with `w` (Object arrays cannot be loaded" in second


def test_styles_are_mixed(snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = snapshot(), tmp_path / "a"
    mixing = ["--mix-rows", "1,2", "--mix-columns", "3,4,5", "--output", out]
    assert run(path, *mixing, "--styles", "0-2") == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "1-3.png", "1-4.png", "1-5.png", "2-3.png", "2-4.png", "2-5.png", "grid.png"
    ]  # fmt: skip
    generator = read_generator(path)
    first, second = generator.ws(seed_latents([2], 6), None), generator.ws(seed_latents([4], 6), None)
    wanted = generator.paint(torch.cat([second[:, :3], first[:, 3:]], 1))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(out / "2-4.png"), wanted)
    grid = pixels(out / "grid.png")
    assert grid.shape == (3 * SIDE, 4 * SIDE, 3)
    assert not grid[:SIDE, :SIDE].any()
    assert np.array_equal(grid[2 * SIDE :, 2 * SIDE : 3 * SIDE], wanted)
    run(path, "--seeds", "2,4", "--output", out)
    assert np.array_equal(grid[2 * SIDE :, :SIDE], pixels(out / "seed0002.png"))
    assert np.array_equal(grid[:SIDE, 2 * SIDE : 3 * SIDE], pixels(out / "seed0004.png"))
    assert run(path, *mixing) == 2
    assert capsys.readouterr().err == "--styles: the network has the layers 0 to 5, not 6\n"


# -- videos ---------------------------------------------------------------------------------------------------------


def test_a_path_goes_smoothly_through_the_seeds_and_back() -> None:
    keyframes = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    path = interpolated(keyframes, 50)
    assert path.shape == (150, 2, 4)
    torch.testing.assert_close(path[::50], keyframes)
    steps = (torch.cat([path, path[:1]])[1:] - path).flatten(1)
    turns = (steps - steps.roll(1, 0)).norm(dim=1)
    assert float(turns.max()) < 0.02 < float(steps.norm(dim=1).min()) * 10  # also where it closes
    assert torch.equal(interpolated(keyframes[:1], 5), keyframes[:1].repeat(5, 1, 1))


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png"])
def test_videos_by_pillow(ending: str, snapshot: Snapshot, tmp_path: Path) -> None:
    path, file = snapshot(), tmp_path / "filme ü" / f"flug{ending}"
    assert run(path, "--seeds", "1,2", "--video", file, "--frames", 5, "--fps", 20, "--grid", "1x1") == 0
    with Image.open(file) as film:
        assert (film.size, getattr(film, "n_frames", 1), film.info.get("loop")) == ((SIDE, SIDE), 10, 0)
        film.seek(5)
        film.load()
        assert film.info["duration"] == 50
        frame = np.array(film.convert("RGB")).astype(int)
    run(path, "--seeds", "1,2", "--output", tmp_path / "a")
    other, wanted = (pixels(tmp_path / "a" / f"seed000{seed}.png").astype(int) for seed in (1, 2))
    error = np.abs(frame - wanted).mean()
    assert error < {".gif": 12, ".webp": 35, ".png": 0.01}[ending]  # WebP halves the resolution of colours
    assert error < np.abs(frame - other).mean() / 1.5
    assert not [left for left in file.parent.iterdir() if left != file]


def test_a_video_of_several_cells_as_mp4(
    snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    path, file = snapshot(), tmp_path / "film.mp4"
    arguments = ["--video", file, "--frames", 3, "--fps", 25, "--grid", "2x1"]
    assert run(path, "--seeds", "1,2,3,4", *arguments) == 0
    assert f"{file}: 6 frames, 0.2 seconds" in capsys.readouterr().out
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (2 * SIDE, SIDE, 25)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 6
    run(path, "--seeds", "1,3", "--output", tmp_path / "a")
    wanted = np.concatenate([pixels(tmp_path / "a" / f"seed000{seed}.png") for seed in (1, 3)], 1)
    assert np.abs(frames[0].astype(int) - wanted).mean() < 30  # its colours are of half the resolution
    assert run(path, "--seeds", "1,2,3", *arguments) == 2
    assert "3 images cannot be shared out evenly among 2 cells; give a multiple of 2" in capsys.readouterr().err


def test_a_folder_of_frames(snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = snapshot(), tmp_path / "bilder"
    assert run(path, "--seeds", "1", "--video", folder, "--frames", 3) == 0
    assert sorted(file.name for file in folder.iterdir()) == [f"frame0000{number}.png" for number in range(3)]
    assert run(path, "--seeds", "1", "--video", folder) == 2
    assert run(path, "--seeds", "1", "--video", tmp_path / "film.avi") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{folder} is there already; give another folder for the frames, or remove it"
    assert second.endswith(
        "film.avi: write a path that ends with .gif, .webp, .png, .apng, .mp4, or a folder for the frames"
    )


def test_odd_sizes_lose_a_row_for_mp4(tmp_path: Path) -> None:
    import av

    frames = (Image.new("RGB", (17, 15), (number * 40, 0, 0)) for number in range(4))
    moving_pictures.write_moving(tmp_path / "odd.mp4", frames, 10)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (16, 14)


def test_without_pyav_mp4_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_trainer.errors import Refusal

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        Refusal, match=r"MP4 needs PyAV: pip install lora_trainer\[video\]; \.gif and \.webp do without"
    ):
        moving_pictures.check_moving(tmp_path / "a.mp4")


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "arguments", "told"),
    [
        ("stylegan2", [], "say what to draw with one of --seeds, --projected, and --mix-rows with --mix-columns"),
        ("stylegan2", ["--seeds", "1", "--projected", "a.npz"], "say what to draw with one of --seeds"),
        ("stylegan2", ["--mix-rows", "1"], "--mix-rows and --mix-columns are given together"),
        ("stylegan2", ["--mix-rows", "1", "--mix-columns", "2", "--video", "a.gif"], "style mixing draws a sheet"),
        ("stylegan2", ["--seeds", "1", "--scale", "2"], "--scale: only CREPS draws other sizes, and the"),
        ("stylegan2", ["--seeds", "1", "--rotate", "9"], "only StyleGAN3 shifts and turns, and the snapshot is of"),
        ("creps", ["--seeds", "1", "--noise", "none"], "--noise none: only StyleGAN2 has noise, and the snapshot"),
        ("creps", ["--seeds", "1", "--scale", "0.01"], "--scale 0.01: write a number above 0, such as 2"),
        ("r3gan", ["--seeds", "1", "--trunc", "0.5"], "r3gan has no mean to be truncated to; leave out --trunc"),
        ("stylegan2", ["--seeds", "1", "--device", "xpu:7"], "--device xpu:7 cannot be used ("),
    ],
)  # fmt: skip
def test_refusals(
    cfg: str, arguments: list[str], told: str, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(snapshot(cfg), *arguments, "--output", tmp_path / "a") == 2
    assert capsys.readouterr().err.startswith(told)
    assert not (tmp_path / "a").exists()


def test_other_files_are_refused(snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing.pkl", "--seeds", "1", "--output", tmp_path) == 2
    whole = read_generator(path := snapshot())
    state = whole.network.state_dict()
    facts = {"resolution": SIDE, "img_channels": 3, "c_dim": 0, "cbase": 64, "cmax": 8, "z_dim": 6, "w_dim": 7}
    facts |= {"map_depth": 2}
    save_snapshot(path, "stylegan2", {"G": {name: state[name] for name in list(state)[:-1]}}, facts)
    assert run(path, "--seeds", "1", "--output", tmp_path) == 2
    save_snapshot(path, "stylegan2", {"G": state}, {name: facts[name] for name in facts if name != "cbase"})
    assert run(path, "--seeds", "1", "--output", tmp_path) == 2
    save_snapshot(path, "stylegan2", {"D": state}, facts)
    assert run(path, "--seeds", "1", "--output", tmp_path) == 2
    missing, partly, silent, headless = capsys.readouterr().err.splitlines()
    assert "there is no such snapshot" in missing
    assert "G does not fit its own options: " in partly and "1 missing" in partly
    assert silent == f"{path}: the snapshot does not tell its cbase; give the one it was made from"
    assert headless == f"{path}: there is no generator in it; give a snapshot with G or G_ema"


@pytest.mark.parametrize("seeds", ["", "5-3", "a", "-1", "1,,2", "0-4294967296", "0-1000000"])
def test_wrong_seeds(seeds: str, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("snapshot", f"--seeds={seeds}", "--output", tmp_path)
    assert caught.value.code == 2
    assert "--seeds" in capsys.readouterr().err


# -- the parts ------------------------------------------------------------------------------------------------------


def test_transforms_are_those_of_stylegan3s_own_programs() -> None:
    """The inverse of a turn counterclockwise followed by a shift, as gen_images.py has it."""
    torch.testing.assert_close(picture_transform(), torch.eye(3).double())
    found = picture_transform(0.3, -0.1, 30)
    c, s = 3**0.5 / 2, 0.5
    torch.testing.assert_close(
        found @ torch.tensor([[c, s, 0.3], [-s, c, -0.1], [0, 0, 1]]).double(), torch.eye(3).double()
    )


def test_mixed_styles_and_sheets() -> None:
    rows, columns = torch.zeros(2, 4, 1), torch.arange(1.0, 4.0).view(3, 1, 1).expand(3, 4, 1)
    mixed = mixed_styles(rows, columns, [0, 3])
    assert mixed.shape == (2, 3, 4, 1)
    assert mixed[1, :, :, 0].tolist() == [[1, 0, 0, 1], [2, 0, 0, 2], [3, 0, 0, 3]]
    tiles = torch.arange(3).view(3, 1, 1, 1).expand(3, 1, 1, 2)
    assert sheet(tiles, 2).tolist() == [[[0, 0, 1, 1], [2, 2, 0, 0]]]


def test_from_the_command_line(snapshot: Snapshot, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "tools.generate", str(snapshot()), "--seeds", "1", "--output", str(tmp_path / "a")]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a" / "seed0001.png").is_file()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, tools.generate as t\ntry: t.main(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--mix-rows" in done.stdout
