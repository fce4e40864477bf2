"""The device that a person names on the command line, or the best there is."""

from __future__ import annotations

import torch

from lora_trainer.errors import Refusal


def chosen_device(name: str, option: str) -> torch.device:
    """`name` is cpu, cuda, cuda:1, mps ...; empty for cuda where there is one. Raises Refusal that names the option."""
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"{option} {wanted} cannot be used ({reason}); write cpu or leave it out") from error
    return device
