"""The three data sets, with images that the tests write and images that packages contain."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from data_checks import assert_consistent, masks_of
from uad.data import DataError, defects, fashion_mnist, load, textures, to_unit

# --- common -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mvtec", {}, "textures, fashion-mnist, mnist, folder"),
        ("textures", {"size": 15}, "size must be at least 16 pixels, got 15"),
        ("textures", {"size": 257}, "size must be at most 256 pixels for textures, got 257"),
        ("textures", {"channels": 2}, "channels must be 1 or 3, got 2"),
        ("textures", {"seed": -1}, "seed must be 0 or more, got -1"),
        ("textures", {"category": []}, "category must name at least one"),
        ("textures", {"category": ["sand"]}, "brick, grass, gravel.*'sand'"),
        ("textures", {"root": Path()}, "leave out root"),
        ("fashion-mnist", {"category": ["bag"]}, "no categories"),
        ("fashion-mnist", {"normal_class": 10}, r"0 \(t-shirt\).*9 \(ankle-boot\); got 10"),
        ("fashion-mnist", {"normal_class": -1}, "normal_class must be one of.*got -1"),
        ("folder", {}, "requires root"),
    ],
)
def test_wrong_argument_is_named_with_the_choices(name, arguments, message):
    with pytest.raises(DataError, match=message):
        load(name, **arguments)


def test_to_unit():
    values = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, torch.tensor([0.0, 0.2, 1.0]))


# --- textures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texture_data():
    return load("textures", seed=5)


def test_textures_pool_all_categories_by_default(texture_data):
    assert_consistent(texture_data)
    assert texture_data.train.shape == (1200, 1, 64, 64)
    assert texture_data.test.shape == (480, 1, 64, 64)
    assert texture_data.kinds.count("good") == 180
    assert {texture_data.kinds.count(kind) for kind in defects.KINDS} == {60}
    assert "synthetic" in texture_data.note
    assert "CC0" in texture_data.note


@pytest.mark.parametrize("size", [16, 51, 256])
def test_textures_of_one_category_of_any_size(size):
    data = load("textures", category=["gravel"], size=size, channels=3)
    assert_consistent(data)
    assert data.train.shape == (1200, 3, size, size)
    assert data.test.shape == (160, 3, size, size)
    assert torch.equal(data.test[:, 0], data.test[:, 2])


def test_textures_depend_only_on_the_seed(texture_data):
    same, other = load("textures", seed=5), load("textures", seed=6)
    assert torch.equal(same.train, texture_data.train)
    assert torch.equal(same.test, texture_data.test)
    assert torch.equal(masks_of(same), masks_of(texture_data))
    assert same.kinds == texture_data.kinds == other.kinds
    assert not torch.equal(other.train, texture_data.train)
    assert not torch.equal(other.test, texture_data.test)
    assert not torch.equal(masks_of(other), masks_of(texture_data))


def test_a_category_has_the_same_test_images_alone_and_pooled(texture_data):
    alone = load("textures", category=["grass"], seed=5)
    assert torch.equal(alone.test, texture_data.test[160:320])
    twice = load("textures", category=["grass", "grass"], seed=5)
    assert torch.equal(alone.test, twice.test)


def test_training_and_test_crops_share_no_pixel(monkeypatch):
    """In these pictures the gray levels identify the half: even in the upper, odd in the lower."""
    rng = np.random.default_rng(0)
    for name in textures.CATEGORIES:
        picture = 2 * rng.integers(0, 128, (512, 512), dtype=np.uint8)
        picture[256:] += 1
        monkeypatch.setattr(skimage.data, name, lambda picture=picture: picture)
    data = load("textures")
    assert (data.train % 2 == 0).all()
    masks = masks_of(data)
    clean = ~masks.unsqueeze(1)
    assert (data.test[clean] % 2 == 1).all()
    # Swapped-in pixels come from the lower half too, except where they are blended with the crop.
    swap = torch.tensor([kind == "swap" for kind in data.kinds])
    swapped = data.test[swap, 0][masks[swap]]
    assert (swapped % 2 == 1).float().mean() > 0.8


def test_training_crops_hold_no_defect(monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("a defect was drawn")

    clean = load("textures", seed=5).train
    monkeypatch.setattr(defects, "KINDS", ())
    monkeypatch.setattr(defects, "paint", forbidden)
    data = load("textures", seed=5)
    assert torch.equal(data.train, clean)
    assert set(data.kinds) == {"good"}
    assert not masks_of(data).any()


@pytest.mark.parametrize("size", [16, 64, 101])
@pytest.mark.parametrize("kind", defects.KINDS)
def test_mask_is_where_the_pixels_changed(kind, size):
    """No pixel changes outside the mask; inside, all but a few coincidences do."""
    picture, other = skimage.data.gravel(), skimage.data.brick()
    changed_inside, inside = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        crop, foreign = picture[seed : seed + size, :size], other[:size, seed : seed + size]
        before = crop.copy()
        painted, mask = defects.paint(kind, crop, foreign, rng)
        assert np.array_equal(crop, before), "the given crop must not change"
        assert painted.dtype == np.uint8
        assert mask.dtype == np.bool_
        assert np.array_equal(painted[~mask], crop[~mask])
        assert 1 <= mask.sum() < 0.5 * mask.size
        changed_inside += (painted != crop)[mask].sum()
        inside += mask.sum()
    assert changed_inside > 0.95 * inside


@pytest.mark.parametrize("kind", defects.KINDS)
def test_defects_differ_in_position_and_shape(kind):
    crop, other = skimage.data.grass()[:64, :64], skimage.data.gravel()[:64, :64]
    masks = {
        defects.paint(kind, crop, other, np.random.default_rng(s))[1].tobytes() for s in range(9)
    }
    assert len(masks) == 9


# --- fashion-mnist ------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_root(tmp_path):
    """Ten images per split, one of each class, each filled with 10 times its class."""
    labels = np.arange(10)
    images = np.broadcast_to(10 * labels[:, None, None], (10, 28, 28))
    for split in ("train", "t10k"):
        path = tmp_path / f"{split}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


def test_fashion_mnist_from_a_root(idx_root):
    data = load("fashion-mnist", root=idx_root, normal_class=3)
    assert_consistent(data)
    assert data.train.shape == (1, 1, 28, 28)
    assert data.test.shape == (10, 1, 28, 28)
    assert (data.train == 30).all()
    assert data.test[:, 0, 5, 7].tolist() == list(range(0, 100, 10))
    assert data.kinds[3] == "good"
    assert data.kinds[0] == "t-shirt"
    assert data.kinds[9] == "ankle-boot"
    assert data.masks is None
    assert "dress" in data.title


def test_fashion_mnist_resized_with_three_channels(idx_root):
    data = load("fashion-mnist", root=idx_root, size=32, channels=3)
    assert data.test.shape == (10, 3, 32, 32)
    assert (data.test[7] == 70).all()


def test_idx_keeps_order_and_shape(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(array))
    assert torch.equal(fashion_mnist.read_idx(path, 3), torch.from_numpy(array).to(torch.uint8))


GOOD_IDX = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "none"),
        (b"\x89PNG\r\n", "89 50 4e 47"),
        (b"\0\0\x0d\x03" + GOOD_IDX[4:], "00 00 0d 03"),  # floats
        (idx_bytes(np.arange(3)), "in 3 dimensions"),
        (GOOD_IDX[:10], "truncated within the header"),
        (GOOD_IDX[:-1], "requires 24 bytes of data, got 23"),
        (GOOD_IDX + b"\0", "requires 24 bytes of data, got 25"),
    ],
)
def test_damaged_idx_file_is_named(tmp_path, content, message):
    path = tmp_path / "damaged-idx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"damaged-idx.*{message}"):
        fashion_mnist.read_idx(path, 3)


@pytest.mark.parametrize("damage", ["cut", "no gzip", "flipped"])
def test_damaged_gzip_is_named(tmp_path, damage):
    path = tmp_path / "damaged-idx.gz"
    compressed = bytearray(gzip.compress(GOOD_IDX))
    if damage == "flipped":
        compressed[14] ^= 0xFF
    content = {"cut": compressed[:-9], "no gzip": GOOD_IDX, "flipped": compressed}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged-idx\.gz: cannot be read"):
        fashion_mnist.read_idx(path, 3)


def test_missing_idx_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train-images.*dataset-fashion-mnist.*--root"):
        load("fashion-mnist", root=tmp_path)


def test_fewer_labels_than_images(idx_root):
    path = idx_root / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.arange(9)))
    with pytest.raises(DataError, match=r"t10k-labels.*9 labels for 10 images"):
        load("fashion-mnist", root=idx_root)


def test_label_out_of_range(idx_root):
    path = idx_root / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.arange(1, 11)))
    with pytest.raises(DataError, match=r"train-labels.*from 0 to 9, got 10"):
        load("fashion-mnist", root=idx_root)


def test_images_of_another_size(idx_root):
    path = idx_root / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((10, 28, 27)))))
    with pytest.raises(DataError, match=r"train-images.*\(28, 27\)"):
        load("fashion-mnist", root=idx_root)


@pytest.mark.parametrize("labels", [np.full(10, 3), np.full(10, 4)])
def test_test_split_without_normal_or_without_other_images(idx_root, labels):
    (idx_root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match="images of class 3"):
        load("fashion-mnist", root=idx_root, normal_class=3)


@pytest.mark.skipif(
    not fashion_mnist.PACKAGE_ROOT.is_dir(),
    reason=f"the Debian package {fashion_mnist.PACKAGE} is not installed",
)
def test_fashion_mnist_of_the_package():
    data = load("fashion-mnist", normal_class=9)
    assert_consistent(data)
    assert data.train.shape == (6000, 1, 28, 28)
    assert data.test.shape == (10000, 1, 28, 28)
    assert data.kinds[0] == "good"
    assert data.kinds.count("good") == 1000
    assert set(data.kinds) == {"good", *fashion_mnist.CLASSES[:9]}
