"""The Triton operators as PyTorch sees them, and which backend is chosen with them."""

import subprocess
import sys

import interpreted
import pytest
import torch

from lamp_kernels import backends, functional, native, ops, triton

pytestmark = pytest.mark.cpu_only("interpreted on the CPU, or about the choice")


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
@pytest.mark.parametrize("name", ["image_losses", "loss_map", "once"])
def test_schemas_are_the_native_ones(name):
    ours = getattr(torch.ops.lamp_kernels_triton, name).default._schema
    theirs = getattr(torch.ops.lamp_kernels, name).default._schema
    assert str(ours).partition("::")[2] == str(theirs).partition("::")[2]


@pytest.mark.parametrize(
    ("layout", "dtype", "grad", "per_term"),
    [
        ("channels_last", torch.float16, (False, True), False),
        ("sliced", torch.float32, (False, False), True),
    ],
)
def test_opcheck(interpret, layout, dtype, grad, per_term):
    interpret(interpreted.opcheck, layout, dtype, grad, per_term)


BAD = {
    "three dimensions": {"x": torch.rand(3, 9, 10), "y": torch.rand(3, 9, 10)},
    "another height": {"y": torch.rand(2, 3, 1, 10)},
    "integers": {"x": torch.ones(2, 3, 9, 10, dtype=torch.int64)},
    "factors of another batch": {"factors": torch.rand(1, 1)},
    "factors of another dtype": {"factors": torch.rand(2, 1, dtype=torch.float64)},
    "weight of another width": {"weight": torch.rand(2, 1, 9, 9)},
    "weight of two dimensions": {"weight": torch.rand(9, 10)},
    "weight of another dtype": {"weight": torch.rand(2, 1, 9, 10, dtype=torch.float64)},
    "window 4": {"window_size": 4},
    "window 17": {"window_size": 17},
    "padding same": {"padding": "same"},
    "too small": {"x": torch.rand(2, 3, 1, 10), "y": torch.rand(2, 3, 1, 10)},
    "no term": {"metrics": (), "factors": torch.rand(2, 0)},
    "weight on the grid of one of two terms": {
        "weight": torch.rand(2, 1, 7, 8),
        "metrics": ("ssim", "mse"),
        "factors": torch.rand(2, 2),
        "padding": "valid",
    },
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_bad_call_raises(interpret, change):
    assert interpret(interpreted.error_of, change) is not None


def test_a_second_derivative_is_an_error(interpret):
    assert interpret(interpreted.second_derivative) == ops.NO_SECOND_DERIVATIVE


def test_a_compiled_graph_gives_the_same(interpret):
    assert interpret(interpreted.compiled_agrees)


# ---- The choice ----------------------------------------------------------------------------------


def test_the_interpreter_is_used_where_it_is_asked_for(interpret):
    said = interpret(interpreted.chosen)
    assert said["asked"] == "triton"
    assert said["automatic"] != "triton"
    assert "window_size=17" in said["wide"]
    assert "interpreted (TRITON_INTERPRET)" in said["report"]


def test_a_cpu_tensor_without_the_interpreter_is_an_error():
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"backend='triton' cannot serve this input: .*INTERPRET"):
        functional.amplified_ssim_loss(image, image, backend="triton")


def test_importing_the_package_imports_no_triton():
    program = "import sys, lamp_kernels; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


def test_the_report_names_the_release():
    assert f"Triton {triton.release()}, compiled at first use" in backends.report()
