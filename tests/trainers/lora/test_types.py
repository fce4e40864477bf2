"""Every LoRA_type through a whole training: what it writes, and that its file brings the trained layers back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config.reader import load_preset
from lora_trainer.engine import commands
from lora_trainer.models.adapters.network import adapter_tensors
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import check_agreement, detect
from lora_trainer.trainers.diffusion.base import parts_of
from lora_trainer.trainers.lora.network import LoraNetwork, build_network
from tests.models.standard_lora import read_layers

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]

LORA, LOHA = {"lora_down.weight", "lora_up.weight", "alpha"}, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
TYPES: list[tuple[dict[str, Any], set[str], str]] = [  # what is set, what a layer of the file holds, network_module
    ({"LoRA_type": "Kohya LoCon", "conv_dim": 2}, LORA, "networks.lora"),
    ({"LoRA_type": "LoRA-FA"}, LORA, "networks.lora_fa"),
    ({"LoRA_type": "Kohya DyLoRA", "unit": 2, "conv_dim": 0}, LORA, "networks.dylora"),
    ({"LoRA_type": "LyCORIS/DyLoRA", "unit": 2, "conv_dim": 2}, LORA, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/LoCon", "use_tucker": True, "conv_dim": 2}, LORA, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/LoCon", "dora_wd": True}, LORA | {"dora_scale"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/LoHa", "rank_dropout": 0.1}, LOHA | {"alpha"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/LoKr", "factor": 4, "network_dim": 100000, "conv_dim": 100000},
     {"lokr_w1", "lokr_w2", "alpha"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/iA3", "LyCORIS_preset": "ia3"}, {"weight", "on_input"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/GLoRA", "LyCORIS_preset": "attn-mlp", "use_scalar": True},
     {"a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/Diag-OFT", "rescaled": True, "constrain": 0.5}, {"oft_blocks", "rescale", "alpha"},
     "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/BOFT", "network_dim": 8}, {"oft_blocks", "alpha"}, "lycoris.kohya"),
    ({"LoRA_type": "LyCORIS/Native Fine-Tuning", "train_norm": True, "unet_lr": 1e-4}, {"diff"}, "lycoris.kohya"),
]  # fmt: skip
IDS = [" ".join([keys["LoRA_type"], *[key for key in keys if key != "LoRA_type"]]) for keys, _, _ in TYPES]


def agreed(read: Any) -> Any:
    found = detect(Path(read.pretrained_model_name_or_path))
    return check_agreement(found, sdxl=read.sdxl, v2=read.v2, v_parameterization=read.v_parameterization)


def layers_of(preset: Path, weights: Path | None) -> dict[str, dict[str, torch.Tensor]]:
    """The layers that a training from this preset begins with, by kohya name."""
    overrides = ["dim_from_weights=false", f"network_weights={'' if weights is None else weights}"]
    read: Any = load_preset(preset, overrides).preset
    base = load_base_model(agreed(read))
    models = parts_of(base)
    names = build_network(LoraNetwork(read, base), models, seed=read.seed)
    return {
        names[part][path]: {name: tensor.clone() for name, tensor in tensors.items()}
        for part, model in models.items()
        for path, tensors in adapter_tensors(model).items()
    }


@pytest.mark.parametrize(("keys", "suffixes", "module"), TYPES, ids=IDS)
def test_a_type_is_trained_exported_and_read_back(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows, keys: dict[str, Any], suffixes: set[str],
    module: str,
) -> None:  # fmt: skip
    preset = write_preset("sd15", max_train_steps=2, **{"unet_lr": 0.01, "text_encoder_lr": 0.01, **keys})
    assert train(preset) == 0
    assert all(0 < row["loss"] < 30 and row["grad_norm"] > 0 for row in rows())
    file = read_layers(out / "tiny.safetensors")
    plain = next(tensors for name, tensors in file.layers.items() if name.endswith("attn1_to_k"))
    assert plain.keys() == suffixes
    parts = {"_".join(name.split("_")[:2]) for name in file.layers}
    assert parts == {"lora_unet", "lora_te"}
    assert file.metadata["ss_network_module"] == module
    if module == "lycoris.kohya":
        arguments = json.loads(file.metadata["ss_network_args"])
        assert arguments["algo"] in ("dylora", "locon", "loha", "lokr", "ia3", "glora", "diag-oft", "boft", "full")
    first, again = layers_of(preset, None), layers_of(preset, out / "tiny.safetensors")
    assert again.keys() == file.layers.keys()
    trained = 0
    for name, tensors in file.layers.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(again[name][key].float().flatten(), tensor.float().flatten())
            trained += not torch.equal(first[name][key].float(), tensor.float())
    assert trained >= 0.4 * len(file.layers)  # the tiny text encoder's last layer and DyLoRA's other blocks rest


@pytest.mark.parametrize(
    ("keys", "present", "absent"),
    [
        ({"LyCORIS_preset": "full"}, {"conv_in", "resnets_0_conv1", "attn1_to_q", "te_text"}, set()),
        ({"LyCORIS_preset": "full", "conv_dim": 0}, {"time_emb_proj", "attn1_to_q"}, {"conv_in", "resnets_0_conv1"}),
        ({"LyCORIS_preset": "attn-mlp"}, {"attn1_to_q", "ff_net_2", "mlp_fc1"}, {"time_emb_proj", "conv1"}),
        ({"LyCORIS_preset": "attn-only"}, {"attn1_to_q", "self_attn_q"}, {"ff_net_2", "mlp_fc1"}),
        ({"LyCORIS_preset": "unet-convblock-only"}, {"resnets_0_conv1", "conv_in"}, {"attn1_to_q"}),
        ({"LyCORIS_preset": "ia3", "LoRA_type": "LyCORIS/iA3"}, {"to_k", "ff_net_2", "mlp_fc2"}, {"to_q", "mlp_fc1"}),
        ({"train_norm": True}, {"norm1", "norm2"}, set()),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_preset_of_lycoris_reaches_its_layers(
    write_preset: WritePreset, keys: dict[str, Any], present: set[str], absent: set[str]
) -> None:
    preset = write_preset("sd15", **{"LoRA_type": "LyCORIS/LoHa", "conv_dim": 2, "text_encoder_lr": 0.0, **keys})
    read: Any = load_preset(preset).preset
    base = load_base_model(agreed(read))
    network, models = LoraNetwork(read, base), parts_of(base)
    names = set()
    for part, model in models.items():
        if part != "unet" and "only" in read.LyCORIS_preset and "unet" in read.LyCORIS_preset:
            continue
        names |= {plan.name for plan in network.plans(part, model).values()}
    assert [word for word in present if not any(word in name for name in names)] == []
    assert [name for name in names if any(word in name for word in absent)] == []


def test_a_toml_file_says_which_layers_and_how(
    write_preset: WritePreset, train: Train, out: Path, tmp_path: Path
) -> None:
    chosen = tmp_path / "my layers.toml"
    chosen.write_text(
        'enable_conv = false\nunet_target_module = ["Transformer2DModel"]\n'
        'unet_target_name = ["time_embedding.linear_1"]\n'
        'text_encoder_target_module = []\ntext_encoder_target_name = [".*mlp\\\\.fc1"]\nexclude_name = [".*to_q"]\n'
        '[module_algo_map.FeedForward]\nalgo = "lokr"\ndim = 2\nfactor = 2\n',
        encoding="utf-8",
    )
    keys = {"LoRA_type": "LyCORIS/LoHa", "LyCORIS_preset": str(chosen), "conv_dim": 2}
    assert train(write_preset("sd15", max_train_steps=1, **keys)) == 0
    layers = read_layers(out / "tiny.safetensors").layers
    assert "lora_unet_time_embedding_linear_1" in layers
    assert not any("to_q" in name for name in layers)
    assert all("hada_w1_a" in layers[name] for name in layers if "attn" in name and "unet" in name)
    assert all("lokr_w1" in layers[name] for name in layers if "_ff_" in name)
    assert {name for name in layers if name.startswith("lora_te")} == {
        name for name in layers if name.startswith("lora_te") and name.endswith("mlp_fc1")
    }


RANDOM: list[dict[str, Any]] = [  # everything that is drawn in a pass
    {"LoRA_type": "Standard", "network_dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.3},
    {"LoRA_type": "LyCORIS/LoHa", "rank_dropout": 0.3, "module_dropout": 0.3, "scale_weight_norms": 0.5, "conv_dim": 2},
    {
        "LoRA_type": "LyCORIS/DyLoRA",
        "gradient_checkpointing": True,
        "module_dropout": 0.2,
        "conv_dim": 2,
        "bypass_mode": True,
    },
]


@pytest.mark.parametrize(
    "keys",
    [RANDOM[0], *(pytest.param(keys, marks=pytest.mark.slow) for keys in RANDOM[1:])],
    ids=[keys["LoRA_type"] for keys in RANDOM],
)
def test_what_layers_draw_is_the_same_after_a_stop(
    write_preset: WritePreset, train: Train, out: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset("sd15", max_train_steps=12, **keys)
    assert train(preset, "--set", "output_name=whole") == 0
    monkeypatch.setattr(commands, "LOOK_EVERY_S", 0.0)
    ended = threading.Event()

    def keep_asking() -> None:  # a file that was there before the run is no command
        while not ended.wait(0.02):
            if (out / "metrics-whole.jsonl").exists() and (out / "metrics.jsonl").exists():
                (out / "stop.now").touch()

    asking = threading.Thread(target=keep_asking)
    asking.start()
    train(preset)
    ended.set()
    asking.join()
    stopped = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert (stopped["state"], 0 < stopped["step"] < 12) == ("stopped", True)
    assert train(preset) == 0
    ours, theirs = (read_layers(out / f"{name}.safetensors").layers for name in ("whole", "tiny"))
    assert all(torch.equal(ours[name][key], theirs[name][key]) for name in ours for key in ours[name])
