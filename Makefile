# make setup   environment in .venv, with the C extension built
# make engines Ray Serve, KServe and Triton, for the tests of 'irsplit export'
# make demo    the main job on the example: compile, run split, compare
# make test    everything CI checks
# make docs    the documentation as a site in build/site
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup engines demo test lint wheel docs clean

setup: $(VENV)/.stamp

# At every step setuptools calls its tables for extensions experimental, and says that an editable installation is one.
QUIET := PYTHONWARNINGS='ignore:`[tool.,ignore:Editable installation'

$(VENV)/.stamp: pyproject.toml $(shell find runtime/c -name "*.[ch]")
	@echo "making the environment $(VENV): a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade pip "setuptools>=77"
	@$(QUIET) $(BIN)/pip install --quiet --editable ".[test,docs]"
	@touch $@
	@echo "ready; use it with: source $(BIN)/activate"

# pytriton asks for numpy 1; only the server that it brings along is started.
engines: setup
	$(QUIET) $(BIN)/pip install --quiet --editable ".[test,test-engines]"
	$(BIN)/pip install --quiet --no-deps "nvidia-pytriton>=0.7"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

demo: setup
	@$(BIN)/python examples/digits/demo.py build/demo

# Side by side, then the tests on every core; `pytest` alone runs them one after the other.
test: setup
	$(MAKE) --jobs=3 --output-sync=target lint wheel docs
	$(BIN)/pytest --numprocesses=logical --dist=worksteal

# Warnings are errors (--quiet would hide them from --strict): a link that leads nowhere, a page that is not in the navigation.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Built, and imported away from the checkout, which would hide a module that the wheel lacks.
wheel: setup
	rm -rf build/wheel && $(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	rm -rf build/wheel-env && $(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/pip install --quiet --no-compile build/wheel/*.whl
	cd / && $(CURDIR)/build/wheel-env/bin/python $(CURDIR)/tests/check_wheel.py $(CURDIR)

clean:
	rm -rf $(VENV) build dist *.egg-info irsplit/runtime/c/*.so
