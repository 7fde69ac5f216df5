# Every target builds its own prerequisites: `make test` works in a fresh clone with Python >= 3.10
# and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIBRARY := lamp_kernels/_C.abi3.so
SOURCES := $(shell find csrc -path csrc/cuda -prune -o -name '*.cpp' -print -o -name '*.h' -print)
# Uses the environment's ninja and requires the kernels to compile; without them, the tests would
# not test the kernels.
NATIVE := PATH="$(CURDIR)/$(BIN):$$PATH" LAMP_KERNELS_NATIVE=1
BUILD_ENV := $(NATIVE) LAMP_KERNELS_CUDA=0
NO_KERNELS := LAMP_KERNELS_NATIVE=0 LAMP_KERNELS_CUDA=0
# The CUDA kernels take a minute or two to compile for each target.
CUDA_LIBRARY := lamp_kernels/_C_cuda.abi3.so
CUDA_BUILD_ENV := $(NATIVE) LAMP_KERNELS_CUDA=1
CUDA_TARGETS ?= 7.5;9.0
# An explicit list, because the default on a machine with a GPU is that GPU alone.
WHEEL_TARGETS ?= 7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX
NVCC = $(if $(CUDA_HOME),$(CUDA_HOME)/bin/nvcc,nvcc)
CUDA_RELEASE = $(shell "$(NVCC)" --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\),.*/\1\2/p')
RUN ?= runs/textures
TRAIN_FLAGS ?= --data textures --compare ssim,amplified-ssim,mse,amplified-mse
STUDY := python/results
LARGE := mnist inpainting gradients long
STUDY_FLAGS ?= --processes 2
FASHION_ROOT ?= /usr/share/datasets/fashion-mnist
TORCH ?= $(shell sed -n 's/^torch==//p' requirements-dev.txt)
# The package index for torch alone, such as PyTorch's CPU index; other packages do not use it.
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
# VERBOSE=1 prints complete compiler commands instead of one line per file.
SETUP_PY := setup.py $(if $(VERBOSE),--verbose,--quiet)
# The C++ and CUDA sources that clang-format checks and rewrites. Without a file name it would wait
# for standard input.
CXX_FILES = $(or $(shell git ls-files '*.c' '*.cpp' '*.cu' '*.cuh' '*.h'),$(error this target requires a git checkout: git lists the C++ files for clang-format))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build build-cuda train study study-full study-large study-publish test test-aarch64 thorough lint format fuzz mutate clean
.PHONY: matrix wheel wheel-check wheel-cuda wheel-cuda-check sdist
.PHONY: anomalib bench bench-install bench-quick bench-operators bench-plots gpu-bundle gpu-check gpu-report gpu-static cuda-static triton-static prove

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(LIBRARY) ## create .venv (torch from TORCH_INDEX=<url> if given) and build the native kernels
build: $(LIBRARY) ## build the native kernels in place, incrementally; VERBOSE=1 prints the commands

# torch is installed first and alone, so that no other package determines its build. Python compiles
# what is imported at the first import; pip would compile everything.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python must be >= 3.10, $(PYTHON) is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(TORCH_FROM) "$$(grep '^torch==' requirements-dev.txt)"
	$(BIN)/python -m pip install --quiet --no-compile -r requirements-dev.txt
	$(NO_KERNELS) $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

$(LIBRARY): $(READY) $(SOURCES) setup.py
	$(BUILD_ENV) $(BIN)/python $(SETUP_PY) build_ext --inplace
	@touch -c $@

# --force relinks if only the targets differ; ninja still compiles nothing twice.
build-cuda: $(READY) ## build the CUDA kernels in place for CUDA_TARGETS="7.5;9.0"; requires nvcc but no GPU
	$(CUDA_BUILD_ENV) TORCH_CUDA_ARCH_LIST="$(CUDA_TARGETS)" $(BIN)/python tests/install/cuda_budgets.py $(CUDA_LIBRARY) -- $(BIN)/python $(SETUP_PY) build_ext --inplace --force

train: $(LIBRARY) ## train four losses on textures and write runs/textures/report.html; resumes a stopped run
	$(BIN)/python python/train.py $(TRAIN_FLAGS) --out $(RUN) --resume

study: $(LIBRARY) ## run a small study of which loss finds more anomalies, in half a minute; writes to runs/study
	OMP_NUM_THREADS=1 $(BIN)/python python/study.py run python/grids/small.json --results runs/study/study.jsonl $(STUDY_FLAGS)
	$(BIN)/python python/study.py publish runs/study/study.jsonl

# Takes an hour or more. Finished runs are kept, and a stopped study resumes where it stopped.
study-full: $(LIBRARY) ## run the study of python/results; needs Debian's dataset-fashion-mnist in FASHION_ROOT
	OMP_NUM_THREADS=1 $(BIN)/python python/study.py run python/grids/full.json --results $(STUDY)/study.jsonl --root $(FASHION_ROOT) $(STUDY_FLAGS)
	$(BIN)/python python/train.py --data fashion-mnist --root $(FASHION_ROOT) --normal-class 0 --compare mse,amplified-mse,l1,amplified-l1,ssim,amplified-ssim --width 16 --latent 4 --epochs 5 --batch-size 64 --lr 2e-3 --threads 1 --pooling mean --smooth-sigma 0 --out runs/landscape --resume
	$(BIN)/python python/landscape.py runs/landscape --out $(STUDY) --threads 1
	$(MAKE) study-publish

# Estimated in python/grids/README.md. Finished runs are kept here, too.
study-large: $(LIBRARY) ## run the grids where errors are large, in less than an hour on two cores
	for grid in $(LARGE); do OMP_NUM_THREADS=1 $(BIN)/python python/study.py run python/grids/$$grid.json --results $(STUDY)/$$grid.jsonl $(STUDY_FLAGS) || exit; done
	$(MAKE) study-publish

study-publish: $(READY) ## rewrite the tables, figures and page of python/results from its results files
	$(BIN)/python python/study.py publish $(STUDY)/study.jsonl $(wildcard $(LARGE:%=$(STUDY)/%*.jsonl))

# On many small tests, two single-threaded processes are faster than one process with two threads.
test: $(LIBRARY) ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_FLAGS)

# What `make test` skips with this reason: more of the same, for targets and options beside those that
# it tests.
thorough: ## run the test suite with the variants that `make test` leaves out for their time, and all of test-aarch64
	LAMP_KERNELS_THOROUGH=1 $(MAKE) test
	$(MAKE) test-aarch64

# Works with any Python >= 3.10; the program lists its other requirements.
test-aarch64: ## cross-compile the CPU kernels for aarch64 and test them in QEMU; skipped if either is missing
	$(PYTHON) tests/cpu/aarch64.py $(AARCH64_FLAGS)

# Works with any Python. Environments of 5 GB each stay in build/matrix until `make clean`.
matrix: ## build and test with several releases of PyTorch: MATRIX="oldest gpu development newest"
	$(PYTHON) tests/install/matrix.py $(MATRIX) $(MATRIX_FLAGS)

lint: $(READY) ## check the sources with ruff, mypy and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for file in tests/*/conftest.py; do $(BIN)/mypy --no-warn-unused-configs $$file || exit; done
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(READY) ## rewrite the sources with ruff and clang-format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

# Generates new random cases each time; `make test` uses a fixed set of 2,000. FUZZ_ROUNDS=1 stops
# after one round.
fuzz: $(LIBRARY) ## compare random cases with the float64 reference until one fails, FUZZ_CASES per round
	for round in $$(seq $(FUZZ_ROUNDS)); do \
	  LAMP_KERNELS_FUZZ_CASES=$(FUZZ_CASES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/test_fuzz.py --timeout 0 || exit; \
	done

mutate: $(LIBRARY) ## insert known errors into copies of the kernels and show which test catches each
	$(BIN)/python tests/mutate/run.py

# The benchmarks have a separate environment: torch first and alone, then the peer packages. piq is
# installed without torchvision, which would replace torch with a build of several GB.
$(BENCH_READY): requirements-dev.txt bench/requirements.txt bench/requirements-no-deps.txt
	test -x $(BENCH_BIN)/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/python -m pip install --quiet $(TORCH_FROM) "$$(grep '^torch==' requirements-dev.txt)"
	$(BENCH_BIN)/python -m pip install --quiet -r bench/requirements.txt
	$(BENCH_BIN)/python -m pip install --quiet --no-deps -r bench/requirements-no-deps.txt
	@touch $@

# Reinstalls every time, so that the benchmarks measure the current sources.
bench-install: $(BENCH_READY)
	PATH="$(CURDIR)/$(BENCH_BIN):$$PATH" LAMP_KERNELS_NATIVE=1 $(BENCH_BIN)/python -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .

bench: bench-install ## benchmark against other packages; writes BENCH_OUT=runs/bench/results.json
	$(BENCH_BIN)/python bench/run.py --out $(BENCH_OUT) --plots runs/bench $(BENCH_FLAGS)

bench-quick: ## run the same benchmarks on small images
	$(MAKE) bench BENCH_FLAGS=--quick

# Not python -m pytest, which would import the sources instead of the installed package.
bench-operators: bench-install ## benchmark this library's operators with pytest-benchmark
	$(BENCH_BIN)/pytest bench --benchmark-columns=min,median,iqr,rounds $(BENCH_FLAGS)

bench-plots: $(BENCH_READY) ## rewrite the README's benchmark table and plots from bench/results
	$(BENCH_BIN)/python bench/run.py --readme bench/results

# Uses the library built in place, because one library works with several releases of PyTorch.
$(ANOMALIB_READY): examples/requirements-anomalib.txt
	test -x $(ANOMALIB_VENV)/bin/python || $(PYTHON) -m venv $(ANOMALIB_VENV)
	$(ANOMALIB_VENV)/bin/python -m pip install --quiet -r $<
	@touch $@

anomalib: $(LIBRARY) $(ANOMALIB_READY) ## run the anomalib example's test in a separate environment (6 GB)
	$(ANOMALIB_VENV)/bin/python -m pytest tests/examples/test_anomalib_example.py $(TEST_FLAGS)

# Builds for the GPU of a rented machine (compute capability 9.0) unless CUDA_TARGETS is given.
gpu-bundle: CUDA_TARGETS = 9.0
gpu-bundle: $(READY) ## build gpu-bundle/ for gpu-check on another machine; requires nvcc but no GPU
	$(NATIVE) $(BIN)/python bench/gpu_bundle.py --targets "$(CUDA_TARGETS)"

# Uses the machine's own Python: a GPU machine comes with PyTorch and may have no network.
gpu-check: ## test and benchmark on this machine's NVIDIA GPU; writes to GPU_OUT=runs/gpu
	$(PYTHON) bench/gpu_check.py --out $(GPU_OUT) $(if $(GPU_MINUTES),--minutes $(GPU_MINUTES)) $(GPU_FLAGS)

gpu-report: $(BENCH_READY) ## rewrite the README's GPU table and plot from bench/results/<card>.json
	$(BENCH_BIN)/python bench/gpu_report.py

# Requires cuobjdump and nvdisasm, from the CUDA toolkit or from the packages nvidia-cuda-cuobjdump
# and nvidia-cuda-nvdisasm.
prove: $(READY) ## prove the barriers in the PTX of the CUDA SSIM kernels (minutes per kernel, 9 GB of memory)
	$(BIN)/python -m pip install --quiet sentryward==0.1.1
	$(BIN)/python tests/cuda_host/prove.py

gpu-static: $(READY) ## count registers and instructions of the compiled GPU kernels; writes docs/gpu_static.md
	$(BIN)/python bench/gpu_static.py --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

cuda-static: $(READY) ## recount only the CUDA kernels; keeps the Triton kernels' figures
	$(BIN)/python bench/gpu_static.py --cuda --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

triton-static: $(READY) ## recount only the Triton kernels; keeps the CUDA kernels' figures
	$(BIN)/python bench/gpu_static.py --triton --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

# A stale build/lib would add files to the wheel that were deleted from the sources.
wheel: $(LIBRARY) ## build dist/*.whl and check that it uses only stable interfaces
	rm -rf dist/*.whl build/lib* build/bdist* build/wheel
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .
	ls -sh dist/*.whl
	$(call audit,dist/*.whl)

# Compiles everything from scratch, for all targets: the wheel is published and its build is timed.
wheel-cuda: $(READY) ## build dist/cuda/*.whl with the CUDA kernels for all targets; requires nvcc but no GPU
	rm -rf dist/cuda build/lib* build/bdist* build/wheel build/wheel-cuda build/temp*/csrc/cuda
	$(CUDA_BUILD_ENV) TORCH_CUDA_ARCH_LIST="$(WHEEL_TARGETS)" LAMP_KERNELS_LOCAL_VERSION=cu$(CUDA_RELEASE) $(BIN)/python tests/install/cuda_budgets.py 'build/wheel-cuda/*.whl' -- $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/wheel-cuda .
	$(NATIVE) $(BIN)/auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' -w dist/cuda build/wheel-cuda/*.whl
	ls -sh dist/cuda/*.whl
	$(call audit,dist/cuda/*.whl)

define audit
rm -rf build/wheel
$(BIN)/python -m zipfile -e $(1) build/wheel
if test -x $(BIN)/torch-abi-audit; then $(BIN)/torch-abi-audit --check both ./build/wheel/lamp_kernels; else echo "not audited: torch-abi-audit requires Python >= 3.11"; fi
endef

wheel-check: wheel ## install the wheel with only torch TORCH=2.13.0 and run its self-check
	$(call install_and_check,dist/*.whl)
	rm -rf $(CHECK)

# The self-check uses a GPU if there is one.
wheel-cuda-check: $(if $(wildcard dist/cuda/*.whl),,wheel-cuda) ## do the same with the wheel from wheel-cuda, which must load without a GPU
	$(call install_and_check,dist/cuda/*.whl)
	grep -q 'CUDA kernels: compiled for sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, sm_120' $(CHECK)/report
	grep -qE 'no CUDA device|native on cuda:0' $(CHECK)/report
	rm -rf $(CHECK)

# Runs outside the tree, which contains a lamp_kernels folder itself.
define install_and_check
rm -rf $(CHECK)
$(PYTHON) -m venv $(CHECK)
$(CHECK)/bin/python -m pip install --quiet --no-compile $(TORCH_FROM) torch==$(TORCH)
$(CHECK)/bin/python -m pip install --quiet --no-deps $(1)
cd / && "$(CURDIR)/$(CHECK)/bin/python" -W ignore -m lamp_kernels | tee "$(CURDIR)/$(CHECK)/report"
grep -q 'losses of cpu tensors are computed by: native' $(CHECK)/report
grep -q 'all checks passed' $(CHECK)/report
endef

sdist: $(READY) ## build dist/*.tar.gz, and a wheel from it to check that it is complete
	rm -rf dist/*.tar.gz build/from-sdist
	$(NO_KERNELS) $(BIN)/python setup.py --quiet sdist
	$(BUILD_ENV) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/from-sdist dist/*.tar.gz
	$(BIN)/python -m zipfile -l build/from-sdist/*.whl | grep -F _C.abi3.so

clean: ## remove environments, caches, runs and build outputs
	rm -rf $(VENV) $(BENCH_VENV) $(ANOMALIB_VENV) runs build dist gpu-bundle *.egg-info $(LIBRARY) $(CUDA_LIBRARY) .pytest_cache .mypy_cache .ruff_cache .hypothesis
