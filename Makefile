# `make train` and `make test` work on a fresh machine: each makes .venv and installs what is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SITE_VENV := build/docs-venv
RECIPE ?= grpo_arithmetic_tiny_cpu
ARGS ?=
# If pip's own indexes have only CUDA builds of torch, name an index with CPU builds: make train TORCH_INDEX=URL
TORCH_INDEX ?=

.PHONY: train test unit lint parity bench tables reference docs docs-serve install install-gpu lock clean

train: $(VENV)/.installed
	$(BIN)/rlsync train recipe=$(RECIPE) $(ARGS)

test: lint unit
	$(BIN)/python -m pytest tests/integration tests/gpu tests/peers --numprocesses 2 --dist loadfile \
		--no-loadscope-reorder $(ARGS)

unit: $(VENV)/.installed
	$(BIN)/python -m pytest tests/unit tests/compile --numprocesses 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

parity: $(VENV)/.installed
	$(BIN)/rlsync parity --full

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/recipe.py --record

# The tables of docs/benchmarks.md, from the rows in benchmarks/results/.
tables: $(VENV)/.installed
	$(BIN)/python benchmarks/render.py

# The pages of docs/ that are written from the code, and the figures.
reference: $(VENV)/.installed
	$(BIN)/python docs/generate/config_page.py
	$(BIN)/python docs/generate/recipes_page.py
	$(BIN)/python docs/figures/processes.py
	$(BIN)/python docs/figures/reduction_tree.py
	$(BIN)/python docs/figures/stock_kernels.py

# The site, into build/site. Its packages have an environment of their own, and building it needs no network.
docs: $(SITE_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/mkdocs build --strict

docs-serve: $(SITE_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/mkdocs serve

$(SITE_VENV)/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/pip install --quiet --no-deps --requirement requirements/docs.txt
	touch $@

install: $(VENV)/.installed

install-gpu: | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-deps --requirement requirements/gpu.txt
	$(BIN)/pip install --quiet --no-deps --editable .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The lock files list every package that is needed, so pip must not install further dependencies: see CPU_EXCLUDES in
# requirements/lock.py.
$(VENV)/.installed: pyproject.toml requirements/cpu-test.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--requirement requirements/cpu-test.txt
	@$(BIN)/python -c "import torch" || { $(BIN)/pip uninstall --quiet --yes torch; \
		echo "pip found no CPU build of torch; name an index that has one: make TORCH_INDEX=URL"; exit 1; }
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# Pins that satisfy pyproject.toml are kept; `make lock ARGS=--upgrade` takes the newest releases.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv packaging
	build/lock/bin/python requirements/lock.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) $(ARGS)

clean:
	rm -rf $(VENV) build runs
