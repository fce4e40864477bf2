"""Commands beside the package: `python -m tools.NAME --help`."""

import lora_trainer.models  # noqa: F401 - torchvision beside a CPU-only PyTorch, and no advice of bitsandbytes
