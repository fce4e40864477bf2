"""The plain compositions that the GAN trainer is measured against give what the trainer gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lora_trainer.losses.gan import r1_penalty
from lora_trainer.models.gan.filtering import factors_of, plan_resample, resample
from tools.bench_gan import (
    FUSED,
    SIZES,
    WAYS,
    Setting,
    Size,
    Training,
    main,
    of_a_step,
    plain_r1,
    plain_resample,
    ways_of,
    write_images,
)
from tools.benches.lines import machine_of, parser_of

pytestmark = pytest.mark.usefixtures("no_console")


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize(
    "up, down, padding", [(4, 1, (9, 7, 8, 6)), (1, 2, (3, 2, 3, 2)), (2, 2, (-1, 4, 5, -2)), (1, 1, (0, 0, 0, 0))]
)
@pytest.mark.parametrize("shape", [(6,), (5, 5)])
def test_the_plain_resampling_is_the_same_map(
    shape: tuple[int, ...], up: int, down: int, padding: tuple[int, int, int, int], two_passes: bool
) -> None:
    draws = torch.Generator().manual_seed(3)
    factors = factors_of(torch.randn(shape, generator=draws))
    x = torch.randn(2, 3, 13, 11, generator=draws, dtype=torch.float64)
    plan = plan_resample(factors, (13, 11), up=up, down=down, padding=padding, gain=4.0)
    torch.testing.assert_close(plain_resample(x, plan, two_passes), resample(x, plan))


def test_the_plain_r1_is_the_same_number() -> None:
    images = torch.randn(3, 1, 4, 4, requires_grad=True)
    weight = torch.randn(16, requires_grad=True)
    logits = (images.flatten(1).square() @ weight)[:, None]
    torch.testing.assert_close(plain_r1([weight])(logits, images, 2.0), r1_penalty(logits, images, 2.0))


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_every_way_gives_the_losses_and_gradients_of_the_trainer(cfg: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 8 if cfg == "stylegan2" else 16)
    machine = machine_of(parser_of("bench", "", SIZES, batch=4, rounds=1).parse_args([]))
    setting = Setting(cfg, Size(16, 32, 2), 4, machine, tmp_path)
    trainings = {name: Training(setting, way) for name, way in ways_of(setting).items()}
    for phase, every in trainings["trainer"].every().items():
        values = {name: training.run(phase, training.data()) for name, training in trainings.items()}
        trainer = values.pop("trainer")
        assert every == {"G": 1, "D": 1, "D_reg": 16, "G_reg": 4}[phase]
        assert (len(values), trainer.keys()) == (2, {"loss", "grad_norm"})
        for other in values.values():
            assert other == pytest.approx(trainer, rel=1e-3)


def test_a_penalty_counts_for_the_steps_in_which_it_runs() -> None:
    assert of_a_step({"D": [1.0, 2.0], "D_reg": [16.0, 32.0]}, {"D": 1, "D_reg": 16}) == [2.0, 4.0]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SIZES, "tiny", Size(16, 32, 2))  # type: ignore[arg-type]
    monkeypatch.setattr("tools.benches.measuring.give_back", lambda: None)  # which takes a second
    assert main(["--batch", "4", "--rounds", "2", "--cfg", "stylegan2", "--device", "cpu"]) == 0
    *lines, told, head, _, _, _ = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["way"] for row in rows] == ["plain", "two passes", "trainer"]
    for row in rows:
        assert row["s_kimg"] == pytest.approx(row["seconds"] / 4 * 1000)
        assert row["phase_seconds"].keys() == {"G", "G_reg", "D", "D_reg"}
        assert row["tflop"] == rows[0]["tflop"] > 0
    assert told.startswith("stylegan2, tiny (16 px, cbase 32, cmax 2), batch 4, cpu: ")
    assert head.split()[:2] == ["s/kimg", "images/s"]


def test_the_kernel_is_measured_where_there_is_one(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 16)
    machine = machine_of(parser_of("bench", "", SIZES, batch=4, rounds=1).parse_args([]))
    setting = Setting("stylegan3-t", Size(16, 32, 2), 4, machine, tmp_path)
    assert FUSED not in ways_of(setting)
    card = SimpleNamespace(device=torch.device("cuda"))
    assert FUSED in ways_of(replace(setting, machine=card))
    assert FUSED not in ways_of(replace(setting, machine=card, cfg="stylegan2"))
    assert not Training(setting, WAYS[FUSED]).is_what_it_says, "on a CPU the trainer goes on without"
    assert Training(setting, WAYS["trainer"]).is_what_it_says
