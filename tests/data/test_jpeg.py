"""Our JPEG against Pillow's, which is libjpeg."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.jpeg import jpeg, quality_tables

PHOTOS = Path(__file__).parents[2] / "presets" / "photos" / "2_photo"


def photo(name: str, height: int, width: int) -> torch.Tensor:
    with Image.open(PHOTOS / f"{name}.jpg") as image:
        pixels = np.array(image.convert("RGB"))[5 : 5 + height, 3 : 3 + width]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def pillow(image: torch.Tensor, quality: int) -> torch.Tensor:
    pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)[None].float() / 255


def decibels(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * torch.log10((first - second).square().mean()))


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95])
@pytest.mark.parametrize(("name", "sides"), [("cat", (144, 208)), ("coffee", (93, 101)), ("astronaut", (17, 33))])
def test_it_is_libjpegs_but_for_rounding(name: str, sides: tuple[int, int], quality: int) -> None:
    image = photo(name, *sides)
    ours, theirs = jpeg(image, [quality]), pillow(image, quality)
    few = image.numel() < 10_000  # where a single rounding counts
    assert ((ours - theirs).abs().mean() * 255) < (1.5 if few else 0.7)
    assert abs(decibels(ours, image) - decibels(theirs, image)) < (0.3 if few else 0.05)


def test_each_picture_has_its_own_quality() -> None:
    images = torch.cat([photo("cat", 96, 96), photo("coffee", 96, 96)])
    together = jpeg(images, [10, 90])
    for index, quality in enumerate((10, 90)):
        torch.testing.assert_close(
            together[index : index + 1], jpeg(images[index : index + 1], [quality]), atol=0.02, rtol=0
        )
    assert decibels(together[:1], images[:1]) < decibels(together[1:], images[1:])


def test_the_result_has_eight_bits() -> None:
    found = jpeg(torch.rand(1, 3, 40, 24), [40]) * 255
    assert torch.equal(found, found.round())
    assert found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize("quality", [1, 25, 50, 75, 100])
def test_the_tables_are_those_of_libjpeg(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    theirs = Image.open(buffer).quantization  # type: ignore[attr-defined]
    ours = quality_tables(quality)
    for index in (0, 1):
        assert ours[index].flatten().int().tolist() == list(theirs[index])


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 95, 100])
@pytest.mark.parametrize(("subsampling", "theirs"), [("4:2:0", 2), ("4:4:4", 0)])
def test_every_pixel_is_libjpegs(subsampling: str, theirs: int, quality: int) -> None:
    """Photographs and hard edges, and sizes that end within a block or leave no room for the colour's triangle."""
    generator = torch.Generator().manual_seed(quality)
    images = [photo("cat", 96, 120), photo("coffee", 41, 67), photo("astronaut", 33, 5), photo("cat", 1, 1)]
    images.append((torch.rand(1, 3, 40, 30, generator=generator) > 0.5).float())
    for image in images:
        buffer = io.BytesIO()
        pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=theirs)
        wanted = np.array(Image.open(buffer))
        found = (jpeg(image, [quality], subsampling)[0] * 255).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, wanted)


def test_autocast_changes_nothing_and_a_picture_does_not_depend_on_its_neighbours() -> None:
    images = torch.cat([photo("cat", 96, 96), photo("coffee", 96, 96)])
    together = jpeg(images, [10, 90])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jpeg(images, [10, 90]), together)
    assert torch.equal(jpeg(images[1:], [90]), together[1:])


def test_another_subsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="no subsampling 4:1:1; there is 4:2:0 and 4:4:4"):
        jpeg(torch.rand(1, 3, 8, 8), [50], "4:1:1")
