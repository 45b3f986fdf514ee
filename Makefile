# make repro: rebuild the results. make test, make check: what a change has to pass. Each sets .venv up where it is missing.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test check bench clean

repro: .venv/installed
	dvc repro

# A process for each core, and one because some tests wait, with one thread each; the tests of a file stay together, because they
# share what is slow to make.
test: .venv/installed
	OMP_NUM_THREADS=1 pytest -n $$(python -c 'import os; print((os.cpu_count() or 1) + 1)') --dist loadfile --no-loadscope-reorder

check: .venv/installed
	ruff format --check .
	ruff check .
	mypy

bench: .venv/installed
	python -m benchmarks

clean:
	rm -rf .venv build *.egg-info

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo 'Installing into .venv: 5 GB, some minutes ...'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,dev,onnx]'
	@touch $@
