# `make test` and `make demo` are all that a newcomer runs; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test lint types suite slow demo clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

setup: .venv/ready

test: setup lint types suite

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

clean:
	rm -rf .venv demo runs build dist .pytest_cache .ruff_cache .mypy_cache
