"""OpenCLIP's tensors become the same encoder in transformers, and the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.models.architectures import build_text_encoder
from lora_trainer.models.clip_keys import from_open_clip, to_open_clip, without_text_model
from lora_trainer.models.materialise import materialise
from lora_trainer.models.tiny_models import tiny_base, tiny_configs

IDS = torch.tensor([[2046, 320, 1125, 539, 2047, 0, 0]])


def _state(kind: str, encoder: int) -> dict[str, Tensor]:
    return without_text_model(tiny_base(kind).text_encoders[encoder].state_dict())


def test_names_and_shapes_are_open_clips() -> None:
    theirs = to_open_clip(_state("sdxl", 1), 10, unused_layer=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    assert len(shapes) == 10 * 12 + 6
    first = {name: shape for name, shape in shapes.items() if ".resblocks." not in name or ".resblocks.0." in name}
    assert first == {
        "token_embedding.weight": (2048, 40),
        "positional_embedding": (77, 40),
        "ln_final.weight": (40,),
        "ln_final.bias": (40,),
        "text_projection": (40, 40),
        "logit_scale": (),
        "transformer.resblocks.0.attn.in_proj_weight": (120, 40),
        "transformer.resblocks.0.attn.in_proj_bias": (120,),
        "transformer.resblocks.0.attn.out_proj.weight": (40, 40),
        "transformer.resblocks.0.attn.out_proj.bias": (40,),
        "transformer.resblocks.0.ln_1.weight": (40,),
        "transformer.resblocks.0.ln_1.bias": (40,),
        "transformer.resblocks.0.ln_2.weight": (40,),
        "transformer.resblocks.0.ln_2.bias": (40,),
        "transformer.resblocks.0.mlp.c_fc.weight": (80, 40),
        "transformer.resblocks.0.mlp.c_fc.bias": (80,),
        "transformer.resblocks.0.mlp.c_proj.weight": (40, 80),
        "transformer.resblocks.0.mlp.c_proj.bias": (40,),
    }


def test_queries_keys_and_values_are_stacked_and_the_projection_is_transposed() -> None:
    ours = _state("sdxl", 1)
    theirs = to_open_clip(ours, 10, unused_layer=False)
    stacked = theirs["transformer.resblocks.3.attn.in_proj_weight"]
    for place, name in enumerate(("q", "k", "v")):
        one = stacked[40 * place : 40 * (place + 1)]
        assert torch.equal(one, ours[f"encoder.layers.3.self_attn.{name}_proj.weight"])
    assert torch.equal(theirs["text_projection"], ours["text_projection.weight"].T)
    assert float(theirs["logit_scale"]) == 4.60546875  # ln 100 in float16


def test_there_and_back() -> None:
    for kind, encoder, layers, projection in (("sdxl", 1, 10, True), ("sd21", 0, 5, False)):
        ours = _state(kind, encoder)
        theirs = to_open_clip(ours, layers, unused_layer=not projection)
        back = from_open_clip(theirs, layers, projection=projection)
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_the_layer_that_stable_diffusion_2_never_runs_changes_nothing() -> None:
    """A program that runs all layers of the file gets what the layers in use give."""
    theirs = to_open_clip(_state("sd21", 0), 5, unused_layer=True)
    config = tiny_configs("sd21")["text_encoder"]
    outputs = []
    for layers in (5, 6):
        state = from_open_clip(theirs, layers, projection=False)
        longer = {**config, "num_hidden_layers": layers}
        encoder = materialise(
            lambda config=longer: build_text_encoder(config, projection=False), state, torch.float32, "test"
        )
        outputs.append(encoder(IDS).last_hidden_state)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(theirs["text_projection"], torch.eye(40, dtype=torch.float16))


def test_an_unknown_name_stays() -> None:
    assert from_open_clip({"strange.weight": torch.zeros(1)}, 5, projection=False).keys() == {"strange.weight"}
