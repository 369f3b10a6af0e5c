# make setup   environment in .venv, with the C extension built
# make demo    the main job on the example: compile, run split, compare
# make test    everything CI checks
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test lint wheel clean

setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml $(wildcard runtime/*.c runtime/src/* runtime/include/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip "setuptools>=77"
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

test: lint
	$(BIN)/pytest

clean:
	rm -rf $(VENV) build dist *.egg-info irsplit/runtime/*.so
