"""Loss weights by hand, in their order, and finite at every timestep."""

from __future__ import annotations

import itertools

import pytest
import torch

from lora_trainer.losses.noise_schedule import alphas_cumprod, snr_table
from lora_trainer.losses.weighting import Weighting, debiased, min_snr, v_scale, weighted

SNR = torch.tensor([2000.0, 10.0, 4.0, 1.0])
ALL = torch.arange(4)


def weights(**keys: float | bool) -> list[float]:
    return weighted(torch.ones(4), ALL, SNR, Weighting(**keys)).tolist()  # type: ignore[arg-type]


def test_no_weights() -> None:
    assert weights() == [1, 1, 1, 1]


def test_min_snr() -> None:
    assert weights(min_snr_gamma=5) == pytest.approx([5 / 2000, 0.5, 1, 1])
    assert weights(min_snr_gamma=5, v_prediction=True) == pytest.approx([5 / 2001, 5 / 11, 4 / 5, 1 / 2])


def test_debiased() -> None:
    assert weights(debiased_estimation_loss=True) == pytest.approx([1000**-0.5, 10**-0.5, 0.5, 1])
    expected = [1 / 1001, 1 / 11, 1 / 5, 1 / 2]
    assert weights(debiased_estimation_loss=True, v_prediction=True) == pytest.approx(expected)


def test_scale_v() -> None:
    expected = [1000 / 1001, 10 / 11, 4 / 5, 1 / 2]
    assert weights(scale_v_pred_loss_like_noise_pred=True, v_prediction=True) == pytest.approx(expected)


def test_v_pred_like() -> None:
    expected = [1 + 0.1 * 1001 / 1000, 1 + 0.1 * 11 / 10, 1 + 0.1 * 5 / 4, 1 + 0.1 * 2]
    assert weights(v_pred_like_loss=0.1) == pytest.approx(expected)


def test_all_together_multiply() -> None:
    expected = [0.5 * (1 + 0.1 * 11 / 10) / 10**0.5, 1 * (1 + 0.1 * 5 / 4) / 2]
    actual = weights(min_snr_gamma=5, v_pred_like_loss=0.1, debiased_estimation_loss=True)
    assert actual[1:3] == pytest.approx(expected)


def test_each_sample_gets_the_weight_of_its_timestep() -> None:
    losses = weighted(torch.tensor([2.0, 3.0]), torch.tensor([2, 1]), SNR, Weighting(debiased_estimation_loss=True))
    assert losses.tolist() == pytest.approx([2 / 2, 3 / 10**0.5])


def test_weights_that_contradict_the_prediction() -> None:
    with pytest.raises(ValueError, match="v_pred_like_loss is for noise prediction"):
        Weighting(v_prediction=True, v_pred_like_loss=0.5)
    with pytest.raises(ValueError, match="scale_v_pred_loss_like_noise_pred is for v-prediction"):
        Weighting(scale_v_pred_loss_like_noise_pred=True)


def test_the_plain_schedule_is_not_touched_by_the_lower_bound() -> None:
    table = snr_table(alphas_cumprod())
    steps = torch.arange(1000)
    weighting = Weighting(debiased_estimation_loss=True)
    expected = torch.rsqrt(table.clamp(max=1000))
    assert torch.equal(weighted(torch.ones(1000), steps, table, weighting), expected)


@pytest.mark.parametrize(("debias", "gamma", "v_like"), list(itertools.product([False, True], [0.0, 5.0], [0.0, 0.5])))
@pytest.mark.parametrize("v_prediction", [False, True])
def test_zero_terminal_snr_stays_finite(v_prediction: bool, debias: bool, gamma: float, v_like: float) -> None:
    table = snr_table(alphas_cumprod(zero_terminal_snr=True))
    assert table[-1] == 0
    weighting = Weighting(
        v_prediction=v_prediction,
        min_snr_gamma=gamma,
        v_pred_like_loss=0.0 if v_prediction else v_like,
        scale_v_pred_loss_like_noise_pred=v_prediction,
        debiased_estimation_loss=debias,
    )
    losses = weighted(torch.ones(1000), torch.arange(1000), table, weighting)
    assert losses.isfinite().all()
    assert losses.min() > 0
    assert losses.max() < (15 * 220 if debias and v_like else 220)


def test_formulas_at_their_bounds() -> None:
    snr = torch.tensor([5.0, 1e6])
    assert min_snr(snr, 5.0, v_prediction=False).tolist() == pytest.approx([1.0, 5e-6])
    assert debiased(snr, v_prediction=True).tolist() == pytest.approx([1 / 6, 1 / 1001])
    assert v_scale(snr).tolist() == pytest.approx([5 / 6, 1000 / 1001])
