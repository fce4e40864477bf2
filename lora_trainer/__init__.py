"""Train LoRAs, diffusion models, upscalers and GANs from JSON presets."""

__version__ = "0.1.0"
