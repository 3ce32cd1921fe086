# make setup   .venv, exactly as requirements.lock says, with the compiled part in native/ where there is cargo
# make serve   that, and serves the demo on http://127.0.0.1:8000 (TARGET=…, ARGS=… for others)
# make test    that, and every check that CI runs
# make ray     all tests with Ray, of which `make test` runs those of one server: some minutes
# make webapps the tests that run converted Streamlit and Gradio apps
# make network the tests over several hosts, with those that wait for a minute of silence; as root
# make search  the property tests with examples that were not drawn before
# make stops   all tests while their processes stand still for up to two seconds, again and again (SEED=1)
# make bench   the benchmarks          make soak   load with faults, for SOAK_SECONDS (300)
# make docs    the site, in site/      make clean  removes what was built
# make wheel   builds wheels and sdists in dist/ and tries them in clean environments of PYTHONS (python3)
# make native-wheel   the wheel of the compiled part alone, for every Linux

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
export VENV
BIN := $(VENV)/bin
TARGET ?= examples/demo.py:program
ARGS ?=
WORKERS ?= 3
SOAK_SECONDS ?= 300
SEED ?= 1
PYTHONS ?= python3
CODE := src tests examples scripts bench rust native

.PHONY: help setup serve test check format lint types floors pytest rust network ray webapps system search stops bench docs wheel native-wheel soak lock clean

help:
	@sed -n 's/^# \(make \)/\1/p' Makefile

setup:
	@bash scripts/setup.sh

serve: setup
	@exec $(BIN)/dspy-live serve $(TARGET) $(ARGS)

# pytest comes last so that its closing line closes the run.
test: check rust pytest

check: format lint types floors

format: setup
	$(BIN)/ruff format --check $(CODE)

lint: setup
	$(BIN)/ruff check $(CODE)

types: setup
	$(BIN)/mypy

floors: setup
	$(BIN)/lint-imports --no-logo

system:
	@bash scripts/install_system.sh

rust: setup
	@bash scripts/check_rust.sh
	@bash scripts/check_native.sh

# Nothing is run again: a test that fails has failed. Three workers for two cores, since tests wait for processes and
# sockets much of their time; WORKERS=0 runs all in one process, for a debugger.
pytest: setup system
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not ray and not network and not webapps" $(ARGS)

network: setup system
	$(BIN)/python -m pytest tests/network $(ARGS)

webapps: setup system
	$(BIN)/python -m pytest tests/assistant/test_convert_real.py -m webapps $(ARGS)

ray: setup system
	$(BIN)/python -m pytest tests/scale $(ARGS)

search: setup system
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m hypothesis $(ARGS)

stops: setup system
	$(BIN)/python scripts/stop_at_random.py --seed $(SEED) -- $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
	  -m "not ray and not network and not webapps" $(ARGS)

bench: setup
	$(BIN)/python bench/run.py $(ARGS)

soak: setup
	$(BIN)/python bench/soak.py --seconds $(SOAK_SECONDS) $(ARGS)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

wheel: setup
	@bash scripts/try_wheel.sh $(PYTHONS)

native-wheel: setup
	@bash scripts/native_wheel.sh

# Written anew from pyproject.toml; the project names no package index. Not after `setup`, which needs the new lock.
lock:
	@bash scripts/lock.sh

clean:
	rm -rf .venv .cache site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache native/target rust/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
