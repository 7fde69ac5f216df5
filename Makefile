# Every target makes what it needs: `make test` works from a bare clone with Python >= 3.10 and a
# C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIBRARY := lamp_kernels/_C.abi3.so
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h')
# With the environment's ninja, and a compiler required: to go on without would test nothing.
BUILD_ENV := PATH="$(CURDIR)/$(BIN):$$PATH" LAMP_KERNELS_NATIVE=1
RUN ?= runs/textures
TRAIN_FLAGS ?= --data textures --compare ssim,amplified-ssim,mse,amplified-mse
TORCH ?= $(shell sed -n 's/^torch==//p' requirements-dev.txt)
FUZZ_CASES ?= 20000
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_OUT ?= runs/bench/results.json
BENCH_FLAGS ?=
CHECK := build/check-torch-$(TORCH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build train test lint format fuzz mutate wheel wheel-check sdist clean
.PHONY: bench bench-install bench-quick bench-operators bench-plots

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(LIBRARY) ## make the virtual environment in .venv and build the native kernels
build: $(LIBRARY) ## build the native kernels in place: only what has changed, with ninja

# torch first and alone, so that no other package chooses its build.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed, $(PYTHON) is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements-dev.txt)"
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	LAMP_KERNELS_NATIVE=0 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

$(LIBRARY): $(READY) $(SOURCES) setup.py
	$(BUILD_ENV) $(BIN)/python setup.py --quiet build_ext --inplace
	@touch -c $@

train: $(LIBRARY) ## train four losses on textures, write runs/textures/report.html; a stopped run goes on
	$(BIN)/python python/train.py $(TRAIN_FLAGS) --out $(RUN) --resume

# Two processes of one thread each beat one process of two threads on many small tests.
test: $(LIBRARY) ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TEST_FLAGS)

lint: $(READY) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# New random cases each time; `make test` has a fixed set of 2,000.
fuzz: $(LIBRARY) ## compare random shapes and options with the float64 reference, FUZZ_CASES=20000 of them
	LAMP_KERNELS_FUZZ_CASES=$(FUZZ_CASES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/test_fuzz.py --timeout 0

mutate: $(LIBRARY) ## put known errors into copies of the kernels and show which test catches each
	$(BIN)/python tests/mutate/run.py

# The benchmarks have an environment of their own: torch first and alone, then the peers; piq
# without torchvision, which would replace torch by a build of several GB.
$(BENCH_READY): requirements-dev.txt bench/requirements.txt bench/requirements-no-deps.txt
	test -x $(BENCH_BIN)/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements-dev.txt)"
	$(BENCH_BIN)/python -m pip install --quiet -r bench/requirements.txt
	$(BENCH_BIN)/python -m pip install --quiet --no-deps -r bench/requirements-no-deps.txt
	@touch $@

# Installed anew each time: it is the present sources that are measured.
bench-install: $(BENCH_READY)
	PATH="$(CURDIR)/$(BENCH_BIN):$$PATH" LAMP_KERNELS_NATIVE=1 $(BENCH_BIN)/python -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .

bench: bench-install ## benchmarks against other packages, to BENCH_OUT=runs/bench/results.json
	$(BENCH_BIN)/python bench/run.py --out $(BENCH_OUT) --plots runs/bench $(BENCH_FLAGS)

bench-quick: ## the same with small images
	$(MAKE) bench BENCH_FLAGS=--quick

# pytest, not python -m pytest: that would put the sources before the installed package.
bench-operators: bench-install ## this library's operators under pytest-benchmark
	$(BENCH_BIN)/pytest bench --benchmark-columns=min,median,iqr,rounds $(BENCH_FLAGS)

bench-plots: $(BENCH_READY) ## the README's benchmark table and plots from bench/results
	$(BENCH_BIN)/python bench/run.py --readme bench/results

# build/lib would bring files into the wheel that the sources have no more.
wheel: $(LIBRARY) ## make dist/*.whl, and check that it uses nothing but stable interfaces
	rm -rf dist/*.whl build/lib* build/bdist* build/wheel
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .
	ls -sh dist/*.whl
	$(BIN)/python -m zipfile -e dist/*.whl build/wheel
	test ! -x $(BIN)/torch-abi-audit || $(BIN)/torch-abi-audit --check both ./build/wheel/lamp_kernels

# From outside the tree, which has a lamp_kernels of its own.
wheel-check: wheel ## install the wheel beside torch TORCH=2.13.0 alone, and run its self-check
	rm -rf $(CHECK)
	$(PYTHON) -m venv $(CHECK)
	$(CHECK)/bin/python -m pip install --quiet torch==$(TORCH)
	$(CHECK)/bin/python -m pip install --quiet --no-deps dist/*.whl
	cd / && "$(CURDIR)/$(CHECK)/bin/python" -W ignore -m lamp_kernels | tee "$(CURDIR)/$(CHECK)/report"
	grep -q 'cpu tensor is computed by: native' $(CHECK)/report
	grep -q 'all checks passed' $(CHECK)/report
	rm -rf $(CHECK)

sdist: $(READY) ## make dist/*.tar.gz, and a wheel from it alone
	rm -rf dist/*.tar.gz build/from-sdist
	LAMP_KERNELS_NATIVE=0 $(BIN)/python setup.py --quiet sdist
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/from-sdist dist/*.tar.gz
	$(BIN)/python -m zipfile -l build/from-sdist/*.whl | grep -F _C.abi3.so

clean: ## remove the environment, caches, runs and what was built
	rm -rf $(VENV) $(BENCH_VENV) runs build dist *.egg-info $(LIBRARY) .pytest_cache .mypy_cache .ruff_cache .hypothesis
