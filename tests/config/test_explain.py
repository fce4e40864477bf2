"""`--explain KEY` says what a key does, takes and changes."""

from __future__ import annotations

import pytest

from lora_trainer.config.explain import explain
from lora_trainer.config.setting import keys_of
from lora_trainer.config.trainers import TRAINERS
from lora_trainer.errors import Refusal


def test_a_key_with_an_effect() -> None:
    assert explain("noise_offset") == (
        "noise_offset (noise and loss): a number from 0 to 1; default 0\n"
        "Adds one normal draw per sample and channel, times this, to the noise, so that overall brightness is\n"
        "  learnt: noise += noise_offset * normal(b, c, 1, 1). 0 is off; 0.03 to 0.1 is usual.\n"
        "Fixed for a whole run."
    )


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("dynamo_backend", "Accepted without effect: the dynamo_* keys are for the launcher"),
        ("save_model_as", "save_model_as (saving): one of safetensors, ckpt, pt; default safetensors"),
        ("use_8bit_adam", "use_8bit_adam is a former name of optimizer."),
        ("epoch", "May change when a run is continued."),
        ("output_dir", "output_dir (run): a path; required, for example output/my_run"),
        ("max_resolution", 'a size in pixels: 512 or "width,height"; default 512,512'),
        ("flux1_checkbox", "for models that lora_trainer does not train"),
    ],
)
def test_a_page_says_what_matters(key: str, line: str) -> None:
    assert line in explain(key)


def test_every_key_has_a_page() -> None:
    for trainer, row in TRAINERS.items():
        for key in keys_of(row.preset):
            assert explain(key, trainer).startswith(f"{key} (")


def test_a_key_of_several_trainers_is_told_once_where_it_means_the_same() -> None:
    assert explain("logging_dir").startswith("logging_dir (")
    assert explain("seed").startswith("[lora, super_resolution, gan, restoration]\nseed (")
    assert explain("seed").count("Every random choice") == 2  # finetune's is another
    assert explain("save_precision").startswith("[lora]\nsave_precision (")
    assert "[super_resolution]\nsave_precision (" in explain("save_precision")
    assert explain("lq_size").startswith("lq_size (")


def test_an_unknown_key_or_trainer_gets_a_hint() -> None:
    names = ", ".join(TRAINERS)
    with pytest.raises(Refusal, match=rf"^noise_ofset: no key of the trainers {names}; did you mean noise_offset\?$"):
        explain("noise_ofset")
    with pytest.raises(Refusal, match=rf"^there is no trainer lorra; there is {names}; did you mean lora\?$"):
        explain("seed", "lorra")
