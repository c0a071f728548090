# Every target sets up what it needs, in .venv, from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed

.PHONY: demo test test-slow check bench up
.DEFAULT_GOAL := demo

$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tallyhook needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once, under a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(DONE)  ## the whole journey on this machine, with a worker killed on the way
	@$(BIN)/tallyhook demo

test: $(DONE)  ## the suite; embedded PostgreSQL and Redis unless DATABASE_URL and REDIS_URL are set
	@$(BIN)/python -m pytest -n 4 --dist worksteal  # of two cores: many tests wait for leases, sockets and processes

test-slow: $(DONE)  ## the fault runs under load
	@$(BIN)/python -m pytest -m slow

check: $(DONE)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(DONE)  ## measures, prints a table, keeps it in bench/results.json
	@$(BIN)/python -m bench

up: $(DONE)  ## web, workers and relay, until Ctrl-C
	@$(BIN)/tallyhook up
