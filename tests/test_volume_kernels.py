"""The native kernels of volumes: boxes, layouts, threads, and their operators in PyTorch."""

from typing import Any

import pytest
import torch

from lamp_kernels import AmplifiedReconstructionLoss, AmplifiedSSIMLoss, backends, functional, ops
from lamp_kernels.spec import LossSpec, Term
from lamp_kernels.tensors import compute_dtype

MISSING = backends.BACKENDS["native"].unavailable_reason()
if MISSING is not None:
    pytest.skip(f"no native operators: {MISSING}", allow_module_level=True)
pytestmark = pytest.mark.cpu_only("the CPU kernels")

PADDINGS = ("reflect", "valid", "zeros")
# Longer than a box of csrc/cpu/volume_tiling.h along one axis, or two.
SHAPES = {
    "one box": (2, 2, 11, 12, 13),
    "strips": (1, 1, 11, 12, 129),
    "bands": (1, 2, 12, 70, 11),
    "slabs": (1, 1, 135, 11, 12),
    "strips and bands": (1, 1, 12, 37, 66),
}


def volumes(shape, dtype=torch.float64):
    x = torch.rand(shape, dtype=dtype)
    return x, (x + 0.1 * torch.randn(shape, dtype=dtype)).clamp(0, 1)


def results(loss_function, x, y, *, wanted=(True, True)):
    pair = [v.detach().requires_grad_(want) for v, want in zip((x, y), wanted, strict=True)]
    loss = loss_function(*pair)
    leaves = [v for v in pair if v.requires_grad]
    upstream = torch.linspace(1.0, 0.5, loss.numel(), dtype=loss.dtype).view(loss.shape)
    return [loss.detach(), *torch.autograd.grad((loss * upstream).sum(), leaves)]


def assert_close(found, expected, tolerance):
    for each, other in zip(found, expected, strict=True):
        assert (each - other).norm() <= tolerance * other.norm()


def both(x, y, tolerance=1e-11, weight=None, data_range: Any = 1.0, **options):
    """Compare the kernels with the reference, with one gradient and with both."""
    kind = AmplifiedReconstructionLoss if "ssim" in options else AmplifiedSSIMLoss
    given: Any = {"weight": weight}
    if isinstance(data_range, torch.Tensor):
        given["data_range"] = data_range
    native, reference = (
        kind(spatial_dims=3, backend=backend, **options) for backend in ("native", "reference")
    )
    expected = results(lambda a, b: reference(a, b, **given), x, y)
    found = results(lambda a, b: native(a, b, **given), x, y)
    assert_close(found, expected, tolerance)
    for index, wanted in ((1, (True, False)), (2, (False, True))):
        found = results(lambda a, b: native(a, b, **given), x, y, wanted=wanted)
        assert_close(found, [expected[0], expected[index]], tolerance)
    with torch.no_grad():
        assert_close([native(x, y, **given)], expected[:1], tolerance)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_boxes_of_every_border(shape, padding, reduction):
    both(*volumes(shape), padding=padding, reduction=reduction)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("window_size", range(3, 16, 2))
def test_every_window(window_size, padding):
    """The smallest volumes that each border admits, and one larger."""
    least = LossSpec(window_size=window_size, padding=padding).smallest_side()
    both(*volumes((1, 1, least, least, least)), window_size=window_size, padding=padding)
    both(*volumes((1, 1, least, 33, 20)), window_size=min(window_size, 7), padding=padding)


@pytest.mark.parametrize(
    "options",
    [
        {"amplification": "none", "dissimilarity": "full"},
        {"amplification": "power"},
        {"window": "uniform", "window_size": 5},
        {"window": (1.0, 2.0, 4.0, 2.0, 1.0)},
        {"amplify_over": "image", "reduction": "image"},
        {"amplify_over": "batch"},
        {"reduction": "sum"},
        {"ssim": 1.0, "mse": 2.0, "l1": 0.5, "charbonnier": 0.25},
        {"ssim": 1.0, "mse": 2.0, "padding": "valid"},
        {"ssim": 1.0, "mse": 2.0, "amplify_over": "image"},
        {"ssim": 1.0, "mse": 2.0, "reduction": "none"},
    ],
    ids=str,
)
def test_options(options):
    x, y = volumes((2, 2, 12, 13, 70))
    both(x, y, **options)
    both(x, y, weight=torch.rand(2, 1, 1, 13, 70, dtype=x.dtype), **options)
    both(x, y, data_range=torch.tensor([0.7, 2.0], dtype=x.dtype), **options)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(2, 2, 12, 13, 70), (1, 2, 12, 1, 1), (2, 1, 1, 1, 70)], ids=str)
def test_weights(shape, padding):
    weight = torch.rand(shape, dtype=torch.float64)
    weight[..., :20] = 0
    weight[0] += 1e-3
    x, y = volumes((2, 2, 12, 13, 70))
    both(x, y, weight=weight, padding=padding, window_size=5)


LAYOUTS: Any = {
    "channels_last_3d": lambda v: v.contiguous(memory_format=torch.channels_last_3d),
    "depth innermost": lambda v: v.movedim(2, -1).contiguous().movedim(-1, 2),
    "sliced": lambda v: torch.cat([v, v], dim=-1).repeat_interleave(2, dim=2)[
        :, :, ::2, :, : v.shape[-1]
    ],
    "batch inside": lambda v: v.movedim(0, -1).contiguous().movedim(-1, 0),
    "a wide margin": lambda v: torch.nn.functional.pad(v, (3, 2, 1, 1, 1, 1))[
        ..., 1:-1, 1:-1, 3:-2
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_nothing(layout):
    x, y = volumes((2, 2, 11, 12, 37), torch.float32)
    loss_function = AmplifiedReconstructionLoss(spatial_dims=3, backend="native")
    expected = results(loss_function, x, y)
    a, b = LAYOUTS[layout](x), LAYOUTS[layout](y)
    assert not a.is_contiguous()
    for pair in ((a, b), (a, y)):
        for each, other in zip(results(loss_function, *pair), expected, strict=True):
            assert torch.equal(each, other)
    expanded = x[:1].expand(2, -1, -1, -1, -1)
    found = results(loss_function, expanded, y)
    assert torch.equal(found[0], loss_function(expanded.contiguous(), y))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_any_number_of_threads(threads, shape):
    x, y = volumes(shape, torch.float32)
    loss_function = AmplifiedReconstructionLoss(spatial_dims=3, l1=1.0, backend="native")
    several = []
    for count in (1, 2, 3, 4, 1):
        threads(count)
        several.append(results(loss_function, x, y))
    for found in several[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, several[0], strict=True))


def test_empty_batch():
    x = torch.rand(0, 1, 12, 12, 12)
    loss, gradient, _ = results(AmplifiedSSIMLoss(spatial_dims=3, backend="native"), x, x)
    assert loss == 0
    assert gradient.shape == x.shape


def test_compile_and_vmap():
    x, y = volumes((3, 1, 8, 9, 10), torch.float32)
    module = AmplifiedSSIMLoss(spatial_dims=3, window_size=5, backend="native")
    expected = torch.stack([module(a, b) for a, b in zip(x[:, None], y[:, None], strict=True)])
    assert torch.equal(torch.func.vmap(module)(x[:, None], y[:, None]), expected)
    per_volume = torch.func.vmap(torch.func.grad(module))(x[:, None], y[:, None])
    for index in range(3):
        one = results(module, x[index, None], y[index, None])[1]
        assert torch.equal(per_volume[index], one)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for found, eager in zip(results(compiled, x, y), results(module, x, y), strict=True):
        assert torch.equal(found, eager)


def test_second_derivatives_raise():
    x, y = volumes((1, 1, 6, 6, 6))
    x.requires_grad_()
    loss = AmplifiedSSIMLoss(spatial_dims=3, window_size=3, backend="native")(x, y)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


# ---- Operators and errors ------------------------------------------------------------------------

LIBRARY = torch.ops.lamp_kernels_volumes
IMAGE_LOSSES, LOSS_MAP = LIBRARY.image_losses.default, LIBRARY.loss_map.default


def spec_of(*metrics, **options):
    terms = tuple(Term(metric) for metric in metrics or ("ssim",))
    return ops.FlatSpec.of(LossSpec(terms, window_size=5, spatial_dims=3, **options))


def losses_of(x, y, *, weight=None, mask=None, spec=None, factors=None, shared=((1.0,), "batch")):
    shared = ((), "nothing") if factors is not None else shared
    sums = "terms" if factors is not None else "batch"
    wanted = x.requires_grad, y.requires_grad
    return (x, y, weight, mask, None, factors, *shared, sums, *wanted, *(spec or spec_of()))


@pytest.mark.parametrize(
    ("dtypes", "grad"),
    [
        ((torch.float32, torch.float32), (True, True)),
        ((torch.float64, torch.bfloat16), (False, True)),
        ((torch.float16, torch.float16), (True, False)),
    ],
    ids=str,
)
def test_opcheck(dtypes, grad):
    x, y = (
        torch.rand(2, 3, 6, 7, 8).to(dtype).requires_grad_(wanted)
        for dtype, wanted in zip(dtypes, grad, strict=True)
    )
    dtype = compute_dtype(*dtypes)
    weight = torch.rand(2, 1, 6, 7, 8, dtype=dtype)
    torch.library.opcheck(IMAGE_LOSSES, losses_of(x, y, weight=weight))
    factors = torch.rand(2, 2, dtype=dtype)
    torch.library.opcheck(
        IMAGE_LOSSES, losses_of(x, y, factors=factors, spec=spec_of("ssim", "mse"))
    )
    last = x.detach().contiguous(memory_format=torch.channels_last_3d)
    torch.library.opcheck(IMAGE_LOSSES, losses_of(last.requires_grad_(grad[0]), y))
    for padding in PADDINGS:
        spec = spec_of(padding=padding)
        torch.library.opcheck(LOSS_MAP, (x, y, None, None, torch.ones(1, dtype=dtype), *spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.rand(1, 1, 7, 6, 6)}, "must have the same shape, got depths 6 and 7"),
        ({"x": torch.rand(1, 1, 6, 6)}, "input must be 5-D"),
        ({"x": torch.rand(1, 1, 0, 6, 6)}, "at least one plane"),
        (
            {"x": torch.rand(1, 1, 2, 6, 6), "y": torch.rand(1, 1, 2, 6, 6)},
            "depth must be at least 3",
        ),
        ({"weight": torch.rand(1, 1, 4, 6, 6)}, "got depth 4"),
        ({"weight": torch.rand(1, 1, 6, 6)}, "weight must be 5-D"),
        ({"mask": torch.rand(1, 1, 6, 6, 6)}, "do not support a mask"),
        ({"spec": spec_of("mse")}, "ssim must be a term, got mse"),
        ({"factors": torch.rand(2, 1)}, r"factors must have shape \(N, T\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_direct_call_with_wrong_tensors_raises(changes, message):
    arguments = {"x": torch.rand(1, 1, 6, 6, 6), "y": torch.rand(1, 1, 6, 6, 6)} | changes
    with pytest.raises(RuntimeError, match=message):
        IMAGE_LOSSES(*losses_of(**arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 17}, "odd window sizes from 3 to 15, got window_size=17"),
        ({"mask": torch.ones(1, 1, 20, 20, 20)}, "does not support a mask"),
    ],
    ids=str,
)
def test_what_the_kernels_leave_out_is_refused_or_left_to_the_reference(options, message):
    x, y = volumes((1, 1, 20, 20, 20), torch.float32)
    with pytest.raises(ValueError, match=message):
        functional.amplified_ssim_loss(x, y, spatial_dims=3, backend="native", **options)
    automatic, reference = (
        functional.amplified_ssim_loss(x, y, spatial_dims=3, backend=backend, **options)
        for backend in (None, "reference")
    )
    assert torch.equal(automatic, reference)
