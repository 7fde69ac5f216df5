"""Volumes, (N, C, D, H, W): against a loop over windows, against packages, and in slabs."""

import itertools
from typing import Any

import pytest
import torch
import window_loop
from packages import optional

from lamp_kernels import (
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
    slabs,
    windows,
)
from lamp_kernels.spec import REDUCTIONS, LossSpec

pytorch_msssim = optional("pytorch_msssim")
kornia = optional("kornia")
monai_losses = optional("monai.losses")

# Only the reference computes volumes with a mask.
MASKED = pytest.mark.parametrize(
    "masked", [False, pytest.param(True, marks=pytest.mark.reference_only)]
)
PADDINGS = ("reflect", "valid", "zeros")
SHAPE = (2, 2, 6, 5, 7)
WINDOWS: Any = {
    "gaussian": ({"window_size": 5}, windows.gaussian(5, 1.5)),
    "uniform": ({"window": "uniform", "window_size": 3}, [1.0] * 3),
    "taps": ({"window": (1.0, 2.0, 4.0, 2.0, 1.0)}, [1.0, 2.0, 4.0, 2.0, 1.0]),
}


@pytest.fixture
def each_backend(each_backend):
    """Of the backends, those that compute volumes on the device of the tests."""
    device = torch.get_default_device().type
    reason = backends.BACKENDS[each_backend].unsupported_feature(LossSpec(spatial_dims=3), device)
    if reason is not None:
        pytest.skip(f"{each_backend}: {reason}")
    return each_backend


def volumes(*shape, dtype=torch.float64):
    x = torch.rand(shape, dtype=dtype)
    return x, (x + 0.2 * torch.randn(shape, dtype=dtype)).clamp(0, 1)


def from_loop(x, y, taps, padding, mask=None):
    """1 - SSIM of each channel by the loop, (N, C, D', H', W')."""
    shown = torch.ones_like(x) if mask is None else mask.to(x.dtype).expand(x.shape)
    maps = [
        torch.from_numpy(
            window_loop.dissimilarity(
                x[index].numpy(force=True),
                y[index].numpy(force=True),
                taps,
                padding=padding,
                mask=None if mask is None else shown[index].numpy(force=True),
            )
        )
        for index in itertools.product(range(x.shape[0]), range(x.shape[1]))
    ]
    return torch.stack(maps).unflatten(0, x.shape[:2]).to(x)


def at_centers(weight, x, grid):
    weight = weight.to(x.dtype).expand(x.shape)
    for dim in range(2, 5):
        weight = weight.narrow(dim, (x.shape[dim] - grid[dim]) // 2, grid[dim])
    return weight


@MASKED
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("window", WINDOWS)
def test_map_and_mean_match_a_loop_over_windows(window, padding, masked, each_backend):
    options, taps = WINDOWS[window]
    x, y = volumes(*SHAPE)
    mask = torch.rand(2, 1, *SHAPE[2:]) > 0.3 if masked else None
    expected = from_loop(x, y, taps, padding, mask)
    m = torch.ones_like(expected) if mask is None else at_centers(mask, x, expected.shape)
    if mask is not None:
        x, y = (v.masked_fill(~mask, float("nan")) for v in (x, y))
    found = functional.ssim(
        x, y, mask, padding=padding, spatial_dims=3, reduction="none", **options
    )
    torch.testing.assert_close(found, 1 - m * expected, rtol=0, atol=1e-12)
    found = functional.ssim(x, y, mask, padding=padding, spatial_dims=3, **options)
    torch.testing.assert_close(found, 1 - (m * expected).sum() / m.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("level", "reduction"),
    [(level, reduction) for level, several in REDUCTIONS.items() for reduction in several],
)
def test_every_level_and_reduction_with_a_weight(level, reduction, padding, each_backend):
    options, taps = WINDOWS["gaussian"]
    x, y = volumes(*SHAPE)
    weight = torch.rand(2, 1, *SHAPE[2:], dtype=torch.float64)
    weight[:, :, 3] = 0
    loss = 0.5 * from_loop(x, y, taps, padding)
    m = at_centers(weight, x, loss.shape)
    amplified = [functional.amplify(loss) * m, loss * m]
    sums, means = (v.flatten(1).sum(1) for v in amplified), m.flatten(1).sum(1)
    of_amplified, of_plain = sums
    expected: dict[str, Any] = {
        ("element", "mean"): of_amplified.sum() / means.sum(),
        ("element", "sum"): of_amplified.sum(),
        ("element", "image"): of_amplified / means,
        ("element", "none"): amplified[0],
        ("image", "mean"): functional.amplify(of_plain / means).mean(),
        ("image", "sum"): functional.amplify(of_plain / means).sum(),
        ("image", "image"): functional.amplify(of_plain / means),
        ("batch", "mean"): functional.amplify(of_plain.sum() / means.sum()),
    }[level, reduction]
    module = AmplifiedSSIMLoss(
        spatial_dims=3, padding=padding, amplify_over=level, reduction=reduction, **options
    )
    torch.testing.assert_close(module(x, y, weight), expected, rtol=1e-10, atol=1e-12)


@MASKED
def test_several_terms_add_up(masked, each_backend):
    x, y = volumes(*SHAPE)
    mask = torch.rand(SHAPE) > 0.3 if masked else None
    options: Any = {"spatial_dims": 3, "window_size": 5}
    found = AmplifiedReconstructionLoss(ssim=0.5, mse=2.0, l1=0.25, **options)(x, y, mask=mask)
    expected = (
        0.5 * AmplifiedSSIMLoss(**options)(x, y, mask=mask)
        + 2.0 * functional.amplified_mse_loss(x, y, mask=mask)
        + 0.25 * functional.amplified_l1_loss(x, y, mask=mask)
    )
    torch.testing.assert_close(found, expected)


@MASKED
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradcheck(padding, masked, each_backend):
    x, y = (v.requires_grad_() for v in volumes(1, 1, 4, 3, 4))
    mask = torch.rand(x.shape) > 0.2 if masked else None
    module = AmplifiedSSIMLoss(spatial_dims=3, window_size=3, padding=padding)
    assert torch.autograd.gradcheck(lambda a, b: module(a, b, mask=mask), (x, y), fast_mode=True)


def gradients(function, x, y):
    pair = [v.clone().requires_grad_() for v in (x, y)]
    value = function(*pair)
    return [value.detach(), *torch.autograd.grad(value.sum(), pair)]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            lambda x, y: kornia.metrics.ssim3d(x, y, 5),
            {"window_size": 5, "padding": "reflect", "reduction": "none"},
        ),
        (lambda x, y: 1 - monai_losses.SSIMLoss(3, win_size=7)(x, y), {"window_size": 7}),
        (
            lambda x, y: 1 - monai_losses.SSIMLoss(3, 1.0, "uniform", 5)(x, y),
            {"window_size": 5, "window": "uniform"},
        ),
        (lambda x, y: pytorch_msssim.ssim(x, y, 1.0, win_size=7), {"window_size": 7}),
    ],
    ids=["kornia", "monai", "monai uniform", "pytorch-msssim"],
)
def test_matches_packages(theirs, ours, each_backend):
    x, y = volumes(2, 2, 12, 11, 13, dtype=torch.float32)
    found = gradients(lambda a, b: functional.ssim(a, b, spatial_dims=3, **ours), x, y)
    expected = gradients(theirs, x, y)
    for each, other in zip(found, expected, strict=True):
        assert (each - other).norm() <= 1e-5 * other.norm()


# ---- Accuracy ----------------------------------------------------------------------------------

DIMS = (2, 3, 4)
SIDES = (1, 1, 22, 34, 68)


def along(dim, values):
    shape = [1] * 5
    shape[dim] = len(values)
    return values.double().view(shape).expand(SIDES)


SCENES: Any = {
    "texture": lambda: torch.rand(SIDES, dtype=torch.float64),
    "dark": lambda: 0.02 * torch.rand(SIDES, dtype=torch.float64),
    "flat": lambda: torch.full(SIDES, 0.95, dtype=torch.float64),
    **{
        f"dark beside bright along {dim}": lambda dim=dim: along(
            dim, 0.05 + 0.9 * (torch.arange(SIDES[dim]) >= SIDES[dim] // 2)
        )
        for dim in DIMS
    },
    **{
        f"stripes along {dim}": lambda dim=dim: along(
            dim, 0.95 * (torch.arange(SIDES[dim]) % 4 > 0)
        )
        for dim in DIMS
    },
}


@pytest.mark.kernels_only
@pytest.mark.parametrize("apart", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("scene", SCENES)
def test_accuracy_in_float32(scene, apart, each_backend):
    cases: Any = (("reflect", 0.0), ("valid", 0.3), ("zeros", 0.1))
    for padding, offset in cases:
        y = SCENES[scene]() + 0.1 * apart * torch.randn(SIDES, dtype=torch.float64)
        x = y + offset + apart * torch.randn(SIDES, dtype=torch.float64)
        x, y = x.float(), y.float()  # both precisions see the same volumes
        module = AmplifiedSSIMLoss(spatial_dims=3, padding=padding)
        low, high = gradients(module, x, y), gradients(module, x.double(), y.double())
        for each, expected in zip(low, high, strict=True):
            assert (each - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype, each_backend):
    x, y = (v.to(dtype) for v in volumes(1, 1, 9, 9, 20, dtype=torch.float32))
    module = AmplifiedSSIMLoss(spatial_dims=3, window_size=5)
    half, full = gradients(module, x, y), gradients(module, x.float(), y.float())
    assert half[0] == full[0]
    for each, expected in zip(half[1:], full[1:], strict=True):
        torch.testing.assert_close(each, expected.to(dtype), rtol=0, atol=0)


def test_equal_volumes_have_exactly_zero_loss_and_gradient(each_backend):
    x, _ = volumes(1, 1, 12, 11, 13, dtype=torch.float32)
    for found in gradients(AmplifiedSSIMLoss(spatial_dims=3), x, x.clone()):
        assert found.abs().max() == 0


@pytest.mark.parametrize("padding", PADDINGS)
def test_nan_reaches_the_windows_that_see_it_and_no_other(padding, each_backend):
    x, y = volumes(1, 1, 20, 12, 70, dtype=torch.float32)
    x[0, 0, 9, 6, 66] = float("nan")
    losses = AmplifiedSSIMLoss(spatial_dims=3, window_size=5, padding=padding, reduction="none")(
        x, y
    )
    seen = torch.zeros(x.shape, dtype=torch.bool)
    seen[..., 7:12, 4:9, 64:69] = True
    assert torch.equal(losses.isnan(), at_centers(seen, x, losses.shape).bool())


# ---- Slabs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("given", ["nothing", "mask and weight", "range"])
def test_slabs_change_nothing(padding, given, monkeypatch):
    shape = (1, 2, 17, 6, 5)
    x, y = volumes(*shape)
    options: dict[str, Any] = {
        "mask": torch.rand(1, 1, *shape[2:]) > 0.3 if "mask" in given else None,
        "weight": torch.rand(1, 1, 1, *shape[3:]) if "weight" in given else None,
        "data_range": torch.tensor([2.0]) if given == "range" else None,
    }
    module = AmplifiedSSIMLoss(
        spatial_dims=3, window_size=5, padding=padding, reduction="none", backend="reference"
    )
    results = []
    for voxels in (slabs.VOXELS, 2 * 8 * 6 * 5):
        monkeypatch.setattr(slabs, "VOXELS", voxels)
        pair = [v.clone().requires_grad_() for v in (x, y)]
        losses = module(*pair, **options)
        first = torch.autograd.grad(losses.square().sum(), pair, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), pair)
        results.append([losses.detach(), *(g.detach() for g in (*first, *second))])
    for each, expected in zip(*results, strict=True):
        torch.testing.assert_close(each, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("depth", "count"), [(5, 1), (9, 1), (10, 2), (17, 4)])
def test_number_of_slabs(depth, count, monkeypatch):
    seen = []
    monkeypatch.setattr(slabs, "VOXELS", 1)
    x, y = volumes(1, 1, depth, 6, 6)

    def checkpoint(f, *args, **options):
        seen.append(args[0])
        return f(*args)

    monkeypatch.setattr(slabs, "checkpoint", checkpoint)
    module = AmplifiedSSIMLoss(spatial_dims=3, window_size=5, backend="reference")
    module(x.requires_grad_(), y).backward()
    assert max(len(seen), 1) == count


def test_slabs_keep_fewer_planes_for_the_backward_pass(monkeypatch):
    def kept():
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x, y = volumes(1, 1, 40, 16, 16, dtype=torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module = AmplifiedSSIMLoss(spatial_dims=3, window_size=5, backend="reference")
            module(x.requires_grad_(), y)
        return total / x.numel()

    whole = kept()
    monkeypatch.setattr(slabs, "VOXELS", 1)
    assert kept() < 2 < 20 < whole


def test_graphs_and_vmap_are_one_slab(monkeypatch):
    x, y = volumes(2, 1, 12, 6, 6, dtype=torch.float32)
    module = AmplifiedSSIMLoss(spatial_dims=3, window_size=5, backend="reference")
    expected = torch.stack([module(a, b) for a, b in zip(x[:, None], y[:, None], strict=True)])
    monkeypatch.setattr(slabs, "VOXELS", 1)
    torch.testing.assert_close(torch.func.vmap(module)(x[:, None], y[:, None]), expected)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y), expected.mean())


# ---- Errors ------------------------------------------------------------------------------------


def test_errors():
    x = torch.rand(1, 1, 8, 20, 20)
    with pytest.raises(ValueError, match=r"\(N, C, D, H, W\) with spatial_dims=3, got 4"):
        AmplifiedSSIMLoss(spatial_dims=3)(x[0], x[0])
    with pytest.raises(ValueError, match=r"AmplifiedSSIMLoss\(spatial_dims=3\)"):
        AmplifiedSSIMLoss()(x, x)
    with pytest.raises(ValueError, match=r"at least 11 pixels.*depth 8"):
        functional.ssim(x, x, spatial_dims=3)
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        AmplifiedSSIMLoss(spatial_dims=4)  # type: ignore[arg-type] # the mistake under test
