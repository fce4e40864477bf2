"""Crops of pairs: aligned, the same whoever draws them, from memory, from files and from an LMDB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.batches import BatchPlan, Share
from lora_trainer.data.pair_crops import PairCrops
from lora_trainer.data.pair_store import PairStore, open_store
from lora_trainer.data.pairs import PairSet, PairSettings, survey_pairs
from lora_trainer.engine.prefetch import prefetch
from lora_trainer.errors import Refusal
from tools import make_lmdb

SCALE = 2


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    """The pixels of a pair say where they are: red and green are half of the place in the high resolution."""
    for name, height, width in (("ä", 40, 64), ("b", 56, 48)):
        rows, columns = np.mgrid[0:height, 0:width]
        gt = np.stack([rows, columns, np.full_like(rows, len(name) + height)], -1).astype(np.uint8)
        for folder, pixels in (("hr", gt), ("lr", gt[::SCALE, ::SCALE])):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    return survey_pairs(settings(tmp_path))


def settings(folder: Path, **changes: Any) -> PairSettings:
    facts = {"dataroot_gt": [str(folder / "hr")], "dataroot_lq": [str(folder / "lr")], "scale": SCALE, "enlarge": 3}
    return PairSettings(**{**facts, "gt_px": 16, **changes})  # type: ignore[arg-type]


def crops(store: PairStore, rank: int = 0, world: int = 1, per_device: int = 4, **changes: Any) -> PairCrops:
    repeats = [pair.repeats for pair in store.pairs]
    plan = BatchPlan([(1, 1)] * len(store.pairs), repeats, 4, 7)
    return PairCrops(plan, store, Share(rank, world, per_device), SCALE, 8, **changes)


def test_both_resolutions_show_the_same_place(pairs: PairSet, tmp_path: Path) -> None:
    data = crops(open_store(pairs.pairs, 1, SCALE, tmp_path / "cache"), use_hflip=False, use_rot=False)
    places = set()
    for step in range(6):
        (micro,) = data(step)
        assert micro["gt"].shape == (len(micro["names"]), 3, 16, 16)
        assert micro["gt"].dtype == torch.uint8
        assert torch.equal(micro["gt"][..., ::SCALE, ::SCALE], micro["lq"])
        places |= {(name, *map(int, gt[:2, 0, 0])) for name, gt in zip(micro["names"], micro["gt"], strict=True)}
    assert len(places) > 10


def test_mirrored_and_turned_crops_stay_aligned(pairs: PairSet, tmp_path: Path) -> None:
    data = crops(open_store(pairs.pairs, 1, SCALE, tmp_path / "cache"))
    ways = set()
    for step in range(20):
        (micro,) = data(step)
        for gt, lq in zip(micro["gt"].int(), micro["lq"].int(), strict=True):
            means = [each.float().mean() for each in (gt[0], lq[0], gt[1], lq[1])]
            assert abs(means[0] - means[1]) <= 1 and abs(means[2] - means[3]) <= 1
            down, across = gt[:2, 1, 0] - gt[:2, 0, 0], gt[:2, 0, 1] - gt[:2, 0, 0]
            ways.add((*down.tolist(), *across.tolist()))
    assert len(ways) == 8


def test_shares_and_sources_change_nothing(pairs: PairSet, tmp_path: Path) -> None:
    cached = open_store(pairs.pairs, 1, SCALE, tmp_path / "cache")
    assert cached.cache
    from_files = open_store(pairs.pairs, 0, SCALE, tmp_path / "cache")
    assert not from_files.cache
    whole = crops(cached)(1)[0]
    alone = crops(from_files)(1)[0]
    halves = [micro for rank in (0, 1) for micro in crops(cached, rank, 2, 1)(1)]
    for key in ("gt", "lq"):
        assert torch.equal(whole[key], alone[key])
        assert torch.equal(whole[key], torch.cat([micro[key] for micro in halves]))
    for micros in ([alone], halves):
        assert [name for micro in micros for name in micro["names"]] == whole["names"]
        assert [key for micro in micros for key in micro["keys"]] == whole["keys"]
    assert len(set(whole["keys"])) == len(whole["keys"])
    assert all(micro["total"] == whole["total"] for micro in halves)


def test_a_process_without_a_picture_gets_a_filler(pairs: PairSet, tmp_path: Path) -> None:
    store = open_store(pairs.pairs, 1, SCALE, tmp_path / "cache")
    plan = BatchPlan([(1, 1)] * 2, [1, 0], 4, 7)
    (micro,) = PairCrops(plan, store, Share(1, 2, 4), SCALE, 8)(0)
    (other,) = PairCrops(plan, store, Share(0, 2, 4), SCALE, 8)(0)
    assert sorted([float(micro["weights"].sum()), float(other["weights"].sum())]) == [0, 1]
    assert len(micro["gt"]) == len(other["gt"]) == 1


def test_readers_of_their_own_give_the_same(pairs: PairSet, tmp_path: Path) -> None:
    data = crops(open_store(pairs.pairs, 1, SCALE, tmp_path / "cache"))
    loaded = list(prefetch(data, 0, 3, torch.device("cpu"), 2))
    for step, micros in enumerate(loaded):
        assert torch.equal(micros[0]["gt"], data(step)[0]["gt"])


def test_the_cache_is_found_again_and_mended(pairs: PairSet, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    store = open_store(pairs.pairs, 1, SCALE, folder)
    made = Path(store.cache).stat().st_ino
    assert open_store(pairs.pairs, 1, SCALE, folder).cache == store.cache
    assert Path(store.cache).stat().st_ino == made
    content = bytearray(Path(store.cache).read_bytes())
    content[100] ^= 1
    Path(store.cache).write_bytes(content)
    mended = open_store(pairs.pairs, 1, SCALE, folder)
    assert np.array_equal(mended.picture(0, "gt", SCALE), pairs.pairs[0].read("gt"))
    assert len(list(folder.glob("*.pixels"))) == 1


def test_an_lmdb_gives_the_same_crops(pairs: PairSet, tmp_path: Path) -> None:
    for name in ("hr", "lr"):
        assert make_lmdb.main([str(tmp_path / name), str(tmp_path / f"{name}.lmdb")]) == 0
    stored = settings(
        tmp_path, io_backend="lmdb", dataroot_gt=[str(tmp_path / "hr.lmdb")], dataroot_lq=[str(tmp_path / "lr.lmdb")]
    )
    found = survey_pairs(stored)
    assert survey_pairs(replace(stored, io_backend="disk")) == found
    assert [pair.name for pair in found.pairs] == sorted(pair.name for pair in pairs.pairs)
    by_name = {pair.name: pair for pair in pairs.pairs}
    for pair in found.pairs:
        assert np.array_equal(pair.read("lq"), by_name[pair.name].read("lq"))
        assert pair.digest == by_name[pair.name].digest
    again = crops(open_store(found.pairs, 0, SCALE))(0)[0]
    assert torch.equal(again["gt"], crops(open_store(pairs.pairs, 0, SCALE))(0)[0]["gt"])


def test_a_broken_record_of_an_lmdb_is_named(pairs: PairSet, tmp_path: Path) -> None:
    target = tmp_path / "hr.lmdb"
    assert make_lmdb.main([str(tmp_path / "hr"), str(target)]) == 0
    lines = (target / "meta_info.txt").read_text(encoding="utf-8")
    (target / "meta_info.txt").write_text(lines + "gone.png (40,64,3) 1\n", encoding="utf-8")
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, dataroot_gt=[str(target)], dataroot_lq=()))
    assert caught.value.problems == (f"{target}: gone: the LMDB has no such record",)
    with pytest.raises(Refusal, match="no LMDB of pictures"):
        survey_pairs(settings(tmp_path, io_backend="lmdb"))
