"""Prompts are read as sd-scripts reads them, and what cannot be drawn is refused with its place."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lora_trainer.errors import Refusal
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt, prompt_file, read_prompts

SEED = 40


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("a cat", SamplePrompt("a cat", seed=SEED)),
        (
            "a cat, sitting --n blurry, text --w 1024 --h 768 --d 7 --s 28 --l 6.5 --ss dpmsolver++",
            SamplePrompt("a cat, sitting", "blurry, text", 1024, 768, 7, 28, 6.5, "dpmsolver++"),
        ),
        ("A Cat --N Blurry --W 64 --SS K_Euler_A", SamplePrompt("A Cat", "Blurry", 64, 512, SEED, sampler="k_euler_a")),
        ("a cat --d -1", SamplePrompt("a cat", seed=SEED)),
        ("a cat --d 0", SamplePrompt("a cat", seed=0)),
        ("a cat --n --w 64", SamplePrompt("a cat", "", 64, 512, SEED)),
        ("a well-known -- or so -- semi--colon", SamplePrompt("a well-known -- or so -- semi--colon", seed=SEED)),
        ("--n blurry --s 4", SamplePrompt("", "blurry", seed=SEED, steps=4)),
        ("a cat  --w   64 ", SamplePrompt("a cat", width_px=64, seed=SEED)),
    ],
)
def test_a_line(line: str, prompt: SamplePrompt) -> None:
    assert read_prompts(line, SEED) == (prompt,)


@pytest.mark.parametrize(
    ("option", "note"),
    [
        ("--w 513", "--w 513 is read as 512"),
        ("--h 512.5", "--h 512.5 is read as 512"),
        ("--w 9", "--w 9 is read as 64"),
        ("--s 0", "--s 0 is read as 1"),
        ("--s 5000", "--s 5000 is read as 1000"),
    ],
)
def test_a_number_that_does_not_fit_is_made_to_and_said(
    option: str, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        (prompt,) = read_prompts(f"# first\na cat {option}", SEED)
    assert caplog.messages == [f"note: sample_prompts: line 2: {note}"]
    assert (prompt.width_px % 8, prompt.height_px % 8) == (0, 0)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--ar 16:9", "--ar: unknown option; the options are --n, --w, --h, --d, --s, --l, --ss"),
        ("--cn pose.png", "--cn: ControlNet is not supported in previews; remove the option"),
        ("--g 3.5", "--g: the embedded guidance is for Flux and the like, which are not trained here; guidance is --l"),
        ("--ss eulr", "--ss eulr: unknown sampler; did you mean euler?"),
        ("--w wide", "--w wide: not a number"),
        ("--w inf", "--w inf: not a number"),
        ("--w 100000", "--w 100000: a side has at most 8192 pixels"),
        ("--d 1.5", "--d 1.5: not a whole number"),
        (f"--d {2**63}", f"--d {2**63}: a seed has at most 63 bits"),
        ("--l nan", "--l nan: guidance is a number from 0 to 1000"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(option: str, problem: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_prompts(f"a cat {option}", SEED)
    assert refused.value.problems == (f"sample_prompts: line 1: {problem}",)


def test_seeds_follow_from_the_run_and_the_place_and_all_problems_come_at_once() -> None:
    prompts = read_prompts("a\n\n# no\n  b --d 3  \nc", SEED)
    assert [(prompt.text, prompt.seed) for prompt in prompts] == [("a", 40), ("b", 3), ("c", 42)]
    with pytest.raises(Refusal) as refused:
        read_prompts("a --x 1\nb\nc --w no", SEED)
    assert [problem.split(": --")[0] for problem in refused.value.problems] == [
        "sample_prompts: line 1", "sample_prompts: line 3",
    ]  # fmt: skip


def test_files_of_three_kinds_say_the_same(tmp_path: Path) -> None:
    text, listed, table = (tmp_path / f"prömpts.{suffix}" for suffix in ("txt", "json", "TOML"))
    text.write_text("\ufeffa cat --n blurry --w 64 --h 96 --s 4 --l 3.5 --d 9 --ss ddim\ndog --n blurry\n", "utf-8")
    first = {
        "prompt": "a cat", "negative_prompt": "blurry", "width": 64, "height": "96", "sample_steps": 4, "scale": 3.5,
        "seed": 9, "sample_sampler": "DDIM",
    }  # fmt: skip
    listed.write_text(json.dumps([first, "dog --n blurry"]), encoding="utf-8")
    table.write_text(
        '[prompt]\nnegative_prompt = "blurry"\n[[prompt.subset]]\nprompt = "a cat"\nwidth = 64\nheight = 96\n'
        'sample_steps = 4\nscale = 3.5\nseed = 9\nsample_sampler = "ddim"\n[[prompt.subset]]\nprompt = "dog"\n',
        encoding="utf-8",
    )
    wanted = (
        SamplePrompt("a cat", "blurry", 64, 96, 9, 4, 3.5, "ddim"),
        SamplePrompt("dog", "blurry", seed=SEED + 1),
    )
    for file in (text, listed, table):
        assert read_prompts(f" {file} ", SEED) == wanted
        assert prompt_file(str(file)) == file
    assert prompt_file("a cat\nnotes.txt") is None


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", '[{"prompt": "x"},', "{file}:1:18: is not JSON (Expecting value)"),
        ("a.json", '{"prompt": "x"}', '{file}: must hold a list of prompts: [{{"prompt": "a cat", "seed": 1}}]'),
        (
            "a.json",
            '[{"prompt": "x", "widht": 64}]',
            "{file}: prompt 1: widht: unknown key; did you mean width?; the keys are prompt, negative_prompt, width, "
            "height, seed, sample_steps, scale, sample_sampler, controlnet_image, guidance_scale, flow_shift",
        ),
        ("a.json", "[3]", "{file}: prompt 1: write an object with a prompt, or a line of text"),
        (
            "a.json",
            '[{"prompt": "x", "controlnet_image": "p.png"}]',
            "{file}: prompt 1: controlnet_image: ControlNet is not supported in previews; remove the option",
        ),
        ("a.toml", "[prompt\n", "{file}: is not TOML: Expected ']' at the end of a table declaration (at line 1"),
        ("a.toml", 'prompt = "x"', "{file}: write [prompt] for what all have and [[prompt.subset]] for each prompt"),
        ("a.txt", "caf\xe9", "{file}: is not UTF-8 (byte 3); save it as UTF-8"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: str, problem: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(Refusal) as refused:
        read_prompts(str(file), SEED)
    assert str(refused.value).removeprefix("sample_prompts: ").startswith(problem.format(file=file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for suffix in ("txt", "json", "toml"):
        with pytest.raises(Refusal, match=r"sample_prompts: .*none\.\w+: cannot be read \(No such file"):
            read_prompts(str(tmp_path / f"none.{suffix}"), SEED)
