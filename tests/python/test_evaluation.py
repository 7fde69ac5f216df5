"""The maps and scores of a network, and the figures of merit against known answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn import metrics
from torch import nn
from uad import evaluation
from uad.data import AnomalyData, Preparation
from uad.evaluation import (
    PRO_LIMIT,
    anomaly_maps,
    evaluate,
    image_scores,
    pixel_figures,
    psnr,
    region_weights,
)
from uad.options import SCORE_METRICS, Scoring

from lamp_kernels import functional

PLAIN = Scoring(smooth_sigma=0.0)
NO_PSNR = torch.tensor([20.0])


def make_data(kinds, masks=None, size=8):
    images = torch.zeros(len(kinds), 1, size, size, dtype=torch.uint8)
    return AnomalyData(
        "name", "title", "note", images, images, tuple(kinds), masks, Preparation(1, 1)
    )


def random_case(seed=0, levels=None):
    """Six 12x12 images with regions of many sizes, and maps weakly correlated with them."""
    rng = np.random.default_rng(seed)
    kinds = ["good", "dot", "good", "block", "dot", "block"]
    masks = np.zeros((6, 12, 12), dtype=bool)
    for index, kind in enumerate(kinds):
        for _ in range(0 if kind == "good" else 3):
            side = 1 if kind == "dot" else rng.integers(3, 6)
            top, left = rng.integers(0, 12 - side, 2)
            masks[index, top : top + side, left : left + side] = True
    maps = rng.random((6, 12, 12), dtype=np.float32) + 0.4 * masks
    if levels is not None:  # many ties within and between the classes
        maps = np.round(maps * levels) / levels
    return torch.from_numpy(maps.astype(np.float32)), make_data(kinds, torch.from_numpy(masks))


def overlap_area(maps, masks, limit=PRO_LIMIT):
    """AUPRO computed from its definition, threshold by threshold."""
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        shares = []
        for image, mask in zip(found, masks, strict=True):
            regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
            shares += [image[regions == number].mean() for number in range(1, count + 1)]
        rates.append(found[~masks].mean())
        overlaps.append(np.mean(shares))
    grid = np.union1d(np.linspace(0, limit, 100_001), [rate for rate in rates if rate < limit])
    return np.trapezoid(np.interp(grid, rates, overlaps), grid) / limit


def figures_of(maps, masks):
    maps, masks = np.asarray(maps, dtype=np.float32), np.asarray(masks, dtype=bool)
    return pixel_figures(maps, masks, region_weights(masks))


# --- figures of merit ---------------------------------------------------------------------------


def test_image_figures_by_hand():
    data = make_data(["good", "good", "dent", "dent"])
    result = evaluate(torch.zeros(4, 8, 8), torch.tensor([0.1, 0.4, 0.35, 0.8]), NO_PSNR, data)
    assert result["image_auroc"] == 0.75  # three of four pairs are in order
    assert result["image_ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (result["count_normal"], result["count_anomalous"]) == (2, 2)


@pytest.mark.parametrize("levels", [None, 7, 1])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_figures_agree_with_their_definitions(seed, levels):
    maps, data = random_case(seed, levels)
    maps, masks = maps.numpy(), data.masks.numpy()
    result = figures_of(maps, masks)
    labels, values = masks.ravel(), maps.ravel()
    assert result["pixel_auroc"] == pytest.approx(metrics.roc_auc_score(labels, values), abs=1e-12)
    expected = metrics.average_precision_score(labels, values)
    assert result["pixel_ap"] == pytest.approx(expected, abs=1e-12)
    # The naive area is exact except where the curve is vertical.
    assert result["aupro"] == pytest.approx(overlap_area(maps, masks), abs=1e-4)


def test_pixel_figures_by_hand():
    # One region of one pixel; two of the eight normal pixels are above it.
    maps = np.arange(9).reshape(1, 3, 3)
    result = figures_of(maps, maps == 6)
    assert result["pixel_auroc"] == 0.75
    assert result["pixel_ap"] == pytest.approx(1 / 3)
    assert result["aupro"] == pytest.approx((0.3 - 2 / 8) / 0.3)


def test_perfect_and_blind_maps():
    _, data = random_case()
    masks = data.masks.numpy()
    perfect = figures_of(masks, masks)
    assert perfect == {"pixel_auroc": 1.0, "pixel_ap": 1.0, "aupro": pytest.approx(1.0, abs=1e-12)}
    blind = figures_of(np.zeros_like(masks), masks)
    assert blind["pixel_auroc"] == 0.5
    assert blind["pixel_ap"] == pytest.approx(masks.mean())
    assert blind["aupro"] == pytest.approx(PRO_LIMIT / 2)


def test_regions_count_the_same_whatever_their_size():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, 1:7, 1:7] = True
    masks[0, 9, 9] = True
    maps = masks.astype(np.float32)
    maps[0, 9, 9] = -1.0  # missed completely
    assert figures_of(maps, masks)["aupro"] == pytest.approx(0.5)


def test_regions_connect_at_corners_and_not_across_images():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, [0, 1], [0, 1]] = True
    masks[1, 0, 0] = True
    weights = region_weights(masks)
    assert weights[0, 0, 0] == weights[0, 1, 1] == 0.5
    assert weights[1, 0, 0] == 1.0
    assert (weights[~masks] == 1.0).all()


def test_each_kind_is_compared_with_the_normal_images():
    maps, data = random_case()
    scores = maps.amax(dim=(1, 2))
    result = evaluate(maps, scores, NO_PSNR, data)
    assert list(result["per_kind"]) == ["block", "dot"]
    for kind, figures in result["per_kind"].items():
        chosen = [index for index, each in enumerate(data.kinds) if each in ("good", kind)]
        part = make_data([data.kinds[index] for index in chosen], data.masks[chosen])
        alone = evaluate(maps[chosen], scores[chosen], NO_PSNR, part)
        assert figures.pop("count") == figures["count_masks"] == 2
        assert figures == {key: alone[key] for key in figures}
        assert set(figures) == {
            "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "count_masks",
        }  # fmt: skip


def test_the_result_is_json():
    maps, data = random_case()
    result = evaluate(maps, maps.amax(dim=(1, 2)), torch.tensor([20.0, 30.0]), data)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["psnr_normal"] == 25.0


def test_without_masks_there_are_no_pixel_figures():
    maps, data = random_case()
    result = evaluate(maps, maps.amax(dim=(1, 2)), NO_PSNR, make_data(data.kinds))
    for figures in (result, *result["per_kind"].values()):
        assert figures["image_auroc"] is not None
        assert figures["pixel_auroc"] is figures["pixel_ap"] is figures["aupro"] is None


def test_images_whose_mask_is_unknown_do_not_count_as_normal_pixels():
    maps, data = random_case()
    known = torch.tensor([True, True, True, True, False, False])
    partial = replace(data, annotated=known, masks=data.masks & known[:, None, None])
    scores = maps.amax(dim=(1, 2))
    found = evaluate(maps, scores, NO_PSNR, partial)
    subset = replace(data, kinds=data.kinds[:4], masks=data.masks[:4])
    expected = evaluate(maps[:4], scores[:4], NO_PSNR, subset)
    everything = evaluate(maps, scores, NO_PSNR, data)
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        assert found[name] == expected[name] != everything[name]
        for kind in ("dot", "block"):
            assert found["per_kind"][kind][name] == expected["per_kind"][kind][name]
    for name in ("image_auroc", "image_ap", "count_anomalous"):
        assert found[name] == everything[name] != expected[name]
    assert [each["count_masks"] for each in (found, expected, everything)] == [2, 2, 4]
    assert found["per_kind"]["dot"]["count_masks"] == 1
    assert found["per_kind"]["dot"]["count"] == 2


def test_a_kind_without_any_mask_has_no_pixel_figures():
    maps, data = random_case()
    known = torch.tensor([kind != "dot" for kind in data.kinds])
    partial = replace(data, annotated=known, masks=data.masks & known[:, None, None])
    found = evaluate(maps, maps.amax(dim=(1, 2)), NO_PSNR, partial)["per_kind"]
    assert [found[kind]["count_masks"] for kind in ("block", "dot")] == [2, 0]
    assert found["dot"]["aupro"] is None
    assert found["dot"]["image_auroc"] is not None
    assert found["block"]["aupro"] is not None


@pytest.mark.parametrize("kind", ["good", "dent"])
def test_one_class_alone_has_no_figures(kind):
    masks = torch.full((3, 8, 8), kind == "dent")
    result = evaluate(
        torch.rand(3, 8, 8), torch.rand(3), torch.empty(0), make_data([kind] * 3, masks)
    )
    names = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "psnr_normal")
    assert [result[name] for name in names] == [None] * 6
    assert list(result["per_kind"]) == ([] if kind == "good" else ["dent"])


def test_an_infinite_psnr_is_none():
    maps, data = random_case()
    result = evaluate(maps, maps.amax(dim=(1, 2)), torch.tensor([20.0, torch.inf]), data)
    assert result["psnr_normal"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["anomaly map", "score"])
def test_a_map_or_score_that_is_not_finite_is_named(what, value):
    maps, data = random_case()
    scores = maps.amax(dim=(1, 2))
    if what == "score":
        scores[3] = value
    else:
        maps[3, 4, 5] = value
    with pytest.raises(ValueError, match=rf"the {what} of test image 3 \(block\) is not finite"):
        evaluate(maps, scores, NO_PSNR, data)


# --- the network --------------------------------------------------------------------------------


class Shift(nn.Module):
    """Adds a constant to the image, and a different one in training mode."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, images):
        return images + (0.5 if self.training else self.shift)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 200, (5, 3, 24, 24), generator=generator).to(torch.uint8)


def test_maps_and_reconstructions_of_a_known_network(images):
    model = Shift(0.1)
    reconstructions, maps = anomaly_maps(model, images, PLAIN, batch_size=2, device="cpu")
    torch.testing.assert_close(maps, torch.full((5, 24, 24), 0.01))
    # 0.1 is 25.5 of 255
    torch.testing.assert_close(reconstructions.int(), images.int() + 26, rtol=0, atol=1)
    assert (reconstructions.dtype, maps.dtype) == (torch.uint8, torch.float32)
    assert model.training


def test_reconstructions_are_clipped_not_wrapped(images):
    for shift, bound in ((2.0, 255), (-2.0, 0)):
        reconstructions, _ = anomaly_maps(Shift(shift), images, PLAIN, batch_size=5, device="cpu")
        assert (reconstructions == bound).all()


@pytest.mark.parametrize("side", [0, 5])
@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_maps_are_those_of_the_library(images, metric, side):
    model = nn.Conv2d(3, 3, 3, padding=1)
    scoring = Scoring(metric=metric, mean_filter=side, smooth_sigma=1.5)
    _, maps = anomaly_maps(model, images, scoring, batch_size=2, device="cpu")
    original = images / 255
    with torch.no_grad():
        expected = functional.anomaly_map(
            model(original), original, metric=metric, mean_filter=side, smooth_sigma=1.5
        )
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad


@pytest.mark.parametrize(
    ("pooling", "topk", "expected"),
    [("max", 1, 15.0), ("mean", 1, 7.5), ("topk", 2, 14.5), ("topk", 0.25, 13.5)],
)
def test_scores(pooling, topk, expected):
    maps = torch.stack([torch.arange(16.0).reshape(4, 4), torch.zeros(4, 4)])
    scores = image_scores(maps, Scoring(pooling=pooling, topk=topk))
    assert scores.tolist() == [expected, 0.0]


def test_psnr_is_computed_before_the_reconstruction_is_rounded(images):
    for shift, decibels in ((0.1, 20.0), (0.001, 60.0)):
        values = psnr(Shift(shift), images, batch_size=2, device="cpu")
        torch.testing.assert_close(values, torch.full((5,), decibels), rtol=0, atol=0.01)
    assert psnr(Shift(0.0), images, batch_size=2, device="cpu").tolist() == [float("inf")] * 5
    assert psnr(Shift(0.1), images[:0], batch_size=2, device="cpu").shape == (0,)


# --- uncertainty --------------------------------------------------------------------------------


def test_resampled_auroc():
    rng = np.random.default_rng(3)
    anomalous = np.arange(90) % 3 == 0
    scores = np.round(rng.normal(size=90) + anomalous, 1).astype(np.float32)  # with ties
    found = evaluation.auroc_resamples(anomalous, scores, resamples=2000)
    exact = evaluation.image_figures(anomalous, scores)["image_auroc"]
    assert exact is not None
    assert found.mean() == pytest.approx(exact, abs=0.005)
    half_width = evaluation.auroc_half_width(exact, anomalous=30, normal=60)
    assert 1.96 * found.std() == pytest.approx(half_width, rel=0.25)
    assert (evaluation.auroc_resamples(anomalous, scores, resamples=2000) == found).all()
    perfect = evaluation.auroc_resamples(anomalous, anomalous.astype(np.float32))
    assert (perfect == 1.0).all()


def test_half_width_of_an_auroc():
    # With one image of each class, AUROC is 0 or 1, so its variance is that of a coin.
    assert evaluation.auroc_half_width(0.8, 1, 1) == pytest.approx(1.96 * 0.4)
    assert evaluation.auroc_half_width(0.95, 10, 10) == pytest.approx(0.103, abs=0.0005)
    assert evaluation.auroc_half_width(1.0, 10, 10) == 0.0
    more_bad, more_good = (
        evaluation.auroc_half_width(0.9, *counts) for counts in ((90, 9), (9, 90))
    )
    assert more_good > more_bad  # anomalous images vary more, by the exponential model


def test_half_width_of_an_auroc_by_simulation():
    # Exponential scores are the model from which Hanley and McNeil derive their formula.
    rng = np.random.default_rng(0)
    normal, anomalous = rng.exponential(1, (4000, 20, 1)), rng.exponential(9, (4000, 1, 10))
    aurocs = (anomalous > normal).mean(axis=(1, 2))
    assert aurocs.mean() == pytest.approx(0.9, abs=0.005)
    assert evaluation.auroc_half_width(0.9, 10, 20) == pytest.approx(1.96 * aurocs.std(), rel=0.05)


@pytest.mark.parametrize("auroc", [0.6, 0.95, 1.0])
def test_the_interval_of_an_auroc_covers_it(auroc):
    # Exponential scores of means 1 and m: the AUROC is m / (1 + m).
    low, high = evaluation.auroc_interval(auroc, 12, 20)
    assert 0 < low < auroc <= high <= 1
    rng = np.random.default_rng(1)
    true = 0.9
    normal, anomalous = rng.exponential(1, (2000, 20, 1)), rng.exponential(9, (2000, 1, 12))
    found = (anomalous > normal).mean(axis=(1, 2))
    inside = [
        lower <= true <= upper
        for lower, upper in (evaluation.auroc_interval(float(value), 12, 20) for value in found)
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_an_auroc_mirrors():
    low, high = evaluation.auroc_interval(0.0, 10, 10)
    assert low == 0.0
    assert 0.1 < high < 0.4
    assert evaluation.auroc_interval(1.0, 10, 10)[1] == 1.0
