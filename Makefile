# Every target makes what it needs: `make test` works from a bare clone with Python >= 3.10 and a
# C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIBRARY := lamp_kernels/_C.abi3.so
SOURCES := $(shell find csrc -path csrc/cuda -prune -o -name '*.cpp' -print -o -name '*.h' -print)
# With the environment's ninja, and a compiler required: to go on without would test nothing.
NATIVE := PATH="$(CURDIR)/$(BIN):$$PATH" LAMP_KERNELS_NATIVE=1
BUILD_ENV := $(NATIVE) LAMP_KERNELS_CUDA=0
NO_KERNELS := LAMP_KERNELS_NATIVE=0 LAMP_KERNELS_CUDA=0
# The CUDA kernels take a minute or two for each target.
CUDA_LIBRARY := lamp_kernels/_C_cuda.abi3.so
CUDA_BUILD_ENV := $(NATIVE) LAMP_KERNELS_CUDA=1
CUDA_TARGETS ?= 7.5;9.0
# Named, for without a list a machine with a GPU builds for that alone.
WHEEL_TARGETS ?= 7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX
NVCC = $(if $(CUDA_HOME),$(CUDA_HOME)/bin/nvcc,nvcc)
CUDA_RELEASE = $(shell "$(NVCC)" --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\),.*/\1\2/p')
RUN ?= runs/textures
TRAIN_FLAGS ?= --data textures --compare ssim,amplified-ssim,mse,amplified-mse
STUDY := python/results
STUDY_FLAGS ?= --processes 2
FASHION_ROOT ?= /usr/share/datasets/fashion-mnist
TORCH ?= $(shell sed -n 's/^torch==//p' requirements-dev.txt)
# Where torch comes from, if not from where all else does: PyTorch's CPU index, for one.
TORCH_INDEX ?=
TORCH_FROM = $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")
AARCH64_FLAGS ?=
MATRIX ?=
MATRIX_FLAGS ?=
FUZZ_CASES ?= 20000
FUZZ_ROUNDS ?= 1000000
GPU_OUT ?= runs/gpu
GPU_FLAGS ?=
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_OUT ?= runs/bench/results.json
BENCH_FLAGS ?=
ANOMALIB_VENV := .venv-anomalib
ANOMALIB_READY := $(ANOMALIB_VENV)/.ready
CHECK := build/check-torch-$(TORCH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build build-cuda train study study-full study-publish test test-aarch64 lint format fuzz mutate clean
.PHONY: matrix wheel wheel-check wheel-cuda wheel-cuda-check sdist
.PHONY: anomalib bench bench-install bench-quick bench-operators bench-plots gpu-bundle gpu-check gpu-report gpu-static triton-static prove

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(LIBRARY) ## make .venv, with torch from TORCH_INDEX=<url> if given, and build the native kernels
build: $(LIBRARY) ## build the native kernels in place: only what has changed, with ninja

# torch first and alone, so that no other package chooses its build.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed, $(PYTHON) is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_FROM) "$$(grep '^torch==' requirements-dev.txt)"
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(NO_KERNELS) $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

$(LIBRARY): $(READY) $(SOURCES) setup.py
	$(BUILD_ENV) $(BIN)/python setup.py --quiet build_ext --inplace
	@touch -c $@

# --force links again where only the targets differ; ninja still compiles nothing twice.
build-cuda: $(READY) ## build the CUDA kernels in place, for CUDA_TARGETS="7.5;9.0"; needs nvcc and no GPU
	$(CUDA_BUILD_ENV) TORCH_CUDA_ARCH_LIST="$(CUDA_TARGETS)" $(BIN)/python tests/install/cuda_budgets.py $(CUDA_LIBRARY) -- $(BIN)/python setup.py --quiet build_ext --inplace --force

train: $(LIBRARY) ## train four losses on textures, write runs/textures/report.html; a stopped run goes on
	$(BIN)/python python/train.py $(TRAIN_FLAGS) --out $(RUN) --resume

study: $(LIBRARY) ## a small study in two minutes: which loss finds more anomalies, to runs/study
	OMP_NUM_THREADS=1 $(BIN)/python python/study.py run python/grids/small.json --results runs/study/study.jsonl $(STUDY_FLAGS)
	$(BIN)/python python/study.py publish runs/study/study.jsonl

# An hour or more; each finished run is kept, and a stopped study goes on where it was.
study-full: $(LIBRARY) ## the study of python/results, with images of Debian's dataset-fashion-mnist in FASHION_ROOT
	OMP_NUM_THREADS=1 $(BIN)/python python/study.py run python/grids/full.json --results $(STUDY)/study.jsonl --root $(FASHION_ROOT) $(STUDY_FLAGS)
	$(BIN)/python python/train.py --data fashion-mnist --root $(FASHION_ROOT) --normal-class 0 --compare mse,amplified-mse,l1,amplified-l1,ssim,amplified-ssim --width 16 --latent 4 --epochs 5 --batch-size 64 --lr 2e-3 --threads 1 --pooling mean --smooth-sigma 0 --out runs/landscape --resume
	$(BIN)/python python/landscape.py runs/landscape --out $(STUDY) --threads 1
	$(MAKE) study-publish

study-publish: $(READY) ## tables, figures and page of python/results from its lines
	$(BIN)/python python/study.py publish $(STUDY)/study.jsonl

# Two processes of one thread each beat one process of two threads on many small tests.
test: $(LIBRARY) ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_FLAGS)

# With any Python >= 3.10; see the program for what it needs beside.
test-aarch64: ## cross-compile the CPU kernels for aarch64 and test them in QEMU; skipped where either is missing
	$(PYTHON) tests/cpu/aarch64.py $(AARCH64_FLAGS)

# With any Python; environments of 5 GB each stay in build/matrix until `make clean`.
matrix: ## build and test beside several releases of PyTorch, or beside MATRIX="oldest gpu development newest"
	$(PYTHON) tests/install/matrix.py $(MATRIX) $(MATRIX_FLAGS)

lint: $(READY) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# New random cases each time; `make test` has a fixed set of 2,000. FUZZ_ROUNDS=1 ends by itself.
fuzz: $(LIBRARY) ## compare random shapes and options with the float64 reference until one fails, FUZZ_CASES at a time
	for round in $$(seq $(FUZZ_ROUNDS)); do \
	  LAMP_KERNELS_FUZZ_CASES=$(FUZZ_CASES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/test_fuzz.py --timeout 0 || exit; \
	done

mutate: $(LIBRARY) ## put known errors into copies of the kernels and show which test catches each
	$(BIN)/python tests/mutate/run.py

# The benchmarks have an environment of their own: torch first and alone, then the peers; piq
# without torchvision, which would replace torch by a build of several GB.
$(BENCH_READY): requirements-dev.txt bench/requirements.txt bench/requirements-no-deps.txt
	test -x $(BENCH_BIN)/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/python -m pip install --quiet $(TORCH_FROM) "$$(grep '^torch==' requirements-dev.txt)"
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

# The kernels as they lie in the tree: one library serves several releases of PyTorch.
$(ANOMALIB_READY): examples/requirements-anomalib.txt
	test -x $(ANOMALIB_VENV)/bin/python || $(PYTHON) -m venv $(ANOMALIB_VENV)
	$(ANOMALIB_VENV)/bin/python -m pip install --quiet -r $<
	@touch $@

anomalib: $(LIBRARY) $(ANOMALIB_READY) ## run the anomalib example's test, in an environment of its own (6 GB)
	$(ANOMALIB_VENV)/bin/python -m pytest tests/examples/test_anomalib_example.py $(TEST_FLAGS)

# For the rented machine's GPU, unless CUDA_TARGETS is given.
gpu-bundle: CUDA_TARGETS = 9.0
gpu-bundle: $(READY) ## build here, without a GPU, what gpu-check takes along, into gpu-bundle/
	$(NATIVE) $(BIN)/python bench/gpu_bundle.py --targets "$(CUDA_TARGETS)"

# With the Python that is there: a machine with a GPU has its own PyTorch, and may have no network.
gpu-check: ## test and measure on this machine's NVIDIA GPU, to the folder GPU_OUT=runs/gpu
	$(PYTHON) bench/gpu_check.py --out $(GPU_OUT) $(if $(GPU_MINUTES),--minutes $(GPU_MINUTES)) $(GPU_FLAGS)

gpu-report: $(BENCH_READY) ## the README's GPU table and plot from bench/results/<card>.json
	$(BENCH_BIN)/python bench/gpu_report.py

# cuobjdump and nvdisasm: of CUDA's toolkit, or of the packages nvidia-cuda-cuobjdump and -nvdisasm.
prove: $(READY) ## prove the barriers of the CUDA SSIM kernels on their PTX (some minutes each, 9 GB of memory)
	$(BIN)/python -m pip install --quiet sentryward==0.1.1
	$(BIN)/python tests/cuda_host/prove.py

gpu-static: $(READY) ## count registers and instructions of the compiled GPU kernels, write docs/gpu_static.md
	$(BIN)/python bench/gpu_static.py --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

triton-static: $(READY) ## the same, of the Triton kernels anew and of the CUDA kernels as they stand there
	$(BIN)/python bench/gpu_static.py --triton --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

# build/lib would bring files into the wheel that the sources have no more.
wheel: $(LIBRARY) ## make dist/*.whl, and check that it uses nothing but stable interfaces
	rm -rf dist/*.whl build/lib* build/bdist* build/wheel
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .
	ls -sh dist/*.whl
	$(call audit,dist/*.whl)

# All targets, compiled anew: a wheel is published, and its minutes are counted.
wheel-cuda: $(READY) ## make dist/cuda/*.whl with the CUDA kernels for every target; needs nvcc and no GPU
	rm -rf dist/cuda build/lib* build/bdist* build/wheel build/wheel-cuda build/temp*/csrc/cuda
	$(CUDA_BUILD_ENV) TORCH_CUDA_ARCH_LIST="$(WHEEL_TARGETS)" LAMP_KERNELS_LOCAL_VERSION=cu$(CUDA_RELEASE) $(BIN)/python tests/install/cuda_budgets.py 'build/wheel-cuda/*.whl' -- $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/wheel-cuda .
	$(NATIVE) $(BIN)/auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' -w dist/cuda build/wheel-cuda/*.whl
	ls -sh dist/cuda/*.whl
	$(call audit,dist/cuda/*.whl)

define audit
rm -rf build/wheel
$(BIN)/python -m zipfile -e $(1) build/wheel
if test -x $(BIN)/torch-abi-audit; then $(BIN)/torch-abi-audit --check both ./build/wheel/lamp_kernels; else echo "not audited: torch-abi-audit needs Python >= 3.11"; fi
endef

wheel-check: wheel ## install the wheel beside torch TORCH=2.13.0 alone, and run its self-check
	$(call install_and_check,dist/*.whl)
	rm -rf $(CHECK)

# Where there is a GPU, the self-check computes on it.
wheel-cuda-check: $(if $(wildcard dist/cuda/*.whl),,wheel-cuda) ## the same with the wheel of wheel-cuda, which must load without a GPU
	$(call install_and_check,dist/cuda/*.whl)
	grep -q 'CUDA kernels: registered for sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, sm_120' $(CHECK)/report
	grep -qE 'no CUDA device|native on cuda:0' $(CHECK)/report
	rm -rf $(CHECK)

# From outside the tree, which has a lamp_kernels of its own.
define install_and_check
rm -rf $(CHECK)
$(PYTHON) -m venv $(CHECK)
$(CHECK)/bin/python -m pip install --quiet $(TORCH_FROM) torch==$(TORCH)
$(CHECK)/bin/python -m pip install --quiet --no-deps $(1)
cd / && "$(CURDIR)/$(CHECK)/bin/python" -W ignore -m lamp_kernels | tee "$(CURDIR)/$(CHECK)/report"
grep -q 'cpu tensor is computed by: native' $(CHECK)/report
grep -q 'all checks passed' $(CHECK)/report
endef

sdist: $(READY) ## make dist/*.tar.gz, and a wheel from it alone
	rm -rf dist/*.tar.gz build/from-sdist
	$(NO_KERNELS) $(BIN)/python setup.py --quiet sdist
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/from-sdist dist/*.tar.gz
	$(BIN)/python -m zipfile -l build/from-sdist/*.whl | grep -F _C.abi3.so

clean: ## remove the environment, caches, runs and what was built
	rm -rf $(VENV) $(BENCH_VENV) $(ANOMALIB_VENV) runs build dist gpu-bundle *.egg-info $(LIBRARY) $(CUDA_LIBRARY) .pytest_cache .mypy_cache .ruff_cache .hypothesis
