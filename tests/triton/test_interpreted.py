"""Every option of the Triton kernels against the reference in float64, in Triton's interpreter.

The images are small and mostly fit one program: the interpreter takes milliseconds for each row of
a program, however wide it is. Memory that no kernel writes is NaN.
"""

import itertools

import interpreted
import pytest
import torch

from lamp_kernels.backends.triton import tiling

pytestmark = pytest.mark.cpu_only("interpreted on the CPU")

PADDINGS = ("reflect", "valid", "zeros")
LIMITS = {torch.float32: 2e-6, torch.float64: 1e-13, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def check(interpret, dtype=torch.float32, limit=None, **case):
    case.setdefault("dtypes", (dtype, dtype))
    loss, *gradients = interpret(interpreted.errors, **case)
    # The loss of half types has the accuracy of float32; their gradients are rounded.
    of_loss = LIMITS[torch.float64 if dtype == torch.float64 else torch.float32]
    assert loss <= (limit or of_loss)
    assert all(error <= (limit or LIMITS[dtype]) for error in gradients)


def test_the_interpreter_is_ready(interpret):
    assert interpret(interpreted.is_ready) == (True, True, True)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("grad", [(False, False), (True, False), (False, True), (True, True)])
def test_borders_and_gradients(interpret, padding, grad):
    check(interpret, padding=padding, grad=grad)


@pytest.mark.parametrize("window_size", [3, 7, 9, 11, 13, 15])
def test_windows(interpret, window_size):
    check(interpret, window_size=window_size, shape=(1, 1, 8, 9))


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_smallest_image(interpret, padding):
    side = {"reflect": 4, "valid": 7, "zeros": 1}[padding]
    check(interpret, window_size=7, shape=(1, 1, side, side), padding=padding, limit=1e-5)


@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(interpret, dtype, padding):
    check(interpret, dtype, padding=padding)


def test_both_gradients_of_a_wide_window_in_float64(interpret):
    """Each gradient has its own launch."""
    terms = {"ssim": 1.0, "l1": 0.5}
    check(
        interpret, torch.float64, window_size=13, shape=(1, 1, 8, 9), grad=(True, True), terms=terms
    )


def test_mixed_dtypes(interpret):
    check(interpret, torch.bfloat16, dtypes=(torch.bfloat16, torch.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"amplification": "none"},
        {"amplification": "none", "dissimilarity": "full", "data_range": 255.0},
        {"eps": 0.5},
        {"sigma": 0.7, "k1": 0.05, "k2": 0.1},
    ],
    ids=str,
)
def test_options(interpret, options):
    check(interpret, window_size=3, **options)


@pytest.mark.parametrize(
    ("terms", "case"),
    [
        ({"ssim": 1.0}, {"reduction": "image", "grad": (True, True)}),
        ({"ssim": 1.0, "mse": 0.5}, {"amplify_over": "image", "weight": (2, 1, 4, 7)}),
        ({"ssim": 1.0, "l1": 0.5}, {"reduction": "none", "padding": "zeros"}),
        ({"mse": 1.0, "l1": 2.0}, {"weight": (2, 2, 4, 7), "grad": (True, True)}),
        ({"mse": 1.0, "charbonnier": 2.0}, {"reduction": "none"}),
        ({"ssim": 1.0}, {"ranges": (3.0, 3.0)}),
    ],
    ids=str,
)
def test_a_data_range_per_image(interpret, terms, case):
    case = {"ranges": (255.0, 1e-3), **case}
    check(interpret, shape=(2, 2, 4, 7), terms=terms, window_size=3, **case)


def test_a_data_range_per_image_in_float64(interpret):
    options = {"window_size": 13, "ranges": (0.5, 7.0), "grad": (True, True)}
    check(interpret, torch.float64, shape=(2, 1, 7, 7), **options)


TERMS = {
    "mse": {"mse": 1.0},
    "l1": {"l1": 2.0},
    "mse and l1": {"mse": 1.0, "l1": 0.5},
    "ssim and mse": {"ssim": 1.0, "mse": 0.5},
    "ssim and l1": {"ssim": 0.3, "l1": 1.0},
    "three": {"ssim": 1.0, "mse": 0.5, "l1": 2.0},
    # More than the factors that the kernels take as numbers.
    "all": {"ssim": 1.0, "mse": 0.5, "l1": 2.0, "charbonnier": 0.7},
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_terms(interpret, terms, padding):
    check(interpret, terms=terms, padding=padding, window_size=3, grad=(True, True))


@pytest.mark.parametrize("amplify_over", ["image", "batch"])
@pytest.mark.parametrize("terms", [{"ssim": 1.0}, TERMS["ssim and mse"]], ids=str)
def test_levels_of_amplification(interpret, terms, amplify_over):
    check(interpret, shape=(2, 1, 4, 7), terms=terms, amplify_over=amplify_over, window_size=3)


@pytest.mark.parametrize("reduction", ["sum", "image"])
def test_reductions(interpret, reduction):
    check(interpret, shape=(2, 2, 3, 7), reduction=reduction, window_size=3)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("weight", [None, (2, 1, 5, 9)])
def test_map(interpret, padding, weight):
    """Its backward takes the upstream gradient as the weight, on the grid of the map."""
    check(
        interpret, shape=(2, 1, 5, 9), reduction="none", padding=padding, weight=weight,
        window_size=3, grad=(True, True),
    )  # fmt: skip


@pytest.mark.parametrize("terms", [TERMS["all"], TERMS["mse and l1"]], ids=str)
def test_map_of_several_terms(interpret, terms):
    check(interpret, terms=terms, reduction="none", window_size=3)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("terms", [{"ssim": 1.0}, TERMS["all"]], ids=str)
def test_masks(interpret, padding, terms):
    check(
        interpret, shape=(1, 1, 6, 9), weight=(1, 1, 6, 9), mask=True, padding=padding,
        terms=terms, window_size=3, grad=(True, True),
    )  # fmt: skip


@pytest.mark.parametrize("padding", PADDINGS)
def test_masks_inside_the_window(interpret, padding):
    check(interpret, shape=(1, 1, 8, 9), hidden=(1, 1, 8, 9), padding=padding, grad=(True, True))


MASKED: dict[str, dict[str, object]] = {
    "weight": {"weight": (2, 1, 4, 7), "grad": (False, True)},
    "terms": {"terms": TERMS["all"], "weight": (2, 2, 1, 7), "grad": (True, True)},
    "terms at image level": {"terms": TERMS["ssim and l1"], "amplify_over": "image"},
    "sums of images": {"reduction": "image", "padding": "valid", "weight": (1, 1, 4, 7)},
    "sum": {"reduction": "sum", "hidden": (2, 2, 4, 7)},
    "map": {"reduction": "none", "padding": "valid", "hidden": (1, 2, 4, 7)},
    "map of terms": {"reduction": "none", "terms": TERMS["ssim and l1"], "weight": (2, 1, 4, 7)},
    "pixels": {"terms": TERMS["mse and l1"], "grad": (True, True), "weight": (2, 2, 4, 1)},
    "map of pixels": {"terms": {"charbonnier": 1.0}, "reduction": "none", "limit": 4e-6},
    "ranges": {"ranges": (255.0, 1e-3), "terms": TERMS["ssim and mse"]},
    "half": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64, "padding": "zeros", "layouts": ("transposed", "sliced")},
    "strided images": {"layouts": ("transposed", "channels_last"), "grad": (True, True)},
    "one number a row": {"hidden": (2, 1, 4, 1)},
    "one row": {"hidden": (1, 1, 1, 7), "terms": TERMS["ssim and mse"]},
    "transposed": {"hidden_layout": "transposed", "terms": TERMS["ssim and l1"]},
    "sliced": {"hidden_layout": "sliced", "hidden": (2, 2, 4, 7)},
    "sliced, of pixels": {"hidden_layout": "sliced", "terms": {"mse": 1.0}},
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_beside_everything_else(interpret, name):
    case = {"shape": (2, 2, 4, 7), "window_size": 3, "hidden": (2, 1, 4, 7), **MASKED[name]}
    check(interpret, **case)


@pytest.mark.parametrize("padding", PADDINGS)
def test_seams_under_a_mask(interpret, padding):
    """Tiles of four columns and five rows."""
    check(
        interpret, shape=(1, 1, 9, 10), hidden=(1, 1, 9, 10), tile=(8, 5), padding=padding,
        terms=TERMS["ssim and l1"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "limit"),
    [("dark rows above bright ones", 1e-6), ("dark beside bright", 1e-6), ("tones", 2e-5)],
)
def test_accuracy_under_a_mask(interpret, scene, limit):
    """The variance has two shifts; "tones" has eleven."""
    options = {"window_size": 7, "reduction": "none", "hidden": (1, 1, 8, 96)}
    check(interpret, limit=limit, scene=(scene, 1e-3, 0.0), shape=(1, 1, 8, 96), **options)


@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_a_mask_of_ones_changes_no_bit_in_float64(interpret, padding):
    assert not any(interpret(interpreted.errors_of_a_mask_of_ones, padding, torch.float64, 5))


def test_a_mask_of_ones_hardly_changes_float32(interpret):
    """The variance of s has other shifts, and tiles are added in another order."""
    found = interpret(interpreted.errors_of_a_mask_of_ones, "reflect", torch.float32, 5)
    assert max(found) < 5e-7


def test_a_mask_that_hides_the_whole_sample_of_the_shifts(interpret):
    assert interpret(interpreted.error_of_few_unmasked_pixels) < 1e-6


def test_images_that_a_mask_hides_have_no_loss(interpret):
    assert interpret(interpreted.loss_of_hidden_images) == (0.0, 0.0)


@pytest.mark.parametrize("terms", [{"ssim": 1.0}, {"mse": 1.0}], ids=str)
@pytest.mark.parametrize("weight", [(1, 1, 4, 7), (2,), (1, 2, 4, 1)])
def test_weights_that_broadcast(interpret, weight, terms):
    check(interpret, shape=(2, 2, 4, 7), weight=weight, terms=terms, window_size=3)


@pytest.mark.parametrize(
    "layouts",
    [
        ("channels_last", "channels_last"),
        ("channels_last", "contiguous"),
        ("transposed", "sliced"),
        ("batch inside", "batch inside"),
    ],
    ids=str,
)
@pytest.mark.parametrize("terms", [{"ssim": 1.0}, {"mse": 1.0}], ids=str)
def test_layouts(interpret, layouts, terms):
    check(
        interpret, shape=(2, 2, 3, 5), layouts=layouts, terms=terms, window_size=3,
        grad=(True, True),
    )  # fmt: skip


def test_layouts_in_float64(interpret):
    """Images whose columns are not adjacent are copied."""
    check(
        interpret, torch.float64, shape=(2, 2, 3, 5), layouts=("transposed", "channels_last"),
        window_size=3, grad=(True, True),
    )  # fmt: skip


@pytest.mark.parametrize("padding", PADDINGS)
def test_seams_and_ragged_edges(interpret, padding):
    """Programs whose last columns and rows lie outside the image, and which see each other's."""
    check(interpret, shape=(1, 1, 9, 11), padding=padding, tile=(8, 5), terms=TERMS["ssim and l1"])


@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_low_bands(interpret, padding):
    """Bands lower than the window."""
    check(interpret, shape=(1, 1, 7, 7), padding=padding, tile=(8, 2))


def test_seams_of_a_map(interpret):
    check(interpret, shape=(1, 1, 9, 11), padding="valid", tile=(8, 5), reduction="none")


def test_planes_in_groups(interpret):
    """Five planes, with h planes for two at a time."""
    plane = 4 * tiling.h_elements(3, 7, 3, tiling.CUDA.across)
    check(
        interpret, shape=(1, 5, 3, 7), tile=(8, 3), scratch=2 * plane + 4, window_size=3,
        weight=(1, 5, 3, 7),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 1, 2, 3, 4), (1, 4099), (2, 4112)])
def test_pointwise_of_any_shape(interpret, shape):
    check(interpret, shape=shape, terms=TERMS["mse and l1"], grad=(True, True))


def test_more_pixels_than_32_bits_count(interpret):
    case = {"shape": (1, 2, 3, 700), "terms": TERMS["mse"], "weight": (1, 1, 3, 700)}
    assert max(interpret(interpreted.errors_of_wide_pixels, **case)) <= LIMITS[torch.float32]


SCENES = (
    "texture",
    "flat",
    "dark beside bright",
    "dark rows above bright ones",
    "stripes of eight rows",
)


@pytest.mark.parametrize(("scene", "apart"), list(itertools.product(SCENES, [1e-1, 1e-4])))
def test_accuracy(interpret, scene, apart):
    case = {"scene": (scene, apart, 0.0), "shape": (1, 1, 10, 96)}
    check(interpret, limit=1e-5, **case)


@pytest.mark.parametrize("scene", [*SCENES[2:], "tones"])
@pytest.mark.parametrize(("window_size", "height"), [(3, 8), (11, 24)])
def test_accuracy_of_the_map(interpret, scene, window_size, height):
    options = {"window_size": window_size, "reduction": "none"}
    check(interpret, limit=1e-5, scene=(scene, 1e-3, 0.0), shape=(1, 1, height, 96), **options)


def test_accuracy_of_another_brightness(interpret):
    case = {"scene": ("texture", 1e-3, 0.3), "shape": (1, 1, 10, 96)}
    check(interpret, limit=1e-5, **case)


@pytest.mark.parametrize("offset", [0.3, 0.5])
def test_accuracy_beside_a_masked_defect(interpret, offset):
    case = {"scene": ("flat", 1e-5, offset, 40), "shape": (1, 1, 10, 96), "unmasked_from": 43}
    check(interpret, limit=1e-5, **case)


def test_equal_images_have_a_loss_of_exactly_zero(interpret):
    assert interpret(interpreted.loss_of_equal_images) == (0.0, 0.0)


def test_no_loss_is_negative(interpret):
    assert interpret(interpreted.least_loss) >= 0.0


@pytest.mark.parametrize("padding", PADDINGS)
def test_nan_stays_in_its_windows(interpret, padding):
    assert interpret(interpreted.windows_that_see_nan, padding)


def test_the_loss_of_nothing_is_zero(interpret):
    shapes = interpret(interpreted.losses_of_nothing)
    assert shapes == [[], [0], [0, 3, 9, 9], [], [0], [0, 5], [], [2], [2, 0]]


def test_two_runs_give_the_same_bits(interpret):
    assert interpret(interpreted.same_twice)
