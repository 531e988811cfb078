# make demo    the main job on a fresh machine: search formats for every layer of a network, leave a front and an ONNX model
# make test    ruff, mypy and pytest
# make test-slow  what takes minutes: entries of the shipped tables synthesised again
# make test-flows  exports in the hands of qonnx, hls4ml (compiled by g++) and finn-plus
# make finn-venv  an environment of its own for finn-plus, in the cache folder
# make finn    cycles and counts beside FINN's own, node by node
# make bench   speeds, as ratios to named rivals in the same run
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow test-flows finn finn-venv bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/python -m studies.quickstart

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow tests

finn-venv: $(VENV)/installed
	$(BIN)/python -m dse.flows.finn_environment

test-flows: $(VENV)/installed-flows finn-venv
	$(BIN)/python -m pytest -m flows tests

finn: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.finn --out reports/finn_check

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.trial
	$(BIN)/python -m benchmarks.quantize
	$(BIN)/python -m benchmarks.matmul

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python must be 3.11 or newer, not {sys.version.split()[0]}: set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	@echo "installing bitatlas and what it needs into $(VENV): a few minutes, once"
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev]"
	@touch $@

$(VENV)/installed-flows: $(VENV)/installed-dev
	$(PIP) --editable ".[dev,flows]"
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --editable ".[bench]"
	@touch $@

clean:
	rm -rf $(VENV)
