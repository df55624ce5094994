# make demo     train a small Transformer in two minutes and see what it learned
# make test     the test suite, without the slow tests and those of the pages
# make browser  the tests of the pages: the server, and what Chromium shows
# make slow     the slow tests: kills and resumes, 20,000 lines in bulk, the widget in JupyterLab
# make check    everything a change must pass: lint, format, types, import contracts, tests
# make bench    the comparisons with other libraries (hours; `regard bench` runs one), and README's table of them
# make venv     the environment in .venv, with the front end built; the others make it when they need it
# make web      build the front end again after a change in web/
# make format   put the code into the common format
#
# PYTHON=python3.12 chooses the interpreter of a new environment, WORKERS=4 the number of test processes.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ASSET := src/regard/look/draw/assets/look.js
PAGE := src/regard/serve/page/index.html
WEB := $(shell find web -name node_modules -prune -o -type f -print)
STAMP := $(INSTALLED) $(ASSET) $(PAGE)

.PHONY: demo test browser slow check lint types imports bench venv web format clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

venv: $(STAMP)

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

web: $(ASSET) $(PAGE)

$(ASSET) $(PAGE) &: $(WEB) | $(INSTALLED)
	$(BIN)/python hatch_build.py

demo: $(STAMP)
	$(BIN)/regard demo

# One thread a process: the processes share the cores, and results don't depend on how many there are.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not gpu and not browser and not server"

browser: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "(browser or server) and not slow and not gpu"

slow: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,notebook]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow and not gpu" --timeout 1800

check: lint types imports test browser

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy
	@if test -d web/node_modules && command -v npm > /dev/null; then npm --prefix web run --silent check; \
	  else echo "no Node here: the types of web/ are not checked"; fi

imports: $(STAMP)
	$(BIN)/lint-imports

bench: $(STAMP)
	@status=0; $(BIN)/regard bench --all --json > /dev/null || status=$$?; $(BIN)/regard bench --table README.md && exit $$status

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist web/node_modules $(dir $(ASSET) $(PAGE))
