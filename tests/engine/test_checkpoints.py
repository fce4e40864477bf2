"""Checkpoints survive damage, kills and full disks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lora_trainer.engine.checkpoints import CheckpointFolder, differences

REPOSITORY = Path(__file__).parents[2]


def state(step: int) -> dict[str, object]:
    return {"step": step, "weight": torch.full((200,), float(step)), "window": {"sums": {"loss": 0.5}}}


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints" / "ein lauf ü", keep=2)


def test_the_newest_is_found_and_read_back(checkpoints: CheckpointFolder) -> None:
    assert checkpoints.newest() is None
    for step in (3, 7, 12):
        checkpoints.save(step, state(step), {"fingerprint": {"unet_lr": 1e-4}})
    found = checkpoints.newest()
    assert found is not None
    assert (found.step, found.folder.name) == (12, "step-00000012")
    assert found.manifest["fingerprint"] == {"unet_lr": 1e-4}
    loaded = found.load()
    assert torch.equal(loaded["weight"], torch.full((200,), 12.0))
    assert loaded["window"] == {"sums": {"loss": 0.5}}
    assert sorted(folder.name for folder in checkpoints.folder.iterdir()) == ["step-00000007", "step-00000012"]


def truncate(folder: Path) -> None:
    data = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(data[:-10])


def flip(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def forget(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def garble(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1, "step"', encoding="utf-8")


@pytest.mark.parametrize("damage", [truncate, flip, forget, garble])
def test_a_damaged_one_is_passed_over_and_can_be_saved_again(checkpoints: CheckpointFolder, damage: object) -> None:
    for step in (4, 8):
        checkpoints.save(step, state(step), {})
    damage(checkpoints.folder / "step-00000008")  # type: ignore[operator]
    found = checkpoints.newest()
    assert found is not None
    assert found.step == 4
    checkpoints.save(8, state(8), {})
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 8
    assert torch.equal(newest.load()["weight"], torch.full((200,), 8.0))


@pytest.mark.parametrize("damage", [truncate, flip, forget, garble])
def test_a_damaged_one_never_outlives_the_whole_ones_before_it(tmp_path: Path, damage: object) -> None:
    """A run that went on from step 4, behind the damaged step 8, saves step 6: the whole one is kept."""
    two = CheckpointFolder(tmp_path / "run", keep=2)
    for step in (4, 8):
        two.save(step, state(step), {})
    damage(two.folder / "step-00000008")  # type: ignore[operator]
    CheckpointFolder(two.folder, keep=1).save(6, state(6), {})
    assert [folder.name for folder in two.folder.iterdir()] == ["step-00000006"]
    newest = two.newest()
    assert newest is not None
    assert newest.step == 6


def test_a_step_that_is_there_is_kept(checkpoints: CheckpointFolder) -> None:
    checkpoints.save(5, state(5), {})
    before = (checkpoints.folder / "step-00000005" / "state.pt").stat().st_mtime_ns
    checkpoints.save(5, state(5), {})
    assert (checkpoints.folder / "step-00000005" / "state.pt").stat().st_mtime_ns == before


def test_what_a_kill_left_is_swept_and_clear_leaves_nothing(checkpoints: CheckpointFolder) -> None:
    checkpoints.save(1, state(1), {})
    (checkpoints.folder / ".tmp-step-00000002").mkdir()
    checkpoints.save(3, state(3), {})
    assert not list(checkpoints.folder.glob(".tmp-*"))
    checkpoints.clear()
    assert not checkpoints.folder.parent.exists()


SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from lora_trainer.engine.checkpoints import CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]))
found = folder.newest()
for step in range(found.step + 1 if found else 1, 10**6):
    folder.save(step, {"step": step, "weight": torch.full((300_000,), float(step))}, {})
    print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_newest_whole(tmp_path: Path) -> None:
    folder, newest = tmp_path / "killed", 0
    for kill in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()  # it has saved once
        time.sleep(0.013 * (kill + 1))
        process.kill()
        process.communicate()
        found = CheckpointFolder(folder).newest()
        assert found is not None
        assert found.step > newest
        newest = found.step
        loaded = found.load()
        assert torch.equal(loaded["weight"], torch.full((300_000,), float(newest)))


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from lora_trainer.engine.checkpoints import CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]))
folder.save(1, {"weight": torch.zeros(10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    folder.save(2, {"weight": torch.zeros(10**6)}, {})
except (OSError, RuntimeError) as error:
    print("refused")
print(folder.newest().step, [path.name for path in folder.folder.iterdir()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + FULL_DISK
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "full")], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["refused", "1 ['step-00000001']"]


def test_differences_name_the_key_and_both_values() -> None:
    saved, current = {"unet_lr": 1e-4, "seed": 1, "vae": "a"}, {"unet_lr": 2e-4, "seed": 1, "flip_aug": True}
    assert differences(saved, current) == [
        "flip_aug was not set and is now true",
        "unet_lr was 0.0001 and is now 0.0002",
        'vae was "a" and is now not set',
    ]
