"""Adan with Schedule-Free averaging, which no package offers in a form that resumes exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdanScheduleFree(torch.optim.Optimizer):
    """Adan (Xie et al. 2022) inside Schedule-Free (Defazio et al. 2024), as AdamWScheduleFree is for AdamW.

    `betas` are Adan's as PyTorch's users write them. The first is the share of the average in the point where the
    gradient is taken, in place of Adan's momentum; the others smooth the gradient's change and its square. The weights
    are at that point while training, and at the average x after `eval()`. Weight decay is decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        if len(betas) != 3 or not all(0.0 <= beta < 1.0 for beta in betas) or betas[0] == 0.0:
            raise ValueError(f"betas must be three numbers above 0 and below 1, found {betas}")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "warmup_steps": warmup_steps, "r": r,
            "weight_lr_power": weight_lr_power, "k": 0, "lr_max": 0.0, "weight_sum": 0.0, "train_mode": False,
        }  # fmt: skip
        super().__init__(params, defaults)

    def train(self) -> None:
        """Put the weights where gradients are taken."""
        self._move(True)

    def eval(self) -> None:
        """Put the weights at their average."""
        self._move(False)

    @torch.no_grad()
    def _move(self, training: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] == training:
                continue
            group["train_mode"] = training
            weights = [weight for weight in group["params"] if "z" in self.state[weight]]
            if weights:
                share = 1.0 - group["betas"][0] if training else 1.0 - 1.0 / group["betas"][0]
                torch._foreach_lerp_(weights, [self.state[weight]["z"] for weight in weights], share)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("AdanScheduleFree steps in train mode only: call train() before")
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights)
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        k = group["k"]
        lr = group["lr"] * min(1.0, (k + 1) / max(1, group["warmup_steps"]))
        group["k"], group["lr_max"] = k + 1, max(lr, group["lr_max"])
        weight = (k + 1) ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
        group["weight_sum"] += weight
        share = weight / group["weight_sum"] if group["weight_sum"] else 0.0

        updates = self._updates(group, weights)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        z = [self.state[each]["z"] for each in weights]
        # y = (1 - beta) z + beta x is the weight itself, so x needs no memory: the step of x and z, put in terms of y
        torch._foreach_lerp_(weights, z, share)
        torch._foreach_add_(weights, updates, alpha=lr * (group["betas"][0] * (1.0 - share) - 1.0))
        torch._foreach_sub_(z, updates, alpha=lr)

    def _updates(self, group: dict[str, Any], weights: list[Tensor]) -> list[Tensor]:
        """Adan's direction for a learning rate of one."""
        _, beta2, beta3 = group["betas"]
        gradients: list[Tensor] = []
        for weight in weights:
            assert weight.grad is not None
            gradients.append(weight.grad)
            if not self.state[weight]:
                self.state[weight] = {
                    "z": weight.clone(memory_format=torch.preserve_format),
                    "exp_avg_diff": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                    "previous_grad": weight.grad.clone(),
                }
        changes, squares, previous = (
            [self.state[weight][key] for weight in weights] for key in ("exp_avg_diff", "exp_avg_sq", "previous_grad")
        )
        moves = list(torch._foreach_sub(gradients, previous))
        torch._foreach_copy_(previous, gradients)
        torch._foreach_lerp_(changes, moves, 1.0 - beta2)
        torch._foreach_mul_(moves, beta2)
        torch._foreach_add_(moves, gradients)
        torch._foreach_mul_(squares, beta3)
        torch._foreach_addcmul_(squares, moves, moves, 1.0 - beta3)

        scales = list(torch._foreach_div(squares, 1.0 - beta3 ** group["k"]))
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, group["eps"])
        updates = list(torch._foreach_mul(changes, beta2 / (1.0 - beta2 ** group["k"])))
        torch._foreach_add_(updates, gradients)
        torch._foreach_div_(updates, scales)
        return updates
