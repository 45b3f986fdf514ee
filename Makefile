# make repro: rebuild the results. make check, make test: what a change has to pass. Each target creates .venv where it is missing.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test test-all check bench clean

repro: .venv/installed
	dvc repro

# One process per core and one more, because some tests wait. The tests of a file share fixtures, so they stay together.
PYTEST := OMP_NUM_THREADS=1 pytest -n $$(python -c 'import os; print((os.cpu_count() or 1) + 1)') --dist loadfile --no-loadscope-reorder

test: .venv/installed
	$(PYTEST)

# The sweeps too: kills at many moments, full disks, downloads, long random searches.
test-all: .venv/installed
	$(PYTEST) -m ''

check: .venv/installed
	ruff format --check .
	ruff check .
	mypy
	lint-imports

bench: .venv/installed
	python -m benchmarks

clean:
	rm -rf .venv build *.egg-info

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo 'Installing into .venv: 7 GB, some minutes ...'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[pipeline,demo,video,onnx,dev]'
	@touch $@
