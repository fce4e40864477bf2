"""How strongly each loss pulls at chosen layers: the lengths of its gradients by itself, for the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lora_trainer.engine.phase import Batch
from lora_trainer.engine.precision import Precision
from lora_trainer.errors import Refusal
from lora_trainer.models.restoration.checkpoint import lora_parameters
from lora_trainer.trainers.restoration.objective import RestorationObjective

LABELS = {"mse": "l2"}  # where HYPIR's names differ from those of the losses
RAISED = 2.0**12  # in fp16, so that small gradients do not vanish


@dataclass
class GradientLengths:
    """Measured before the step's own passes, every so many steps and in the first one; 0 is never.

    One backward pass for each loss, over the first micro-batch of the process.
    """

    objective: RestorationObjective
    layers: Sequence[str]  # each by its name or by the last parts of it
    every: int
    precision: Precision
    found: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises Refusal for a name that fits no layer with a LoRA."""
        unet = self.objective.networks.unet
        strange = [layer for layer in self.layers if self.every and not _weights_of(unet, layer)]
        if strange:
            cure = "write the name of a layer that lora_modules covers, such as conv_out, or log_grad_steps 0"
            raise Refusal(*(f"log_grad_modules: no layer with a LoRA is named {layer}; {cure}" for layer in strange))

    def due(self, step: int) -> bool:
        return self.every > 0 and (step == 0 or (step + 1) % self.every == 0)

    def measure(self, unet: nn.Module, micro: Batch) -> None:
        """Within `collecting_gradients`, so that the LoRA requires them."""
        weights = {layer: _weights_of(unet, layer) for layer in self.layers}
        chosen = list({id(weight): weight for found in weights.values() for weight in found}.values())
        raised = RAISED if self.precision.name == "fp16" else 1.0
        with torch.enable_grad(), self.precision.autocast():
            terms = self.objective.terms(self.objective.output(unet, micro), micro)
        for name, term in terms.items():
            gradients = torch.autograd.grad(term.mean() * raised, chosen, retain_graph=True, allow_unused=True)
            lengths = {
                id(weight): gradient / raised
                for weight, gradient in zip(chosen, gradients, strict=True)
                if gradient is not None
            }
            for layer, found in weights.items():
                pulled = [lengths[id(weight)] for weight in found if id(weight) in lengths]
                length = torch.nn.utils.get_total_norm(pulled)
                self.found[f"grad_norm/{layer}_{LABELS.get(name, name)}"] = length

    def take(self) -> dict[str, float]:
        """What was measured in this step; waits for the device where there is something."""
        found, self.found = self.found, {}
        return {name: float(length) for name, length in found.items()}


def _weights_of(unet: nn.Module, layer: str) -> list[nn.Parameter]:
    paths = ((name.partition(".lora_")[0], weight) for name, weight in lora_parameters(unet).items())
    return [weight for path, weight in paths if path == layer or path.endswith(f".{layer}")]
