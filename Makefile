# Two commands from nothing: `make audit` and `make test`. Both make the environment they need in .venv and reuse it
# while pyproject.toml and constraints.txt stay the same.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP = $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: audit test lint format types clean

audit: $(VENV)/.run-$(STAMP)
	$(BIN)/geoaudit demo --out runs/demo --resume

test: $(VENV)/.test-$(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

lint: $(VENV)/.test-$(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

format: $(VENV)/.test-$(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test-$(STAMP)
	$(BIN)/mypy

# torch and torchvision go first and together: a torchvision that finds another torch fails at import.
$(VENV)/.torch-$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	touch $@

$(VENV)/.run-$(STAMP): $(VENV)/.torch-$(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test-$(STAMP): $(VENV)/.torch-$(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@ $(VENV)/.run-$(STAMP)

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
