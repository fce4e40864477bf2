# The commands of the project. Everything runs in .venv, which `make install` makes; see README.md for plain pip.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE = 1
export NO_MKDOCS_2_WARNING = 1

.PHONY: help install demo test test-all lint bench docs clean

help:  ## say what each target does
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed  ## make .venv with everything that a CPU run and the tests need

.venv/installed: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .[dev]
	@touch $@

demo: install  ## train a style on a CPU in three minutes, and draw the same pictures without it and with it
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		-m lora_trainer --preset presets/demo.json --restart
	$(BIN)/python -m tools.before_after --base presets/drawings/base --lora output/demo/demo.safetensors \
		--prompts presets/drawings/prompts.txt --output output/demo/before_after.png --overwrite

test: install lint  ## lint, types and the tests, in under fifteen minutes on two cores
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: install lint  ## the same with the slow tests
	$(BIN)/python -m pytest -n 2

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.make_docs --check

bench: install  ## measure trainings against plain loops
	$(BIN)/python -m tools.bench_lora --size tiny,mid
	$(BIN)/python -m tools.bench_finetune
	$(BIN)/python -m tools.bench_super_resolution
	$(BIN)/python -m tools.bench_gan
	$(BIN)/python -m tools.bench_restoration
	$(BIN)/python -m tools.bench_cache

docs: install  ## write the preset reference and the JSON Schemas anew, and build the site into build/site
	$(BIN)/python -m tools.make_docs
	$(BIN)/python -m mkdocs build --strict

clean:  ## remove what was made
	rm -rf .venv build output
