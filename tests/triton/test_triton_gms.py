"""Gradient magnitude similarity in Triton, in the interpreter: every option, and its edges."""

import interpreted
import pytest
import torch

pytestmark = pytest.mark.cpu_only("interpreted on the CPU")

PADDINGS = ("reflect", "valid", "zeros")
# Of the loss, and of gradients: near a gradient of 0, that of a magnitude loses digits.
LIMITS = {
    torch.float32: (2e-6, 3e-5),
    torch.float64: (1e-14, 1e-13),
    torch.bfloat16: (2e-6, 1e-2),
}


def check(interpret, dtype=torch.float32, **case):
    case = {"terms": {"gms": 1.0}, "dtypes": (dtype, dtype), **case}
    loss, *gradients = interpret(interpreted.errors, **case)
    of_loss, of_gradient = LIMITS[dtype]
    assert loss <= of_loss
    assert all(error <= of_gradient for error in gradients)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("grad", [(False, True), (True, True)])
def test_borders_and_gradients(interpret, padding, grad):
    check(interpret, shape=(1, 1, 5, 7), padding=padding, grad=grad)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sides", [(0, 1), (1, 0)])
def test_the_smallest_image(interpret, padding, sides):
    """Along one side: where both sides are mirrored from one pixel, no position has a gradient."""
    least = {"reflect": 2, "valid": 3, "zeros": 1}[padding]
    shape = (1, 1, *(least + 2 * more for more in sides))
    check(interpret, shape=shape, padding=padding, grad=(True, True))


@pytest.mark.parametrize("padding", PADDINGS)
def test_seams_and_ragged_edges(interpret, padding):
    """Tiles of eight columns and three rows."""
    check(
        interpret, shape=(1, 1, 5, 10), tile=(8, 3), padding=padding, weight=(1, 1, 5, 10),
        grad=(True, True),
    )  # fmt: skip


@pytest.mark.parametrize("padding", PADDINGS)
def test_masks(interpret, padding):
    """As `test_seams_and_ragged_edges`, with NaN under the mask."""
    check(
        interpret, shape=(1, 1, 9, 20), tile=(8, 3), padding=padding, hidden=(1, 1, 9, 20),
        shown=0.9, grad=(True, True),
    )  # fmt: skip


CASES: dict[str, dict[str, object]] = {
    "no amplification": {"amplification": "none", "gms_constant": 0.1, "data_range": 255.0},
    "power": {"amplification": "power", "gamma": 3.0},
    "values": {"grad": (False, False)},
    "sums of images": {"reduction": "image", "weight": (2,)},
    "images": {"amplify_over": "image", "weight": (1, 1, 4, 1)},
    "batch": {"amplify_over": "batch"},
    "map": {"reduction": "none", "padding": "valid", "weight": (2, 1, 4, 7), "grad": (True, True)},
    "map without a weight": {"reduction": "none"},
    "ranges": {"ranges": (255.0, 1e-3), "grad": (True, True)},
    "float64": {"dtype": torch.float64, "layouts": ("transposed", "channels_last")},
    "half": {"dtype": torch.bfloat16},
    "layouts": {"layouts": ("batch inside", "sliced"), "grad": (True, True)},
    "mask": {"hidden": (2, 1, 1, 1), "shape": (2, 3, 4, 7)},
    "map under a mask": {
        "reduction": "none",
        "hidden": (1, 1, 9, 12),
        "shown": 0.9,
        "shape": (2, 1, 9, 12),
    },
    "mask and weight": {
        "weight": (2, 1, 1, 1),
        "hidden": (2, 2, 9, 12),
        "shown": 0.9,
        "shape": (2, 2, 9, 12),
    },
    "scales under a mask": {
        "terms": {"msgms": 1.0},
        "gms_scales": 2,
        "hidden": (1, 1, 16, 18),
        "shown": 0.9,
        "shape": (1, 1, 16, 18),
    },
    "beside ssim": {"terms": {"ssim": 1.0, "gms": 0.5}, "window_size": 3},
    "scales": {"terms": {"msgms": 1.0}, "gms_scales": 2, "grad": (True, True)},
    "scales of images": {"terms": {"msgms": 1.0}, "gms_scales": 2, "amplify_over": "image"},
}


@pytest.mark.parametrize("name", CASES)
def test_options(interpret, name):
    check(interpret, **{"shape": (2, 1, 4, 7), **CASES[name]})


@pytest.mark.parametrize("scene", ["texture", "flat", "dark beside bright"])
def test_nearly_equal_images_lose_no_digits(interpret, scene):
    check(interpret, scene=(scene, 1e-4, 0.0), shape=(1, 1, 5, 96))


def test_flat_images(interpret):
    """No loss, whatever their brightness; no infinite gradient beside a texture."""
    of_flat, gradient_of_flat, of_texture, finite = interpret(interpreted.gms_of_flat_images)
    assert (of_flat, gradient_of_flat) == (0.0, 0.0)
    assert of_texture > 0.0
    assert finite


def test_nan_reaches_the_positions_that_see_it_and_no_others(interpret):
    expected = torch.zeros(9, 10, dtype=torch.bool)
    expected[3:6, 5:8] = True
    expected[4, 6] = False  # the operator does not look at its center
    assert torch.equal(interpret(interpreted.gms_of_nan), expected)


def test_two_runs_give_the_same_bits_and_an_empty_batch_none(interpret):
    assert interpret(interpreted.gms_twice)


BAD = {
    "beside ssim": {"metrics": "ssim+gms", "metric_parameters": (0.0, 0.0)},
    "a mask of another width": {"mask": torch.ones(2, 1, 9, 9)},
    "too small": {"x": torch.rand(2, 3, 1, 10), "y": torch.rand(2, 3, 1, 10)},
    "a weight of another width": {"weight": torch.rand(2, 1, 9, 9)},
    "no constant": {"metric_parameters": ()},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_bad_call_raises(interpret, change):
    good = {"metrics": "gms", "metric_parameters": (0.0026,), "taps": ()}
    assert interpret(interpreted.error_of, {**good, **change}) is not None
