"""Anomaly maps and scores."""

import pytest
import torch
from packages import optional

from lamp_kernels import functional
from lamp_kernels.functional import anomaly_map, anomaly_score

np = optional("numpy")
ndimage = optional("scipy.ndimage")

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.fixture
def images():
    return torch.rand(2, 2, 3, 24, 31, dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("metric", ["ssim", "mse", "l1"])
def test_map_is_the_plain_loss_reduced_over_channels(images, metric, reduction):
    x, y = images
    found = anomaly_map(x, y, metric=metric, channel_reduction=reduction, data_range=1.5)
    expected = {
        "ssim": 0.5
        - 0.5 * functional.ssim(x, y, padding="reflect", reduction="none", data_range=1.5),
        "mse": ((x - y) / 1.5) ** 2,
        "l1": (x - y).abs() / 1.5,
    }[metric]
    expected = expected.mean(1) if reduction == "mean" else expected.max(1).values
    assert found.shape == (2, 24, 31)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("metric", ["mse", "l1"])
def test_pointwise_maps_ignore_the_options_of_ssim(images, metric):
    found = anomaly_map(*images, metric=metric, window_size=3, sigma=0.5, k1=0.1, k2=0.1)
    assert torch.equal(found, anomaly_map(*images, metric=metric))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_smoothing_matches_scipy(images, sigma):
    x, y = images
    rough = anomaly_map(x, y, metric="mse").numpy(force=True)
    found = anomaly_map(x, y, metric="mse", smooth_sigma=sigma)
    smooth = [ndimage.gaussian_filter(m, sigma, mode="mirror", truncate=4.0) for m in rough]
    assert found.numpy(force=True) == pytest.approx(np.stack(smooth), rel=1e-12)


def test_the_map_peaks_at_the_defect():
    y = torch.full((1, 1, 40, 40), 0.5)
    x = y.clone()
    x[..., 10:14, 20:24] = 0.9
    for metric in ("ssim", "mse", "l1"):
        peak = anomaly_map(x, y, metric=metric, smooth_sigma=1.0)[0].argmax().item()
        assert 9 <= peak // 40 <= 14
        assert 19 <= peak % 40 <= 24


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "psnr"}, ValueError, "metric.*'psnr'"),
        ({"channel_reduction": "sum"}, ValueError, "channel_reduction.*'sum'"),
        ({"smooth_sigma": -1.0}, ValueError, "smooth_sigma.*-1.0"),
        ({"smooth_sigma": True}, TypeError, "smooth_sigma.*True"),
        ({"smooth_sigma": 6.0}, ValueError, "smooth_sigma=6.0.*24, 31"),
        ({"smooth_sigma": 1e308}, ValueError, r"smooth_sigma=1e\+308"),
        ({"smooth_sigma": torch.zeros(2)}, TypeError, "smooth_sigma.*Tensor"),
        ({"smooth_sigma": torch.tensor(0.0)}, TypeError, "smooth_sigma.*Tensor"),
        ({"data_range": 0}, ValueError, "data_range.*0"),
    ],
)
def test_map_errors(images, options, error, message):
    with pytest.raises(error, match=message):
        anomaly_map(*images, **options)


def test_largest_smoothing_that_fits(images):
    assert anomaly_map(*images, smooth_sigma=5.75).isfinite().all()


def test_scores():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    assert anomaly_score(maps).tolist() == [5.0, 4.0]
    assert anomaly_score(maps, pooling="mean").tolist() == [2.0, 4.0]
    assert anomaly_score(maps, pooling="topk", k=2).tolist() == [3.5, 4.0]
    assert anomaly_score(maps, pooling="topk", k=0.5).tolist() == [3.5, 4.0]
    assert anomaly_score(maps, pooling="topk", k=0.3).tolist() == [3.5, 4.0]  # rounded up
    assert anomaly_score(maps, pooling="topk", k=1.0).tolist() == [2.0, 4.0]
    assert anomaly_score(maps, pooling="topk").tolist() == [5.0, 4.0]
    many = torch.arange(200.0).view(1, 200)
    assert anomaly_score(many, pooling="topk").tolist() == [198.5]  # k=0.01: the largest two


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("metric", ["ssim", "mse", "l1"])
def test_nan_reaches_the_map(images, metric, reduction):
    x, y = images
    x[1, 2, 12, 12] = float("nan")
    maps = anomaly_map(x, y, metric=metric, channel_reduction=reduction)
    assert maps[1, 12, 12].isnan()
    assert maps[0].isfinite().all()


def test_a_map_needs_a_channel():
    image = torch.rand(1, 0, 16, 16)
    for metric in ("ssim", "mse", "l1"):
        with pytest.raises(ValueError, match="at least one channel"):
            anomaly_map(image, image, metric=metric)


def test_a_share_that_rounds_to_just_above_a_whole_number():
    maps = torch.arange(100.0).view(1, 100)  # 0.07 * 100 is 7.000000000000001
    assert anomaly_score(maps, pooling="topk", k=0.07).item() == 96.0


@pytest.mark.parametrize("pooling", ["max", "mean", "topk"])
def test_nan_is_not_hidden(pooling):
    maps = torch.zeros(2, 4, 4)
    maps[1, 2, 2] = float("nan")
    assert anomaly_score(maps, pooling=pooling).isnan().tolist() == [False, True]


@pytest.mark.parametrize("pooling", ["max", "mean", "topk"])
def test_empty_batch(pooling):
    assert anomaly_score(torch.zeros(0, 4, 4), pooling=pooling).shape == (0,)
    assert anomaly_map(torch.zeros(0, 1, 12, 12), torch.zeros(0, 1, 12, 12)).shape == (0, 12, 12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "median"}, ValueError, "pooling.*'median'"),
        ({"pooling": "topk", "k": 0}, ValueError, "k .*16.*0"),
        ({"pooling": "topk", "k": 17}, ValueError, "k .*16.*17"),
        ({"pooling": "topk", "k": 1.5}, ValueError, "k .*16.*1.5"),
        ({"pooling": "topk", "k": -0.5}, ValueError, "k .*-0.5"),
        ({"pooling": "topk", "k": True}, TypeError, "k .*True"),
        ({"pooling": "topk", "k": "1"}, TypeError, "k .*'1'"),
        ({"k": 3}, ValueError, "k must be None with pooling='max', got 3 .*pooling='topk'"),
        (
            {"pooling": "mean", "k": 0.01},
            ValueError,
            "k must be None with pooling='mean', got 0.01",
        ),
    ],
)
def test_score_errors(options, error, message):
    with pytest.raises(error, match=message):
        anomaly_score(torch.zeros(2, 4, 4), **options)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 0, 4)])
def test_a_map_without_pixels(shape):
    with pytest.raises(ValueError, match=r"map must be \(N, \.\.\.\)"):
        anomaly_score(torch.zeros(shape))
