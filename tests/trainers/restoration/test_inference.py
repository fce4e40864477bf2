"""What a restorer makes of a picture is what diffusers and peft make of it, and its tiles leave no seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lora_trainer.config.reader import load_stages
from lora_trainer.data.images import Pixels
from lora_trainer.engine.precision import Precision
from lora_trainer.models.restoration.base import find_base
from lora_trainer.models.restoration.checkpoint import write_restorer
from lora_trainer.models.restoration.colour_fix import low_frequencies
from lora_trainer.models.restoration.tiles import WHOLE, Tiling
from lora_trainer.trainers.restoration.export import restorer_facts
from lora_trainer.trainers.restoration.inference import NotFinite, Restorer, Wishes, open_restorer
from lora_trainer.trainers.restoration.weights import Told, told
from tests.trainers.restoration.restorer_files import write_lora
from tests.trainers.restoration.run import MODULES, PHOTOS

PRESETS = Path(__file__).parents[3] / "presets" / "restoration"
PROMPT = "a photo of a cat"
WISHES = Wishes(150, 120, WHOLE, least_px=64, fixes_colours=False)
TinyPath = Callable[..., Path]


def photograph(width: int, height: int) -> Pixels:
    with Image.open(PHOTOS / "cat.jpg") as image:
        return np.array(image.convert("RGB").crop((20, 10, 20 + width, 10 + height)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, tiny_path: TinyPath) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora"), tiny_path("sd21"), 0.1)


@pytest.fixture(scope="module")
def tiny(weights: Path, tiny_path: TinyPath) -> Restorer:
    base = find_base(str(tiny_path("sd21")), "base")
    return open_restorer(weights, base, [PROMPT], WISHES, Precision("no", "cpu"), torch.device("cpu"))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    """It changes nothing."""
    file, wishes = write_lora(tmp_path_factory.mktemp("lora"), None, 0.0), replace(WISHES, coeff_t=200)
    return open_restorer(file, None, [PROMPT], wishes, Precision("no", "cpu"), torch.device("cpu"))


def wishing(restorer: Restorer, **wishes: Any) -> Restorer:
    new = replace(restorer.wishes, **wishes)
    painter = replace(
        restorer.painter, tiling=new.tiling, least_px=new.least_px, fidelity=new.fidelity, at_once=new.at_once
    )
    return Restorer(painter, new)


def as_image(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def plain(weights: Path, folder: Path, image: Tensor) -> Tensor:
    """HYPIR's way from -1..1 to -1..1, without tiles, with the mean of the latents."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=MODULES))
    assert not unet.load_state_dict(torch.load(weights.with_suffix(".pth")), strict=False).unexpected_keys
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    with torch.no_grad():
        ids = tokenizer(PROMPT, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
        latents = vae.encode(image).latent_dist.mode() * vae.config.scaling_factor
        noise = unet(latents, torch.tensor([150]), encoder_hidden_states=text(ids)[0]).sample
        clean = scheduler.step(noise, 120, latents).pred_original_sample
        made: Tensor = vae.decode(clean / vae.config.scaling_factor).sample
        return made


def test_a_picture_becomes_what_diffusers_and_peft_make_of_it(
    tiny: Restorer, weights: Path, tiny_path: TinyPath
) -> None:
    """70 x 50 pixels are enlarged to 90 x 64, padded to 96 x 64, restored, cropped, made smaller, and recoloured."""
    pixels = photograph(35, 25)
    image = F.interpolate(as_image(pixels), size=(50, 70), mode="bicubic", align_corners=False)
    shown = F.interpolate(image, size=(64, 90), mode="bicubic", align_corners=False) * 2 - 1
    framed = F.pad(shown, (0, 6, 0, 0), mode="replicate")
    made = plain(weights, tiny_path("sd21"), framed)[..., :90] / 2 + 0.5
    small = F.interpolate(made, size=(50, 70), mode="bicubic", align_corners=False, antialias=True)
    for fixes, expected in ((False, small), (True, small - low_frequencies(small) + low_frequencies(image))):
        found = as_image(wishing(tiny, factor=2.0, fixes_colours=fixes).restored(pixels, PROMPT, "cat.png"))
        torch.testing.assert_close(found, expected.clamp(0, 1), atol=0.51 / 255, rtol=0)
    assert (small - image).abs().mean() > 0.05  # the networks have their part in it


def test_the_longest_side_can_be_said(stand_in: Restorer) -> None:
    pixels = photograph(80, 50)
    found = wishing(stand_in, longest_px=160).restored(pixels, PROMPT, "cat.png")
    assert found.shape == (100, 160, 3)
    assert wishing(stand_in, factor=0.5).restored(pixels, PROMPT, "cat.png").shape == (25, 40, 3)


@pytest.mark.parametrize(("tile", "stride", "at_once"), [(0, 0, 1), (64, 32, 1), (64, 40, 3), (32, 32, 2), (32, 8, 5)])
def test_tiles_leave_no_seams(stand_in: Restorer, tile: int, stride: int, at_once: int) -> None:
    """What changes nothing changes nothing, wherever the tiles lie."""
    pixels = photograph(150, 90)
    image = as_image(pixels)
    restorer = wishing(stand_in, tiling=Tiling(tile, stride), least_px=tile or 64, at_once=at_once)
    assert np.array_equal(restorer.restored(pixels, PROMPT, "cat.png"), pixels)
    painted = restorer.painter.painted(image, [PROMPT])
    assert (painted - image).abs().max() < 1e-5


def test_tiles_that_go_together_make_the_same_picture(tiny: Restorer) -> None:
    pixels = photograph(136, 72)
    alone, together, other = (
        wishing(tiny, tiling=Tiling(64, 32, window), at_once=at_once).restored(pixels, PROMPT, "cat.png").astype(int)
        for window, at_once in (("centred", 1), ("centred", 4), ("published", 4))
    )
    assert np.abs(alone - together).max() <= 1
    assert np.abs(other - together).max() > 1


def test_fidelity_goes_from_the_restorer_to_the_pictures_own_latents(tiny: Restorer) -> None:
    pixels = photograph(96, 64)
    networks = tiny.painter.networks
    with torch.no_grad():
        kept = networks.vae.decode(networks.vae.encode(as_image(pixels) * 2 - 1).latent_dist.mean).sample / 2 + 0.5
    found = {
        share: as_image(wishing(tiny, fidelity=share).restored(pixels, PROMPT, "cat.png")) for share in (0.0, 0.5, 1.0)
    }
    torch.testing.assert_close(found[1.0], kept.clamp(0, 1), atol=0.51 / 255, rtol=0)
    far, near = ((found[share] - found[1.0]).abs().mean() for share in (0.0, 0.5))
    assert 0 < near < far


def test_drawn_latents_depend_on_the_seed_and_the_name_alone(tiny: Restorer) -> None:
    pixels = photograph(72, 64)
    networks = tiny.painter.networks
    noisy = replace(networks, vae=_Noisier(networks.vae))
    drawing = replace(tiny, painter=replace(tiny.painter, networks=noisy))
    keys = ((1, "a.png"), (1, "a.png"), (2, "a.png"), (1, "b.png"), (None, "a.png"), (None, "b.png"))
    found = [wishing(drawing, seed=seed).restored(pixels, PROMPT, name) for seed, name in keys]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[4], found[5])
    assert all((found[0] != other).mean() > 0.5 for other in found[2:5])


class _Noisier:
    """The tiny model's VAE has hardly any variance."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.config, self.dtype, self.decode = vae, vae.config, vae.dtype, vae.decode

    def encode(self, images: Tensor) -> Any:
        found = self.vae.encode(images)
        found.latent_dist.logvar = torch.zeros_like(found.latent_dist.logvar)
        return found


def test_what_is_not_finite_is_no_picture(tiny: Restorer) -> None:
    broken = replace(tiny, painter=replace(tiny.painter, prompts=lambda prompts: torch.full((1, 77, 40), torch.nan)))
    with pytest.raises(NotFinite):
        broken.restored(photograph(64, 64), PROMPT, "cat.png")


def test_what_a_training_writes_down_is_what_restoring_reads(tmp_path: Path) -> None:
    (loaded,) = load_stages(PRESETS / "example.json", [])
    preset: Any = loaded.preset
    for makes_partners, colour_fix in ((False, "none"), (True, "wavelet")):
        facts = restorer_facts(replace(preset, high_order_degradation=makes_partners, model_t=50), "epsilon")
        file = write_restorer(tmp_path, {"x": torch.zeros(1)}, "state_dict", facts)[0]
        assert told(file) == Told("stand-in", "epsilon", 50, 200, preset.out_size, preset.val_prompt, colour_fix)
