"""The keys of a LoRA preset about images, buckets, caches and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    NotNegative,
    PathText,
    Positive,
    PositiveOrAuto,
    Share,
    Size,
    Switch,
    Text,
    Whole,
)
from lora_trainer.config.setting import no_effect, setting


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images are, and how many make a step."""

    train_data_dir: PathText = setting(
        "",
        "The folder of folders named <repeats>_<words>, such as 10_my character. Each image counts that many times "
        "in an epoch; the words are the caption of an image without a caption file.",
        example="data/my_character",
    )
    train_batch_size: PositiveOrAuto = setting(
        1,
        "Images per device in one pass. auto takes as many as the device holds by the memory plan, 8 at the most, and "
        "stays with them when the run goes on; the rates are not changed with it.",
    )
    gradient_accumulation_steps: Positive = setting(
        1, "Passes whose gradients add up to one step; a step counts once, however many passes it has."
    )
    reg_data_dir: PathText = setting(
        "",
        "Regularisation images, in folders named like those of train_data_dir, of what the model is not to forget. "
        "They are used as often as the training images.",
    )
    prior_loss_weight: NotNegative = setting(1.0, "The factor of the loss of regularisation images.")
    dataset_config: PathText = setting(
        "",
        "A TOML file in sd-scripts' form, in place of train_data_dir: data sets with their own resolution and batch "
        "size, of folders with their own captions, repeats and augmentations. What it does not say is as in the "
        "preset.",
    )
    masked_loss: Switch = setting(
        False,
        "Weigh the loss with a mask for each image: the one in conditioning_data_dir, or else its own transparency. "
        "White and opaque count.",
    )
    alpha_mask: Switch = setting(
        False, "Take an image's transparency as its mask, where it has any; masked_loss asks for it too."
    )
    conditioning_data_dir: PathText = setting(
        "",
        "The folder of masks for masked_loss: a picture for each training image, with the same name before the point.",
    )
    color_aug: Switch = setting(
        False, "Turn the hue or change the gamma of every third image, anew each time. Not with cached latents."
    )
    random_crop: Switch = setting(
        False, "Crop at a random place instead of the centre, anew each time. Not with cached latents."
    )
    flip_aug: Switch = setting(False, "Mirror each image with probability 1/2; cached latents are kept both ways.")


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The sizes at which images are trained. A batch holds one size."""

    max_resolution: Size = setting(
        (512, 512),
        'The training size as "width,height", or one number for a square. Its area is what a bucket may have at most.',
    )
    enable_bucket: Switch = setting(
        True, "Sort images by shape into buckets; without it every image is brought to max_resolution."
    )
    bucket_no_upscale: Switch = setting(
        True,
        "Never enlarge an image: one that is smaller than the training area keeps its size, cut down to multiples "
        "of bucket_reso_steps.",
    )
    min_bucket_reso: Positive = setting(
        256,
        "The shortest side of a bucket in pixels, rounded down to bucket_reso_steps. Read only when images may be "
        "enlarged.",
        old_values={0: 256},
    )
    max_bucket_reso: Positive = setting(
        2048,
        "The longest side of a bucket in pixels, rounded up to bucket_reso_steps. Read only when images may be "
        "enlarged.",
        old_values={0: 1024},
    )
    bucket_reso_steps: Annotated[Whole, Ge(8), Le(1024), MultipleOf(8)] = setting(
        64,
        "The sides of a bucket are multiples of this many pixels, and this is a multiple of the 8 pixels that "
        "make a latent. 64 is what the base models were trained with.",
        old_values={1: 64},
    )


@dataclass(frozen=True, kw_only=True)
class Caches:
    """What is computed once instead of at every step."""

    cache_latents: Switch = setting(
        True,
        "Encode every image once before training. Mean and deviation of the VAE are kept, so that its noise is drawn "
        "anew at every step.",
    )
    cache_latents_to_disk: Switch = setting(
        False, "Keep the latents beside the images for the next run; asks for cache_latents too."
    )
    sdxl_cache_text_encoder_outputs: Switch = setting(
        False,
        "Encode every caption once before training. The text encoders cannot be trained then, nor can captions change.",
    )
    cache_text_encoder_outputs_to_disk: Switch = setting(
        False,
        "Keep what sdxl_cache_text_encoder_outputs encodes beside the images for the next run, instead of in memory.",
        may_change=True,
    )
    skip_cache_check: Switch = setting(
        False, "Trust the cached files.", effect=no_effect("cached files are always checked"), may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Captions:
    """What the model reads about an image."""

    caption_extension: Text = setting(
        ".txt",
        "The ending of caption files; the first line counts, or with enable_wildcard each. An ending that no file has "
        "turns them off, and the folder's words are the caption.",
        blank_note="empty is read as .txt; for sd-scripts it is .caption",
    )
    shuffle_caption: Switch = setting(
        False, "Cut the caption at commas and put the tags after the first keep_tokens in a new order each time."
    )
    caption_separator: Text = setting(",", "What stands between two tags.")
    keep_tokens: Count = setting(
        0,
        "How many tags at the front stay where they are and are never left out, when shuffle_caption, "
        "caption_tag_dropout_rate or token_warmup_step changes the others.",
    )
    keep_tokens_separator: Text = setting(
        "",
        "A mark in captions, such as |||, in place of keep_tokens: the tags before the first one are kept, and so are "
        "those after the second. A caption without the mark goes by keep_tokens.",
    )
    caption_dropout_rate: Share = setting(0.0, "The probability with which an image is trained with an empty caption.")
    caption_dropout_every_n_epochs: Count = setting(
        0, "All captions are empty in every n-th epoch, counted from 1; 0 is never."
    )
    caption_tag_dropout_rate: Share = setting(0.0, "The probability with which each tag that is not kept is left out.")
    max_token_length: Annotated[Literal[75, 150, 225], AnyCase()] = setting(
        75,
        "Tokens of a caption that are read, in chunks of 75, each encoded by itself; what is longer is cut off. "
        "SDXL's pooled vector comes from the first chunk.",
        old_values={0: 75},
    )
    clip_skip: Annotated[Whole, Ge(0), Le(12)] = setting(
        1,
        "SD 1.x and 2.x: which layer of the text encoder is taken, counted from the last; 1 or 0 is the last, 2 the "
        "one before. SDXL always takes the one before the last.",
    )
    weighted_captions: Switch = setting(
        False,
        "Understand (word:1.3), (word) for 1.1 and [word] for 1 / 1.1 as weights of what the text encoders make of the "
        "words; a bracket that is meant as text is written with a backslash. Previews understand them too.",
    )
    secondary_separator: Text = setting(
        "",
        "A mark such as ;;; between tags that are moved and left out as one; the model reads caption_separator there.",
    )
    enable_wildcard: Switch = setting(
        False,
        "Choose one of the alternatives of {a|b} each time, and one line of a caption file that has several; {{ and }} "
        "stand for the signs themselves.",
    )
    caption_prefix: Text = setting(
        "", "Text before every caption, with a blank between; its tags count for keep_tokens."
    )
    caption_suffix: Text = setting("", "Text after every caption, with a blank between.")
    token_warmup_min: Count = setting(
        1, "How many tags, besides the kept ones, are used at the first step of token_warmup_step."
    )
    token_warmup_step: NotNegative = setting(
        0.0,
        "Steps until all tags of a caption are used; until then only the first of them, more and more. Below 1 it is a "
        "share of all steps.",
    )
    no_token_padding: Switch = setting(
        False,
        "Do not fill a caption up to whole chunks.",
        effect=no_effect("captions are always filled up to whole chunks; it was never read for LoRA"),
    )
