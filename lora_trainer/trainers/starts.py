"""The table of trainers: for each how its job is inspected, quickly checked, built and planned."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_trainer.quick_imports import quick_imports

if TYPE_CHECKING:
    from lora_trainer.config.common import CommonPreset


WITH_MODELS = ("build", "plan", "fit")  # imported together, while there is no model yet


@dataclass(frozen=True)
class Start:
    """Where a trainer's functions are, as `module:name`; loaded when called, because torch takes seconds.

    `check(loaded)` looks at the model's header and the folders, and may give lines to be told;
    `inspect(loaded, world, seed)` looks at every picture and gives the job; `build(job, processes, precision, dry)`
    loads the models; `plan(trainer)` tells them for a dry run.
    `resume(preset, folder, restart)`, where there is one, finds what the preset asks to go on from, before `inspect`.
    `material(job)`, where there is one, tells the report what is trained on what, and how the result is used.
    `dataset(loaded)`, where there is one, lists the pictures for a look at all of them, and never refuses.
    `settle(loaded, processes, folder, restart)`, where there is one, puts numbers in place of what the preset leaves to
    the machine and the data's order needs; `fit(trainer, processes, precision)` does so for what a built trainer needs.
    `memory_advice` is what to try when the device's memory is too small, from what costs least on; `rungs` are the
    values of gradient_checkpointing, each with less memory than the one before, which come first.
    """

    check: str
    inspect: str
    build: str
    plan: str
    resume: str = ""
    material: str = ""
    settle: str = ""
    fit: str = ""
    dataset: str = ""
    memory_advice: str = "a smaller batch"
    rungs: tuple[str, ...] = ()

    def call(self, which: str, *arguments: Any) -> Any:
        together = WITH_MODELS if which in WITH_MODELS else (which,)
        wanted = [path.partition(":")[0] for path in (getattr(self, each) for each in together) if path]
        if missing := [module for module in wanted if module not in sys.modules]:
            with quick_imports():
                for module in missing:
                    importlib.import_module(module)
        module, name = getattr(self, which).split(":")
        return getattr(sys.modules[module], name)(*arguments)

    def advice(self, preset: CommonPreset) -> str:
        """What to try, without what this preset has done already."""
        now = str(getattr(preset, "gradient_checkpointing", "")).lower()
        higher = self.rungs[self.rungs.index(now) + 1 :] if now in self.rungs else ()
        first = [f"gradient_checkpointing {', then '.join(higher)}"] if higher else []
        return f"Try in this order: {', '.join([*first, self.memory_advice])}"


STARTS: Mapping[str, Start] = {
    "lora": Start(
        rungs=("false", "geglu", "feed_forward", "true"),
        memory_advice="cache_latents true, a smaller train_batch_size with "
        "more gradient_accumulation_steps, an 8-bit optimizer, int8_base true, a smaller max_resolution",
        check="lora_trainer.trainers.lora.job:check_lora",
        inspect="lora_trainer.trainers.lora.job:inspect_lora",
        build="lora_trainer.trainers.lora.trainer:build_lora",
        plan="lora_trainer.trainers.lora.plan:plan_lora",
        material="lora_trainer.trainers.lora.material:lora_material",
        settle="lora_trainer.trainers.lora.batch_size:settle_lora",
        fit="lora_trainer.trainers.lora.plan:fit_lora",
        dataset="lora_trainer.trainers.lora.doctor:lora_dataset",
        resume="lora_trainer.trainers.lora.resume:find_resumed",
    ),
    "finetune": Start(
        rungs=("false", "geglu", "feed_forward", "true"),
        memory_advice="cache_latents true, AdamW8bit or Adafactor, "
        "mixed_precision bf16 with full_bf16 and fused_backward_pass, ema_device cpu, a smaller batch_size with more "
        "grad_accum, disable_textenc_training, a smaller resolution",
        check="lora_trainer.trainers.finetune.job:check_finetune",
        inspect="lora_trainer.trainers.finetune.job:inspect_finetune",
        build="lora_trainer.trainers.finetune.trainer:build_finetune",
        plan="lora_trainer.trainers.finetune.plan:plan_finetune",
        material="lora_trainer.trainers.finetune.material:finetune_material",
        fit="lora_trainer.trainers.finetune.memory:fit_finetune",
        dataset="lora_trainer.trainers.finetune.doctor:finetune_dataset",
    ),
    "super_resolution": Start(
        memory_advice="mixed_precision bf16, a smaller batch_size_per_gpu with a larger accum_iter, a smaller lq_size",
        check="lora_trainer.trainers.super_resolution.job:check_super_resolution",
        inspect="lora_trainer.trainers.super_resolution.job:inspect_super_resolution",
        build="lora_trainer.trainers.super_resolution.trainer:build_super_resolution",
        plan="lora_trainer.trainers.super_resolution.plan:plan_super_resolution",
        material="lora_trainer.trainers.super_resolution.material:super_resolution_material",
        dataset="lora_trainer.trainers.super_resolution.doctor:super_resolution_dataset",
    ),
    "gan": Start(
        memory_advice="batch_gpu, or a smaller one: the batch stays the same in more passes",
        check="lora_trainer.trainers.gan.job:check_gan",
        inspect="lora_trainer.trainers.gan.job:inspect_gan",
        build="lora_trainer.trainers.gan.build:build_gan",
        plan="lora_trainer.trainers.gan.plan:plan_gan",
        material="lora_trainer.trainers.gan.material:gan_material",
        dataset="lora_trainer.trainers.gan.doctor:gan_dataset",
        resume="lora_trainer.trainers.gan.resume:find_end",
    ),
    "restoration": Start(
        rungs=("false", "true"),
        memory_advice="a smaller batch_size with more "
        "gradient_accumulation_steps, AdamW8bit, a smaller out_size, a smaller lora_rank, lambda_gan 0",
        check="lora_trainer.trainers.restoration.job:check_restoration",
        inspect="lora_trainer.trainers.restoration.job:inspect_restoration",
        build="lora_trainer.trainers.restoration.trainer:build_restoration",
        plan="lora_trainer.trainers.restoration.plan:plan_restoration",
        material="lora_trainer.trainers.restoration.material:restoration_material",
        dataset="lora_trainer.trainers.restoration.doctor:restoration_dataset",
    ),
}
