"""`tools.upscale` on tiny models: what becomes of grey, deep, transparent, turned, damaged and clashing pictures."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.models.sr_file import network_from_file
from tools import upscale

REPOSITORY = Path(__file__).parents[2]
Model = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (21, 30, 4), np.uint8)
    Image.fromarray(noise[..., :3]).save(folder / "plain.png")
    Image.fromarray(noise).save(folder / "more" / "clear.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_a_folder_is_upscaled_as_the_model_does_it(
    model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = model("compact", 2, num_feat=8, num_conv=2), tmp_path / "out"
    arguments = ["--model", str(path), "--input", str(pictures), "--output", str(out), "--suffix", "_x2"]
    assert upscale.main([*arguments, "--fp16"]) == 0
    said = capsys.readouterr().out
    assert "--fp16: a CPU has no use for it; float32 is used" in said
    assert "deep.png: 16 bits a channel are made 8" in said
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png")) == [
        "deep_x2.png", "grey_x2.png", "more/clear_x2.png", "plain_x2.png",
    ]  # fmt: skip
    image = torch.from_numpy(pixels(pictures / "plain.png")).permute(2, 0, 1)[None].float() / 255
    wanted = (network_from_file(path)(image)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels(out / "plain_x2.png") - wanted).max() <= 1
    assert pixels(out / "more" / "clear_x2.png").shape == (42, 60, 4)
    assert pixels(out / "grey_x2.png").shape == (42, 60)
    assert np.array_equal(pixels(out / "deep_x2.png"), pixels(out / "grey_x2.png"))
    assert upscale.main(arguments) == 0
    assert f"0 pictures in {out}, 4 were there already (--overwrite does them again)" in capsys.readouterr().out


def test_tiles_make_the_same_picture(model: Model, pictures: Path, tmp_path: Path) -> None:
    path, plain = model("compact", 2, num_feat=8, num_conv=2), pictures / "plain.png"
    for out, more in (("a", []), ("b", ["--tile", "12", "--overlap", "8"])):
        arguments = ["--model", str(path), "--input", str(plain), "--output", str(tmp_path / out)]
        assert upscale.main([*arguments, *more]) == 0
    assert np.array_equal(pixels(tmp_path / "a" / "plain.png"), pixels(tmp_path / "b" / "plain.png"))


def test_a_damaged_picture_is_named_and_the_others_are_done(
    model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "plain.png").read_bytes()[:200])
    path = model("compact", 2, num_feat=8, num_conv=2)
    assert upscale.main(["--model", str(path), "--input", str(pictures), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "broken.png: " in captured.err
    assert f"4 pictures in {tmp_path / 'out'}, 1 failed" in captured.out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"--input": "nowhere"}, "nowhere: there is no such picture or folder"),
        ({"--model": "x.pth"}, "x.pth"),
        ({"--device": "cuda:99"}, "--device cuda:99 cannot be used ("),
        ({"--device": "gpu"}, "--device gpu cannot be used ("),
        ({"--output": "PICTURES"}, "is the folder of the pictures itself; give another one"),
        ({"--output": "PICTURES/plain.png"}, "plain.png is a file; give a folder"),
        ({"--input": "PICTURES/plain.png", "--output": "PICTURES"}, "would be replaced by its own result"),
    ],
)
def test_wrong_uses_are_refused(
    model: Model, pictures: Path, tmp_path: Path, change: dict[str, str], text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = model("compact", 2, num_feat=8, num_conv=2)
    before = (pictures / "plain.png").read_bytes()
    arguments = {"--model": str(path), "--input": str(pictures), "--output": str(tmp_path / "out"), **change}
    words = [word.replace("PICTURES", str(pictures)) for pair in arguments.items() for word in pair]
    assert upscale.main(words) == 2
    assert text in capsys.readouterr().err
    assert (pictures / "plain.png").read_bytes() == before


def test_two_pictures_of_one_name_do_not_replace_each_other(
    model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(pictures / "plain.webp")
    path, out = model("compact", 2, num_feat=8, num_conv=2), tmp_path / "out"
    assert upscale.main(["--model", str(path), "--input", str(pictures), "--output", str(out)]) == 1
    captured = capsys.readouterr()
    assert "plain.webp: its result would be plain.png, as that of plain.png; rename one" in captured.err
    assert f"4 pictures in {out}, 1 failed" in captured.out
    assert pixels(out / "plain.png").shape == (42, 60, 3)


def test_results_among_the_pictures_are_not_upscaled_again(model: Model, pictures: Path) -> None:
    arguments = ["--model", str(model("compact", 2, num_feat=8, num_conv=2)), "--input", str(pictures)]
    for _ in range(2):
        assert upscale.main([*arguments, "--output", str(pictures / "out"), "--overwrite"]) == 0
    assert len(list((pictures / "out").rglob("*.png"))) == 4


def test_a_turned_picture_with_a_colour_profile(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = tmp_path / "turned.jpg"
    Image.new("RGB", (24, 16), "teal").save(source, exif=exif, icc_profile=b"a profile")
    arguments = ["--model", str(model("compact", 2, num_feat=8, num_conv=2)), "--input", str(source)]
    for format in ("png", "webp", "jpg"):
        assert upscale.main([*arguments, "--output", str(tmp_path / "out"), "--format", format]) == 0
        with Image.open(tmp_path / "out" / f"turned.{format}") as image:
            assert image.size == (32, 48)
            assert image.info["icc_profile"] == b"a profile"
            assert image.getexif().get(0x0112) is None


def test_colour_of_16_bits_and_transparency_are_named_before_they_are_lost(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "deep.png").write_bytes(deep_colour())
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(source / "clear.png")
    Image.new("RGBA", (8, 8), (10, 20, 30, 255)).save(source / "solid.png")
    path, out = model("compact", 2, num_feat=8, num_conv=2), tmp_path / "out"
    arguments = ["--model", str(path), "--input", str(source), "--output", str(out)]
    assert upscale.main([*arguments, "--format", "jpg"]) == 0
    said = capsys.readouterr().out
    assert "deep.png: 16 bits a channel are made 8" in said
    assert "clear.png and 1 more: jpg has no transparency; it is laid on white" in said
    assert pixels(out / "clear.jpg").shape == (16, 16, 3)
    assert upscale.main(arguments) == 0
    assert pixels(out / "solid.png").shape == (16, 16, 3)  # nothing of it is transparent


def deep_colour() -> bytes:
    """A PNG file of 2 x 2 pixels with 16 bits a channel, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(12) for _ in range(2))
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def test_a_network_of_one_channel_does_each_channel_by_itself(model: Model, tmp_path: Path) -> None:
    path = grey_network(tmp_path / "grey.pth")
    noise = np.random.default_rng(1).integers(0, 255, (12, 9, 3), np.uint8)
    source = tmp_path / "in.png"
    Image.fromarray(noise).save(source)
    assert upscale.main(["--model", str(path), "--input", str(source), "--output", str(tmp_path / "out")]) == 0
    network = network_from_file(path)
    for channel in range(3):
        plane = torch.from_numpy(noise[..., channel].copy())[None, None].float() / 255
        wanted = (network(plane)[0, 0].clamp(0, 1) * 255).round().numpy()
        assert np.abs(pixels(tmp_path / "out" / "in.png")[..., channel] - wanted).max() <= 1


def grey_network(path: Path) -> Path:
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    torch.save(Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2, upscale=2).state_dict(), path)
    return path


class ShortOfMemory:
    """The part of a descriptor that is used, doubling its input; as on a device that holds 40 x 40 pixels."""

    architecture, tiling = SimpleNamespace(name="Doubling"), SimpleNamespace(name="SUPPORTED")
    scale, input_channels = 2, 3
    size_requirements = SimpleNamespace(multiple_of=1, minimum=0)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def to(self, *_: object, **__: object) -> ShortOfMemory:
        return self

    def eval(self) -> ShortOfMemory:
        return self

    def __call__(self, tile: torch.Tensor) -> torch.Tensor:
        self.sizes.append(max(tile.shape[-2:]))
        if self.sizes[-1] > 40:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        return tile.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_tiles_become_smaller_until_they_fit_and_stay_so(capsys: pytest.CaptureFixture[str]) -> None:
    model = ShortOfMemory()
    upscaler = upscale.Upscaler(model, torch.device("cpu"), torch.float32, 512, 2)
    noise = np.random.default_rng(2).integers(0, 255, (100, 140, 3), np.uint8)
    wanted = noise.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(np.array(upscaler(Image.fromarray(noise))), wanted)
    assert model.sizes[:2] == [140, 72]
    assert "out of memory; going on with --tile 35" in capsys.readouterr().out
    model.sizes.clear()
    upscaler(Image.fromarray(noise))
    assert max(model.sizes) <= 39
    with pytest.raises(MemoryError, match="cpu has too little memory even for tiles of 35"):
        upscale.Upscaler(model, torch.device("cpu"), torch.float32, 35, 10)(Image.fromarray(noise))


@pytest.mark.parametrize("tool", ["upscale", "export_onnx", "extract_subimages", "make_lmdb", "convert_preset"])
def test_help_needs_no_torch(tool: str) -> None:
    call = f"import sys, tools.{tool} as t\ntry: t.main(['--help'])\nexcept SystemExit: pass"
    code = f"{call}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
