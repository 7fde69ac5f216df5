"""Image files one by one: formats, levels, orientation, squares, listings."""

from __future__ import annotations

import struct
import zlib

import factory
import numpy as np
import pytest
import torch
from data_checks import gray, write_image
from PIL import Image
from uad import data
from uad.data import DataError, Preparation
from uad.data.fit import mask_to_square, restore, to_square
from uad.data.images import (
    _gray_if_gray,
    full_scale_of,
    image_files,
    prepare,
    prepare_and_display,
    read_image,
    read_picture,
)
from uad.options import FITS

# --- levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maximum", "floating", "scale"),
    [
        (0, False, 255), (255, False, 255), (256, False, 1023), (4095, False, 4095),
        (4096, False, 16383), (65520, False, 65535), (0.3, True, 1), (1.0, True, 1),
        (1.5, True, 3), (200.5, True, 255), (4000.0, True, 4095),
    ],
)  # fmt: skip
def test_full_scale(maximum, floating, scale):
    assert full_scale_of(maximum, floating) == scale


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_levels_of_every_depth_fill_eight_bits(tmp_path, bits):
    levels = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16).reshape(64, 64)
    write_image(tmp_path / "a.png", levels)
    image = read_image(tmp_path / "a.png")
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.rint(levels * (255 / (2**bits - 1))))
    assert len(np.unique(np.asarray(image))) == 256


def write_deep_color(path, levels):
    """A PNG with 16 bits per channel, which Pillow can only read."""
    height, width, _ = levels.shape

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip


def test_sixteen_bit_color_is_an_error_unless_its_upper_bits_suffice(tmp_path):
    levels = np.full((20, 24, 3), (100, 200, 250), dtype=np.uint16) * 256
    write_deep_color(tmp_path / "a.png", levels)
    with pytest.raises(DataError, match=r"a\.png: 16-bit color.*--bit-depth 16"):
        read_picture(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", bit_depth=16)
    assert picture.image.getpixel((3, 3)) == (100, 200, 250)


@pytest.mark.parametrize(
    ("level", "message"),
    [(np.nan, "not finite"), (-1.0, "at least 0, got -1"), (70000.0, "at most 65535, got 70000")],
)
def test_impossible_levels(tmp_path, level, message):
    write_image(tmp_path / "a.tif", np.full((20, 24), level, np.float32))
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        read_image(tmp_path / "a.tif")


def test_gray_pictures_in_color_files_are_gray(tmp_path):
    for name in ("a.webp", "a.jpg"):
        Image.fromarray(gray(100)).convert("RGB").save(tmp_path / name)
        assert read_image(tmp_path / name).mode == "L"
    Image.new("RGB", (8, 8), (1, 1, 9)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").mode == "RGB"


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = gray(0, 16, 32)
    upright[:4, :8] = 255  # bright at the upper left
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    read = read_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read), upright)


# --- squares ------------------------------------------------------------------------------------


def picture(height, width):
    rows, columns = np.indices((height, width))
    return Image.fromarray((rows * 200 / height + columns * 55 / width).astype(np.uint8))


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (61, 20), (32, 96)])
def test_a_square_and_its_way_back(fit, shape):
    height, width = shape
    preparation = Preparation(32, 1, fit)
    image = picture(height, width)
    square = to_square(image, 32, fit)
    assert square.size == (32, 32)
    back = restore(torch.from_numpy(np.array(square, dtype=np.float32)), preparation, image.size)
    assert back.shape == shape
    known = np.isfinite(back)
    assert known.all() == (fit != "crop" or height == width)
    # A smooth picture survives the reduction, except for the half pixel at its edges.
    error = np.abs(back - np.asarray(image))[known]
    assert error.mean() < 6
    if fit == "crop":
        assert known.sum() == min(shape) ** 2
        rows, columns = known.nonzero()
        assert abs(rows.min() + rows.max() - height + 1) <= 1
        assert abs(columns.min() + columns.max() - width + 1) <= 1


def test_padding_repeats_the_edge_and_is_never_defective():
    image = Image.fromarray(np.repeat(np.array([[50], [200]], np.uint8), 8, axis=1))
    square = np.asarray(to_square(image, 8, "pad"))
    assert (square[0] == 50).all()
    assert (square[-1] == 200).all()
    color = np.asarray(to_square(image.convert("RGB"), 8, "pad"))
    assert (color == square[..., None]).all()
    mask = mask_to_square(np.ones((2, 8), bool), 8, "pad")
    assert mask.sum() == 16
    assert mask[3:5].all()


# --- preparing ----------------------------------------------------------------------------------


def test_what_is_scored_must_be_like_what_was_trained_on(tmp_path):
    write_image(tmp_path / "8.png", gray(100))
    write_image(tmp_path / "12.png", np.full((20, 24), 4000, np.uint16))
    eight, twelve, ten = (
        Preparation(16, 1),
        Preparation(16, 1, full_scale=4095.0, eight_bit=False),
        Preparation(16, 1, full_scale=1023.0, eight_bit=False),
    )
    assert (prepare(tmp_path / "8.png", eight) == 100).all()
    assert (prepare(tmp_path / "12.png", twelve) == 249).all()
    with pytest.raises(DataError, match=r"12\.png: a 16-bit file, but .* trained on 8-bit"):
        prepare(tmp_path / "12.png", eight)
    with pytest.raises(DataError, match=r"8\.png: an 8-bit file, but .* trained on 12-bit"):
        prepare(tmp_path / "8.png", twelve)
    with pytest.raises(
        DataError, match=r"up to 4000, but .* trained on 10-bit images, whose white"
    ):
        prepare(tmp_path / "12.png", ten)


def test_preparation_survives_a_dictionary():
    preparation = Preparation(64, 3, "pad", 4095.0, False)
    assert Preparation(**preparation.to_dict()) == preparation


def test_display_is_the_whole_picture(tmp_path):
    write_image(tmp_path / "12.png", np.full((20, 60), 4095, np.uint16))
    _, shown = prepare_and_display(tmp_path / "12.png", Preparation(16, 1, "crop", 4095.0, False))
    assert shown.mode == "L"
    assert shown.size == (60, 20)
    assert shown.getpixel((0, 0)) == 255


# --- listing ------------------------------------------------------------------------------------


def test_image_files_are_listed_with_subfolders_and_without_hidden_ones(tmp_path):
    for name in ("b/2.png", "b/1.PNG", "a.jpg", ".hidden/3.png", "b/._1.png"):
        write_image(tmp_path / name, gray(1)) if name[-1] in "gG" else None
    (tmp_path / "notes.txt").touch()
    listing = image_files([tmp_path])
    assert [name for _, name in listing.files] == ["a.jpg", "b/1.PNG", "b/2.png"]
    assert listing.skipped == "skipped 1 .txt, 1 hidden file, 1 hidden folder"
    one = image_files([tmp_path / "a.jpg"])
    assert one.files == ((tmp_path / "a.jpg", "a.jpg"),)
    both = image_files([tmp_path / "b", tmp_path / "a.jpg"])
    assert len({name for _, name in both.files}) == 3


def test_a_place_without_images_or_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="contains no images"):
        image_files([tmp_path])
    with pytest.raises(DataError, match="nowhere: no such"):
        image_files([tmp_path / "nowhere"])


@pytest.mark.parametrize("bits", [8, 12, 32])
@pytest.mark.parametrize("fit", FITS)
def test_what_is_scored_is_prepared_as_in_training(fit, bits, tmp_path):
    root = factory.make(tmp_path / "rings", train=2, good=1, defects=1, side=50, bits=bits,
                        suffix="tif" if bits == 32 else "png")  # fmt: skip
    loaded = data.load("folder", root=root, size=32, fit=fit)
    for name, image in zip(loaded.files, loaded.test, strict=True):
        assert torch.equal(prepare(root / "test" / name, loaded.preparation), image), name


@pytest.mark.parametrize("plain", [False, True])
def test_white_of_a_pgm_file_is_what_its_header_says(tmp_path, plain):
    levels = np.array([[0, 1, 2047], [2048, 4094, 4095]])
    if plain:
        content = f"P2 3 2 4095 {' '.join(map(str, levels.ravel()))}\n".encode()
    else:
        content = b"P5 3 2 4095\n" + levels.astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(content)
    picture = read_picture(tmp_path / "a.pgm")
    assert np.array_equal(np.asarray(picture.image), levels)
    assert full_scale_of(picture.peak, picture.floating) == 4095


def test_a_network_trained_on_16_bit_color_scores_such_files(tmp_path):
    root = tmp_path / "parts"
    for name in ("train/good/0", "train/good/1", "test/good/0"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(len(name)).integers(0, 65535, (20, 24, 3))
        write_deep_color(root / f"{name}.png", levels)
    loaded = data.load("folder", root=root, size=16, bit_depth=16)
    assert loaded.preparation.full_scale == 65535
    scored = prepare(root / "test/good/0.png", loaded.preparation)
    assert torch.equal(scored, loaded.test[0])


def test_a_large_gray_photo_is_recognized_by_all_its_pixels():
    gray_photo = np.random.default_rng(0).integers(0, 255, (300, 400, 1), dtype=np.uint8)
    photo = np.repeat(gray_photo, 3, axis=2)
    assert _gray_if_gray(Image.fromarray(photo)).mode == "L"
    photo[123, 321] = (10, 13, 10)
    assert _gray_if_gray(Image.fromarray(photo)).mode == "RGB"
