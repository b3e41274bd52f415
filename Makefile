# residua: everything that a person or a machine does with this repository, by name.
# Needs python3 >= 3.11, make, and a compiler; everything else is installed into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= runs/demo
JOBS   ?= 2

# Where a platform has no build of these versions: `make PINS= install` takes the newest it has.
PINS   ?= -c constraints.txt
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS)

# One thread a test process: many processes with many threads each are slower than either.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test slow bench clean

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## make .venv with residua and its tools, at the pinned versions

# torch first and by itself, so that no other package's wish decides which build it is.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "residua needs Python 3.11 or newer, and '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1): run 'make PYTHON=python3.12 ...' with one that is." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev,volumes,pose]'
	@touch $@

demo: install  ## train on real handwritten digits and write a report
	$(BIN)/residua train digits --out $(OUT) --overwrite

test: install  ## lint, check types and layers, run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

slow: install  ## the tests that take longer
	$(PYTEST) -m slow

bench: install  ## measure input and training side by side with plain loops
	@for script in benchmarks/*.py; do \
	  case $$script in benchmarks/_*) continue;; esac; \
	  echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove what make and the tools made (runs/ stays)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf residua.egg-info
	find residua tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
