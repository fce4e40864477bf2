"""The LoRA and the discriminator of a step see different pairs, whoever draws them and whenever it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_trainer.data.batches import Share
from lora_trainer.data.endless_order import EndlessBatches
from lora_trainer.data.pair_store import open_store
from lora_trainer.data.restoration_crops import RestorationCrops
from lora_trainer.data.restoration_pairs import RestorationSources, survey_restoration
from lora_trainer.trainers.restoration.data import RestorationData
from tests.trainers.restoration.run import write_pairs

NAMES = ("cat", "coffee", "coins", "rocket", "astronaut", "bricks")


@pytest.fixture
def crops(tmp_path: Path) -> RestorationCrops:
    root = write_pairs(tmp_path / "ä", ("Rain",), NAMES)
    found = survey_restoration(RestorationSources(folders=[str(root)], prompt="a picture"))
    store = open_store(found.pairs, 0, 1)
    return RestorationCrops(EndlessBatches(len(NAMES), 2, 5), store, Share(0, 1, 2), found.prompts, 32)


def test_both_take_turns_in_one_order(crops: RestorationCrops) -> None:
    data = RestorationData(crops, 4, (range(100),))
    order = [name for step in range(6) for name in crops(step)[0]["names"]]
    found = []
    for step in range(3):
        (micro,) = data(step)
        assert torch.equal(micro["gt"], crops(2 * step)[0]["gt"])
        assert torch.equal(micro["judged_lq"], crops(2 * step + 1)[0]["lq"])
        assert micro["judged_prompts"] == ["a picture"] * 2
        assert micro["noise"].shape == micro["judged_noise"].shape == (2, 4, 4, 4)
        assert not torch.equal(micro["noise"], micro["judged_noise"])
        found += [tuple(name.split(" and ")) for name in micro["names"]]
    pairs = [(order[at], order[at + 2]) for first in (0, 4, 8) for at in (first, first + 1)]
    assert found == pairs
    assert sorted(order[:6]) == sorted(f"Rain/{name}" for name in NAMES)


def test_noise_follows_from_the_place_in_the_batch_alone(crops: RestorationCrops) -> None:
    whole = RestorationData(crops, 4)(3)[0]["noise"]
    halves = []
    for rank in (0, 1):
        crops.share = Share(rank, 2, 1)
        halves.append(RestorationData(crops, 4)(3)[0]["noise"])
    assert torch.equal(whole, torch.cat(halves))


def test_a_resting_discriminator_gets_nothing(crops: RestorationCrops) -> None:
    data = RestorationData(crops, 4, (range(2, 4),))
    assert ["judged_gt" in data(step)[0] for step in range(6)] == [False, False, True, True, False, False]
    assert data(1)[0]["names"] == crops(2)[0]["names"]  # the order stays, whenever it rests
    assert RestorationData(crops, 4)(1)[0]["names"] == crops(1)[0]["names"]
