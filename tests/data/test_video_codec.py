"""Pictures through h264 and h265."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.video_codec import compress_as_video

PHOTOS = Path(__file__).parents[2] / "presets" / "photos" / "2_photo"


def photo(height: int, width: int) -> torch.Tensor:
    with Image.open(PHOTOS / "coffee.jpg") as image:
        return torch.from_numpy(np.array(image)[:height, :width]).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_higher_factor_is_worse_and_the_picture_stays_in_place(codec: str) -> None:
    image = photo(61, 75)  # odd sides
    errors = []
    for crf in (10, 30, 45):
        found = compress_as_video(image, codec, crf)
        assert found.shape == image.shape
        errors.append(float((found - image).square().mean()))
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 1e-3  # luma is nearly kept; colour is halved in size
    for shift in (-1, 1):
        moved = (compress_as_video(image, codec, 10)[..., 2:-2] - image.roll(shift, -1)[..., 2:-2]).square().mean()
        assert moved > errors[0]


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_the_same_picture_gives_the_same(codec: str) -> None:
    image = photo(48, 48)
    first = compress_as_video(image, codec, 30)
    assert all(torch.equal(compress_as_video(image, codec, 30), first) for _ in range(25))
