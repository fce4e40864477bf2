"""The learning rates of a fine-tuning over time, of the UNet and of the text encoder."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.engine.everydream_schedules import RateCurve, rate_curve


@dataclass(frozen=True)
class FinetuneRates:
    """None is what is not trained."""

    unet: RateCurve | None
    text_encoder: RateCurve | None

    def warnings(self, total_steps: int) -> list[str]:
        """What to tell before the run."""
        curves = (("UNet", self.unet, ""), ("text encoder", self.text_encoder, "text_encoder_"))
        return [
            f"{name}: {said}"
            for name, curve, prefix in curves
            if curve and (said := curve.warning(total_steps, prefix))
        ]


def finetune_rates(preset: FinetunePreset, steps_per_epoch: int, pictures_per_step: int) -> FinetuneRates:
    """Curves over a run of max_epochs; a text encoder's key that is not set is as for the UNet."""
    return finetune_rates_of(preset, preset.max_epochs * steps_per_epoch, pictures_per_step)


def finetune_rates_of(preset: FinetunePreset, total_steps: int, pictures_per_step: int) -> FinetuneRates:
    """The same for a run of so many steps, as of a rated data set, whose epochs differ."""
    unet, text = preset.unet_rate(pictures_per_step), preset.text_encoder_rate(pictures_per_step)
    warmup, decay = preset.lr_warmup_steps, preset.lr_decay_steps
    own_warmup, own_decay = preset.text_encoder_lr_warmup_steps, preset.text_encoder_lr_decay_steps
    name = preset.text_encoder_scheduler
    return FinetuneRates(
        None if unet is None else rate_curve(preset.lr_scheduler, unet, total_steps, warmup, decay),
        None
        if text is None
        else rate_curve(name, text, total_steps, warmup if own_warmup < 0 else own_warmup, own_decay or decay),
    )
