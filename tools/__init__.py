"""Commands beside the package: `python -m tools.NAME --help`."""

import lora_trainer  # noqa: F401 - lets torchvision be imported beside a CPU-only PyTorch
