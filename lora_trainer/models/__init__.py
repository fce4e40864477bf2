"""Base models, LoRA layers and the formats of their files: one file an idea."""

import logging

# Importing diffusers imports it, and it would then recommend a package of 4-bit kernels that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
