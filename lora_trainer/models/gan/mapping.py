"""The mapping network: a normal latent z and a class become the intermediate latent w of every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_trainer.models.gan.fully_connected import FullyConnected
from lora_trainer.models.gan.running_statistics import Averaging

LR_MULTIPLIER = 0.01


def normalized(x: Tensor) -> Tensor:
    """Scale each row to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(Averaging):
    """z (b, z_dim), labels c (b, c_dim) -> ws (b, num_ws, w_dim); without num_ws (b, w_dim).

    z_dim or c_dim may be 0, not both. `w_avg`, the mean of w, is kept only with num_ws: a discriminator needs none.
    """

    statistic = "w_avg"
    w_avg: Tensor

    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, num_ws: int | None, num_layers: int = 8, *, embed_dim: int = 0
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        self.decay = 0.998
        embed_dim = (embed_dim or w_dim) if c_dim else 0
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_dim)
        for index in range(num_layers):
            width = z_dim + embed_dim if index == 0 else w_dim
            layer = FullyConnected(width, w_dim, bends=True, lr_multiplier=LR_MULTIPLIER)
            self.add_module(f"fc{index}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        parts = []
        if self.z_dim and z is not None:
            parts.append(normalized(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z))
        if self.c_dim:
            if c is None:
                raise ValueError(f"the network is conditional: give labels (b, {self.c_dim})")
            parts.append(normalized(self.embed(c.to(self.embed.weight.dtype))))
        w = torch.cat(parts, 1)
        for index in range(self.num_layers):
            w = self.get_submodule(f"fc{index}")(w)
        if self.num_ws is None:
            return w
        if update_emas:
            self.observe(w.detach().mean(0), len(w))
        ws = w[:, None].expand(-1, self.num_ws, -1)
        return ws if truncation_psi == 1 else self._truncated(ws, truncation_psi, truncation_cutoff)

    def _truncated(self, ws: Tensor, psi: float, cutoff: int | None) -> Tensor:
        """Towards the mean, in the first `cutoff` layers."""
        near = torch.lerp(self.w_avg.to(ws.dtype), ws, psi)
        return near if cutoff is None else torch.cat([near[:, :cutoff], ws[:, cutoff:]], 1)


class Generator(nn.Module):
    """z, labels -> images (b, channels, resolution, resolution), about -1..1: `mapping`, then `synthesis`."""

    num_ws: int

    def __init__(self, synthesis: nn.Module, z_dim: int, c_dim: int, w_dim: int, map_depth: int) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.synthesis = synthesis
        num_ws = synthesis.num_ws
        assert isinstance(num_ws, int)
        self.num_ws = num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, num_ws, map_depth)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        **synthesis: object,
    ) -> Tensor:
        """Further options are those of the synthesis network's forward, such as `force_fp32`."""
        ws = self.mapping(
            z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, update_emas=update_emas
        )
        images: Tensor = self.synthesis(ws, update_emas=update_emas, **synthesis)
        return images
