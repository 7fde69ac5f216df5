"""The picture of an anomaly map: where the contour runs, and what the colors mean."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from uad.overlay import (
    CONTOUR_COLOR,
    EDGE_COLOR,
    TRUTH,
    display_size,
    full_scale,
    overlay,
    resize_picture,
)
from uad.overlay_legend import legend
from uad.report.panels import panels

GRAY = Image.new("RGB", (60, 40), (90, 90, 90))


def blob():
    """A map with a region above 0.5 and a lower one, (40, 60)."""
    rows, columns = np.mgrid[:40, :60]
    high = np.exp(-((rows - 15) ** 2 + (columns - 20) ** 2) / 60)
    low = 0.4 * np.exp(-((rows - 25) ** 2 + (columns - 45) ** 2) / 60)
    return (high + low).astype(np.float32)


def drawn(values, threshold, full=1.0, picture=GRAY):
    return np.asarray(overlay(picture, values, full, threshold))


def test_the_contour_lies_where_the_map_exceeds_the_threshold_and_nowhere_else():
    values = blob()
    line = (drawn(values, 0.5) == CONTOUR_COLOR).all(axis=-1)
    inside = values > 0.5
    assert line.any()
    assert not line[~inside].any()
    # Every pixel of the region that has a neighbor outside belongs to the line.
    padded = np.pad(inside, 1)
    neighbors = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    assert line[inside & ~neighbors].all()
    assert not line[12:18, 17:23].any()  # the middle stays visible
    edge = (drawn(values, 0.5) == EDGE_COLOR).all(axis=-1)
    assert edge.any()
    assert not edge[inside].any()


def test_a_map_below_the_threshold_has_no_contour():
    without = drawn(blob(), None)
    np.testing.assert_array_equal(drawn(blob(), 2.0), without)
    assert not (without == CONTOUR_COLOR).all(axis=-1).any()


def test_a_contour_is_closed_at_the_border():
    line = (drawn(np.ones((40, 60), np.float32), 0.5) == CONTOUR_COLOR).all(axis=-1)
    assert line[0].all()
    assert line[-1].all()
    assert line[:, 0].all()
    assert line[:, -1].all()
    assert not line[1:-1, 1:-1].any()


def test_colors_depend_on_the_scale_and_not_on_the_other_pixels():
    one, two = np.zeros((40, 60), np.float32), np.zeros((40, 60), np.float32)
    one[3, 3] = two[3, 3] = 0.5
    two[30, 30] = 9.0
    assert (drawn(one, None)[3, 3] == drawn(two, None)[3, 3]).all()
    assert (drawn(one, None)[3, 3] != drawn(one, None, full=2.0)[3, 3]).any()
    np.testing.assert_array_equal(drawn(one, None)[0, 0], (90, 90, 90))  # as in the original


def test_cropped_parts_look_as_in_the_original():
    values = blob()
    values[:, :10] = np.nan
    np.testing.assert_array_equal(drawn(values, 0.01)[:, :9], np.full((40, 9, 3), 90))


def test_color_pictures_stay_in_color():
    red = Image.new("RGB", (60, 40), (200, 10, 10))
    found = drawn(np.zeros((40, 60), np.float32), None, picture=red)
    np.testing.assert_array_equal(found, np.asarray(red))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (1024, 768)),
        ((5000, 2), (1024, 1)),
        ((1024, 700), (1024, 700)),
        ((300, 200), (300, 200)),
        ((32, 20), (256, 160)),
        ((100, 255), (200, 510)),
    ],
)
def test_the_long_side_is_between_256_and_1024_pixels(size, expected):
    assert display_size(*size) == expected


def test_small_pictures_are_enlarged_with_sharp_pixels():
    levels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    found = np.asarray(resize_picture(Image.fromarray(levels)))
    assert found.shape == (128, 256, 3)
    assert set(found.ravel()) == {0, 255}


def test_a_known_mask_is_outlined_beside_the_contour_of_the_same_region():
    values = blob()
    truth = values > 0.5
    picture = np.asarray(overlay(GRAY, values, 1.0, 0.5, truth))
    outline = (picture == TRUTH).all(axis=-1)
    assert outline.any()
    assert not outline[truth].any()
    np.testing.assert_array_equal(picture[truth], drawn(values, 0.5)[truth])
    assert not (drawn(values, 0.5) == TRUTH).all(axis=-1).any()


def test_run_and_score_reports_draw_the_same_map_the_same_way():
    values = np.kron(blob(), np.ones((8, 8), np.float32))  # no size needs to change
    gray = np.full((1, *values.shape), 90, np.uint8)
    expected = overlay(
        Image.fromarray(gray[0]).convert("RGB"), values, full_scale(0.5), 0.5, values > 0.7
    )
    found = np.asarray(panels(gray, gray // 2, values, values > 0.7, 0.5))
    width = values.shape[1]
    np.testing.assert_array_equal(found[:, -width:], np.asarray(expected))
    np.testing.assert_array_equal(found[:, :width], 90)
    assert found.shape == (values.shape[0], 3 * width + 2 * (width // 32), 3)


def test_small_and_large_images_fill_panels_of_similar_size():
    for side, panel in ((32, 256), (400, 400), (2000, 512)):
        image = np.zeros((3, side, side), np.uint8)
        field = np.zeros((side, side), np.float32)
        assert panels(image, image, field, None, 0.0).height == panel


def test_the_scale_ends_at_twice_the_threshold():
    assert full_scale(0.25) == 0.5
    assert full_scale(0.0) > 0
    text = legend(0.25, full_scale(0.25), truth=True)
    assert "<span>threshold 0.25</span><span>0.5</span>" in text
    assert "white contour" in text
    assert "cyan outline is the ground truth" in text
    assert "cyan" not in legend(0.25, 0.5)
    assert "contour" not in legend(None, 0.5)
