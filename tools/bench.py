"""Measure a training against a plain loop on the same machine in the same run: pictures per second of CPU time.

python -m tools.bench
It trains SPAN_S 2x (batch 2, 32 px) on the photographs that lie here, once by the trainer and once by a loop as a
script has it: decode the picture for every crop, step, average weight by weight, ask for the loss in every step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "presets" / "photos" / "2_photo"
BATCH, SIDE_PX, SCALE, SEED = 2, 32, 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="steps of each loop (default 60)")
    parser.add_argument("--network", default="span_s", help="the architecture (default span_s)")
    options = parser.parse_args(arguments)
    plain = _plain_loop(options.network, options.steps)
    ours = _trainer(options.network, options.steps)
    print(f"{options.network} {SCALE}x, batch {BATCH}, {SIDE_PX} px, {options.steps} steps, one thread")
    print(f"a plain loop:  {plain:.2f} pictures per CPU second")
    print(f"the trainer:   {ours:.2f} pictures per CPU second ({ours / plain:.2f} times)")
    return 0


def _trainer(network: str, steps: int) -> float:
    """Without the start: the difference between a long and a short run."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = (_run(network, count, Path(folder) / str(count)) for count in (steps, 2 * steps))
    return steps * BATCH / max(1e-9, long - short)


def _run(network: str, steps: int, folder: Path) -> float:
    """CPU seconds of a whole run in a process of its own."""
    preset = {
        "trainer": "super_resolution", "output_dir": str(folder), "output_name": "bench", "seed": SEED, "scale": SCALE,
        "network_g": {"type": network}, "dataroot_gt": str(PHOTOS), "lq_size": SIDE_PX, "batch_size_per_gpu": BATCH,
        "num_worker_per_gpu": 0, "total_iter": steps, "losses": [{"type": "charbonnierloss"}], "log_with": "none",
        "optim_g": {"type": "AdamW", "lr": 2e-4, "betas": [0.9, 0.99]},
        "scheduler": {"type": "MultiStepLR", "milestones": [steps]},
    }  # fmt: skip
    folder.mkdir(parents=True)
    path = folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "lora_trainer", "--preset", str(path)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _plain_loop(network: str, steps: int) -> float:
    import torch

    from lora_trainer.models.sr_networks import build_network

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    module = build_network(network, SCALE, {}).module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-4, betas=(0.9, 0.99), fused=False, foreach=False)
    averages = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    crops = _crops()
    total = 0.0

    def step() -> float:
        lq, gt = next(crops)
        loss = ((module(lq) - gt) ** 2 + 1e-12).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, weight in module.named_parameters():
            averages[name] = 0.999 * averages[name] + 0.001 * weight.detach()
        return loss.item()

    for _ in range(3):
        step()
    began = time.process_time()
    for _ in range(steps):
        total += step()
    return steps * BATCH / (time.process_time() - began)


def _crops() -> Iterator[tuple[Any, Any]]:
    import numpy as np
    import torch
    from PIL import Image

    draw = np.random.default_rng(SEED)
    files = sorted(PHOTOS.glob("*.jpg"))
    side = SIDE_PX * SCALE
    while True:
        pairs = []
        for _ in range(BATCH):
            with Image.open(files[draw.integers(len(files))]) as image:
                pixels = np.array(image.convert("RGB"))
            top, left = (int(draw.integers(0, size - side + 1)) for size in pixels.shape[:2])
            gt = Image.fromarray(pixels[top : top + side, left : left + side])
            pairs.append((np.array(gt.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)), np.array(gt)))
        stacked = [np.stack(each).transpose(0, 3, 1, 2) for each in zip(*pairs, strict=True)]
        lq, gt_batch = (torch.from_numpy(np.ascontiguousarray(each)).float() / 255 for each in stacked)
        yield lq, gt_batch


if __name__ == "__main__":
    sys.exit(main())
