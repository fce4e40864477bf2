"""What the keys of a LoRA preset about files, states and uploads mean together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, error, inert, note

if TYPE_CHECKING:
    from lora_trainer.config.lora import LoraPreset

Findings = Iterator[Finding]

IN_METADATA = (
    "training_comment", "metadata_title", "metadata_author", "metadata_description", "metadata_license",
    "metadata_tags",
)  # fmt: skip
OF_UPLOADS = (
    "huggingface_path_in_repo", "save_state_to_huggingface", "async_upload",
)  # fmt: skip
CHOICES_OF_UPLOADS = {"huggingface_repo_type": "model", "huggingface_repo_visibility": "private"}


def files(preset: LoraPreset) -> Findings:
    if preset.save_model_as != "safetensors":
        yield note("such a file has no metadata, and programs that do not trust it refuse it", "save_model_as")
        for key in IN_METADATA:
            if getattr(preset, key):
                yield inert(f"a {preset.save_model_as} file has no metadata", key)
    for kind in ("epochs", "steps"):
        count, every = getattr(preset, f"save_last_n_{kind}"), getattr(preset, f"save_every_n_{kind}")
        states = getattr(preset, f"save_last_n_{kind}_state")
        if not every:
            yield from _idle(preset, f"save_every_n_{kind} is 0", f"save_last_n_{kind}", f"save_last_n_{kind}_state")
            continue
        if states and not preset.save_state:
            yield inert("save_state is off", f"save_last_n_{kind}_state")
        for key, kept in ((f"save_last_n_{kind}", count), (f"save_last_n_{kind}_state", states)):
            if kind == "steps" and kept >= every:
                text = f"the last {kept} stay; what sd-scripts keeps with this number are {kept // every} or one more"
                yield note(text, key)


def states(preset: LoraPreset) -> Findings:
    if preset.save_state and preset.save_state_on_train_end:
        yield inert("save_state keeps one at the end too", "save_state_on_train_end")
    if preset.resumes_from_hub and not preset.resumes_from:
        text = "is to hold the address of a state on the hub, such as me/loras/tiny-000002-state, and is empty"
        yield error(text, "resume", "resume_from_huggingface")
    elif preset.resume and preset.resumes_from != preset.resume:
        yield error("and resume name a state each; leave one of them empty", "resume_from_huggingface", "resume")


def uploads(preset: LoraPreset) -> Findings:
    if preset.huggingface_repo_id:
        if preset.save_state_to_huggingface and not (preset.save_state or preset.save_state_on_train_end):
            yield inert("save_state and save_state_on_train_end are off", "save_state_to_huggingface")
        return
    text = "huggingface_repo_id is empty, so nothing is uploaded"
    yield from _idle(preset, text, *OF_UPLOADS)
    for key, usual in CHOICES_OF_UPLOADS.items():
        if getattr(preset, key) != usual:
            yield inert(text, key)
    if preset.huggingface_token.get_secret_value() and not preset.resumes_from_hub:
        yield inert(text, "huggingface_token")


def _idle(preset: LoraPreset, why: str, *keys: str) -> Findings:
    for key in keys:
        if getattr(preset, key):
            yield inert(why, key)


def saving(preset: LoraPreset) -> Findings:
    yield from files(preset)
    yield from states(preset)
    yield from uploads(preset)
