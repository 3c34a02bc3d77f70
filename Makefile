# Everything runs inside .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
# Without compiled files on disk, `import torch` takes twice as long in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak lint install bench bench-quick bench-check bench-baseline gpu-check gpu-check-wheels clean

demo: .venv/installed
	$(BIN)/cssl sweep quickstart

test: .venv/installed
	$(BIN)/python -m pytest

# Faults by the thousand, no part of the tests: docs/reliability.md. For example: make soak SOAK='--only kills --scale 0.1'
soak: .venv/installed
	$(BIN)/python -m tests.soak $(SOAK)
	$(if $(SOAK),,$(BIN)/python -m pytest -m soak)
	$(if $(SOAK),,$(BIN)/python benchmarks/spectrum_coverage.py --large)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

# Benchmarks of the CPU, for an otherwise idle machine; results in benchmarks/results/.
bench: .venv/benchmarks-installed
	$(BIN)/python benchmarks/run_all.py

bench-quick: .venv/benchmarks-installed
	$(BIN)/python benchmarks/run_all.py --quick

# Is any ratio worse than the stored one by more than its noise?
bench-check: .venv/benchmarks-installed
	$(BIN)/python benchmarks/run_all.py --check benchmarks/baseline.json

bench-baseline: .venv/benchmarks-installed
	$(BIN)/python benchmarks/run_all.py --store benchmarks/baseline.json

# Is everything right on a GPU, and how fast? Nine minutes, without a network, with what PYTHON or .venv has and the
# wheels. For example: make gpu-check GPU_CHECK='--only fg'; make gpu-check DEVICE=cpu SMALL=1 tries the script.
DEVICE ?= cuda
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_check.py --device $(DEVICE) \
	  $(if $(SMALL),--small) $(GPU_CHECK)

# What a machine with torch lacks, where there is a network: for Python 3.12 on Linux, x86-64.
WHEELS = $(PYTHON) -m pip download --quiet --disable-pip-version-check --dest gpu-check-wheels --only-binary :all: \
  --python-version 3.12 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
gpu-check-wheels:
	$(WHEELS) 'pydantic>=2.8' 'annotated-types>=0.6'
	$(WHEELS) --no-deps 'lightly>=1.5' lightning-utilities packaging

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $@

.venv/benchmarks-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,benchmark]'
	touch $@

clean:
	rm -rf .venv build dist soak-failures gpu-check-wheels .pytest_cache .ruff_cache
