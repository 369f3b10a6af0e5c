# make setup   environment in .venv, with the C extension built
# make engines Ray Serve, KServe and Triton, for the tests of 'irsplit export'
# make demo    the main job on the example: compile, run split, compare
# make test    everything CI checks; of optional tools, it takes what works here (`python tests/tools.py` lists them)
# make test-bare  the part of it that uses optional tools or packages, without tools and without a network
# make docs    the documentation as a site in build/site
# make amalgamation   the C library as two files, build/amalgamation/irs.c and irs.h
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup engines demo test test-bare bare-checks lint wheel docs amalgamation clean

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

# As on a machine that has Python, make and gcc alone, and no network (tests/bare.py).
test-bare: setup
	$(BIN)/python tests/bare.py $(MAKE) --old-file=setup bare-checks

# What may differ there: the checks, which build packages and pages, and the tests that run an optional tool, the snippets
# of the documentation or pip. The others start nothing but Python, and pass by `make test` or not at all.
bare-checks: setup
	$(MAKE) --jobs=3 --output-sync=target --old-file=setup lint wheel docs
	$(BIN)/pytest --numprocesses=logical --dist=worksteal $$(grep -rlE '^(from|import) (tools|snippets|benchmarks.packets)|"pip"' tests --include='test_*.py')

# Warnings are errors (--quiet would hide them from --strict): a link that leads nowhere, a page that is not in the navigation.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Built, and imported away from the checkout, which would hide a module that the wheel lacks. Without a network: setuptools
# and what the wheel depends on are those of $(VENV), and check_wheel.py sees to it that it declares all that it imports.
wheel: setup
	rm -rf build/wheel && $(BIN)/python -m build --quiet --no-isolation --wheel --outdir build/wheel .
	rm -rf build/wheel-env && $(BIN)/python -m venv --without-pip build/wheel-env
	$(BIN)/pip --python build/wheel-env/bin/python install --quiet --no-index --no-deps --no-compile build/wheel/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo build/wheel-env/lib/python3*/site-packages)/dependencies.pth
	cd / && $(CURDIR)/build/wheel-env/bin/python $(CURDIR)/tests/check_wheel.py $(CURDIR)

# Needs nothing but Python.
amalgamation:
	@$(PYTHON) runtime/c/amalgamate.py build/amalgamation

clean:
	rm -rf $(VENV) build dist *.egg-info irsplit/runtime/c/*.so
