"""Slow networks written from the equations alone, to compare with: zero insertion, dense and grouped convolutions.

Everything works on a state dict in float64, without any module of the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
SQRT2 = math.sqrt(2)


def part(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def upfirdn(
    x: Tensor, kernel: Tensor | None, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """Literally: zeros after each sample, pad or crop, true convolution, every down-th sample."""
    b, c, h, w = x.shape
    zeros = torch.zeros(b, c, h * up, w * up, dtype=x.dtype)
    zeros[:, :, ::up, ::up] = x
    x = F.pad(zeros, (*pad, *pad))
    kernel = torch.ones(1, dtype=x.dtype) if kernel is None else kernel.to(x.dtype)
    planes = x.reshape(b * c, 1, *x.shape[2:])
    if kernel.ndim == 1:  # its outer product with itself
        planes = F.conv2d(F.conv2d(planes, kernel.flip(0)[None, None, None]), kernel.flip(0)[None, None, :, None])
    else:
        planes = F.conv2d(planes, kernel.flip(0, 1)[None, None])
    planes = planes * gain
    return planes.reshape(b, c, *planes.shape[2:])[:, :, ::down, ::down]


def act(x: Tensor, gain: float = SQRT2, clamp: float = 256.0) -> Tensor:
    return (torch.where(x > 0, x, 0.2 * x) * gain).clamp(-clamp, clamp)


def fc(x: Tensor, state: State, name: str, lr: float = 1.0, bends: bool = False) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    y = x @ (weight * lr / math.sqrt(weight.shape[1])).t() + bias * lr
    return torch.where(y > 0, y, 0.2 * y) * SQRT2 if bends else y


def mapping(z: Tensor | None, c: Tensor | None, state: State) -> Tensor:
    def unit(x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    parts = [] if z is None else [unit(z)]
    if c is not None:
        parts.append(unit(fc(c, state, "embed")))
    w = torch.cat(parts, 1)
    for index in range(sum(name.startswith("fc") and name.endswith("weight") for name in state)):
        w = fc(w, state, f"fc{index}", 0.01, bends=True)
    return w


def modulated(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, pad: int = 0, up: bool = False) -> Tensor:
    """Each sample convolved with its own weights."""
    results = []
    for image, style in zip(x, styles, strict=True):
        own = weight * style[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            b, h, w = image.shape
            zeros = torch.zeros(b, 2 * h - 1, 2 * w - 1, dtype=x.dtype)
            zeros[:, ::2, ::2] = image
            results.append(F.conv2d(zeros[None], own.flip(2, 3), padding=2))
        else:
            results.append(F.conv2d(image[None], own, padding=pad))
    return torch.cat(results)


def stylegan2(ws: Tensor, state: State, noise: str) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=ws.dtype) / 8
    x = state["b4.const"][None].repeat(len(ws), 1, 1, 1)
    image = None
    index, resolution = 0, 4
    while f"b{resolution}.conv1.weight" in state:
        for layer in ("conv0", "conv1"):
            own = part(state, f"b{resolution}.{layer}.")
            if not own:
                continue
            up = layer == "conv0"
            x = modulated(x, own["weight"], fc(ws[:, index], own, "affine"), True, 1, up)
            if up:
                x = upfirdn(x, taps, pad=(1, 1), gain=4)
            if noise == "const":
                x = x + own["noise_const"] * own["noise_strength"]
            x = act(x + own["bias"][:, None, None])
            index += 1
        own = part(state, f"b{resolution}.torgb.")
        styles = fc(ws[:, index], own, "affine") / math.sqrt(own["weight"].shape[1])
        colours = (modulated(x, own["weight"], styles, False) + own["bias"][:, None, None]).clamp(-256, 256)
        image = colours if image is None else upfirdn(image, taps, up=2, pad=(2, 1), gain=4) + colours
        resolution *= 2
    assert image is not None
    return image


def stylegan3_input(w: Tensor, state: State, size: int, rate: int, bandwidth: float) -> Tensor:
    t = fc(w, state, "affine")
    images = []
    for row in t:
        c, s, x, y = row / torch.hypot(row[0], row[1])
        rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=w.dtype)
        shift = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]], dtype=w.dtype)
        m = rotation @ shift @ state["transform"]
        phases = state["phases"] + state["freqs"] @ m[:2, 2]
        freqs = state["freqs"] @ m[:2, :2]
        amplitude = (1 - (freqs.norm(dim=1) - bandwidth) / (rate / 2 - bandwidth)).clamp(0, 1)
        half = 0.5 * size / rate
        theta = torch.tensor([[half, 0, 0], [0, half, 0]], dtype=w.dtype)
        grid = F.affine_grid(theta[None], [1, 1, size, size], align_corners=False)[0]  # (h, w, 2)
        waves = torch.sin(2 * math.pi * (grid @ freqs.t() + phases)) * amplitude
        images.append((waves @ (state["weight"] / math.sqrt(len(phases))).t()).permute(2, 0, 1))
    return torch.stack(images)


def stylegan3(ws: Tensor, state: State, schedule: list[dict]) -> Tensor:
    """`schedule` as the lists of the official networks: the input first, then 15 layers."""
    start, *layers = schedule
    x = stylegan3_input(ws[:, 0], part(state, "input."), start["size"], start["sampling_rate"], start["bandwidth"])
    for index, layer in enumerate(layers):
        own = part(state, f"{layer['name']}.")
        gain = 1 / own["magnitude_ema"].sqrt()
        styles, weight, last = fc(ws[:, index + 1], own, "affine"), own["weight"], index == len(layers) - 1
        if last:
            styles = styles / math.sqrt(weight[0].numel())
        else:
            weight = weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
            styles = styles / styles.square().mean().sqrt()  # over the whole batch, as published
        x = modulated(x, weight, styles, not last, layer["k"] - 1) * gain + own["bias"][:, None, None]
        front, back = layer["padding"][:2]
        x = upfirdn(x, own.get("up_filter"), layer["up"], pad=(front, back), gain=layer["up"] ** 2)
        x = x.clamp(-256, 256) if last else act(x)
        x = upfirdn(x, own.get("down_filter"), down=layer["down"])
    return x * 0.25


def discriminator(images: Tensor, c: Tensor | None, state: State, group: int) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=images.dtype) / 8
    x, resolution = images, images.shape[2]

    def conv(x: Tensor, own: State, pad: int, stride: int = 1) -> Tensor:
        weight = own["weight"] / math.sqrt(own["weight"][0].numel())
        return F.conv2d(x, weight, padding=pad, stride=stride)

    while resolution > 4:
        block = part(state, f"b{resolution}.")
        if "fromrgb.weight" in block:
            x = act(conv(x, part(block, "fromrgb."), 0) + block["fromrgb.bias"][:, None, None])
        half = math.sqrt(0.5)
        y = conv(upfirdn(x, taps, down=2, pad=(1, 1)), part(block, "skip."), 0) * half
        x = act(conv(x, part(block, "conv0."), 1) + block["conv0.bias"][:, None, None])
        x = conv(upfirdn(x, taps, pad=(2, 2)), part(block, "conv1."), 0, stride=2)
        x = act(x + block["conv1.bias"][:, None, None], SQRT2 * half, 256 * half) + y
        resolution //= 2
    n = len(x) // group
    deviations = torch.zeros(len(x), 1, 4, 4, dtype=x.dtype)
    for first in range(n):
        members = x[first::n]
        deviations[first::n] = (members.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat([x, deviations], 1)
    x = act(conv(x, part(state, "b4.conv."), 1) + state["b4.conv.bias"][:, None, None])
    x = fc(fc(x.flatten(1), state, "b4.fc", bends=True), state, "b4.out")
    if c is None:
        return x
    label = mapping(None, c, part(state, "mapping."))
    return (x * label).sum(1, keepdim=True) / math.sqrt(label.shape[1])


def creps(ws: Tensor, state: State, points: int) -> Tensor:
    """Matrices of each sample on channels, and one outer product after another."""

    def layer(x: Tensor, own: State, w: Tensor, bends: bool = True) -> Tensor:
        styles = fc(w, own, "affine") * (1 if bends else 1 / math.sqrt(own["weight"].shape[1]))
        y = torch.stack(
            [modulated(e[None, :, :, None], own["weight"][:, :, None, None], s[None], bends)[0, :, :, 0]
             for e, s in zip(x, styles, strict=True)]
        ) + own["bias"][:, None]  # fmt: skip
        return act(y) if bends else y.clamp(-256, 256)

    def decode(x: Tensor, own: State) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for index in range(4):
            x = fc(x, own, str(index), bends=True)
        return x.permute(0, 3, 1, 2)

    own = part(state, "b4.input.")
    channels = own["weight"].shape[1]
    freqs = own["freqs"].view(channels // 2, 8)
    places = torch.linspace(0, 1, points).to(ws.dtype)
    x = torch.zeros(len(ws), channels, points, 16, dtype=ws.dtype)
    for line in range(2):
        phase = 2 * math.pi * freqs[:, None, :] * places[:, None]
        x[:, : channels // 2, :, line * 8 : line * 8 + 8] = phase.sin()
        x[:, channels // 2 :, :, line * 8 : line * 8 + 8] = phase.cos()
    x = x * own["weight"] * fc(ws[:, 0], own, "affine").view(-1, channels, 1, 16) / math.sqrt(channels)
    x = layer(x.flatten(2), part(state, "b4.fc1."), ws[:, 1])
    lines = torch.zeros(len(ws), 32, points, 16, dtype=ws.dtype)
    feature, index, resolution = None, 2, 8
    while f"b{resolution}.fc0.weight" in state:
        block = part(state, f"b{resolution}.")
        x = layer(layer(x, part(block, "fc0."), ws[:, index]), part(block, "fc1."), ws[:, index + 1])
        index += 2
        lines = lines + layer(x, part(block, "tores."), ws[:, index], bends=False).view_as(lines)
        half = lines * math.sqrt(0.5)
        composed = sum(half[..., r][:, :, :, None] * half[..., 8 + r][:, :, None, :] for r in range(8))
        feature = composed if feature is None else decode(feature, part(state, f"decoder_{resolution}.")) + composed
        resolution *= 2
    feature = decode(feature, part(state, "decoder_last."))
    image = fc(feature.permute(0, 2, 3, 1), state, "decoder_img").permute(0, 3, 1, 2)
    x = feature.flatten(2)
    for name in ("block0.", "block1."):
        block, last = part(state, name), ws[:, -1]
        x = layer(layer(x, part(block, "fc0."), last), part(block, "fc1."), last)
        image = image + layer(x, part(block, "tores."), last, bends=False).view_as(image)
    return image
