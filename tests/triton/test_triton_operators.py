"""The Triton operators as PyTorch sees them, and the choice of this backend."""

import subprocess
import sys

import interpreted
import pytest
import torch
from bad_factors import BAD_FACTORS

from lamp_kernels import autograd, backends, functional
from lamp_kernels.backends import triton
from lamp_kernels.backends.triton import TritonBackend

pytestmark = pytest.mark.cpu_only("interpreted on the CPU, or about the choice")

NATIVE_MISSING = backends.BACKENDS["native"].unavailable_reason()


@pytest.mark.skipif(NATIVE_MISSING is not None, reason=str(NATIVE_MISSING))
@pytest.mark.parametrize("name", ["image_losses", "loss_map", "block_double_backward"])
def test_schemas_are_the_native_ones(name):
    ours = getattr(torch.ops.lamp_kernels_triton, name).default._schema
    theirs = getattr(torch.ops.lamp_kernels, name).default._schema
    assert str(ours).partition("::")[2] == str(theirs).partition("::")[2]


@pytest.mark.parametrize(
    ("layout", "dtype", "grad", "sums", "mean_over"),
    [
        ("channels_last", torch.float16, (False, True), "images", None),
        ("sliced", torch.float32, (False, False), "terms", None),
        ("contiguous", torch.float32, (True, False), "batch", "batch"),
        ("contiguous", torch.float64, (False, False), "terms", "image"),
    ],
)
def test_opcheck(interpret, layout, dtype, grad, sums, mean_over):
    interpret(interpreted.opcheck, layout, dtype, grad, sums, mean_over)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "metrics"),
    [
        ((1, 1, 3, 4), ("mse",)),
        ((3, 2, 2, 6), ("ssim",)),
        ((3, 2, 2, 6), ("ssim", "mse", "l1")),
        ((2, 1, 3, 140), ("ssim", "l1")),  # several strips
        ((5, 500, 1, 1), ("mse", "l1")),  # more tiles than a block of the batch's sum has
        ((0, 3, 5, 6), ("ssim",)),
    ],
)
def test_sums_over_images_and_the_batch(interpret, shape, metrics, dtype):
    limit = 3e-7 if dtype == torch.float32 else 1e-14
    assert interpret(interpreted.sums_agree, shape, metrics, dtype) <= limit


@pytest.mark.parametrize(
    ("shape", "metrics"),
    [
        ((2, 1, 3, 5), ("ssim", "mse", "l1")),
        ((2, 1, 3, 5), ("mse", "l1")),
        ((0, 1, 3, 5), ("mse", "l1")),
    ],
)
def test_factors_of_many_terms_are_in_memory(interpret, shape, metrics):
    assert interpret(interpreted.factors_in_memory, shape, metrics)


BAD = {
    "three dimensions": {"x": torch.rand(3, 9, 10), "y": torch.rand(3, 9, 10)},
    "another height": {"y": torch.rand(2, 3, 1, 10)},
    "integers": {"x": torch.ones(2, 3, 9, 10, dtype=torch.int64)},
    "factors of another batch": {"factors": torch.rand(1, 1)},
    "factors of another dtype": {"factors": torch.rand(2, 1, dtype=torch.float64)},
    "weight of another width": {"weight": torch.rand(2, 1, 9, 9)},
    "weight of two dimensions": {"weight": torch.rand(9, 10)},
    "weight of another dtype": {"weight": torch.rand(2, 1, 9, 10, dtype=torch.float64)},
    "mask of another width": {"mask": torch.ones(2, 1, 9, 9)},
    "mask on the grid of the loss": {"mask": torch.ones(2, 1, 7, 8), "padding": "valid"},
    "mask of two dimensions": {"mask": torch.ones(9, 10)},
    "mask of another dtype": {"mask": torch.ones(2, 1, 9, 10, dtype=torch.float64)},
    "data_ranges of another batch": {"data_ranges": torch.ones(1)},
    "data_ranges of two dimensions": {"data_ranges": torch.ones(2, 1)},
    "data_ranges of another dtype": {"data_ranges": torch.ones(2, dtype=torch.float64)},
    "window 1": {"taps": (1.0,)},
    "window 17": {"taps": (0.1,) * 9},
    "padding same": {"padding": "same"},
    "too small": {"x": torch.rand(2, 3, 1, 10), "y": torch.rand(2, 3, 1, 10)},
    **BAD_FACTORS,
    "no term": {"metrics": "", "metric_parameters": (), "factors": torch.rand(2, 0)},
    "unknown metric": {"metrics": "huber"},
    "metrics in another order": {
        "metrics": "mse+ssim",
        "metric_parameters": (0.0, 0.0),
        "factors": torch.rand(2, 2),
    },
    "a metric parameter too many": {"metric_parameters": (0.0, 0.0)},
    "unknown amplification": {"amplification": "square"},
    "no eps": {"amplification_parameters": ()},
    "weight on the grid of one of two terms": {
        "weight": torch.rand(2, 1, 7, 8),
        "metrics": "ssim+mse",
        "metric_parameters": (0.0, 0.0),
        "factors": torch.rand(2, 2),
        "padding": "valid",
    },
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_bad_call_raises(interpret, change):
    assert interpret(interpreted.error_of, change) is not None


def test_a_second_derivative_is_an_error(interpret):
    assert interpret(interpreted.second_derivative) == autograd.NO_SECOND_DERIVATIVE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.3, 0.3), (1.0, -2.7, 1e30)], ids=str)
def test_a_gradient_is_scaled_as_by_a_multiplication(interpret, layout, dtype, factors):
    assert interpret(interpreted.scaled, layout, dtype, list(factors), (3, 5, 7))


def test_a_gradient_of_many_runs_is_scaled(interpret):
    assert interpret(interpreted.scaled, "contiguous", torch.float32, [0.5, 3.0], (1, 99, 101))


def test_a_gradient_is_not_read_where_the_factor_is_1(interpret):
    assert interpret(interpreted.is_not_read_where_the_factor_is_1)


@pytest.mark.parametrize(
    ("gradient", "factor", "message"),
    [
        (torch.rand(2, 1, 4, 5).mT, torch.rand(2), "dense"),
        (torch.rand(2, 1, 4, 5).half(), torch.rand(2).half(), "float32 or float64"),
        (torch.rand(2, 1, 4, 5), torch.rand(3), "factors"),
        (torch.rand(2, 1, 4, 5), torch.rand(2).double(), "in the gradient's type"),
    ],
)
def test_a_bad_call_to_scale_raises(interpret, gradient, factor, message):
    assert message in interpret(interpreted.error_of_scale, gradient, factor)


def test_backward_on_a_gpu_scales_by_the_operator(monkeypatch):
    """Without a GPU: what the derivative passes to the operator."""

    class OnCuda(torch.Tensor):
        is_cuda = True

    backend = backends.BACKENDS["triton"]
    assert isinstance(backend, TritonBackend)
    operators = backend.operators
    assert operators.scale is torch.ops.lamp_kernels_triton.scale_.default
    given = []
    operators = operators._replace(scale=lambda *tensors: given.append(tensors))
    monkeypatch.setattr(autograd, "Tensor", OnCuda)  # so that its gradient is an ordinary tensor
    image = torch.rand(2, 1, 3, 4)
    gradient, factor = image.clone().as_subclass(OnCuda), torch.tensor([1.0, 3.0])
    with torch.no_grad():
        results = autograd._results(
            operators, [gradient, image], factor, image, image, factor, [True, False]
        )
    assert given[0][0] is gradient
    assert given[0][1] is factor
    assert results[0] is gradient


def test_a_compiled_graph_gives_the_same_result(interpret):
    assert interpret(interpreted.compiled_agrees)


# ---- The choice ----------------------------------------------------------------------------------


def test_the_interpreter_runs_on_request(interpret):
    said = interpret(interpreted.chosen)
    assert said["requested"] == "triton"
    assert said["automatic"] != "triton"
    assert "window_size=17" in said["large window"]
    for terms, largest in (("SSIM", 11), ("several terms", 9)):
        reason = said[f"mask in float64, {terms}"]
        assert f"windows of up to {largest} pixels" in reason
        assert reason.endswith(f"got window_size={largest + 2}")
    assert "interpreted (TRITON_INTERPRET)" in said["report"]


def test_a_cpu_tensor_without_the_interpreter_is_an_error():
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(
        ValueError, match=r"backend='triton' does not support this input: .*INTERPRET"
    ):
        functional.amplified_ssim_loss(image, image, backend="triton")


def test_importing_the_package_imports_no_triton():
    program = "import sys, lamp_kernels; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


def test_the_report_names_the_release():
    assert f"Triton {triton.release()}, compiled at first use" in backends.report()
