"""The keys of a finetune preset that trains a VAE instead of the UNet and the text encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MultipleOf

from lora_trainer.config.kinds import Count, NotNegative, Share, Switch, Whole
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class VaeTraining:
    """The VAE: what it sees, and what it is to do with it. Differences of pictures count from 0 to 1."""

    train_vae: Switch = setting(
        False,
        "Train the VAE of resume_ckpt, and leave its UNet and text encoders as they are. The captions play no part; "
        "the files are whole models with the new VAE.",
    )
    vae_decoder_only: Switch = setting(
        False,
        "Leave the encoder as it is. Latents stay the same then, so that the UNet goes on fitting: for the VAE of a "
        "model that is trained already.",
    )
    vae_crop_px: Annotated[Whole, Ge(0), Le(4096), MultipleOf(8)] = setting(
        256, "Each time a part of the picture with sides of at most so many pixels is seen; 0 is all of it."
    )
    vae_hue_p: Share = setting(
        0.5,
        "The probability that all hues of a picture are turned by an angle, any one: colours that are rare in the "
        "pictures, such as green and purple, would not be learnt otherwise.",
    )
    vae_l1_weight: NotNegative = setting(1.0, "How much the mean absolute difference of the pictures counts.")
    vae_mse_weight: NotNegative = setting(0.5, "How much the mean squared difference counts.")
    vae_gradient_weight: NotNegative = setting(
        0.5, "How much the absolute difference of the steps from pixel to pixel counts: edges."
    )
    vae_pooled_weight: NotNegative = setting(
        0.5, "How much the absolute difference of the means of 4 x 4 pixels counts: large forms."
    )
    vae_chroma_weight: NotNegative = setting(
        4.0, "How much the absolute difference of Cb and Cr, averaged over 4 x 4 pixels, counts: colours."
    )
    vae_kl_weight: NotNegative = setting(
        0.002, "How much the divergence of the latents from a normal distribution counts, per number of theirs."
    )
    vae_kl_warmup_steps: Count = setting(0, "Steps in which vae_kl_weight rises from 0 along a line.")
    vae_sample_posterior: Switch = setting(
        True,
        "Decode a draw from the distribution that the encoder gives. Otherwise its mean is decoded, only means count "
        "for vae_kl_weight, and the VAE that is written gives latents without noise.",
    )
    vae_unit_latents: Switch = setting(
        True,
        "Write the VAE so that its latents have mean 0 and, times its scaling_factor, standard deviation 1 in each "
        "channel, as measured on the trained pictures. What it makes of pictures stays the same.",
        may_change=True,
    )
