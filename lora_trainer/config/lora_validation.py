"""The keys of a LoRA preset about pictures that are held out and what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from lora_trainer.config.kinds import Count, Number, PathText, Switch
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The loss on pictures that are not trained, always with the same noise, so that its curve shows overfitting."""

    validation_split: Annotated[Number, Ge(0), Le(0.9)] = setting(
        0.0, "The share of the images that is held out: chosen by validation_seed, and not trained. 0 is none."
    )
    validation_data_dir: PathText = setting(
        "", "Images to be held out instead, in folders named like those of train_data_dir; their repeats do not count."
    )
    validation_seed: Count = setting(
        0, "Chooses the held-out images and draws the noise that they are measured with; 0 takes seed."
    )
    validate_every_n_epochs: Count = setting(
        1, "Measure at the end of every n-th epoch; 0 is at the end of the run alone.", may_change=True
    )
    validate_every_n_steps: Count = setting(
        0, "Measure at every n-th step instead; 0 leaves it to the epochs.", may_change=True
    )
    max_validation_steps: Count = setting(0, "Measure at most so many held-out images; 0 is all.", may_change=True)
    save_best: Switch = setting(
        False,
        "Keep the LoRA with the lowest loss on the held-out images as output_name-best beside the last one.",
        may_change=True,
    )
    early_stopping_patience: Count = setting(
        0,
        "End the run after so many measurements in a row without a lower loss; 0 never does. With save_best the best "
        "file is kept.",
        may_change=True,
    )
