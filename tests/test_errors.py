"""Bad input raises TypeError or ValueError, naming argument and value, before any computation."""

import inspect
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import lamp_kernels
from lamp_kernels import (
    AmplifiedCharbonnierLoss,
    AmplifiedGMSLoss,
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedMSGMSLoss,
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    amplify,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")

MODULES = [
    AmplifiedSSIMLoss,
    AmplifiedMSELoss,
    AmplifiedL1Loss,
    AmplifiedCharbonnierLoss,
    AmplifiedGMSLoss,
    AmplifiedMSGMSLoss,
    AmplifiedReconstructionLoss,
    AmplifiedMSSSIMLoss,
]
FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_mse_loss,
    functional.amplified_l1_loss,
    functional.amplified_charbonnier_loss,
    functional.amplified_gms_loss,
    functional.amplified_msgms_loss,
    functional.amplified_reconstruction_loss,
    functional.amplified_ms_ssim_loss,
]
IMAGE = torch.rand(2, 3, 16, 16)

# Option, value, error, pattern that the message must match; tested on every loss with that option.
OPTIONS = [
    ("data_range", 0.0, ValueError, "data_range.*0.0"),
    ("data_range", -1.0, ValueError, "data_range.*-1.0"),
    ("data_range", math.inf, ValueError, "data_range.*inf"),
    ("data_range", math.nan, ValueError, "data_range.*nan"),
    ("data_range", "1", TypeError, "data_range.*'1'"),
    ("data_range", True, TypeError, "data_range.*True"),
    ("data_range", 0, ValueError, "data_range must be between 1e-37 and 1e.38, got 0"),
    ("data_range", 10**400, ValueError, "data_range.*1000"),
    ("data_range", 1e-40, ValueError, "data_range.*1e-40"),
    ("data_range", 1e39, ValueError, r"data_range.*1e\+39"),
    ("window_size", True, TypeError, "window_size.*True"),
    ("window_size", 10, ValueError, "window_size.*10"),
    ("window_size", 0, ValueError, "window_size.*0"),
    ("window_size", -3, ValueError, "window_size.*-3"),
    ("window_size", 33, ValueError, "window_size.*33"),
    ("window_size", 11.0, TypeError, "window_size must be an odd integer from 1 to 31, got 11.0"),
    ("sigma", 0.0, ValueError, "sigma.*0.0"),
    ("sigma", None, TypeError, "sigma.*None"),
    ("k1", 0.0, ValueError, "k1 must be between 1e-18 and 1e.18, got 0.0"),
    ("k1", 1e300, ValueError, r"k1.*1e\+300"),
    ("k2", 1e-30, ValueError, "k2.*1e-30"),
    ("k2", -0.03, ValueError, "k2.*-0.03"),
    ("eps", 0.0, ValueError, "eps must satisfy 1e-06 <= eps < 1, got 0.0"),
    ("eps", -1, ValueError, "eps must satisfy 1e-06 <= eps < 1, got -1"),
    ("eps", True, TypeError, "eps.*True"),
    ("eps", 1.0, ValueError, "eps.*1.0"),
    ("eps", 1e-7, ValueError, "eps.*1e-07"),
    ("gamma", 0, ValueError, "gamma must be between 0.001 and 8, got 0"),
    ("gamma", -1.0, ValueError, "gamma.*-1.0"),
    ("delta", 0.0, ValueError, "delta must be between 0.001 and 1000, got 0.0"),
    ("delta", "1", TypeError, "delta.*'1'"),
    ("padding", "same", ValueError, "padding.*'same'"),
    ("padding", None, TypeError, "padding.*'reflect', 'valid', 'zeros'; got None"),
    ("dissimilarity", "third", ValueError, "dissimilarity.*'third'"),
    ("amplification", "exp", ValueError, "amplification.*'exp'"),
    ("amplification", True, TypeError, "amplification.*'log', 'power', 'none'; got True"),
    ("amplify_over", "pixel", ValueError, "amplify_over.*'pixel'"),
    ("reduction", "max", ValueError, "reduction.*'max'"),
    ("backend", "cuda", ValueError, "backend.*'cuda'"),
    ("backend", 1, TypeError, "backend.*1"),
    ("ssim", -1.0, ValueError, "ssim.*-1.0"),
    ("ssim", 1e30, ValueError, r"ssim must be between 0 and 1e\+18, got 1e\+30"),
    ("mse", math.inf, ValueError, "mse.*inf"),
    ("ssim", 10**400, ValueError, "ssim.*1000"),
    ("l1", "0", TypeError, "l1.*'0'"),
    ("charbonnier", -1, ValueError, "charbonnier must be between 0 and 1e.18, got -1"),
    (
        "charbonnier_epsilon",
        0.0,
        ValueError,
        "charbonnier_epsilon must be between 1e-09 .*, got 0.0",
    ),
    ("charbonnier_epsilon", None, TypeError, "charbonnier_epsilon.*None"),
    ("gms", -1, ValueError, "gms must be between 0 and 1e.18, got -1"),
    ("msgms", "1", TypeError, "msgms.*'1'"),
    ("gms_constant", 0.0, ValueError, "gms_constant must be between 1e-12 .*, got 0.0"),
    ("gms_scales", 17, ValueError, "gms_scales must be an integer from 1 to 16, got 17"),
    ("gms_scales", 2.0, TypeError, "gms_scales.*2.0"),
]


def option_ids(case):
    return f"{case[0]}={case[1]!r}"


@pytest.mark.parametrize("case", OPTIONS, ids=option_ids)
@pytest.mark.parametrize(("module", "function"), list(zip(MODULES, FUNCTIONS, strict=True)))
def test_option(module, function, case):
    name, value, error, message = case
    if not hasattr(module(), name):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            module(**{name: value})
        return
    with pytest.raises(error, match=message):
        module(**{name: value})
    with pytest.raises(error, match=message):
        function(IMAGE, IMAGE, **{name: value})


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("level", "reduction"),
    [("image", "none"), ("batch", "none"), ("batch", "sum"), ("batch", "image")],
)
def test_reduction_that_the_level_does_not_support(module, level, reduction):
    with pytest.raises(ValueError, match=f"reduction='{reduction}'.*amplify_over='{level}'"):
        module(amplify_over=level, reduction=reduction)


def test_an_option_changed_after_construction_is_checked():
    loss_function = AmplifiedSSIMLoss()
    loss_function.eps = 2.0
    with pytest.raises(ValueError, match=r"eps.*2\.0"):
        loss_function(IMAGE, IMAGE)


@pytest.mark.parametrize("module", MODULES)
def test_modules_reject_positional_options(module):
    with pytest.raises(TypeError, match=rf"{module.__name__} takes its options by name.*got 11 "):
        module(11)
    given = inspect.signature(module).parameters.values()
    assert {parameter.kind for parameter in given} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    "function",
    [*FUNCTIONS, functional.ssim, functional.ms_ssim, functional.anomaly_map],
)
def test_functions_reject_positional_options(function):
    weight_and_mask = (None, None) if function in FUNCTIONS else (None,)
    with pytest.raises(TypeError, match=r"by name \(.*data_range.*after input, target.*255"):
        function(IMAGE, IMAGE, *weight_and_mask, 255)


@pytest.mark.parametrize("module", MODULES)
def test_calling_a_module_with_options_is_an_error(module):
    called = rf"{module.__name__} is called with input, target, .*constructor\. Got"
    with pytest.raises(TypeError, match=rf"{called} 255 \(int\)"):
        module()(IMAGE, IMAGE, None, None, None, 255)
    with pytest.raises(TypeError, match=f"{called} eps=0.1"):
        module()(IMAGE, IMAGE, eps=0.1)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor in a call.*data_range=255"):
        module()(IMAGE, IMAGE, data_range=255)


def test_the_error_for_an_unknown_option_lists_the_options():
    for called in (AmplifiedSSIMLoss, partial(functional.ssim, IMAGE, IMAGE)):
        with pytest.raises(
            TypeError, match=r"argument 'win_size'; its options .*window_size, sigma"
        ):
            called(win_size=11)  # type: ignore[call-arg] # the mistake under test


def test_reductions_that_ms_ssim_does_not_support():
    with pytest.raises(ValueError, match="must be one of mean, image, sum; got 'max'"):
        AmplifiedMSSSIMLoss(reduction="max")  # type: ignore[arg-type] # the mistake under test


def test_invalid_k_of_a_score():
    with pytest.raises(TypeError, match=r"from 1 to 4, .*fraction.*; got 'all'"):
        functional.anomaly_score(torch.rand(1, 2, 2), pooling="topk", k="all")  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(ValueError, match=r"0 < k <= 1.*; got 0\.0"):
        functional.anomaly_score(torch.rand(1, 2, 2), pooling="topk", k=0.0)


def test_a_coefficient_that_decays_towards_zero_eventually_counts_as_zero():
    y = IMAGE.roll(1, 0)
    found = functional.amplified_reconstruction_loss(IMAGE, y, ssim=0.0, mse=1.0, l1=0.9**400)
    assert found == functional.amplified_mse_loss(IMAGE, y)
    with pytest.raises(ValueError, match="must be positive"):
        AmplifiedMSSSIMLoss(scale_weights=(1e-20, 1e-20))


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.clone])
def test_scale_weights_as_an_array(kind):
    with pytest.raises(TypeError, match=r"an? \w+ of shape \(2,\), use \.tolist\(\)"):
        AmplifiedMSSSIMLoss(scale_weights=kind(torch.ones(2, device="cpu")))


@pytest.mark.parametrize("module", MODULES)
def test_tangent_share_rejects_a_weight_that_does_not_broadcast(module):
    with pytest.raises(ValueError, match="does not broadcast"):
        module().tangent_share(IMAGE, IMAGE, torch.ones(16, 16))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("ranges", [torch.tensor(1.0), torch.tensor([1.0, 2.0, 4.0])])
def test_a_constructor_says_where_to_pass_one_range_per_image(module, ranges):
    with pytest.raises(TypeError, match=r"loss\(input, target, data_range=ranges\).*\.item\(\)"):
        module(data_range=ranges)


@pytest.mark.parametrize("function", FUNCTIONS)
class TestTensors:
    def test_shapes_differ(self, function):
        with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\) and \(2, 1, 16, 16\)"):
            function(IMAGE, IMAGE[:, :1])

    def test_not_a_tensor(self, function):
        with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, got ndarray"):
            function(IMAGE.numpy(force=True), IMAGE)
        with pytest.raises(TypeError, match=r"target must be a torch\.Tensor, got float"):
            function(IMAGE, 0.5)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
    def test_dtype(self, function, dtype):
        with pytest.raises(TypeError, match=f"target.*{dtype}"):
            function(IMAGE, IMAGE.to(dtype))

    def test_bytes(self, function):
        with pytest.raises(TypeError, match=r"input.*uint8; use image.float"):
            function((255 * IMAGE).byte(), IMAGE)

    def test_dtypes_differ_outside_autocast(self, function):
        with pytest.raises(TypeError, match=r"torch\.float32 and torch\.bfloat16"):
            function(IMAGE, IMAGE.bfloat16())

    def test_devices_differ(self, function):
        with pytest.raises(ValueError, match=f"same device, got {IMAGE.device} and meta"):
            function(IMAGE, IMAGE.to("meta"))

    def test_weight_on_another_device(self, function):
        message = f"weight must be on the same device as input.*meta and {IMAGE.device}"
        with pytest.raises(ValueError, match=message):
            function(IMAGE, IMAGE, torch.ones(1, device="meta"))

    @pytest.mark.parametrize(
        "shape", [(3, 16), (16, 16), (16,), (3,), (2, 2, 16, 16), (1, 2, 3, 16, 16), (0,)]
    )
    def test_weight_does_not_broadcast(self, function, shape):
        with pytest.raises(ValueError, match=r"weight of shape .* does not broadcast"):
            function(IMAGE, IMAGE, torch.ones(shape))

    def test_a_mask_per_image_without_a_channel_dimension(self, function):
        with pytest.raises(ValueError, match=r"for \(N, 1, H, W\) pass weight\[:, None\]"):
            function(IMAGE, IMAGE, torch.ones(IMAGE.shape[0], *IMAGE.shape[2:]))

    def test_weight_requires_grad(self, function):
        with pytest.raises(ValueError, match="weight must not require grad"):
            function(IMAGE, IMAGE, torch.ones(1, requires_grad=True))
        with pytest.raises(ValueError, match="weight must not require grad"):
            function(IMAGE, IMAGE, torch.ones(1, requires_grad=True) * 1)

    def test_sparse(self, function):
        with pytest.raises(TypeError, match=r"target must be a dense tensor.*sparse_coo"):
            function(IMAGE, IMAGE.to_sparse())
        with pytest.raises(TypeError, match=r"weight must be a dense tensor.*sparse_coo"):
            function(IMAGE, IMAGE, torch.ones(16, 16).to_sparse())

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    @pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
    def test_nested(self, function, layout):
        parts = [torch.rand(3, 16), torch.rand(5, 16)]
        nested = torch.nested.nested_tensor(parts, layout=layout)
        with pytest.raises(TypeError, match=r"input must be a dense tensor.*nested.*unbind\(\)"):
            function(nested, nested)
        with pytest.raises(TypeError, match=r"weight must be a dense tensor.*nested.*unbind\(\)"):
            function(IMAGE, IMAGE, nested)

    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
    def test_quantized(self, function):
        image = torch.quantize_per_tensor(IMAGE.cpu(), 0.1, 0, torch.quint8)
        with pytest.raises(TypeError, match=r"input must not be quantized.*dequantize\(\)"):
            function(image, image)
        with pytest.raises(TypeError, match=r"weight must not be quantized.*dequantize\(\)"):
            function(IMAGE, IMAGE, image)

    def test_distributed(self, function):
        class Distributed(torch.Tensor):
            """Stands in for DTensor, which requires a process group."""

            def to_local(self):
                return self

        image = IMAGE.as_subclass(Distributed)
        with pytest.raises(TypeError, match=r"target must be a local tensor.*to_local\(\)"):
            function(IMAGE, image)
        with pytest.raises(TypeError, match=r"weight must be a local tensor.*to_local\(\)"):
            function(IMAGE, IMAGE, image)

    def test_dtypes_differ_on_a_device_without_autocast(self, function):
        meta = IMAGE.to("meta")
        with pytest.raises(TypeError, match=r"torch\.float32 and torch\.float64"):
            function(meta, meta.double())

    def test_weight_is_not_a_real_tensor(self, function):
        with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor or None, got float"):
            function(IMAGE, IMAGE, 1.0)
        with pytest.raises(TypeError, match="weight must be real"):
            function(IMAGE, IMAGE, torch.ones(1, dtype=torch.complex64))


# If the batch is as large as another dimension, a weight with fewer dimensions is ambiguous.
SAME = torch.rand(16, 16, 16, 16)


@pytest.mark.parametrize("function", FUNCTIONS[:4])
class TestMeaningOfWeights:
    def test_one_number_per_image(self, function):
        y = SAME.roll(1, 0)
        weight = torch.linspace(0, 1, 16)
        wanted = function(SAME, y, weight.view(-1, 1, 1, 1))
        assert function(SAME, y, weight) == wanted
        maps = function(SAME, y, weight, reduction="none")
        assert torch.equal(maps, function(SAME, y, weight.view(-1, 1, 1, 1), reduction="none"))

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1, 1)])
    def test_one_number(self, function, shape):
        y = SAME.roll(1, 0)
        torch.testing.assert_close(
            function(SAME, y, torch.full(shape, 3.0), reduction="sum"),
            3.0 * function(SAME, y, reduction="sum"),
        )

    def test_the_error_for_too_few_dimensions_lists_the_possible_meanings(self, function):
        views = ["(N, C, H, 1) pass weight", "(N, 1, H, W) pass weight[:, None]"]
        views += ["(N, C, 1, W) pass weight[:, :, None]", "(1, C, H, W) pass weight[None]"]
        with pytest.raises(ValueError, match="does not broadcast") as raised:
            function(SAME, SAME, torch.rand(16, 16, 16))
        for view in views:
            assert view in str(raised.value)
        with pytest.raises(ValueError, match=r"for \(1, 1, H, W\) pass weight\[None, None\]"):
            function(SAME, SAME, torch.rand(16, 16))
        with pytest.raises(ValueError, match=r"for \(1, 1, 1, W\) pass weight\[None, None, None\]"):
            function(SAME[:2], SAME[:2], torch.rand(16))


def test_weights_for_features():
    x, y, weight = torch.rand(5, 5), torch.rand(5, 5), torch.linspace(0, 1, 5)
    for function in FUNCTIONS[1:3]:
        assert function(x, y, weight) == function(x, y, weight[:, None])
        assert function(x, y, weight) != function(x, y, weight[None])
        assert function(x[0], y[0], weight) == function(x[:1], y[:1], weight[None])
        with pytest.raises(ValueError, match=r"for \(1, 5\) pass weight\[None\]"):
            function(x[:3], y[:3], weight)


LAYOUTS = {
    (20, 16): r"image \(H, W\) pass {}\[None, None\]",
    (20, 16, 3): r"\(H, W, C\) pass {}\.permute\(2, 0, 1\)\[None\]$",
    (3, 20, 16): r"\(C, H, W\) pass {0}\[None\].*\(N, H, W\) {0}\[:, None\]",
    (2, 1, 8, 20, 16): r"volumes \(N, C, D, H, W\) pass the slices, {}\.flatten\(1, 2\)",
    (2, 8, 20, 16, 1): r"\(N, D, H, W, C\) .*{}\.movedim\(-1, 1\)\.flatten\(1, 2\)",
    (2, 20, 16, 3): r"\(N, H, W, C\) pass {}\.permute\(0, 3, 1, 2\)",
}
IMAGE_FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_reconstruction_loss,
    functional.amplified_ms_ssim_loss,
    functional.ssim,
    functional.ms_ssim,
    functional.anomaly_map,
]


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
@pytest.mark.parametrize("function", IMAGE_FUNCTIONS)
def test_the_error_suggests_how_to_convert_other_layouts(function, shape):
    image = torch.rand(shape)
    with pytest.raises(ValueError, match=LAYOUTS[shape].format("input")):
        function(image, image)


def as_the_error_suggests(image, prefix):
    """Convert `image` with the expression that follows `prefix` in the error it raises."""
    with pytest.raises(ValueError, match=prefix) as raised:
        functional.ssim(image, image)
    shown = re.search(
        prefix + r" (input.+?)(, or see AmplifiedSSIMLoss|, for videos|$)", str(raised.value)
    )
    assert shown is not None
    return eval(shown[1], {"input": image})


def test_the_suggested_conversions_give_the_right_values():
    image = torch.rand(20, 16, 3)
    found = as_the_error_suggests(image, r"\(H, W, C\) pass")
    assert torch.equal(found, torch.stack([image[..., c] for c in range(3)])[None])
    images = torch.rand(2, 20, 16, 3)
    found = as_the_error_suggests(images, r"\(N, H, W, C\) pass")
    assert torch.equal(found, torch.stack([images[..., c] for c in range(3)], dim=1))
    volume, other = torch.rand(2, 1, 4, 20, 16), torch.rand(2, 1, 4, 20, 16)
    by_slice = [functional.ssim(volume[:, :, d], other[:, :, d]) for d in range(4)]
    pair = (as_the_error_suggests(each, "pass the slices,") for each in (volume, other))
    torch.testing.assert_close(functional.ssim(*pair), torch.stack(by_slice).mean())


def test_a_weight_in_another_layout():
    with pytest.raises(ValueError, match=r"\(N, H, W, C\) pass weight\.permute\(0, 3, 1, 2\)"):
        functional.amplified_ssim_loss(IMAGE, IMAGE, torch.ones(2, 16, 16, 1))
    gray = IMAGE[:, :1]
    with pytest.raises(ValueError, match="does not broadcast") as raised:
        functional.amplified_ssim_loss(gray, gray, torch.ones(2, 1, 16))
    assert str(raised.value).count("pass weight") == 2  # rows or columns


def test_a_weight_that_is_an_array_or_a_list():
    array: Any = torch.ones(2, device="cpu").numpy()
    with pytest.raises(TypeError, match=r"got ndarray; use torch\.as_tensor\(weight\)$"):
        functional.amplified_mse_loss(IMAGE, IMAGE, array)
    with pytest.raises(TypeError, match=r"got list$"):
        functional.amplified_mse_loss(IMAGE, IMAGE, [1.0, 2.0])  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(TypeError, match=r"got int; pass options by name$"):
        functional.amplified_mse_loss(IMAGE, IMAGE, 255)  # type: ignore[arg-type] # the mistake under test


def test_channels_last_images_that_are_large_enough_cause_a_warning():
    image = torch.rand(2, 20, 16, 3)
    with pytest.warns(
        UserWarning, match=r"interpreted as \(N, C, H, W\); .*input\.permute\(0, 3, 1, 2\)"
    ):
        functional.ssim(image, image, padding="zeros")
    with pytest.warns(UserWarning, match=r"input\.permute\(0, 3, 1, 2\)"):
        functional.anomaly_map(image, image, metric="mse")
    features = torch.rand(2, 256, 4, 4)  # 256 channels: not an image
    functional.ssim(features, features, padding="zeros")
    functional.amplified_mse_loss(image, image)  # accepts any layout
    signals = torch.rand(2, 64, 20, 1)
    functional.anomaly_map(signals, signals, metric="mse")


def test_the_channels_last_warning_points_to_the_callers_line():
    image = torch.rand(2, 20, 16, 3)
    calls: list[Callable[..., torch.Tensor]] = [
        functional.ssim,
        functional.amplified_ssim_loss,
        AmplifiedSSIMLoss(padding="zeros"),
    ]
    for call in calls:
        options = {} if isinstance(call, torch.nn.Module) else {"padding": "zeros"}
        with pytest.warns(UserWarning, match="interpreted as") as warned:
            call(image, image, **options)
        assert {warning.filename for warning in warned} == {__file__}


def test_pointwise_losses_require_a_batch_dimension():
    for function in FUNCTIONS[1:3]:
        with pytest.raises(ValueError, match="0-dimensional"):
            function(torch.tensor(0.5), torch.tensor(0.5))


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16), (1, 2, 3, 16, 16)])
def test_ssim_requires_four_dimensions(shape):
    image = torch.rand(shape)
    for function in (functional.amplified_ssim_loss, functional.ssim, functional.anomaly_map):
        with pytest.raises(ValueError, match=rf"\(N, C, H, W\).*{shape[0]}"):
            function(image, image)


def test_ssim_requires_a_channel():
    with pytest.raises(ValueError, match="channel"):
        functional.amplified_ssim_loss(torch.rand(1, 0, 16, 16), torch.rand(1, 0, 16, 16))


@pytest.mark.parametrize(
    "window_size",
    [3, 5, 7, 9, 11, 13, 15, pytest.param(1, marks=pytest.mark.reference_only)],
)
@pytest.mark.parametrize(
    ("padding", "least"),
    [("valid", lambda w: w), ("reflect", lambda w: w // 2 + 1), ("zeros", lambda w: 1)],
)
def test_smallest_image(padding, least, window_size):
    side = least(window_size)
    loss = partial(functional.amplified_ssim_loss, padding=padding, window_size=window_size)
    for shape in [(1, 1, side, 20), (1, 1, 20, side), (1, 1, side, side)]:
        assert loss(torch.rand(shape), torch.rand(shape)).isfinite()
    for shape in [(1, 1, side - 1, 20), (1, 1, 20, side - 1)]:
        with pytest.raises(ValueError, match=f"at least {side} pixels.*window_size={window_size} "):
            loss(torch.rand(shape), torch.rand(shape))


def test_a_map_of_terms_on_different_grids_is_an_error():
    loss = partial(functional.amplified_reconstruction_loss, padding="valid", reduction="none")
    with pytest.raises(ValueError, match="padding='valid'"):
        loss(IMAGE, IMAGE)
    assert loss(IMAGE, IMAGE, ssim=0.0).shape == IMAGE.shape
    assert loss(IMAGE, IMAGE, mse=0.0).shape == (2, 3, 6, 6)


def test_no_terms():
    with pytest.raises(ValueError, match=r"ssim=0.*mse=0.*l1=0"):
        AmplifiedReconstructionLoss(ssim=0, mse=0, l1=0)


def test_ssim_reductions():
    for reduction in ("sum", "max"):
        with pytest.raises(ValueError, match=f"reduction.*'{reduction}'"):
            functional.ssim(IMAGE, IMAGE, reduction=reduction)  # type: ignore[arg-type] # the mistake under test


def test_extreme_but_valid_values_of_eps():
    loss = torch.tensor([0.5])
    assert amplify(loss, eps=1e-6).isfinite().all()
    assert amplify(loss, eps=0.999999).isfinite().all()


def test_amplify():
    with pytest.raises(TypeError, match=r"loss must be a torch\.Tensor, got float"):
        amplify(0.5)  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(TypeError, match=r"torch\.int64"):
        amplify(torch.tensor([1]))
    with pytest.raises(ValueError, match="eps"):
        amplify(torch.tensor([0.5]), eps=1.0)
    with pytest.raises(ValueError, match="amplification"):
        amplify(torch.tensor([0.5]), amplification="exp")  # type: ignore[arg-type] # the mistake under test


def test_an_error_leaves_the_inputs_unchanged():
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    before = x.detach().clone()
    with pytest.raises(ValueError, match="eps"):
        functional.amplified_ssim_loss(x, x, eps=3.0)
    assert torch.equal(x.detach(), before)
    assert x.grad is None


@pytest.mark.reference_only
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_are_never_read(function):
    """On the meta device, reading any value would raise."""
    side = 81  # the smallest that MS-SSIM accepts
    image = torch.rand(2, 3, side, side, device="meta", requires_grad=True)
    loss = function(image, image.detach(), torch.ones(1, 1, side, side, device="meta"))
    assert loss.shape == ()
    loss.backward()
    assert image.grad is not None
    assert image.grad.shape == image.shape


def test_public_names_exist():
    assert all(hasattr(lamp_kernels, name) for name in lamp_kernels.__all__)
