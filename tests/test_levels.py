"""Every combination of level, reduction and weight against plain Python loops."""

import math
from typing import Any

import pytest
import torch

from lamp_kernels import functional
from lamp_kernels.spec import REDUCTIONS

pytestmark = pytest.mark.usefixtures("each_backend")

EPS = 0.1
CELLS = [(level, reduction) for level, row in REDUCTIONS.items() for reduction in row]
TERMS = {"mse": 1.0, "l1": 0.25}  # metric -> coefficient of the reconstruction loss


def amplified(loss: float) -> float:
    """A(L) of a single number."""
    knee = 1.0 - EPS
    return -math.log1p(-loss) if loss <= knee else -math.log(EPS) + (loss - knee) / EPS


def elementwise(metric: str, x: float, y: float) -> float:
    return (x - y) ** 2 if metric == "mse" else abs(x - y)


def expected(metric: str, x, y, m, level: str, reduction: str):
    """Compute a cell by loops, from lists of images to a number or a list of numbers."""
    images = [
        [(w, elementwise(metric, a, b)) for a, b, w in zip(*rows, strict=True)]
        for rows in zip(x, y, m, strict=True)
    ]

    def mean(pairs):
        total = sum(w for w, _ in pairs)
        return sum(w * value for w, value in pairs) / total if total else 0.0

    if level == "batch":
        return amplified(mean([pair for image in images for pair in image]))
    if level == "image":
        values = [amplified(mean(image)) for image in images]
        counted = [v for v, image in zip(values, images, strict=True) if sum(w for w, _ in image)]
        if reduction == "mean":
            return sum(counted) / len(counted) if counted else 0.0
        return sum(values) if reduction == "sum" else values
    images = [[(w, amplified(value)) for w, value in image] for image in images]
    everything = [pair for image in images for pair in image]
    if reduction == "none":
        return [[w * value for w, value in image] for image in images]
    if reduction == "image":
        return [mean(image) for image in images]
    return mean(everything) if reduction == "mean" else sum(w * v for w, v in everything)


def weights(kind: str) -> torch.Tensor | None:
    """A weight for images (3, 2, 2, 3); "sizes" gives each image a mask of a different size."""
    if kind == "unweighted":
        return None
    if kind == "zero":
        return torch.zeros(3, 1, 1, 1)
    if kind == "boolean":
        return torch.tensor([True, False, True]).view(3, 1, 1, 1)
    mask = torch.zeros(3, 1, 2, 3)
    mask[0], mask[1, 0, 0, 1] = 1.0, 0.5
    return mask  # all of image 0, one pixel of image 1, none of image 2


@pytest.mark.parametrize("kind", ["unweighted", "sizes", "boolean", "zero"])
@pytest.mark.parametrize(("level", "reduction"), CELLS)
@pytest.mark.parametrize("terms", [{"mse": 1.0}, {"l1": 1.0}, TERMS], ids="+".join)
def test_cell(terms, level, reduction, kind):
    x, y = torch.rand(2, 3, 2, 2, 3, dtype=torch.float64)
    x[0, 0, 0, 0], y[0, 0, 0, 0] = 1.0, 0.0  # on the tangent
    weight = weights(kind)
    found = functional.amplified_reconstruction_loss(
        x,
        y,
        weight,
        ssim=0.0,
        mse=terms.get("mse", 0.0),
        l1=terms.get("l1", 0.0),
        amplify_over=level,
        reduction=reduction,
        eps=EPS,
    )
    full = torch.ones_like(x) if weight is None else weight.expand_as(x)
    flat = [tensor.double().flatten(1).tolist() for tensor in (x, y, full)]

    def term(metric):
        value = expected(metric, flat[0], flat[1], flat[2], level, reduction)
        return torch.tensor(value, dtype=torch.float64)

    wanted = torch.stack([factor * term(metric) for metric, factor in terms.items()]).sum(0)
    assert found.shape == (x.shape if reduction == "none" else wanted.shape)
    torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_ssim_cells_follow_from_the_ssim_map(level, reduction, padding):
    """SSIM uses the same table: reducing its map as an elementwise loss gives the same cells."""
    x, y = torch.rand(2, 3, 2, 14, 17, dtype=torch.float64)
    weight = torch.rand(3, 1, 14, 17, dtype=torch.float64)
    found = functional.amplified_ssim_loss(
        x, y, weight, padding=padding, amplify_over=level, reduction=reduction, eps=EPS
    )
    losses = 0.5 - 0.5 * functional.ssim(x, y, padding=padding, reduction="none")
    center = weight.expand_as(x)
    if padding == "valid":
        center = center[..., 5:-5, 5:-5]
    # |L - 0| is the absolute error between the map of losses and a black image.
    wanted = functional.amplified_l1_loss(
        losses, torch.zeros_like(losses), center, amplify_over=level, reduction=reduction, eps=EPS
    )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("level", REDUCTIONS)
def test_sum_of_terms(level):
    x, y = torch.rand(2, 2, 3, 16, 16)
    total = functional.amplified_reconstruction_loss(
        x, y, ssim=2.0, mse=0.5, l1=3.0, amplify_over=level
    )
    parts = (
        2.0 * functional.amplified_ssim_loss(x, y, amplify_over=level)
        + 0.5 * functional.amplified_mse_loss(x, y, amplify_over=level)
        + 3.0 * functional.amplified_l1_loss(x, y, amplify_over=level)
    )
    torch.testing.assert_close(total, parts)


def losses(x, y, weight, level, reduction):
    return functional.amplified_reconstruction_loss(
        x, y, weight, l1=1.0, amplify_over=level, reduction=reduction
    )


@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_all_zero_weight_gives_zero_and_no_gradient(level, reduction):
    x = torch.rand(2, 1, 12, 12, requires_grad=True)
    loss = losses(x, torch.rand(2, 1, 12, 12), torch.zeros(1), level, reduction)
    assert loss.abs().sum().item() == 0.0
    loss.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max().item() == 0.0


@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_empty_batch_gives_zero(level, reduction):
    x = torch.rand(0, 1, 12, 12, requires_grad=True)
    loss = losses(x, torch.rand(0, 1, 12, 12), None, level, reduction)
    shapes = {"none": (0, 1, 12, 12), "image": (0,)}
    assert loss.shape == shapes.get(reduction, ())
    assert loss.sum().item() == 0.0
    loss.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_nan_and_inf_reach_the_result_even_where_the_weight_is_zero(level, reduction, bad):
    x, y = torch.rand(2, 2, 1, 12, 12)
    x[1, 0, 6, 6] = bad
    for weight in (None, torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), torch.zeros(1)):
        loss = losses(x, y, weight, level, reduction)
        if reduction in ("image", "none"):
            assert loss[0].isfinite().all()
            loss = loss[1]
        assert not loss.isfinite().all()


def test_nan_stays_within_the_windows_that_see_it():
    x, y = torch.rand(2, 1, 1, 40, 40)
    x[..., 20, 20] = float("nan")
    loss = functional.amplified_ssim_loss(x, y, reduction="none")[0, 0]
    seen = torch.zeros(40, 40, dtype=torch.bool)
    seen[15:26, 15:26] = True
    assert torch.equal(loss.isnan(), seen)


@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_weights_that_sum_to_less_than_one(level, reduction):
    """A mean does not depend on the scale of the weight, however small that is."""
    x, y = torch.rand(2, 2, 1, 12, 12)
    weight = torch.rand(2, 1, 12, 12)
    found = losses(x, y, 1e-20 * weight, level, reduction)
    wanted = losses(x, y, weight, level, reduction)
    if level == "element" and reduction in ("sum", "none"):
        wanted = 1e-20 * wanted
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def test_each_term_counts_its_own_images():
    """Under "valid", a mask on the border affects the squared error but no window center."""
    x, y = torch.rand(2, 2, 1, 16, 16)
    weight = torch.ones(2, 1, 16, 16)
    weight[1, :, 2:, :] = 0.0
    found = functional.amplified_reconstruction_loss(
        x, y, weight, padding="valid", amplify_over="image"
    )
    wanted = functional.amplified_ssim_loss(x[:1], y[:1], padding="valid", amplify_over="image")
    wanted += functional.amplified_mse_loss(x, y, weight, amplify_over="image")
    torch.testing.assert_close(found, wanted)


def test_masks_of_different_sizes_count_by_pixel_or_by_image():
    x = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    zero = torch.zeros_like(x)
    options: Any = {"amplification": "none"}
    by_pixel = functional.amplified_l1_loss(x, zero, mask, **options)
    by_image = functional.amplified_l1_loss(x, zero, mask, amplify_over="image", **options)
    assert by_pixel.item() == pytest.approx((0.5 + 0.5 + 0.1) / 3)
    assert by_image.item() == pytest.approx((0.5 + 0.1) / 2)
