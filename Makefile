# `make train` and `make test` are each enough on a fresh machine: they make .venv and install what is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= grpo_arithmetic_tiny_cpu
ARGS ?=
TORCH := torch==2.13.0
comma := ,
# Where pip's own indexes hold only CUDA builds of torch, name the one with the CPU builds: make train TORCH_INDEX=URL
TORCH_INDEX ?=

.PHONY: train test unit lint parity bench install install-gpu clean

train: $(VENV)/.installed
	$(BIN)/rlsync train recipe=$(RECIPE) $(ARGS)

test: lint unit
	$(BIN)/python -m pytest tests/integration tests/gpu tests/peers --numprocesses 2 --dist loadfile $(ARGS)

unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/unit tests/compile --numprocesses 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

parity: $(VENV)/.installed
	$(BIN)/rlsync parity --full

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/recipe.py --json benchmarks/results/recipe_tiny_cpu.json

install: $(VENV)/.installed

install-gpu: | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[gpu]'

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# vLLM's CPU wheel pulls torchvision, torchaudio and torchcodec, whose PyPI builds are for CUDA and break
# `import transformers` beside a CPU torch; text models need none of them.
define setup
$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
$(BIN)/pip install --quiet --editable '.[$(1)]'
$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
endef

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(call setup,cpu)
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(call setup,cpu$(comma)test)
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) runs
