# Everything runs inside .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test soak lint install bench bench-quick bench-check bench-baseline bench-gpu clean

demo: .venv/installed
	$(BIN)/cssl sweep quickstart

test: .venv/installed
	$(BIN)/python -m pytest

# Faults by the thousand, no part of the tests: docs/reliability.md. For example: make soak SOAK='--only kills --scale 0.1'
soak: .venv/installed
	$(BIN)/python -m tests.soak $(SOAK)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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

# SimCLR as in the paper on one GPU, 50,000 images; the same with images that are streamed to it.
bench-gpu: .venv/benchmarks-installed
	$(BIN)/python benchmarks/pretrain_vs_lightly.py --device cuda --width 64 --batch-size 512 --images 50000 \
	  --steps 97 --repetitions 3 --json benchmarks/results/gpu-pretrain.json
	$(BIN)/python benchmarks/features.py --device cuda --width 64 --images 50000 \
	  --json benchmarks/results/gpu-features.json
	$(BIN)/python benchmarks/streaming.py --device cuda --width 64 --batch-size 512 --images 50000 \
	  --steps 97 --repetitions 3 --json benchmarks/results/gpu-streaming.json

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv/benchmarks-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,benchmark]'
	touch $@

clean:
	rm -rf .venv build dist soak-failures .pytest_cache .ruff_cache .mypy_cache
