"""Train LoRAs, diffusion models, upscalers, GANs and restorers from JSON presets."""

from lora_trainer.torchvision_operators import declare_before_import

__version__ = "0.1.0"

declare_before_import()
