"""The native operators as seen by PyTorch, and what autograd can and cannot do with them."""

import itertools
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
import torch.multiprocessing as mp
from bad_factors import BAD_FACTORS
from layouts import LAYOUTS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, Dataset

from lamp_kernels import (
    AmplifiedMSELoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
    ops,
)
from lamp_kernels.spec import COMBINED, LossSpec
from lamp_kernels.tensors import compute_dtype

MISSING = backends.BACKENDS["native"].unavailable_reason()
if MISSING is not None:
    pytest.skip(f"no native operators: {MISSING}", allow_module_level=True)

IMAGE_LOSSES = torch.ops.lamp_kernels.image_losses.default
LOSS_MAP = torch.ops.lamp_kernels.loss_map.default
BLOCK = torch.ops.lamp_kernels.block_double_backward.default

DEVICE = torch.get_default_device().type

METRIC_PARAMETERS = {"charbonnier": 1e-2}


def options(metrics=("ssim",), **others):
    """The operator's spec arguments, in the order of its schema."""
    values = {
        "metric_parameters": tuple(METRIC_PARAMETERS.get(metric, 0.0) for metric in metrics),
        "data_range": 1.0,
        "taps": LossSpec(window_size=5).taps,
        "k1": 0.01,
        "k2": 0.03,
        "padding": "reflect",
        "ssim_scale": 0.5,
        "amplification": "log",
        "amplification_parameters": (1e-2,),
    }
    return tuple(ops.FlatSpec(**{"metrics": "+".join(metrics), **values, **others}))


def factors_of(x, y, metrics=("ssim",), mean_over=None):
    """`factors`, `coefficients` and `mean_over`: separate factors per image, or shared ones."""
    if mean_over is not None:
        return (None, torch.rand(len(metrics)).tolist(), mean_over)
    dtype = compute_dtype(x.dtype, y.dtype)
    return (torch.rand(x.shape[0], len(metrics), dtype=dtype), (), "nothing")


def losses_of(
    x,
    y,
    weight=None,
    metrics=("ssim",),
    sums="images",
    mean_over=None,
    mask=None,
    ranges=None,
    **others,
):
    """The arguments of `image_losses`, requesting gradients of the tensors that require grad."""
    wanted = (False, False) if sums == "terms" else (x.requires_grad, y.requires_grad)
    factors = factors_of(x, y, metrics, mean_over)
    return (x, y, weight, mask, ranges, *factors, sums, *wanted, *options(metrics, **others))


# What the operator sums over, and which kinds of factors that allows.
SUMS = [
    *itertools.product(("terms", "images"), (None, "nothing", "image", "batch")),
    *itertools.product(("batch",), ("nothing", "image", "batch")),
]


def map_of(x, y, metrics=("ssim",), mask=None, ranges=None, **others):
    """The arguments of `loss_map`."""
    coefficients = torch.rand(len(metrics), dtype=compute_dtype(x.dtype, y.dtype))
    return (x, y, mask, ranges, coefficients, *options(metrics, **others))


# ---- Layouts ------------------------------------------------------------------------------------


PLACES = {**LAYOUTS, "expanded": lambda image: image[:1, :1, :, :1].expand_as(image)}
SHAPES = {
    "images": (2, 3, 6, 7),
    "no image": (0, 3, 6, 7),
    "one channel": (2, 1, 6, 7),
    "one row": (2, 2, 1, 7),
    "one column": (2, 2, 7, 1),
    "one pixel": (1, 1, 1, 1),
    "no channel": (2, 0, 6, 7),
}
EVERY_LAYOUT = [
    pytest.param(shape, layout, id=f"{name}, {layout}")
    for (name, shape), layout in itertools.product(SHAPES.items(), PLACES)
    # opcheck itself cannot copy an empty view whose strides leave gaps
    if not (0 in shape and layout in ("expanded", "sliced"))
]


def images(shape, layout="contiguous", dtypes=(torch.float32, torch.float32), grad=(False, False)):
    return [
        PLACES[layout](torch.rand(shape).to(dtype)).requires_grad_(wanted)
        for dtype, wanted in zip(dtypes, grad, strict=True)
    ]


@pytest.mark.parametrize(("shape", "layout"), EVERY_LAYOUT)
def test_opcheck_of_every_layout(shape, layout):
    # padding="zeros" also accepts images of a single row or column
    x, y = images(shape, layout, grad=(True, True))
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y, padding="zeros"))
    shared = losses_of(x, y, padding="zeros", sums="batch", mean_over="batch")
    torch.library.opcheck(IMAGE_LOSSES, shared)
    torch.library.opcheck(LOSS_MAP, map_of(x, y, padding="zeros"))


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PAIRS = [
    *((dtype, dtype) for dtype in DTYPES),
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.float16),
    (torch.float64, torch.bfloat16),
]


@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
def test_opcheck_of_every_dtype(dtypes):
    x, y = images((2, 3, 6, 7), dtypes=dtypes, grad=(True, True))
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y))
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y, sums="batch", mean_over="batch"))
    torch.library.opcheck(LOSS_MAP, map_of(x, y))


@pytest.mark.parametrize("sums", ["terms", "images", "batch"])
@pytest.mark.parametrize("metrics", [("ssim",), ("mse", "l1"), COMBINED], ids=str)
@pytest.mark.parametrize("grad", [(False, False), (True, False), (False, True), (True, True)])
def test_opcheck_of_every_flag(grad, metrics, sums):
    x, y = images((2, 3, 6, 7), grad=grad)
    mean_over = "image" if sums == "batch" else None
    arguments = losses_of(x, y, metrics=metrics, sums=sums, mean_over=mean_over)
    torch.library.opcheck(IMAGE_LOSSES, arguments)
    torch.library.opcheck(LOSS_MAP, map_of(x, y, metrics=metrics))


@pytest.mark.parametrize(("sums", "mean_over"), SUMS)
def test_opcheck_of_every_sum(sums, mean_over):
    x, y = images((2, 3, 6, 7), grad=(True, True))
    arguments = losses_of(x, y, metrics=COMBINED, sums=sums, mean_over=mean_over)
    torch.library.opcheck(IMAGE_LOSSES, arguments)


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 1, 1), (2, 1, 6, 7), (1, 3, 6, 1)], ids=str)
def test_opcheck_of_weights_and_paddings(shape, padding):
    x, y = images((2, 3, 6, 7), grad=(True, False))
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y, torch.rand(shape), padding=padding))
    torch.library.opcheck(LOSS_MAP, map_of(x, y, padding=padding))


@pytest.mark.parametrize("ranges", [None, torch.tensor([0.5, 2.0])], ids=["one range", "ranges"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_opcheck_of_masks_and_ranges(masked, ranges):
    x, y = images((2, 3, 6, 7), grad=(True, True))
    mask = (torch.rand(2, 1, 6, 7) > 0.3).float() if masked else None
    optional = {"metrics": COMBINED, "mask": mask, "ranges": ranges}
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y, mask, **optional))
    torch.library.opcheck(LOSS_MAP, map_of(x, y, **optional))


def test_opcheck_of_block_double_backward():
    # Its derivative always raises, so there is no backward pass to trace.
    x, y = images((2, 3, 6, 7), grad=(True, False))
    torch.library.opcheck(
        BLOCK,
        (torch.rand(2), x, y, torch.rand(2)),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def described(results):
    return [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in results]


@pytest.mark.parametrize(("shape", "layout"), EVERY_LAYOUT)
def test_fake_kernels_agree_in_shape_strides_and_dtype(shape, layout):
    for target_layout in {layout, "channels_last"}:
        dtypes = (torch.float32, torch.float64 if target_layout == layout else torch.float16)
        x = PLACES[layout](torch.rand(shape).to(dtypes[0]))
        y = PLACES[target_layout](torch.rand(shape).to(dtypes[1]))
        calls = [
            (LOSS_MAP, map_of(x, y, padding="zeros")),
            (LOSS_MAP, map_of(x, y, metrics=("mse", "l1"))),
        ]
        for (sums, mean_over), metrics in itertools.product(SUMS, (("ssim",), COMBINED)):
            arguments = losses_of(
                x, y, metrics=metrics, sums=sums, mean_over=mean_over, padding="zeros"
            )
            calls += [
                (IMAGE_LOSSES, (*arguments[:9], *wanted, *arguments[11:]))
                for wanted in itertools.product((False, True), repeat=2)
            ]
        if min(shape[2:]) >= 5:
            calls.append((LOSS_MAP, map_of(x, y, padding="valid")))
        for operator, arguments in calls:
            found = operator(*arguments)
            with FakeTensorMode() as mode:
                faked = [
                    mode.from_tensor(argument) if isinstance(argument, torch.Tensor) else argument
                    for argument in arguments
                ]
                fake = operator(*faked)
            if operator is LOSS_MAP:
                found, fake = [found], [fake]
            assert described(fake) == described(found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "function", [functional.amplified_ssim_loss, functional.amplified_mse_loss]
)
@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "image", "none"])
def test_gradients_have_the_layout_and_dtype_of_their_images(reduction, factor, function, dtype):
    x, y = images((2, 3, 16, 18), "channels_last", dtypes=(dtype, dtype), grad=(True, True))
    y = y.detach().contiguous().requires_grad_()
    loss = function(x, y, reduction=reduction, backend="native")
    for gradient, image in zip(
        torch.autograd.grad((factor * loss).sum(), (x, y)), (x, y), strict=True
    ):
        assert gradient.dtype == dtype
        assert gradient.stride() == image.stride()


# ---- Invalid calls of the operators -------------------------------------------------------------

BAD_LOSSES = {
    "three dimensions": {"x": torch.rand(3, 9, 10), "y": torch.rand(3, 9, 10)},
    "another batch": {"y": torch.rand(1, 3, 9, 10)},
    "another channel": {"y": torch.rand(2, 1, 9, 10)},
    "another height": {"y": torch.rand(2, 3, 1, 10)},
    "another width": {"y": torch.rand(2, 3, 9, 9)},
    "integers": {"x": torch.ones(2, 3, 9, 10, dtype=torch.int64)},
    "booleans": {"y": torch.ones(2, 3, 9, 10, dtype=torch.bool)},
    "complex": {"y": torch.ones(2, 3, 9, 10, dtype=torch.complex64)},
    "target without data": {"y": torch.rand(2, 3, 9, 10, device="meta")},
    "factors without data": {"factors": torch.rand(2, 1, device="meta")},
    "weight without data": {"weight": torch.rand(2, 1, 9, 10, device="meta")},
    "sparse": {"y": torch.ones(2, 3, 9, 10).to_sparse()},
    "factors of another batch": {"factors": torch.rand(1, 1)},
    "factors of another term": {"factors": torch.rand(2, 2)},
    "factors of one dimension": {"factors": torch.rand(2)},
    "factors of another dtype": {"factors": torch.rand(2, 1, dtype=torch.float64)},
    "factors of a half type": {"factors": torch.rand(2, 1).half()},
    "weight of another width": {"weight": torch.rand(2, 1, 9, 9)},
    "weight of another batch": {"weight": torch.rand(3, 1, 9, 10)},
    "weight of no row": {"weight": torch.rand(2, 1, 0, 10)},
    "weight of two dimensions": {"weight": torch.rand(9, 10)},
    "weight of another dtype": {"weight": torch.rand(2, 1, 9, 10, dtype=torch.float64)},
    "window 1": {"taps": (1.0,)},
    "window 17": {"taps": (0.1,) * 9},
    "no window": {"taps": ()},
    "mask of another width": {"mask": torch.rand(2, 1, 9, 9)},
    "mask of two dimensions": {"mask": torch.rand(9, 10)},
    "mask of another dtype": {"mask": torch.rand(2, 1, 9, 10, dtype=torch.float64)},
    "mask without data": {"mask": torch.rand(2, 1, 9, 10, device="meta")},
    "ranges of another batch": {"data_ranges": torch.rand(1)},
    "ranges of two dimensions": {"data_ranges": torch.rand(2, 1)},
    "ranges of another dtype": {"data_ranges": torch.rand(2, dtype=torch.float64)},
    "padding same": {"padding": "same"},
    "too small to reflect": {"x": torch.rand(2, 3, 2, 10), "y": torch.rand(2, 3, 2, 10)},
    "too small for the window": {
        "x": torch.rand(2, 3, 9, 4),
        "y": torch.rand(2, 3, 9, 4),
        "padding": "valid",
    },
    **BAD_FACTORS,
    "no term": {"metrics": (), "factors": torch.rand(2, 0)},
    "no term, no factor": {"metrics": (), "factors": None},
    "weight on the grid of one of two terms": {
        "weight": torch.rand(2, 1, 5, 6),
        "metrics": ("ssim", "mse"),
        "factors": torch.rand(2, 2),
        "padding": "valid",
    },
}


@pytest.mark.parametrize("change", BAD_LOSSES.values(), ids=BAD_LOSSES)
def test_a_bad_call_of_image_losses_raises(change):
    arguments = {
        "x": torch.rand(2, 3, 9, 10),
        "y": torch.rand(2, 3, 9, 10),
        "weight": None,
        "mask": None,
        "data_ranges": None,
        "factors": torch.rand(2, 1),
        "coefficients": (),
        "mean_over": "nothing",
        "sums": "images",
        **change,
    }
    first = ("x", "y", "weight", "mask", "data_ranges", "factors", "coefficients", "mean_over")
    given = [arguments.pop(name) for name in first]
    sums = arguments.pop("sums")
    # NotImplementedError, of layouts without a kernel, is a RuntimeError too
    with pytest.raises(RuntimeError):
        IMAGE_LOSSES(*given, sums, True, True, *options(**arguments))


@pytest.mark.parametrize(
    ("coefficients", "others"),
    [
        (torch.rand(2), {}),
        (torch.rand(1, 1), {}),
        (torch.rand(1, dtype=torch.float64), {}),
        (torch.rand(2), {"metrics": ("ssim", "mse"), "padding": "valid"}),
        (torch.rand(1), {"taps": (0.1,) * 10}),
        (torch.rand(1, device="meta"), {}),
    ],
)
def test_a_bad_call_of_loss_map_raises(coefficients, others):
    x, y = images((2, 3, 9, 10))
    with pytest.raises(RuntimeError):
        LOSS_MAP(x, y, None, None, coefficients, *options(**others))


def test_backward_computes_gradients_that_were_not_requested_in_the_forward_pass():
    x, y = images((2, 3, 9, 10), grad=(True, True))
    for factors, sums in (((torch.rand(2, 1), (), "nothing"), "images"), (SHARED, "batch")):
        results = []
        for wanted in ((True, True), (False, False), (True, False), (False, True)):
            losses, *_ = IMAGE_LOSSES(x, y, None, None, None, *factors, sums, *wanted, *options())
            results.append(torch.autograd.grad((2.0 * losses).sum(), (x, y)))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=1e-6, atol=1e-7)


# ---- Sums and factors of the operator -----------------------------------------------------------

SHARED = (None, [3.0], "batch")


@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mean_over", ["nothing", "image", "batch"])
def test_shared_factors_equal_the_same_factors_for_every_image(mean_over, dtype, padding):
    """Bitwise equal to a tensor of factors, also if only the backward pass requests gradients."""
    coefficients = [0.3, -2.0, 5.0, 1.0]
    inside = 3 * (3 * 6 if padding == "valid" else 7 * 10)
    counts = {"nothing": (1, 1), "image": (inside, 210), "batch": (2 * inside, 2 * 210)}[mean_over]
    numbers = [coefficients[0] / counts[0], *(c / counts[1] for c in coefficients[1:])]
    own = torch.tensor(numbers, dtype=dtype).repeat(2, 1)
    x, y = images((2, 3, 7, 10), dtypes=(dtype, dtype), grad=(True, True))
    for sums in ("terms", "images"):
        results = []
        for factors in ((own, (), "nothing"), (None, coefficients, mean_over)):
            wanted = (False, False) if sums == "terms" else (True, True)
            losses, *_ = IMAGE_LOSSES(
                x, y, None, None, None, *factors, sums, *wanted, *options(COMBINED, padding=padding)
            )
            upstream = torch.arange(1.0, 1.0 + losses.numel(), dtype=dtype).view(losses.shape)
            results.append((losses, *torch.autograd.grad(losses, (x, y), upstream)))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("metrics", [("ssim",), ("l1",), COMBINED], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2, 300])
def test_the_sum_over_a_batch_is_rounded_only_once(batch, metrics):
    """A float32 result equals the float64 sum even if losses differ by orders of magnitude."""
    x, y = images((batch, 1, 6, 7), grad=(True, False))
    with torch.no_grad():
        x.copy_(y + (x - y) * torch.logspace(-4, 0, max(batch, 1))[:batch].view(-1, 1, 1, 1))
    factors = (None, [1.0] * len(metrics), "nothing")
    total, gradient, _ = IMAGE_LOSSES(
        x, y, None, None, None, *factors, "batch", True, False, *options(metrics)
    )
    terms, *_ = IMAGE_LOSSES(
        x, y, None, None, None, *factors, "terms", False, False, *options(metrics)
    )
    expected = terms.double().sum()
    assert total.shape == ()
    # Each of the terms was rounded to float32 itself.
    assert abs(total.item() - expected.item()) <= 2**-24 * 2 * terms.double().abs().sum()
    _, of_images, _ = IMAGE_LOSSES(
        x, y, None, None, None, *factors, "images", True, False, *options(metrics)
    )
    assert torch.equal(gradient, of_images)


# ---- Autograd -----------------------------------------------------------------------------------

LOSSES = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "each image": {"reduction": "image"},
    "image level": {"amplify_over": "image"},
    "batch level": {"amplify_over": "batch"},
    "map": {"reduction": "none"},
}
TERMS = {
    "ssim": {"mse": 0.0},
    "mse": {"ssim": 0.0},
    "l1": {"ssim": 0.0, "mse": 0.0, "l1": 1.0},
    "all": {"l1": 1.0},
}
every_loss = pytest.mark.parametrize("level", LOSSES.values(), ids=LOSSES)
every_term = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def loss_of(x, y, terms, level, backend="native"):
    return functional.amplified_reconstruction_loss(x, y, **terms, **level, backend=backend)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_operator_returns_the_final_loss(reduction):
    """PyTorch adds no sum in the forward or backward pass, and no tensor of factors."""
    x, y = images((2, 3, 16, 18), grad=(True, False))
    with torch.profiler.profile(acc_events=True) as profile:
        loss = loss_of(x, y, {}, {"reduction": reduction})
        loss.backward()
    assert loss.grad_fn.next_functions[0][0].variable is x
    names = {event.name for event in profile.events()}
    assert "lamp_kernels::image_losses" in names
    assert not names & {"aten::sum", "aten::new_full", "aten::expand"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@every_term
def test_a_loss_summed_by_the_operator_matches_the_reference(terms, reduction, padding, dtype):
    x, y = images((5, 3, 16, 18), dtypes=(dtype, dtype), grad=(True, True))
    level = {"reduction": reduction, "padding": padding}
    wide = [image.detach().double().requires_grad_() for image in (x, y)]
    expected = loss_of(wide[0], wide[1], terms, level, "reference")
    found = loss_of(x, y, terms, level)
    digits = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found.double(), expected, rtol=digits, atol=0.0)
    for one, other in zip(
        torch.autograd.grad(3.0 * found, (x, y)),
        torch.autograd.grad(3.0 * expected, wide),
        strict=True,
    ):
        assert (one - other).norm() <= 10 * digits * other.norm()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_scaled_loss_has_scaled_gradients(reduction):
    x, y = images((2, 1, 12, 13), grad=(True, False))
    level = {"reduction": reduction}
    (expected,) = torch.autograd.grad(loss_of(x, y, {}, level), x)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=1024.0)
    scaler.scale(loss_of(x, y, {}, level)).backward()
    assert torch.equal(x.grad, 1024.0 * expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_modified_in_place_is_differentiable(reduction):
    x, y = images((2, 1, 12, 13), grad=(True, False))
    level = {"reduction": reduction}
    (expected,) = torch.autograd.grad(3.0 * loss_of(x, y, {}, level), x)
    loss = loss_of(x, y, {}, level)
    loss *= 3.0
    loss += 1.0
    (found,) = torch.autograd.grad(loss, x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_hook_on_the_loss_can_read_and_change_its_gradient(reduction):
    x, y = images((2, 1, 12, 13), grad=(True, False))
    level = {"reduction": reduction}
    (expected,) = torch.autograd.grad(loss_of(x, y, {}, level), x)
    loss, seen = loss_of(x, y, {}, level), []
    loss.register_hook(lambda gradient: seen.append(gradient.clone()))
    loss.register_hook(lambda gradient: 4.0 * gradient)
    loss.retain_grad()
    loss.backward()
    assert [gradient.item() for gradient in seen] == [1.0]
    assert loss.grad.shape == ()
    assert torch.equal(x.grad, 4.0 * expected)


def second_by_grad(loss, x):
    (gradient,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    torch.autograd.grad(gradient.sum(), x)


def second_of_a_mixed_expression(loss, x):
    second_by_grad(loss.sum() * x.sum(), x)


def gradient_penalty(loss, x):
    (gradient,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    (loss.sum() + gradient.square().sum()).backward()


def gradient_norm(loss, x):
    (gradient,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    gradient.norm().backward()


def backward_with_a_graph(loss, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the reference cycle
        loss.sum().backward(create_graph=True)
    x.grad.sum().backward()


@pytest.mark.parametrize(
    "derivative",
    [
        second_by_grad,
        second_of_a_mixed_expression,
        gradient_penalty,
        gradient_norm,
        backward_with_a_graph,
    ],
)
@every_loss
@every_term
def test_a_second_derivative_is_an_error(terms, level, derivative):
    x, y = images((2, 1, 12, 13), grad=(True, True))
    with pytest.raises(RuntimeError, match="no second derivative; use backend='reference'"):
        derivative(loss_of(x, y, terms, level), x)
    x.grad = None  # breaks the reference cycle that create_graph leaves


@every_loss
def test_a_second_derivative_with_respect_to_a_network_is_an_error(level):
    """A penalty on a generator's gradient: no leaf is a direct input of the operator."""
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    loss = loss_of(model(torch.rand(2, 1, 12, 13)), torch.rand(2, 1, 12, 13), {}, level).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.stack([gradient.square().sum() for gradient in gradients]).sum().backward()


@pytest.mark.parametrize(
    ("terms", "level"),
    [
        ({}, {"reduction": "none"}),
        ({}, {"reduction": "image"}),
        ({"mse": 1.0}, {"amplify_over": "image"}),
        ({"mse": 1.0}, {"amplify_over": "batch"}),
        ({"mse": 1.0}, {"reduction": "image"}),
    ],
)
def test_a_second_derivative_with_respect_to_a_learned_weight_is_an_error(terms, level):
    """A penalty on a gradient that depends on a weight of the losses, its upstream factor."""
    x, y = images((2, 1, 12, 13), grad=(True, False))
    loss = loss_of(x, y, terms, level)
    weight = torch.ones_like(loss, requires_grad=True)
    (gradient,) = torch.autograd.grad((loss * weight).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.square().sum() + weight.square().sum(), weight)


def test_the_error_for_batched_gradients_suggests_alternatives():
    x, y = images((2, 1, 12, 13), grad=(True, False))
    losses = functional.amplified_ssim_loss(x, y, reduction="image", backend="native")
    with pytest.raises(RuntimeError, match=r"torch\.func\.vjp returns, or backend='reference'"):
        torch.autograd.grad(losses, x, torch.eye(len(losses)), is_grads_batched=True)


@every_loss
def test_create_graph_alone_gives_correct_first_derivatives(level):
    """create_graph=True is not an error until a second derivative is requested."""
    x, y = images((2, 1, 12, 13), grad=(True, False))
    loss = loss_of(x, y, {}, level).sum()
    (with_graph,) = torch.autograd.grad(loss, x, create_graph=True)
    (without,) = torch.autograd.grad(loss_of(x, y, {}, level).sum(), x)
    assert torch.equal(with_graph, without)


@every_loss
@every_term
def test_backward_twice_gives_the_same_gradients(terms, level):
    x, y = images((2, 1, 12, 13), grad=(True, True))
    loss = loss_of(x, y, terms, level).sum()
    first = torch.autograd.grad(loss, (x, y), retain_graph=True)
    second = torch.autograd.grad(3.0 * loss, (x, y), retain_graph=True)
    third = torch.autograd.grad(loss, (x, y))
    for one, other, last in zip(first, second, third, strict=True):
        assert torch.equal(one, last)
        torch.testing.assert_close(other, 3.0 * one)


@every_loss
def test_one_gradient_at_a_time(level):
    x, y = images((2, 1, 12, 13), grad=(True, True))
    loss = loss_of(x, y, {}, level).sum()
    first = [torch.autograd.grad(loss, image, retain_graph=True)[0] for image in (x, y)]
    again = torch.autograd.grad(loss, (x, y), retain_graph=True)
    for one, both in zip(first, again, strict=True):
        torch.testing.assert_close(one, both, rtol=1e-6, atol=1e-8)
    (last,) = torch.autograd.grad(loss, x)
    assert torch.equal(last, first[0])


@pytest.mark.parametrize("level", [{"reduction": "sum"}, {"amplification": "none"}, {}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_modifying_a_gradient_in_place_does_not_affect_the_next_one(level, dtype):
    """With an upstream factor of 1 there is no multiplication that would copy the stored tensor."""
    x, y = images((2, 1, 12, 13), dtypes=(dtype, dtype), grad=(True, False))
    loss = loss_of(x, y, {}, level)
    loss.backward(retain_graph=True)
    expected = x.grad.clone()
    x.grad.zero_()
    loss.backward(retain_graph=True)
    assert torch.equal(x.grad, expected)
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
    gradient.zero_()
    x.grad.mul_(2.0)
    loss.backward()
    torch.testing.assert_close(x.grad, 3.0 * expected)


def test_gradients_of_several_losses_add_up():
    """The autograd engine accumulates in place where it can, but never into a stored tensor."""
    x, y = images((2, 1, 12, 13), grad=(True, False))
    inner = 1.0 * x
    ssim = functional.amplified_ssim_loss(inner, y, reduction="sum", backend="native")
    mse = functional.amplified_mse_loss(inner, y, reduction="sum", backend="native")
    parts = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (ssim, mse)]
    for _ in range(2):
        (total,) = torch.autograd.grad(ssim + mse, x, retain_graph=True)
        torch.testing.assert_close(total, parts[0] + parts[1])


def test_the_same_tensor_as_both_images():
    x = torch.rand(2, 1, 12, 13, requires_grad=True)
    loss = functional.amplified_ssim_loss(x, x, backend="native")
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert x.grad.abs().max().item() == 0.0


def test_backward_from_a_single_images_loss():
    x, y = images((3, 1, 12, 13), grad=(True, False))
    losses = functional.amplified_ssim_loss(x, y, reduction="image", backend="native")
    (gradient,) = torch.autograd.grad(losses[1], x)
    (expected,) = torch.autograd.grad(
        functional.amplified_ssim_loss(x, y, reduction="image", backend="reference")[1], x
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert gradient[0].abs().max().item() == 0.0


def test_modifying_an_input_between_forward_and_backward_is_an_error():
    x, y = images((2, 1, 12, 13), grad=(True, False))
    inner = 1.0 * x
    loss = functional.amplified_ssim_loss(inner, y, backend="native")
    inner.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- Memory -------------------------------------------------------------------------------------

LARGE = (2, 3, 64, 64)
BYTES = 2 * 3 * 64 * 64 * 4


counts_memory = pytest.mark.cpu_only("counts CPU memory; tests/cuda counts the device's")


def peak_of(function):
    """Peak bytes of live tensors while `function` ran, beyond those allocated before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        profile_memory=True,
        acc_events=True,  # otherwise PyTorch 2.11 warns that it drops events of earlier cycles
    ) as profile:
        result = function()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    del result
    return peak


@counts_memory
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("grad", [(False, False), (True, False), (True, True)])
def test_memory_holds_one_gradient_per_input_that_requires_grad(grad, backward):
    x, y = images(LARGE, grad=grad)
    loss_function = AmplifiedReconstructionLoss(l1=1.0, backend="native")
    if backward and not any(grad):
        return

    def run():
        loss = loss_function(x, y)
        return (
            torch.autograd.grad(loss, [z for z in (x, y) if z.requires_grad]) if backward else loss
        )

    assert peak_of(run) <= sum(grad) * BYTES + 4096
    assert peak_of(run) >= sum(grad) * BYTES


@counts_memory
def test_no_gradient_is_computed_without_grad_mode():
    x, y = images(LARGE, grad=(True, True))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert peak_of(lambda: AmplifiedSSIMLoss(backend="native")(x, y)) <= 4096


@counts_memory
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_an_expanded_mask_is_not_materialized(reduction):
    x, y = images(LARGE)
    mask = (torch.rand(2, 1, 1, 64) > 0.5).expand(LARGE)
    loss_function = AmplifiedSSIMLoss(reduction=reduction, backend="native")
    maps = 2 * BYTES if reduction == "none" else 0  # before and after weighting
    assert peak_of(lambda: loss_function(x, y, mask)) <= maps + 8192
    torch.testing.assert_close(loss_function(x, y, mask), loss_function(x, y, mask.float()))


@pytest.mark.cpu_only("matches the message of the CPU allocator")
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_out_of_memory_raises_the_allocators_own_error(mode):
    """A map or a gradient would take a pebibyte."""
    x = torch.rand(1, 1, 1, 1, requires_grad=mode is torch.enable_grad)
    x, y = (image.expand(1, 2**20, 2**14, 2**14) for image in (x, torch.rand(1, 1, 1, 1)))
    for reduction in ("none", "mean") if x.requires_grad else ("none",):
        with mode(), pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate"):
            AmplifiedSSIMLoss(reduction=reduction, backend="native")(x, y)


@counts_memory
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grad", [(True, False), (True, True)])
def test_gradients_are_stored_in_the_compute_type(grad, dtype):
    x, y = images(LARGE, dtypes=(dtype, dtype), grad=grad)
    size = sum(grad) * BYTES * (2 if dtype == torch.float64 else 1)
    assert size <= peak_of(lambda: AmplifiedSSIMLoss(backend="native")(x, y)) <= size + 4096


@counts_memory
def test_a_stored_gradient_is_freed_by_its_backward_pass():
    x, y = images(LARGE, grad=(True, False))
    loss = AmplifiedSSIMLoss(backend="native")(1.0 * x, y)

    def run():
        (gradient,) = torch.autograd.grad(loss, x)
        del gradient
        return torch.empty(LARGE)

    assert peak_of(run) <= BYTES + 4096


# ---- Half precision -----------------------------------------------------------------------------


def ulp(value, dtype):
    """The distance between neighboring numbers of `dtype` at `value`."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(value.abs().clamp(min=info.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(value, info.eps), exponent)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@every_term
def test_half_precision_is_as_good_as_the_rounded_reference(terms, reduction, dtype):
    x, y = images((2, 3, 32, 37), dtypes=(dtype, dtype))

    def results(backend, computed_in):
        leaves = [image.to(computed_in, copy=True).requires_grad_() for image in (x, y)]
        loss = loss_of(leaves[0], leaves[1], terms, {"reduction": reduction}, backend)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    exact = results("reference", torch.float64)
    rounded = results("reference", torch.float32)
    for found, full, wanted in zip(results("native", dtype), rounded, exact, strict=True):
        own = found.dtype  # float32 for the loss, the half type for the gradients
        allowed = 2.0 * (full.to(own).double() - wanted).abs() + ulp(wanted, own)
        # where terms of a gradient cancel, their float32 rounding errors remain
        allowed += 1e-7 * wanted.abs().max()
        assert ((found.double() - wanted).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_mixed_dtypes_under_autocast(dtype, swap):
    x, y = images((2, 3, 16, 17), dtypes=(dtype, torch.float32), grad=(True, True))
    exact = [image.detach().double().requires_grad_() for image in (x, y)]
    order = slice(None, None, -1) if swap else slice(None)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss = AmplifiedReconstructionLoss(backend="native")(*[x, y][order])
    wanted = AmplifiedReconstructionLoss(backend="reference")(*exact[order])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    found = torch.autograd.grad(loss, (x, y))
    for gradient, image, reference in zip(
        found, (x, y), torch.autograd.grad(wanted, exact), strict=True
    ):
        assert gradient.dtype == image.dtype
        error = (gradient.double() - reference).norm() / reference.norm()
        assert error <= (1e-5 if image.dtype == torch.float32 else torch.finfo(dtype).eps)


# ---- Processes ----------------------------------------------------------------------------------


class Scores(Dataset):
    """A data set whose items are losses and gradients, computed on access."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        x, y = torch.rand(2, 1, 3, 64, 64, generator=generator)
        x.requires_grad_()
        loss = AmplifiedReconstructionLoss(backend="native")(x, y)
        loss.backward()
        return torch.stack([loss.detach(), x.grad.sum()])


def load_in_workers(start):
    data = Scores()
    expected = torch.stack([data[index] for index in range(len(data))])
    torch.set_num_threads(2)  # a forked process does not inherit these threads
    assert torch.equal(torch.stack([data[index] for index in range(len(data))]), expected)
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), expected)


@pytest.mark.cpu_only("a forked process cannot use the CUDA of its parent")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_workers_of_a_data_loader(start):
    """In a fresh process: after opcheck, PyTorch 2.14 rejects autograd in a fork of this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(load_in_workers, start).result()


def batch_of(rank):
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(rank))


def model_of():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 1, 3, padding=1)


def train_one_of_two(rank, folder):
    """One process of data-parallel training."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model = torch.nn.parallel.DistributedDataParallel(model_of())
    batch = batch_of(rank)
    AmplifiedReconstructionLoss(backend="native")(model(batch), batch).backward()
    torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.cpu_only("its processes create tensors on the CPU")
def test_data_parallel_training(tmp_path):
    mp.spawn(train_one_of_two, args=(str(tmp_path),), nprocs=2)
    model, batch = model_of(), torch.cat([batch_of(0), batch_of(1)])
    AmplifiedReconstructionLoss(backend="native")(model(batch), batch).backward()
    expected = [p.grad for p in model.parameters()]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_forward_mode_raises_instead_of_giving_wrong_results(reduction):
    x, y = images((2, 1, 8, 8))

    def loss(x):
        return AmplifiedMSELoss(reduction=reduction, backend="native")(x, y)

    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, y)
        with pytest.raises(RuntimeError, match=r"forward-mode.*use backend='reference'"):
            loss(dual)
        assert loss(x).sum() == loss(x).sum()
