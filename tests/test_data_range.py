"""`data_range` as a tensor: one range per image, on each backend that supports it."""

from typing import Any

import pytest
import torch

from lamp_kernels import (
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
)
from lamp_kernels.spec import REDUCTIONS, LossSpec

RANGES = torch.tensor([1.0, 255.0, 1e-3])
LEVELS = [(level, reduction) for level, several in REDUCTIONS.items() for reduction in several]
TERMS: Any = {"ssim": 0.5, "mse": 1.0, "l1": 0.25, "charbonnier": 0.5}


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape, dtype=dtype)
    y = (x + 0.2 * torch.randn(shape, dtype=dtype)).clamp(0, 1)
    scale = RANGES.to(dtype).view(-1, *[1] * (len(shape) - 1))
    return (x * scale).requires_grad_(), (y * scale).requires_grad_()


@pytest.mark.parametrize("masked", [False, True])
def test_each_image_is_measured_in_its_own_range(each_backend, masked):
    x, y = images(3, 2, 16, 14, dtype=torch.float64)
    mask = torch.rand(3, 1, 16, 14) > 0.3 if masked else None
    options: Any = {"window_size": 5, "reduction": "image"}
    module = AmplifiedReconstructionLoss(**TERMS, **options)
    sample = LossSpec(masked=masked, range_per_image=True)
    reason = backends.BACKENDS[each_backend].unsupported_reason(sample, x)
    if reason is not None:
        with pytest.raises(ValueError, match=reason):
            module(x, y, mask=mask, data_range=RANGES)
        return
    found = module(x, y, mask=mask, data_range=RANGES)
    expected = torch.cat(
        [
            AmplifiedReconstructionLoss(**TERMS, **options, data_range=RANGES[n].item())(
                x[n : n + 1], y[n : n + 1], mask=None if mask is None else mask[n : n + 1]
            )
            for n in range(3)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    ours, theirs = (torch.autograd.grad(loss.sum(), (x, y)) for loss in (found, expected))
    for gradient, wanted in zip(ours, theirs, strict=True):
        for n in range(3):
            assert (gradient[n] - wanted[n]).norm() <= 1e-6 * wanted[n].norm()


@pytest.mark.parametrize(("level", "reduction"), LEVELS)
def test_every_level_equals_images_divided_by_their_range(level, reduction):
    x, y = images(3, 2, 12, 13)
    module = AmplifiedReconstructionLoss(
        **TERMS, window_size=5, amplify_over=level, reduction=reduction, padding="zeros"
    )
    scale = RANGES.view(3, 1, 1, 1)
    found, expected = module(x, y, data_range=RANGES), module(x / scale, y / scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "ranges",
    [RANGES.double(), torch.tensor([1, 255, 7]), torch.tensor([1.0, 2.0, 0.5]).half()],
    ids=lambda ranges: str(ranges.dtype),
)
def test_dtypes_of_the_range(ranges):
    x, y = images(3, 1, 12, 12)
    found = functional.amplified_ssim_loss(x, y, data_range=ranges)
    torch.testing.assert_close(found, AmplifiedSSIMLoss()(x, y, data_range=ranges.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_images(dtype):
    x, y = (image.detach().to(dtype) for image in images(3, 1, 12, 12))
    found = AmplifiedSSIMLoss()(x, y, data_range=RANGES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, AmplifiedSSIMLoss()(x.float(), y.float(), data_range=RANGES))


@pytest.mark.parametrize("one", [torch.tensor(2.0), torch.tensor([2.0])], ids=["()", "(1,)"])
def test_one_number_is_the_range_of_every_image(one):
    x, y = images(3, 1, 12, 12)
    found = AmplifiedSSIMLoss()(x, y, data_range=one)
    torch.testing.assert_close(found, AmplifiedSSIMLoss(data_range=2.0)(x, y))


def test_maps_and_ms_ssim():
    x, y = images(3, 2, 30, 28)
    each = [functional.anomaly_map(x[n:][:1], y[n:][:1], data_range=RANGES[n].item())
            for n in range(3)]  # fmt: skip
    torch.testing.assert_close(functional.anomaly_map(x, y, data_range=RANGES), torch.cat(each))
    options: Any = {"scale_weights": (0.4, 0.6), "window_size": 5, "reduction": "image"}
    found = AmplifiedMSSSIMLoss(**options)(x, y, data_range=RANGES)
    each = [AmplifiedMSSSIMLoss(**options, data_range=RANGES[n].item())(x[n:][:1], y[n:][:1])
            for n in range(3)]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(each), rtol=1e-5, atol=1e-7)


def test_vmap_over_ranges(each_backend):
    x, y = (image.detach() for image in images(3, 1, 12, 12))
    loss = AmplifiedSSIMLoss()

    def of_one(a, b, r):
        return loss(a[None], b[None], data_range=r)

    expected = AmplifiedSSIMLoss(reduction="image")
    found = torch.func.vmap(of_one)(x, y, RANGES)
    torch.testing.assert_close(found, expected(x, y, data_range=RANGES))
    found = torch.func.vmap(torch.func.grad(of_one))(x, y, RANGES)
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(expected(x, y, data_range=RANGES).sum(), x)
    torch.testing.assert_close(found, wanted)


def test_new_values_do_not_recompile():
    torch.compiler.reset()
    x, y = (image.detach() for image in images(3, 1, 12, 12))
    loss, graphs = AmplifiedSSIMLoss(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(loss, fullgraph=True, backend=count)
    for ranges in (RANGES, 3 * RANGES):
        found = compiled(x, y, data_range=ranges)
        torch.testing.assert_close(found, loss(x, y, data_range=ranges))
    assert len(graphs) == 1


def test_compiled_for_batches_of_any_size():
    """Dynamo makes N a symbol after the second size, but not yet the number of ranges."""
    torch.compiler.reset()
    loss = AmplifiedSSIMLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for count in (2, 4, 3, 5):
        x, y = torch.rand(2, count, 1, 12, 12)
        if count in (2, 4):
            compiled(x, y)
            continue
        ranges = 1.0 + torch.rand(count)
        expected = loss(x, y, data_range=ranges)
        torch.testing.assert_close(compiled(x, y, data_range=ranges), expected)


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        (torch.ones(2), ValueError, r"one number, or \(N,\).*\(2,\) for N = 3"),
        (torch.ones(3, 1), ValueError, r"got shape \(3, 1\)"),
        (torch.ones(3, requires_grad=True), ValueError, "must not require grad.*detach"),
        (torch.ones(3, device="meta"), ValueError, "same device as input, got meta"),
        (torch.tensor([1.0, 0.0, 1.0]), ValueError, "values from 0 to 1"),
        (torch.tensor([1.0, -2.0, 1.0]), ValueError, "values from -2 to 1"),
        (torch.tensor([1.0, float("nan"), 1.0]), ValueError, "values from nan"),
        (torch.ones(3, dtype=torch.bool), TypeError, "must be real, got torch.bool"),
    ],
    ids=str,
)
@pytest.mark.cpu_only("values are not read on other devices")
def test_bad_ranges(ranges, error, message):
    x, y = images(3, 1, 12, 12)
    with pytest.raises(error, match=message):
        AmplifiedSSIMLoss()(x, y, data_range=ranges)
