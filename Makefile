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

demo: setup
	$(BIN)/python examples/digits/demo.py build/demo

test: lint wheel
	$(BIN)/pytest

# Built, and imported away from the checkout, which would hide a module that the wheel lacks.
wheel: setup
	rm -rf build/wheel && $(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	rm -rf build/wheel-env && $(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/pip install --quiet build/wheel/*.whl
	cd / && $(CURDIR)/build/wheel-env/bin/python $(CURDIR)/tests/check_wheel.py $(CURDIR)

clean:
	rm -rf $(VENV) build dist *.egg-info irsplit/runtime/*.so
