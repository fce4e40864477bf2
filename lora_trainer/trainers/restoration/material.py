"""What the report of a restorer's training tells of it."""

from __future__ import annotations

from collections import Counter

from lora_trainer.config.restoration_model import STAND_IN
from lora_trainer.engine.run_facts import Material
from lora_trainer.trainers.material import bars, pair_thumbnails, plural
from lora_trainer.trainers.restoration.job import RestorationJob


def restoration_material(job: RestorationJob) -> Material:
    preset, pairs = job.preset, job.pairs
    word = "pair" if pairs.paired else "picture"
    base = job.checkpoint.path.name if job.checkpoint else f"{STAND_IN} (a tiny network that has learnt nothing)"
    given = "" if job.checkpoint is None else " --base BASE_MODEL"
    rows = [
        ("base model", base),
        ("pictures", plural(len(pairs.pairs), word)),
        ("degraded", "on the fly" if preset.high_order_degradation else "as the pairs are"),
        ("squares", f"{preset.out_size} px; {job.total_batch} a step"),
        ("timesteps", f"model_t {preset.model_t}, coeff_t {preset.coeff_t}"),
        ("held out", plural(len(job.held_out.pairs), "picture") if job.held_out else "nothing"),
    ]
    counted = sorted(Counter(pairs.kinds).items(), key=lambda item: -item[1])
    return Material(
        f"A restorer, a LoRA of rank {preset.lora_rank}, trained on {plural(len(pairs.pairs), word)}",
        tuple(rows),
        bars(f"Types, {word}s", [(kind or "no type", count) for kind, count in counted]),
        pair_thumbnails(pairs.pairs),
        (("Restore pictures", f"python -m lora_trainer.restore --weights {{file}}{given} pictures restored"),),
    )
