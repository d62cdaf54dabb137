# One command sets up and runs the demo, one sets up and passes the tests; nothing else is needed beforehand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow test-gpu test-browser lint types unit docs clean

demo: $(VENV)/.demo
	$(BIN)/certimed demo

test: lint types docs unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# One thread a process: the tests' models are small, and threads that wait for each other cost more than they bring.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The documentation site, in site/; a dead link or a page that is in no menu is an error.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The report in Chromium, with axe-core's accessibility rules; `make test` skips these where they are not installed.
test-browser: $(VENV)/.dev
	$(PIP) install --quiet --constraint constraints.txt --editable ".[browser]"
	command -v chromium > /dev/null || command -v google-chrome > /dev/null || (apt-get update && apt-get install --yes chromium)
	test -f node_modules/axe-core/axe.min.js || npm install --no-save --no-package-lock axe-core@4.14.1
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

# Tests that need a GPU; without one each is skipped by name.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu tests/gpu

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
