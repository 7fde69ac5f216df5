"""What must hold for any image: layouts, symmetry, scale, weights, the shape of A."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from lamp_kernels import amplify, functional

METRIC_FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_mse_loss,
    functional.amplified_l1_loss,
]
metric_functions = st.sampled_from(METRIC_FUNCTIONS)
sides = st.integers(6, 24)
shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), sides, sides)
seeds = st.integers(0, 2**32 - 1)
levels = st.sampled_from(["element", "image", "batch"])
paddings = st.sampled_from(["reflect", "valid", "zeros"])
losses_in_unit = st.floats(0.0, 0.999)
any_loss = st.floats(0.0, 10.0)
eps_values = st.floats(1e-4, 0.5)


def images(shape, seed, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def channels_last(image):
    return image.contiguous(memory_format=torch.channels_last)


def transposed(image):
    return image.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)


def sliced(image):
    larger = torch.full([2 * size + 1 for size in image.shape], 9.0, dtype=image.dtype)
    view = larger[tuple(slice(1, 1 + 2 * size, 2) for size in image.shape)]
    return view.copy_(image)


def batch_inside(image):
    return image.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


LAYOUTS = [channels_last, transposed, sliced, batch_inside]


@given(shapes, seeds, st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), metric_functions, levels)
def test_layouts_give_one_answer(shape, seed, layout, other_layout, function, level):
    x, y = images(shape, seed)
    results = []
    for left, right in [(x, y), (layout(x), other_layout(y)), (layout(x), y)]:
        leaf = left.detach().requires_grad_()
        loss = function(leaf, right, amplify_over=level, **window_of(function))
        (gradient,) = torch.autograd.grad(loss, leaf)
        results.append((loss.detach(), gradient))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-11, atol=1e-14)


def window_of(function, padding="reflect"):
    if function is not functional.amplified_ssim_loss:
        return {}
    return {"window_size": 5, "padding": padding}


@given(shapes, seeds, metric_functions)
def test_expanded_tensors(shape, seed, function):
    (x,) = images(shape, seed, 1)
    (row,) = images((1, 1, 1, shape[3]), seed + 1, 1)
    found = function(x, row.expand(shape), **window_of(function))
    wanted = function(x, row.expand(shape).contiguous(), **window_of(function))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@given(shapes, seeds, metric_functions, paddings)
def test_symmetric_in_its_arguments(shape, seed, function, padding):
    x, y = images(shape, seed)
    options = window_of(function, padding)
    torch.testing.assert_close(
        function(x, y, **options), function(y, x, **options), rtol=1e-12, atol=0
    )


@given(shapes, seeds, metric_functions, st.floats(1e-3, 1e4), paddings)
def test_scale_by_data_range(shape, seed, function, data_range, padding):
    x, y = images(shape, seed)
    options = window_of(function, padding)
    scaled = function(data_range * x, data_range * y, data_range=data_range, **options)
    torch.testing.assert_close(scaled, function(x, y, **options), rtol=1e-9, atol=0)


@pytest.mark.parametrize("data_range", [1e-20, 1e20])
@pytest.mark.parametrize("function", METRIC_FUNCTIONS)
def test_no_overflow_at_extreme_data_ranges(function, data_range):
    x, y = (image.float() for image in images((1, 1, 12, 12), 0))
    scaled = function(data_range * x, data_range * y, data_range=data_range)
    torch.testing.assert_close(scaled, function(x, y), rtol=1e-5, atol=0)


@given(shapes, seeds, metric_functions, levels, paddings, st.floats(0.1, 10.0))
def test_a_constant_weight_is_no_weight(shape, seed, function, level, padding, weight):
    x, y = images(shape, seed)
    options = {"amplify_over": level, **window_of(function, padding)}
    found = function(x, y, torch.tensor(weight, dtype=torch.float64), **options)
    torch.testing.assert_close(found, function(x, y, **options), rtol=1e-12, atol=0)


@given(st.integers(1, 3), st.integers(1, 3), seeds, levels)
def test_weight_zero_removes_pixels(batch, channels, seed, level):
    x, y, mask = images((batch, channels, 9, 11), seed, 3)
    mask = (mask[:, :1] > 0.4).double()
    mask[..., 0, 0] = 1.0
    for function in METRIC_FUNCTIONS[1:]:
        kept = mask.expand_as(x) > 0
        # pixels torn out of their images have only the levels that pool over the batch
        pooled = "batch" if level == "batch" else "element"
        found = function(x, y, mask, amplify_over=pooled)
        wanted = function(x[kept], y[kept], amplify_over=pooled)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        # and whatever stands in the removed pixels is not seen
        elsewhere = torch.where(kept, x, torch.rand_like(x))
        unseen = function(elsewhere, y, mask, amplify_over=level)
        torch.testing.assert_close(
            unseen, function(x, y, mask, amplify_over=level), rtol=1e-12, atol=0
        )


@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_mask_of_one_channel_counts_for_every_channel(batch, channels, seed):
    x, y, mask = images((batch, channels, 9, 11), seed, 3)
    mask = mask[:, :1]
    found = functional.amplified_ssim_loss(x, y, mask)
    wanted = functional.amplified_ssim_loss(x, y, mask.expand_as(x).contiguous())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def a(loss: float, eps: float) -> float:
    return amplify(torch.tensor(loss, dtype=torch.float64), eps=eps).item()


@given(losses_in_unit, eps_values)
def test_amplification_is_the_logarithm_below_the_knee(loss, eps):
    if loss <= 1 - eps:
        assert a(loss, eps) == pytest.approx(-math.log1p(-loss), rel=1e-14, abs=1e-300)


@given(any_loss, eps_values)
def test_amplification_is_its_tangent_above_the_knee(loss, eps):
    if loss > 1 - eps:
        assert a(loss, eps) == pytest.approx(-math.log(eps) + (loss - (1 - eps)) / eps, rel=1e-12)


@given(any_loss, any_loss, eps_values)
def test_amplification_is_monotone(loss, other, eps):
    low, high = sorted([loss, other])
    assert a(low, eps) <= a(high, eps)


@given(any_loss, any_loss, st.floats(0.0, 1.0), eps_values)
def test_amplification_is_convex(loss, other, share, eps):
    between = share * loss + (1 - share) * other
    chord = share * a(loss, eps) + (1 - share) * a(other, eps)
    assert a(between, eps) <= chord * (1 + 1e-12) + 1e-12


@given(any_loss, eps_values)
def test_amplification_is_at_or_above_the_identity(loss, eps):
    assume(loss == 0.0 or loss > 1e-300)  # subnormal numbers may be flushed to zero
    assert a(loss, eps) >= loss * (1 - 1e-15)


def test_amplification_of_what_is_not_finite():
    values = amplify(torch.tensor([float("nan"), float("inf"), 1e30]))
    assert values[0].isnan()
    assert values[1].isinf()
    assert values[2].isfinite()


def test_none_amplifies_nothing():
    loss = torch.rand(5)
    assert torch.equal(amplify(loss, amplification="none"), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_amplified_in_float32(dtype):
    loss = torch.tensor([0.25, 0.9], dtype=dtype)
    found = amplify(loss)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, amplify(loss.float()), rtol=0, atol=0)
