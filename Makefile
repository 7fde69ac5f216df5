# Every target makes what it needs: `make test` works from a bare clone with Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?= runs/textures
TRAIN_FLAGS ?= --data textures --compare ssim,amplified-ssim,mse,amplified-mse

.DEFAULT_GOAL := help
.PHONY: help setup train test lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the virtual environment in .venv

# torch first and alone, so that no other package chooses its build.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed, $(PYTHON) is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements-dev.txt)"
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

train: $(READY) ## train four losses on textures, write runs/textures/report.html; a stopped run goes on
	$(BIN)/python python/train.py $(TRAIN_FLAGS) --out $(RUN) --resume

# Two processes of one thread each beat one process of two threads on many small tests.
test: $(READY) ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TEST_FLAGS)

lint: $(READY) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
