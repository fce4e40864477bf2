"""The keys of a finetune preset about the noise that is added, the loss that is taken, and the averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from lora_trainer.config.kinds import AnyCase, NotNegative, Number, PathText, Positive, Share, Switch, Whole
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class NoiseAndLoss:
    """Noise and timesteps, then the loss. snr is the signal-to-noise ratio at a timestep."""

    loss_type: Annotated[Literal["mse_huber", "mse", "huber", "huber_mse"], AnyCase()] = setting(
        "mse_huber",
        "How the difference between target and prediction counts: squared, by Huber's loss, or blended, mse_huber from "
        "squared without noise to Huber's at most noise, and huber_mse the other way round.",
    )
    min_snr_gamma: NotNegative = setting(
        0.0,
        "Weighs a sample with min(snr, gamma) / snr, or min(snr, gamma) / (snr + 1) for a model that predicts v. 0 is "
        "off; 5 is usual.",
    )
    enable_zero_terminal_snr: Switch = setting(
        False,
        "Rescale the noise schedule so that the last timestep is noise alone. For models that predict v; a base model "
        "that says so itself turns it on.",
    )
    zero_frequency_noise_ratio: Annotated[Number, Ge(0), Le(0.15)] = setting(
        0.02,
        "Adds one normal draw per sample and channel, times this, to the noise, so that overall brightness is learnt; "
        "0 is off.",
    )
    pyramid_noise_discount: NotNegative = setting(
        0.0,
        "Adds noise of ever lower resolution, up to ten levels, of which level i counts discount ** i, and divides by "
        "the standard deviation of the sum; 0 is off.",
    )
    embedding_perturbation: NotNegative = setting(
        0.0, "Adds normal noise of this, divided by the square root of its width, to the encoded caption; 0 is off."
    )
    timestep_start: Annotated[Whole, Ge(0), Le(999)] = setting(0, "The lowest timestep drawn; 0 is nearly no noise.")
    timestep_end: Annotated[Whole, Ge(1), Le(1000)] = setting(
        1000, "Timesteps are drawn below this one; 1000 is all noise."
    )


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """A second model: the average of the weights on the way, saved beside the trained one with the ending _ema."""

    ema_decay_rate: Share = setting(
        0.0, "The share of the average that stays at each of its updates, such as 0.9999; 0 makes no average."
    )
    ema_strength_target: Share = setting(
        0.0,
        "The share of the first weights that is left in the average in the end; the decay follows from it and comes "
        "before ema_decay_rate. 0 is not set.",
    )
    ema_update_interval: Positive = setting(500, "Steps between two updates of the average.")
    ema_device: Annotated[Literal["cpu", "cuda"], AnyCase()] = setting(
        "cpu", "Where the average lies: cpu spares the GPU's memory, cuda is faster.", may_change=True
    )
    ema_sample_nonema_model: Switch = setting(
        False, "Draw the previews with the trained model, even where there is an average.", may_change=True
    )
    ema_sample_ema_model: Switch = setting(
        False, "Draw the previews with the average; with ema_sample_nonema_model, with both.", may_change=True
    )
    ema_resume_model: PathText = setting(
        "",
        "A model to begin the average with, in place of resume_ckpt's weights; findlast takes the newest average in "
        "logdir.",
    )
