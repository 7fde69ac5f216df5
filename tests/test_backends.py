"""Which backend computes, and the errors and warnings when a request cannot be met."""

import functools
import importlib.metadata
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Literal

import pytest
import torch

from lamp_kernels import AmplifiedSSIMLoss, backends, functional
from lamp_kernels import __main__ as program
from lamp_kernels.backends import native, triton
from lamp_kernels.backends.native import NativeBackend

pytestmark = pytest.mark.cpu_only("the choice for CPU tensors and for simulated CUDA tensors")

IMAGE = torch.rand(1, 1, 16, 16)

NATIVE, TRITON, REFERENCE = (backends.BACKENDS[name] for name in ("native", "triton", "reference"))
assert isinstance(NATIVE, NativeBackend)

needs_native = pytest.mark.skipif(
    NATIVE.unavailable_reason() is not None, reason=str(NATIVE.unavailable_reason())
)
needs_cuda_kernels = pytest.mark.skipif(
    NATIVE.cuda_unavailable_reason is not None,
    reason=f"no CUDA kernels: {NATIVE.cuda_unavailable_reason}",
)


def python(program, *, check=True, **environment):
    """Run `program` in a new process and return its standard output and standard error."""
    result = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not check or result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture
def cuda_image(monkeypatch):
    """A tensor that `resolve` takes for a CUDA tensor; no GPU is needed."""
    monkeypatch.setattr(backends, "_warned_of_cuda", False)

    class OnCuda(torch.Tensor):
        is_cuda = True
        device = torch.device("cuda", 0)

    return torch.rand(1).as_subclass(OnCuda)


def fastest_on_the_cpu():
    """The first backend available, except Triton, whose interpreter must be requested."""
    return next(name for name in backends.available() if name != "triton")


def test_automatic_choice_is_the_fastest_available_backend():
    assert backends.resolve(None, IMAGE) == fastest_on_the_cpu()


def test_reference_is_always_available():
    assert backends.available()[-1] == "reference"
    assert backends.resolve("reference", IMAGE) == "reference"
    assert REFERENCE.unavailable_reason() is None


@pytest.mark.parametrize("name", ["native", "triton"])
def test_explicit_request_for_a_backend_that_is_not_installed(monkeypatch, name):
    monkeypatch.setattr(backends.BACKENDS[name], "unavailable_reason", lambda: "so it is")
    for call in (
        lambda: backends.resolve(name, IMAGE),
        lambda: AmplifiedSSIMLoss(backend=name),
        lambda: functional.amplified_mse_loss(IMAGE, IMAGE, backend=name),
        lambda: functional.ssim(IMAGE, IMAGE, backend=name),
        lambda: functional.anomaly_map(IMAGE, IMAGE, backend=name),
    ):
        with pytest.raises(ValueError, match=f"backend='{name}' is not available: so it is"):
            call()


def test_native_reports_why_it_could_not_be_loaded(monkeypatch):
    monkeypatch.setattr(NATIVE, "unavailable_reason", lambda: "no compiler")
    assert NATIVE.unavailable_reason() == "no compiler"
    assert "native" not in backends.available()
    assert backends.resolve(None, IMAGE) == fastest_on_the_cpu() == "reference"
    assert "native     not available: no compiler\n" in backends.report()


@needs_native
@pytest.mark.parametrize("window_size", [1, 17, 31])
def test_windows_that_the_kernels_do_not_support(window_size):
    assert backends.resolve(None, IMAGE, window_size=window_size) == "reference"
    message = f"backend='native' does not support this input: .*window_size={window_size}"
    with pytest.raises(ValueError, match=message):
        backends.resolve("native", IMAGE, window_size=window_size)
    image = torch.rand(2, 1, 1, 40, 40)
    with pytest.raises(ValueError, match=message):
        functional.amplified_ssim_loss(*image, window_size=window_size, backend="native")
    losses = [
        functional.amplified_ssim_loss(*image, window_size=window_size, backend=backend)
        for backend in (None, "reference")
    ]
    assert torch.equal(*losses)


@needs_native
@pytest.mark.parametrize("window_size", [None, *range(3, 16, 2)])
def test_windows_that_the_kernels_support(window_size):
    assert backends.resolve(None, IMAGE, window_size=window_size) == "native"
    assert backends.resolve("native", IMAGE, window_size=window_size) == "native"


@needs_native
def test_a_pointwise_loss_ignores_the_window_size():
    loss = functional.amplified_reconstruction_loss(
        IMAGE, IMAGE, ssim=0.0, mse=1.0, window_size=17, backend="native"
    )
    assert loss.item() == 0.0


@needs_native
def test_devices_that_the_kernels_do_not_support():
    meta = IMAGE.to("meta")
    assert backends.resolve(None, meta) == "reference"
    with pytest.raises(ValueError, match=r"backend='native' does not support .* on meta"):
        backends.resolve("native", meta)
    with pytest.raises(ValueError, match=r"backend='native' does not support .* on meta"):
        functional.amplified_mse_loss(meta, meta, backend="native")


@needs_native
def test_a_request_by_environment_variable_is_met_or_raises(monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", "native")
    assert backends.resolve(None, IMAGE) == "native"
    with pytest.raises(ValueError, match="LAMP_KERNELS_BACKEND='native' does not support"):
        backends.resolve(None, IMAGE, window_size=17)
    assert backends.resolve("reference", IMAGE, window_size=17) == "reference"


def test_unknown_name():
    with pytest.raises(ValueError, match="backend must be one of native, triton, reference"):
        backends.resolve("opencl", IMAGE)
    with pytest.raises(TypeError, match="backend"):
        backends.resolve(3, IMAGE)  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, got NoneType"):
        backends.resolve(None, None)  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(ValueError, match="window_size"):
        backends.resolve(None, IMAGE, window_size=10)


def test_environment_variable_overrides_the_default_but_not_the_argument(monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", "opencl")
    assert backends.resolve("reference", IMAGE) == "reference"
    with pytest.raises(ValueError, match="LAMP_KERNELS_BACKEND must be one of"):
        backends.resolve(None, IMAGE)


def test_environment_variable_is_read_at_import():
    program = (
        "import torch, lamp_kernels\n"
        "print(lamp_kernels.backends.resolve(None, torch.rand(1)))\n"
        "print(lamp_kernels.backends.report())"
    )
    output = python(["-c", program], LAMP_KERNELS_BACKEND="reference")
    assert output.startswith("reference\n")
    assert "LAMP_KERNELS_BACKEND=reference" in output


@pytest.fixture
def no_triton(monkeypatch):
    """Make Triton look as if it were not installed."""
    monkeypatch.setattr(TRITON, "unavailable_reason", lambda: "Triton is not installed")


@pytest.fixture
def triton_kernels(monkeypatch):
    """Make `resolve` believe that Triton is installed and runs on cuda:0."""
    monkeypatch.setattr(TRITON, "unavailable_reason", lambda: None)
    monkeypatch.setattr(triton, "INTERPRETED", False)
    monkeypatch.setattr(triton, "_too_old", lambda index: None)
    monkeypatch.setattr(triton, "_without_compiler", lambda: None)


def test_triton_serves_a_cuda_tensor_without_native_cuda_kernels(
    monkeypatch, triton_kernels, cuda_image
):
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", "not built; build it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.resolve(None, cuda_image) == "triton"
        assert backends.resolve("triton", cuda_image) == "triton"


def test_triton_beside_native_cuda_kernels_must_be_requested(
    cuda_kernels, triton_kernels, cuda_image
):
    assert backends.resolve(None, cuda_image) == "native"
    assert backends.resolve("triton", cuda_image) == "triton"


def test_windows_that_triton_does_not_support(monkeypatch, triton_kernels, cuda_image):
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", "not built; build it")
    with pytest.raises(ValueError, match=r"backend='triton' does not support .*window_size=17"):
        backends.resolve("triton", cuda_image, window_size=17)
    with pytest.warns(UserWarning, match=r"triton: it supports odd window sizes from 3 to 15"):
        assert backends.resolve(None, cuda_image, window_size=17) == "reference"


def test_the_interpreter_is_not_chosen_for_a_cuda_tensor(monkeypatch, triton_kernels, cuda_image):
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", "not built; build it")
    monkeypatch.setattr(triton, "INTERPRETED", True)
    with pytest.warns(UserWarning, match="triton: its interpreter is used only on request"):
        assert backends.resolve(None, cuda_image) == "reference"
    assert backends.resolve("triton", cuda_image) == "triton"


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """Make the Triton backend see a machine without gcc and clang."""
    monkeypatch.setattr(TRITON, "unavailable_reason", lambda: None)
    monkeypatch.setattr(triton, "INTERPRETED", False)
    monkeypatch.setattr(triton, "_too_old", lambda index: None)
    monkeypatch.setattr(triton, "_without_compiler", triton._without_compiler.__wrapped__)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delitem(sys.modules, "triton", raising=False)


def test_triton_without_a_c_compiler_is_skipped(monkeypatch, no_compiler, cuda_image):
    """Its first launch would raise."""
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", "not built; build it")
    reason = "Triton needs a C compiler at its first launch: found neither gcc nor clang"
    with pytest.warns(UserWarning, match=f"triton: {reason}"):
        assert backends.resolve(None, cuda_image) == "reference"
    with pytest.raises(ValueError, match=f"backend='triton' does not support this input: {reason}"):
        backends.resolve("triton", cuda_image)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ValueError, match="CC=no-such-compiler is not an executable compiler"):
        backends.resolve("triton", cuda_image)


@pytest.mark.parametrize("name", ["gcc", "clang", "CC", "knobs"])
def test_c_compilers_that_triton_finds(monkeypatch, no_compiler, cuda_image, tmp_path, name):
    if name == "knobs":
        build = SimpleNamespace(impl=lambda *arguments: "")
        loaded = SimpleNamespace(knobs=SimpleNamespace(build=build))
        monkeypatch.setitem(sys.modules, "triton", loaded)
    else:
        compiler = tmp_path / name
        compiler.touch(mode=0o755)
        if name == "CC":
            monkeypatch.setenv("CC", str(compiler))
    assert backends.resolve("triton", cuda_image) == "triton"


def test_a_gpu_too_old_for_triton(monkeypatch, cuda_image):
    monkeypatch.setattr(TRITON, "unavailable_reason", lambda: None)
    monkeypatch.setattr(triton, "INTERPRETED", False)
    monkeypatch.setattr(triton, "_without_compiler", lambda: None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
    with pytest.raises(
        ValueError, match=r"cuda:0 has compute capability 7\.0, Triton requires 7\.5"
    ):
        backends.resolve("triton", cuda_image)


def test_devices_that_triton_does_not_support(monkeypatch):
    monkeypatch.setattr(TRITON, "unavailable_reason", lambda: None)
    monkeypatch.setattr(triton, "INTERPRETED", False)
    for device, reason in (("cpu", "TRITON_INTERPRET=1"), ("meta", "got one on meta")):
        with pytest.raises(ValueError, match=f"backend='triton' does not support .*{reason}"):
            backends.resolve("triton", torch.empty(0, device=device))


def test_a_directory_named_triton_is_not_the_package(monkeypatch, tmp_path):
    """Such as tests/triton in this project, or a clone of Triton in the working directory."""
    (tmp_path / "triton").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    assert triton._find_unavailable_reason() == "Triton is not installed: pip install triton"


@pytest.mark.parametrize(
    ("release", "numpy", "fails"),
    [("3.6.0", "2.4.6", True), ("3.6.0", "2.3.5", False), ("3.7.1", "2.4.6", False)],
)
def test_the_interpreter_of_triton_3_6_requires_an_older_numpy(monkeypatch, release, numpy, fails):
    versions = {"triton": release, "numpy": numpy}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    reason = f"the interpreter of Triton {release} needs NumPy older than 2.4, got {numpy}"
    assert triton._interpreter_fails() == (reason if fails else None)


def test_triton_is_unavailable_when_not_installed(no_triton):
    assert "triton" not in backends.available()
    assert "triton     not available: Triton is not installed\n" in backends.report()
    with pytest.raises(ValueError, match="backend='triton' is not available: Triton is not inst"):
        backends.resolve("triton", IMAGE)


def test_the_reference_on_cuda_warns_once(no_triton, cuda_image):
    with pytest.warns(UserWarning, match=r"plain PyTorch reference .*: native: .+; triton: .+"):
        assert backends.resolve(None, cuda_image) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.resolve(None, cuda_image) == "reference"


@pytest.fixture
def cuda_kernels(monkeypatch):
    """Make `resolve` believe that the CUDA kernels are built and run on cuda:0."""
    monkeypatch.setattr(NATIVE, "unavailable_reason", lambda: None)
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", None)
    monkeypatch.setattr(native, "_cuda_unsupported_reasons", {0: None})


def test_native_serves_a_cuda_tensor(cuda_kernels, cuda_image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.resolve(None, cuda_image) == "native"
        assert backends.resolve("native", cuda_image) == "native"


def test_a_window_that_the_cuda_kernels_do_not_support(cuda_kernels, no_triton, cuda_image):
    with pytest.warns(UserWarning, match=r"native: it supports odd window sizes from 3 to 15"):
        assert backends.resolve(None, cuda_image, window_size=17) == "reference"


def test_an_unsupported_instruction_set_does_not_affect_cuda_tensors(
    monkeypatch, cuda_kernels, cuda_image
):
    monkeypatch.setattr(NATIVE, "cpu_error", "no such instruction set")
    assert backends.resolve(None, cuda_image) == "native"
    with pytest.raises(ValueError, match="no such instruction set"):
        backends.resolve(None, IMAGE)


@pytest.mark.skipif(
    NATIVE.unavailable_reason() is not None, reason=f"no CPU kernels: {NATIVE.unavailable_reason()}"
)
@pytest.mark.parametrize("schemas", ["image_losses(Tensor input) -> Tensor", None])
def test_cuda_kernels_from_another_build_are_rejected(monkeypatch, schemas):
    """They would misinterpret their arguments. The oldest builds do not report their schemas."""
    operators = SimpleNamespace(schemas=torch.ops.lamp_kernels.schemas)
    if schemas is not None:
        operators.cuda_schemas = lambda: schemas
    monkeypatch.setattr(native, "_load", lambda library, note: None)
    monkeypatch.setattr(torch.ops, "lamp_kernels", operators)
    error = native._load_cuda(None)
    assert error is not None
    assert "_C_cuda.abi3.so come from different builds; rebuild both" in error
    operators.cuda_schemas = operators.schemas
    assert native._load_cuda(None) is None


@pytest.mark.parametrize(
    ("unavailable", "unsupported"), [("not built; build it", None), (None, "an old driver")]
)
def test_why_native_does_not_serve_a_cuda_tensor(
    monkeypatch, cuda_kernels, no_triton, cuda_image, unavailable, unsupported
):
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", unavailable)
    monkeypatch.setattr(native, "_cuda_unsupported_reasons", {0: unsupported})
    message = f"no CUDA kernels for a tensor on cuda:0: {unavailable or unsupported}"
    with pytest.raises(ValueError, match=f"backend='native' does not support .*: {message}"):
        backends.resolve("native", cuda_image)
    with pytest.warns(UserWarning, match=f"native: {message}"):
        assert backends.resolve(None, cuda_image) == "reference"
    assert backends.resolve(None, IMAGE) == "native"


@pytest.mark.parametrize(
    ("target", "runs", "fails"),
    [
        ("sm_80", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0)]),
        ("sm_86", [(8, 6)], [(8, 0)]),
        ("sm_100", [(10, 0), (10, 3)], [(9, 0), (12, 0)]),
        ("sm_90a", [(9, 0)], [(9, 1), (10, 0)]),
        ("compute_90", [(9, 0), (10, 0), (12, 1)], [(8, 9)]),
    ],
)
def test_which_devices_run_code_for_a_target(target, runs, fails):
    assert all(native._runs_on(target, capability) for capability in runs)
    assert not any(native._runs_on(target, capability) for capability in fails)


@needs_cuda_kernels
class TestCudaKernels:
    """What can be tested without a GPU."""

    def test_are_registered(self):
        for name in ("image_losses", "loss_map"):
            operator = f"lamp_kernels::{name}"
            assert torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CUDA")

    def test_report_their_compilation_targets(self):
        targets = native.cuda_targets()
        assert targets
        assert all(target.startswith(("sm_", "compute_")) for target in targets)
        line = f"CUDA kernels: compiled for {', '.join(targets)} (CUDA {native.cuda_release()})"
        assert line in backends.report()

    @pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
    def test_are_rejected_without_a_device(self):
        assert "; no CUDA device" in backends.report()
        reason = native.cuda_unsupported_reason(0)
        assert reason is not None
        assert " runtime error: " in reason

    def test_are_rejected_on_a_device_they_were_not_compiled_for(self, monkeypatch):
        monkeypatch.setattr(native, "_cuda_unsupported_reasons", {})
        monkeypatch.setattr(torch.ops.lamp_kernels, "cuda_error", lambda: "")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (3, 5))
        reason = native.cuda_unsupported_reason(1)
        assert reason is not None
        assert "cuda:1 is sm_35; build them on this machine" in reason

    @pytest.mark.filterwarnings("default")
    def test_are_chosen_by_a_compiled_graph(self, monkeypatch):
        monkeypatch.setattr(native, "_cuda_unsupported_reasons", {})
        expected = 1.0 if native.cuda_unsupported_reason(0) is None else 2.0
        native._cuda_unsupported_reasons.clear()  # so that the compiler has to call it

        def choose(x):
            return x + (1 if native.cuda_unsupported_reason(0) is None else 2)

        compiled = torch.compile(choose, fullgraph=True, backend="eager")
        assert compiled(torch.zeros(())).item() == expected

    def test_accept_fake_tensors(self, monkeypatch):
        from torch._subclasses.fake_tensor import FakeTensorMode

        monkeypatch.setattr(native, "_cuda_unsupported_reasons", {0: None})
        with FakeTensorMode():
            x, y = (torch.empty(2, 3, 32, 32, device="cuda") for _ in range(2))
            weight = torch.empty(1, 1, 32, 32, device="cuda")
            loss = functional.amplified_reconstruction_loss(x, y, weight, backend="native")
            losses = functional.anomaly_map(x, y, backend="native")
        assert (loss.device.type, losses.device.type) == ("cuda", "cuda")


def test_report_gives_the_reason_for_each_skipped_backend(
    monkeypatch, cuda_kernels, triton_kernels, cuda_image
):
    assert backends.skipped_backends(cuda_image) == {}
    monkeypatch.setattr(NATIVE, "cuda_unavailable_reason", "not built; build it")
    (reason,) = backends.skipped_backends(cuda_image).values()
    assert "not built; build it" in reason
    monkeypatch.setattr(backends, "_from_environment", "reference")
    assert backends.skipped_backends(IMAGE) == {
        "native": "LAMP_KERNELS_BACKEND=reference",
        "triton": "LAMP_KERNELS_BACKEND=reference",
    }


def test_the_program_says_why_another_backend_computes(monkeypatch, capsys):
    monkeypatch.setattr(NATIVE, "unavailable_reason", lambda: "no compiler")
    assert program.main([]) == 0
    output = capsys.readouterr().out
    assert "losses of cpu tensors are computed by: reference" in output
    assert "  not by native: no compiler" in output


def test_explicitly_requesting_the_reference_on_cuda_does_not_warn(cuda_image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.resolve("reference", cuda_image)


def test_every_loss_goes_through_choose(monkeypatch):
    requests = []

    def choose(requested, spec, input):
        requests.append((requested, spec.window_size if spec.has_ssim else None))
        return REFERENCE

    monkeypatch.setattr(backends, "choose", choose)
    functional.amplified_ssim_loss(IMAGE, IMAGE, window_size=7)
    functional.amplified_l1_loss(IMAGE, IMAGE, reduction="none", backend="reference")
    functional.anomaly_map(IMAGE, IMAGE, window_size=5)
    functional.ms_ssim(IMAGE, IMAGE, scale_weights=(0.5, 0.5), window_size=3)
    assert requests == [(None, 7), ("reference", None), (None, 5), (None, 3)]


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
def test_the_report_says_that_triton_needs_a_gpu(triton_kernels):
    report = backends.report()
    assert "triton     available; needs a GPU\n" in report
    assert "reference  available\n" in report
    assert report.count("not run on a GPU yet") == 1


def test_the_report_says_if_a_backend_supports_no_device(monkeypatch, triton_kernels):
    devices = {"cpu": "2 threads", "meta": "no memory"}  # meta: a device without Triton
    monkeypatch.setattr(backends.installation, "devices", lambda: devices)
    assert "triton     available; supports none of these devices\n" in backends.report()


def test_report():
    text = backends.report()
    for word in ("lamp_kernels", torch.__version__, "cpu", *backends.BACKENDS):
        assert word in text
    for name in backends.BACKENDS:
        assert (backends.BACKENDS[name].unavailable_reason() or "available") in text


@pytest.mark.parametrize("function", ["image_losses", "loss_map"])
@pytest.mark.parametrize("name", backends.NAMES)
def test_the_requested_backend_computes(monkeypatch, name, function):
    backend = backends.BACKENDS[name]
    if backend.unavailable_reason() is not None:
        pytest.skip(f"{name}: {backend.unavailable_reason()}")

    def refuse(*args, **kwargs):
        raise RuntimeError(f"{name} called")

    monkeypatch.setattr(backend, function, refuse)
    if name == "triton":  # as if interpreted, so that it accepts CPU tensors
        monkeypatch.setattr(triton, "INTERPRETED", True)
    reduction: Literal["mean", "none"] = "mean" if function == "image_losses" else "none"
    for loss in (functional.amplified_ssim_loss, functional.amplified_l1_loss):
        with pytest.raises(RuntimeError, match=f"{name} called"):
            loss(IMAGE, IMAGE, reduction=reduction, backend=name)


# Saves the loss and gradients of every kind of kernel to the file given as argument.
RESULTS = """
import itertools, sys, torch
from lamp_kernels import functional
from lamp_kernels.backends import native
torch.manual_seed(0)
results = []
for dtype, shape, padding, window_size in itertools.product(
    (torch.float32, torch.float64, torch.bfloat16), ((2, 3, 33, 47), (1, 1, 70, 270)),
    ("reflect", "valid", "zeros"), (3, 11, 15),
):
    leaves = [image.to(dtype).requires_grad_() for image in torch.rand(2, *shape)]
    loss = functional.amplified_reconstruction_loss(
        *leaves, torch.rand(1, 1, *shape[-2:]), l1=0.5, padding=padding, window_size=window_size)
    loss.backward()
    results += [loss.detach(), leaves[0].grad, leaves[1].grad]
torch.save(results, sys.argv[1])
print(native.instruction_set())
"""


@pytest.fixture(scope="module")
def results_of(tmp_path_factory):
    """A function that maps an instruction set to its results, or to None if it is unsupported."""

    @functools.cache
    def results(name):
        file = tmp_path_factory.mktemp("results") / name
        environment = {"LAMP_KERNELS_CPU_ISA": name, "LAMP_KERNELS_BACKEND": "native"}
        output = python(["-c", RESULTS, str(file)], check=False, **environment)
        if "is not supported by this machine" in output:
            return None
        assert output == f"{name}\n"
        return torch.load(file)

    return results


@needs_native
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_every_instruction_set_gives_the_same_results(results_of, name):
    found = results_of(name)
    if found is None:
        pytest.skip(f"this machine does not support {name}")
    # A bfloat16 gradient is rounded to 8 bits, occasionally to the neighboring value.
    limits = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-3}
    for one, other in zip(found, results_of("baseline"), strict=True):
        difference = (one.double() - other.double()).norm() / other.double().norm()
        assert difference <= limits[one.dtype]


@needs_native
class TestAnUnknownInstructionSet:
    def test_is_an_error_that_names_the_variable(self):
        program = (
            "import torch\n"
            "from lamp_kernels import AmplifiedMSELoss\n"
            "image = torch.rand(1, 1, 16, 16)\n"
            "AmplifiedMSELoss(backend='reference')(image, image)\n"
            "for backend in (None, 'native'):\n"
            "    try:\n"
            "        AmplifiedMSELoss(backend=backend)(image, image)\n"
            "    except ValueError as error:\n"
            "        print(error)\n"
        )
        lines = python(["-c", program], LAMP_KERNELS_CPU_ISA="v9").splitlines()
        assert len(lines) == 2
        for line in lines:
            assert line.startswith("LAMP_KERNELS_CPU_ISA=v9 is not supported by this machine")

    def test_is_reported_by_the_program(self):
        output = python(["-m", "lamp_kernels"], check=False, LAMP_KERNELS_CPU_ISA="v9")
        assert "not usable on the CPU: LAMP_KERNELS_CPU_ISA=v9 is not supported" in output
        assert "every loss without a backend argument raises: LAMP_KERNELS_CPU_ISA=v9" in output
        assert "Traceback" not in output

    def test_is_an_error_of_the_operator_itself(self):
        program = "from lamp_kernels.backends import native; native.instruction_set()"
        output = python(["-c", program], check=False, LAMP_KERNELS_CPU_ISA="v9")
        assert "RuntimeError: LAMP_KERNELS_CPU_ISA=v9" in output
