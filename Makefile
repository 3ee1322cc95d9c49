# `make test` and `make demo` are all that a newcomer runs; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# CI sets HASHES=.github/requirements.txt: only files with these hashes are installed, and torch by its version alone, from
# the index of its CPU wheels
HASHES ?=
TORCH_INDEX := https://download.pytorch.org/whl/cpu
INSTALL := $(BIN)/python -m pip install --quiet

.PHONY: setup test lint types suite slow demo docs notebooks hashes clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
ifeq ($(HASHES),)
	$(INSTALL) --upgrade pip
	$(INSTALL) --constraint constraints.txt torch
	$(INSTALL) --constraint constraints.txt --editable ".[dev]"
else
	$(INSTALL) --require-hashes --no-deps --requirement $(HASHES)
	$(INSTALL) --no-deps --index-url $(TORCH_INDEX) $(shell grep ^torch== constraints.txt)
	$(INSTALL) --no-deps --no-build-isolation --editable .
endif
	touch .venv/ready

setup: .venv/ready

test: setup lint
	$(MAKE) --no-print-directory --jobs 2 types suite

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

suite: setup  # the slow ones, which `make slow` runs, check every kind of model in every way
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

slow: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

demo: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/terrazzo demo

docs: setup  # the site, in build/site
ifeq ($(HASHES),)
	$(INSTALL) --constraint constraints.txt --editable ".[docs]"
endif
	$(BIN)/python docs/hooks/assemble.py build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

notebooks: setup  # run them again; TERRAZZO_ORT_WEB names the npm package onnxruntime-web
	$(INSTALL) --constraint constraints.txt --editable ".[docs]"
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python docs/hooks/notebook_pages.py docs/notebooks/*.ipynb

hashes:  # with uv
	printf 'hatchling\neditables\n' | uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-header \
	  --no-annotate --extra dev --extra docs --constraint constraints.txt --excludes .github/excludes.txt --no-emit-package torch \
	  pyproject.toml - --output-file .github/requirements.txt

clean:
	rm -rf .venv demo runs build dist .pytest_cache .ruff_cache .mypy_cache
