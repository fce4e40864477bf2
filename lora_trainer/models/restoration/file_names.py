"""How the files of a restorer are called, before .pth and .safetensors.

Imports no PyTorch.
"""

from __future__ import annotations

PLAIN, AVERAGED = "state_dict", "ema_state_dict"  # HYPIR's own; the second is for the moving average
