# Everything a developer runs. Each goal sets up what it needs; none needs another first.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2
TESTS = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

.PHONY: help demo test test-slow lint format types bench generated build clean

help:
	@echo "make demo       set up, then take the digits model to five targets (about five minutes)"
	@echo "make test       set up, then lint, types, import rules, all tests but the slow ones, coverage"
	@echo "make test-slow  large networks and long recipes (an hour and a half)"
	@echo "make lint | format | types | bench | generated | build | clean"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/edgecv optimize recipes/classification/digits.yaml

# Counting lines makes the real builds a third slower, and they add none that the other tests do not reach.
test: $(READY) lint types
	rm -f .coverage .coverage.*
	$(TESTS) --ignore tests/build --cov --cov-report=
	$(BIN)/python tools/coverage_gate.py
	$(TESTS) tests/build

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python tools/bench/overhead.py
	$(BIN)/python tools/bench/int8.py

generated: $(READY)
	$(BIN)/python tools/schema.py
	$(BIN)/python tools/readme_tables.py

build: $(READY)
	$(BIN)/python -m build --installer uv

clean:
	rm -rf $(VENV) runs dist .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.* .hypothesis
