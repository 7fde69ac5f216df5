"""Properties that hold for any image: layouts, symmetry, scale, weights."""

from typing import Literal

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from layouts import LAYOUTS

from lamp_kernels import functional

pytestmark = pytest.mark.usefixtures("each_backend")

METRIC_FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_mse_loss,
    functional.amplified_l1_loss,
]
metric_functions = st.sampled_from(METRIC_FUNCTIONS)
sides = st.integers(6, 24)
shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), sides, sides)
seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(list(LAYOUTS.values()))
levels = st.sampled_from(["element", "image", "batch"])
paddings = st.sampled_from(["reflect", "valid", "zeros"])


def images(shape, seed, count=2):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return [torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@given(shapes, seeds, layouts, layouts, metric_functions, levels)
def test_all_layouts_give_the_same_result(shape, seed, layout, other_layout, function, level):
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
def test_scaling_images_with_data_range_changes_nothing(shape, seed, function, data_range, padding):
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
def test_a_constant_weight_changes_nothing(shape, seed, function, level, padding, weight):
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
        # pixels taken out of their images only have levels that pool over the batch
        pooled: Literal["batch", "element"] = "batch" if level == "batch" else "element"
        found = function(x, y, mask, amplify_over=pooled)
        wanted = function(x[kept], y[kept], amplify_over=pooled)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        # and the values of the removed pixels do not matter
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
