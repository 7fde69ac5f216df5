"""Masks of anomaly maps, and of MSGMS where scales see nothing."""

from typing import Any

import pytest
import torch

from lamp_kernels import AmplifiedGMSLoss, AmplifiedMSGMSLoss, functional

pytestmark = pytest.mark.usefixtures("each_backend")

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"mean_filter": 7},
    {"smooth_sigma": 1.0},
    {"mean_filter": 3, "smooth_sigma": 1.0},
)
METRICS = ("ssim", "mse", "gms")


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_a_mask_of_ones_changes_no_bit_of_a_map(metric, filters):
    x, y = torch.rand(2, 2, 3, 24, 21).unbind()
    for channels in ("mean", "max"):
        options = {"metric": metric, "channel_reduction": channels, **filters}
        found = functional.anomaly_map(x, y, torch.ones(2, 1, 1, 1), **options)
        assert torch.equal(found, functional.anomaly_map(x, y, **options))


@pytest.mark.parametrize("filters", FILTERS[:3], ids=str)
def test_a_fraction_does_not_change_the_unit_of_a_map(filters):
    x, y = torch.zeros(2, 1, 2, 16, 16).unbind()
    y = y + 0.5
    mask = torch.full((1, 1, 16, 16), 0.25)
    plain = functional.anomaly_map(x, y, metric="mse", **filters)
    found = functional.anomaly_map(x, y, mask, metric="mse", **filters)
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("channels", ["mean", "max"])
@pytest.mark.parametrize("metric", [*METRICS, "msgms"])
def test_a_map_averages_the_channels_that_a_mask_shows(metric, channels):
    x, y = torch.rand(2, 1, 3, 24, 24).unbind()
    mask = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    found = functional.anomaly_map(x, y, mask, metric=metric, channel_reduction=channels)
    expected = functional.anomaly_map(x[:, 1:2], y[:, 1:2], metric=metric)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", [*METRICS, "msgms"])
def test_a_map_is_0_under_the_mask(metric):
    x, y = torch.rand(2, 1, 2, 32, 32).unbind()
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 7, 9] = 0.0
    mask[..., 16:19, 20:23] = 0.0
    found = functional.anomaly_map(x, y, mask, metric=metric)
    assert not found[:, mask[0, 0] == 0].any()
    assert found.any()


@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_scales_that_see_nothing_do_not_count(level):
    x, y = torch.rand(2, 1, 1, 64, 64).unbind()
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:28, 20:28] = 1.0  # at the third scale 2 x 2 pixels are left, and none is seen
    losses = [
        AmplifiedMSGMSLoss(gms_scales=scales, amplify_over=level)(x, y, mask=mask).item()
        for scales in (2, 3, 5)
    ]
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-6)


def test_images_that_only_coarse_scales_see_count_as_often_as_they_are():
    x, y = torch.rand(2, 1, 1, 32, 32).unbind()
    mask = torch.arange(32).view(-1, 1).add(torch.arange(32)) % 2  # no position sees only ones
    mask = mask.view(1, 1, 32, 32).float()
    loss_function = AmplifiedMSGMSLoss(amplify_over="image")
    one = loss_function(x, y, mask=mask)
    four = loss_function(*(image.expand(4, 1, 32, 32) for image in (x, y)), mask=mask)
    assert one.item() > 0
    torch.testing.assert_close(four, one)


def test_weights_of_any_scale():
    x, y = torch.rand(2, 2, 1, 32, 32).unbind()
    weight = torch.full((2, 1, 1, 1), 1e-60, dtype=torch.float64)
    torch.testing.assert_close(AmplifiedMSGMSLoss()(x, y, weight), AmplifiedMSGMSLoss()(x, y))


def test_an_empty_side_is_an_error_of_the_image():
    x = torch.rand(1, 1, 0, 9)
    with pytest.raises(ValueError, match="input must"):
        AmplifiedGMSLoss()(x, x, mask=torch.ones(1, 1, 1, 1))


def test_the_map_of_features_ignores_the_data_range():
    x, y = torch.rand(2, 2, 4, 8, 8).unbind()
    expected = functional.anomaly_map(x, y, metric="cosine")
    for data_range in (255.0, torch.tensor([1.0, 255.0])):
        found = functional.anomaly_map(x, y, metric="cosine", data_range=data_range)
        assert torch.equal(found, expected)
