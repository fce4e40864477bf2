"""Crops of a restoration: aligned, the same whoever draws them, enlarged where a picture is small, with prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.batches import BatchPlan, Share
from lora_trainer.data.pair_store import open_store
from lora_trainer.data.restoration_crops import RestorationCrops, square_placement
from lora_trainer.data.restoration_pairs import RestorationSources, survey_restoration
from lora_trainer.engine.prefetch import prefetch

SIZES = {"ä": (40, 64), "b": (56, 48), "small": (20, 16)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The pixels of an original say where they are; blue says which it is. Its degraded partner is the negative."""
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        rows, columns = np.mgrid[0:height, 0:width]
        gt = np.stack([rows, columns, np.full_like(rows, 50 * number)], -1).astype(np.uint8)
        for folder, pixels in (("GT", gt), ("LQ", 255 - gt)):
            (tmp_path / "Rain" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "Rain" / folder / f"{name}.png")
    return tmp_path


def crops(root: Path, *, cache_gib: float = 0, rank: int = 0, world: int = 1, **changes: Any) -> RestorationCrops:
    sources = RestorationSources(folders=[str(root)], name_is_prompt=True, enlarge=4)
    if changes.pop("originals", False):
        sources = RestorationSources(originals=[str(root / "Rain" / "GT")], name_is_prompt=True, enlarge=4)
    found = survey_restoration(replace(sources, cache_gib=cache_gib, cache_folder=str(root / "cache")))
    store = open_store(found.pairs, cache_gib, 1, root / "cache")
    plan = BatchPlan([(1, 1)] * len(found.pairs), [pair.repeats for pair in found.pairs], 4, 7)
    return RestorationCrops(plan, store, Share(rank, world, 4), found.prompts, 24, **changes)


def test_both_pictures_show_the_same_place(root: Path) -> None:
    data = crops(root)
    corners, names = set(), set()
    for step in range(6):
        (micro,) = data(step)
        assert micro["gt"].shape == micro["lq"].shape == (4, 3, 24, 24)
        assert micro["gt"].dtype == micro["lq"].dtype == torch.uint8
        assert int((micro["gt"].int() + micro["lq"].int() - 255).abs().max()) <= 1  # rounding, where one is enlarged
        assert [f"Rain/{prompt}" for prompt in micro["prompts"]] == micro["names"]
        assert (micro["weights"].tolist(), micro["total"]) == ([1] * 4, 4)
        corners |= {tuple(gt[:, 0, 0].tolist()) for gt in micro["gt"]}
        names |= set(micro["names"])
    assert len(corners) > 15
    assert names == {f"Rain/{name}" for name in SIZES}


def test_crops_are_pieces_of_the_picture_in_all_eight_ways(root: Path) -> None:
    ways = set()
    data = crops(root)
    for step in range(40):
        micro = data(step)[0]
        for name, gt in zip(micro["names"], micro["gt"].int(), strict=True):
            if name == "Rain/small":
                continue
            down, across = gt[:2, 1, 0] - gt[:2, 0, 0], gt[:2, 0, 1] - gt[:2, 0, 0]
            assert sorted([*down.abs().tolist(), *across.abs().tolist()]) == [0, 0, 1, 1]
            ways.add((*down.tolist(), *across.tolist()))
    assert len(ways) == 8
    still = crops(root, use_hflip=False, use_rot=False)
    for step in range(6):
        for name, gt in zip(still(step)[0]["names"], still(step)[0]["gt"].int(), strict=True):
            if name != "Rain/small":
                assert (gt[:2, 1, 1] - gt[:2, 0, 0]).tolist() == [1, 1]


def test_a_step_is_the_same_whoever_draws_it(root: Path) -> None:
    one = crops(root)(3)[0]
    again = crops(root, cache_gib=1)
    assert again.store.cache
    shares = [crops(root, rank=rank, world=2)(3)[0] for rank in (0, 1)]
    for key in ("gt", "lq"):
        assert torch.equal(again(3)[0][key], one[key])
        assert torch.equal(torch.cat([share[key] for share in shares]), one[key])
    assert shares[0]["keys"] + shares[1]["keys"] == one["keys"]
    assert len(set(one["keys"])) == 4
    idle = crops(root, rank=5, world=8)
    empty = next(
        micro for rank in range(8) if not (micro := replace(idle, share=Share(rank, 8, 4))(3)[0])["weights"].any()
    )
    assert empty["gt"].shape == (1, 3, 24, 24)


def test_loader_processes_draw_the_same(root: Path) -> None:
    data = crops(root, cache_gib=1)
    drawn = prefetch(data, 0, 3, torch.device("cpu"), workers=1)
    for step, (micro,) in zip(range(3), drawn, strict=True):
        assert torch.equal(micro["lq"], data(step)[0]["lq"])


def test_center_and_none(root: Path) -> None:
    still = {"use_hflip": False, "use_rot": False}
    for crop_type, corner, last in (("center", (8, 20, 0), (31, 43, 0)), ("none", (0, 12, 0), (39, 51, 0))):
        data = crops(root, crop_type=crop_type, **still)
        rows = [zip(micro["names"], micro["gt"].int(), strict=True) for step in range(3) for micro in data(step)]
        shown = [gt for row in rows for name, gt in row if name == "Rain/ä"]
        assert len(shown) == 4
        for gt in shown:
            assert (gt[:, 0, 0] - torch.tensor(corner)).abs().max() <= 1
            assert (gt[:, -1, -1] - torch.tensor(last)).abs().max() <= 1


def test_where_a_square_lies() -> None:
    assert square_placement((40, 64), 24, (1.0, 0.0), whole=False).crop_top_left_px == (16, 0)
    enlarged = square_placement((20, 16), 24, (0.5, 0.5), whole=False)
    assert (enlarged.resized_px, enlarged.crop_top_left_px) == ((30, 24), (3, 0))
    whole = square_placement((40, 64), 24, (0.5, 0.5), whole=True)
    assert (whole.resized_px, whole.crop_top_left_px) == ((24, 38), (0, 7))


def test_empty_prompts_are_drawn_for_each_sample(root: Path) -> None:
    data = crops(root, p_empty_prompt=0.3)
    prompts = [prompt for step in range(75) for prompt in data(step)[0]["prompts"]]
    assert 0.2 < prompts.count("") / len(prompts) < 0.4
    assert data(5)[0]["prompts"] == crops(root, p_empty_prompt=0.3)(5)[0]["prompts"]
    assert "" not in [prompt for step in range(20) for prompt in crops(root)(step)[0]["prompts"]]


def test_originals_alone_have_no_degraded_picture(root: Path) -> None:
    micro = crops(root, originals=True)(0)[0]
    assert "lq" not in micro
    assert micro["gt"].shape == (4, 3, 24, 24)
