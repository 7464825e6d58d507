# Every target does its own set-up: a virtual environment in .venv with the locked versions.
# Nothing outside this directory is changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help pictures dashboards docs reference demo env test test-slow soak bench lint format examples lock clean

export FLWR_TELEMETRY_ENABLED := 0

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Tests wait for sockets and clocks more than they compute.
WORKERS ?= 3
READY := .venv/.ready
SIMULATION := .venv/.simulation
PYTORCH := .venv/.pytorch
DOCS := .venv/.docs
# Of examples/pytorch alone. The default package of Linux brings CUDA along; a CPU build is enough.
TORCH ?= torch==2.13.0
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make lock"

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12

demo: $(READY) ## train with a real server and three clients, and show the footprint
	@$(BIN)/fedserver demo

test: lint ## lint, types and every test that is not slow
	@.ci/debian-tools
	@$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(SIMULATION) $(PYTORCH) $(DOCS) ## the tests that take minutes
	@.ci/debian-tools
	@$(BIN)/pytest -m slow

soak: $(READY) ## ten minutes of faults at random moments, then every row compared; SOAK_SEED=n repeats one
	@.ci/debian-tools
	@$(BIN)/python -m tests.soak

lint: $(READY) ## ruff and mypy, nothing is changed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(READY) ## let ruff correct what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

env: ## .env with random secrets for docker compose; an existing one is left alone
	@docker/make-env .env

pictures: $(READY) ## make the pictures of the README again, from a real demo
	@PYTHONPATH=$(CURDIR) $(BIN)/python docs/make_pictures.py

docs: $(DOCS) ## the documentation site, in build/site
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/site
	@echo "build/site/index.html"

reference: $(READY) ## write docs/reference/ and docs/metrics.md again, from the code
	@$(BIN)/python docs/make_reference.py
	@$(BIN)/python docs/make_metrics.py

dashboards: $(READY) ## write the Grafana dashboards again, from the catalogue of metrics
	@$(BIN)/python -m grafana.build

bench: $(READY) ## every benchmark; fails if one misses its target
	@missed=(); for file in benchmarks/[a-z]*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" || missed+=("$$file"); done; \
	if (($${#missed[@]})); then echo "missed: $${missed[*]}" >&2; exit 1; fi

examples: $(SIMULATION) $(PYTORCH) ## run every example that runs by itself
	@for script in examples/*/run.sh; do echo "== $$script"; PATH="$(CURDIR)/$(BIN):$$PATH" bash "$$script"; done

lock: $(READY) ## resolve pyproject.toml again; UPGRADE=--upgrade takes new versions
	@$(LOCK) --extra demo --extra dp --extra postgres --extra grafana --group dev $(UPGRADE) --output-file requirements.lock
	@$(LOCK) --extra demo --extra dp --extra postgres --extra grafana --constraint requirements.lock --output-file requirements-image.lock
	@$(subst pyproject.toml,,$(LOCK)) --group build --constraint requirements.lock --output-file requirements-build.lock
	@$(subst pyproject.toml,,$(LOCK)) --group docs --constraint requirements.lock --output-file requirements-docs.lock
	@$(LOCK) --extra simulation --constraint requirements.lock $(UPGRADE) --output-file requirements-simulation.lock

clean: ## remove what these targets made; runs and databases stay
	@rm -rf .venv .tools build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without build isolation, so that the build backend is a locked one too.
$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed; none found" >&2; exit 1; fi
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# ray is large and only simulations need it: not in the lock of everybody.
$(SIMULATION): $(READY) requirements-simulation.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-simulation.lock
	@touch $@

$(DOCS): $(READY) requirements-docs.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

$(PYTORCH): $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$(TORCH)"
	@touch $@
