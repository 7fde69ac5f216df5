"""Folders in the layout of MVTec AD, with everything that real ones contain."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from data_checks import assert_consistent, gray, masks_of, write_category, write_image
from PIL import Image
from uad.data import BadFilesError, DataError, folder, load
from uad.data.images import SUFFIXES


def test_folder_that_is_itself_a_category(tmp_path):
    data = load("folder", root=write_category(tmp_path / "nut"), size=16)
    assert_consistent(data)
    assert data.train.shape == (3, 1, 16, 16)
    assert data.train[:, 0, 4, 4].tolist() == [10, 11, 12]
    assert data.test[:, 0, 4, 4].tolist() == [20, 21, 30, 31, 30]
    assert data.kinds == ("good", "good", "crack", "crack", "hole")
    mask = masks_of(data)[2]
    assert mask[:8, :8].all()
    assert not mask[8:].any()
    assert not mask[:, 8:].any()
    assert "nut" in data.title


def test_folder_default_size_is_256(tmp_path):
    data = load("folder", root=write_category(tmp_path))
    assert data.test.shape == (5, 1, 256, 256)
    assert masks_of(data).shape == (5, 256, 256)


def test_folder_pools_categories_in_the_order_given(tmp_path):
    for name in ("bolt", "nut", "washer"):
        write_category(tmp_path / name)
    write_image(tmp_path / "nut/train/good/zzz.png", gray(99))
    data = load("folder", root=tmp_path, category=["washer", "nut"], size=16)
    assert_consistent(data)
    assert data.train[:, 0, 0, 0].tolist() == [10, 11, 12, 10, 11, 12, 99]
    assert len(data.test) == 10
    assert data.kinds.count("crack") == 4
    assert "washer, nut" in data.title


def test_folder_without_ground_truth_has_no_masks(tmp_path):
    data = load("folder", root=write_category(tmp_path, ground_truth=False), size=16)
    assert_consistent(data)
    assert data.masks is None
    assert len(data.kinds) == 5


@pytest.mark.parametrize("suffix", [suffix.removeprefix(".") for suffix in SUFFIXES] + ["PNG"])
def test_folder_reads_every_suffix(tmp_path, suffix):
    write_category(tmp_path)
    write_image(tmp_path / f"train/good/zzz.{suffix}", gray(77))
    (tmp_path / "train/good/readme.txt").write_text("not an image, so it is skipped")
    data = load("folder", root=tmp_path, size=16)
    assert data.train[:3, 0, 0, 0].tolist() == [10, 11, 12]
    assert abs(int(data.train[3, 0, 0, 0]) - 77) <= 1  # some formats are lossy
    assert "skipped 1 .txt" in data.found


def test_folder_channels(tmp_path):
    write_category(tmp_path)
    assert load("folder", root=tmp_path, size=16).train.shape[1] == 1
    assert load("folder", root=tmp_path, size=16, channels=3).train.shape[1] == 3
    color = np.dstack([gray(200), gray(100), gray(50)])
    write_image(tmp_path / "train/good/zzz.png", color)
    data = load("folder", root=tmp_path, size=16)
    assert data.train[:, :, 3, 3].tolist() == [[10] * 3, [11] * 3, [12] * 3, [200, 100, 50]]
    assert data.test.shape[1] == 3
    assert load("folder", root=tmp_path, size=16, channels=1).train.shape == (4, 1, 16, 16)


def test_reduction_averages(tmp_path):
    """A fine checkerboard becomes gray, rather than black or white by chance."""
    write_category(tmp_path, ground_truth=False)
    board = (255 * (np.indices((160, 160)).sum(0) % 2)).astype(np.uint8)
    write_image(tmp_path / "train/good/zzz.png", board)
    reduced = load("folder", root=tmp_path, size=16).train[3]
    assert reduced.min() > 118
    assert reduced.max() < 137


@pytest.mark.parametrize("side", [16, 33, 250])
def test_a_defect_of_one_pixel_survives_the_reduction(tmp_path, side):
    for row, column in ((0, 0), (123, 77), (249, 300)):
        mask = gray(0, 250, 301)
        mask[row, column] = 255
        write_image(tmp_path / "mask.png", mask)
        resized = folder.read_mask(tmp_path / "mask.png", tmp_path / "image.png", (301, 250), side)
        assert resized.dtype == torch.bool
        assert resized.sum() == 1
        ((y, x),) = resized.nonzero().tolist()
        assert abs((y + 0.5) / side - (row + 0.5) / 250) <= 0.51 / side + 0.002
        assert abs((x + 0.5) / side - (column + 0.5) / 301) <= 0.51 / side + 0.002


def test_mask_with_the_size_of_its_image_is_exact(tmp_path):
    expected = np.random.default_rng(0).random((32, 32)) > 0.8
    write_image(tmp_path / "mask.png", np.where(expected, 128, 127).astype(np.uint8))
    read = folder.read_mask(tmp_path / "mask.png", tmp_path / "image.png", (32, 32), 32)
    assert np.array_equal(read.numpy(), expected)


def remove_tree(path: Path) -> None:
    for child in sorted(path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    path.rmdir()


def truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24), dtype=np.uint8)
    write_image(path, noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


DAMAGE = {
    "text named png": (
        lambda root: (root / "train/good/001.png").write_text("hello"),
        r"train/good/001\.png: not a readable image",
    ),
    "empty file": (
        lambda root: (root / "test/hole/000.png").write_bytes(b""),
        r"test/hole/000\.png: not a readable image",
    ),
    "truncated image": (
        lambda root: truncate(root / "test/good/001.png"),
        r"test/good/001\.png: not a readable image",
    ),
    "truncated mask": (
        lambda root: truncate(root / "ground_truth/crack/001_mask.png"),
        r"ground_truth/crack/001_mask\.png: not a readable image",
    ),
    "no training images": (
        lambda root: [path.unlink() for path in (root / "train/good").iterdir()],
        r"train/good: contains no images",
    ),
    "no train/good": (
        lambda root: remove_tree(root / "train/good"),
        r"train/good: no such folder",
    ),
    "empty defect folder": (
        lambda root: (root / "test/dent").mkdir(),
        "test/dent: contains no images",
    ),
    "mask of another size": (
        lambda root: write_image(root / "ground_truth/hole/000_mask.png", gray(255, 24, 20)),
        r"hole/000_mask\.png: the mask must have.*hole/000\.png, 24x20 pixels, got 20x24",
    ),
    "mask of 0 and 1": (
        lambda root: write_image(root / "ground_truth/hole/000_mask.png", gray(1)),
        r"hole/000_mask\.png: defective pixels must have values above 127.*maximum is 1;",
    ),
    "no train": (lambda root: remove_tree(root / "train"), "does not contain train/good"),
    "nothing at all": (remove_tree, "no such folder"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folder_is_a_data_error_naming_the_file(tmp_path, damage):
    root = write_category(tmp_path / "nut")
    spoil, message = DAMAGE[damage]
    load("folder", root=root, size=16)
    spoil(root)
    with pytest.raises(DataError, match=message):
        load("folder", root=root, size=16)


def test_unknown_and_missing_category_list_the_choices(tmp_path):
    for name in ("nut", "bolt"):
        write_category(tmp_path / name)
    with pytest.raises(DataError, match="nail: no such category; choose from bolt, nut"):
        load("folder", root=tmp_path, category=["nut", "nail"], size=16)
    with pytest.raises(DataError, match="choose a category: bolt, nut"):
        load("folder", root=tmp_path, size=16)


def test_all_bad_files_are_listed_at_once(tmp_path):
    root = write_category(tmp_path / "nut")
    (root / "train/good/001.png").write_text("hello")
    (root / "test/hole/000.png").write_bytes(b"")
    write_image(root / "ground_truth/crack/000_mask.png", gray(255, 24, 20))
    with pytest.raises(BadFilesError) as caught:
        load("folder", root=root, size=16)
    assert {problem.path.relative_to(root).as_posix() for problem in caught.value.problems} == {
        "train/good/001.png",
        "test/hole/000.png",
        "ground_truth/crack/000_mask.png",
    }
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 files cannot be used:"
    assert sum("not a readable image" in line for line in lines) == 2
    assert "--skip-bad" in lines[-1]


def test_bad_files_can_be_left_out_with_a_notice_for_each(tmp_path):
    root = write_category(tmp_path / "nut")
    (root / "train/good/001.png").write_text("hello")
    (root / "test/crack/000.png").write_bytes(b"")
    write_image(root / "ground_truth/crack/001_mask.png", gray(1))
    data = load("folder", root=root, size=16, skip_bad=True)
    assert data.train[:, 0, 0, 0].tolist() == [10, 12]
    assert data.files == ("good/000.png", "good/001.png", "crack/001.png", "hole/000.png")
    assert data.annotated is not None
    assert data.annotated.tolist() == [True, True, False, True]
    assert sum(notice.startswith("left out ") for notice in data.notices) == 3


def test_bad_training_images_alone_are_an_error_even_if_skipped(tmp_path):
    root = write_category(tmp_path)
    for path in (root / "train/good").iterdir():
        path.write_text("hello")
    with pytest.raises(BadFilesError, match="no training image is left"):
        load("folder", root=root, size=16, skip_bad=True)


def test_masks_may_be_missing_for_some_images(tmp_path):
    root = write_category(tmp_path)
    (root / "ground_truth/crack/001_mask.png").unlink()
    data = load("folder", root=root, size=16)
    assert data.annotated is not None
    assert data.annotated.tolist() == [True, True, True, False, True]
    assert not masks_of(data)[3].any()
    assert "3 defective (crack 2, hole 1) for testing, 2 with masks" in data.found
    for path in (root / "ground_truth").rglob("*.png"):
        path.unlink()
    assert load("folder", root=root, size=16).masks is None


def test_masks_are_found_by_other_names_and_strays_are_named(tmp_path):
    root = write_category(tmp_path)
    truth = root / "ground_truth/crack"
    (truth / "000_mask.png").rename(truth / "000.png")
    with Image.open(truth / "001_mask.png") as mask:
        mask.save(truth / "001_mask.bmp")
    (truth / "001_mask.png").rename(truth / "O01_mask.png")
    data = load("folder", root=root, size=16)
    assert_consistent(data)
    (notice,) = data.notices
    assert notice.endswith("O01_mask.png: the mask of no test image")


def test_hidden_files_and_folders_are_neither_images_nor_defects(tmp_path):
    root = write_category(tmp_path / "nut")
    before = load("folder", root=root, size=16)
    for name in (".ipynb_checkpoints/000-checkpoint.png", "__MACOSX/000.png"):
        for place in ("test", "train/good", "ground_truth", "ground_truth/crack"):
            write_image(root / place / name, gray(99))
    for name in ("._000.png", "Thumbs.db", ".DS_Store"):
        for place in ("train/good", "test/crack"):
            (root / place / name).write_bytes(b"\0")
    data = load("folder", root=root, size=16)
    assert data.files == before.files
    assert torch.equal(data.train, before.train)
    assert torch.equal(masks_of(data), masks_of(before))
    assert "6 hidden files" in data.found
    assert "4 hidden folders" in data.found


def test_other_folders_below_train_are_named(tmp_path):
    write_image(write_category(tmp_path) / "train/bad/000.png", gray(9))
    (notice,) = load("folder", root=tmp_path, size=16).notices
    assert "train/bad is not used" in notice


# --- normal images only -------------------------------------------------------------------------


@pytest.mark.parametrize("with_defects", [False, True])
def test_a_share_is_held_out_without_normal_test_images(tmp_path, with_defects):
    for index in range(10):
        write_image(tmp_path / f"train/good/{index:03}.png", gray(10 * index))
    if with_defects:
        write_image(tmp_path / "test/dent/000.png", gray(250))
        (tmp_path / "test/good").mkdir()
    data = load("folder", root=tmp_path, size=16, seed=3)
    assert data.held_out == 2
    assert len(data.train) == 8
    assert data.kinds == ("good", "good") + (("dent",) if with_defects else ())
    levels = [*data.train[:, 0, 0, 0].tolist(), *data.test[:2, 0, 0, 0].tolist()]
    assert sorted(levels) == list(range(0, 100, 10))
    assert [int(name[-7:-4]) * 10 for name in data.files[:2]] == levels[8:]
    assert data.files[0].startswith("train/good/")
    assert any("2 of the 10 in train/good are held out" in notice for notice in data.notices)
    same = load("folder", root=tmp_path, size=16, seed=3)
    assert same.files == data.files
    assert load("folder", root=tmp_path, size=16, seed=4).files != data.files
    assert load("folder", root=tmp_path, size=16, hold_out=0.5).held_out == 5


def test_normal_test_images_need_no_hold_out(tmp_path):
    root = write_category(tmp_path, ground_truth=False)
    for kind in ("crack", "hole"):
        remove_tree(root / "test" / kind)
    data = load("folder", root=tmp_path, size=16)
    assert data.held_out == 0
    assert data.kinds == ("good", "good")
    assert data.found.startswith(f"{tmp_path.name}: 3 normal for training, 2 normal for testing;")


def test_every_category_has_normal_test_images(tmp_path):
    write_category(tmp_path / "nut")
    for index in range(5):
        write_image(tmp_path / f"bolt/train/good/{index}.png", gray(9 * index))
    data = load("folder", root=tmp_path, category=["nut", "bolt"], size=16)
    assert data.held_out == 1
    assert any(name.startswith("bolt/train/good/") for name in data.files)
    assert "no normal images in bolt/test/good: 1 of the 5 in bolt/train/good" in data.notices[0]


def test_a_needless_hold_out_is_said(tmp_path):
    write_category(tmp_path)
    data = load("folder", root=tmp_path, size=16, hold_out=0.5)
    assert data.held_out == 0
    assert data.notices == ("--hold-out has no effect: there are normal test images in test/good",)


@pytest.mark.parametrize("name", ["ok", "Good", "NORMAL"])
def test_a_folder_that_sounds_normal_is_questioned(tmp_path, name):
    write_category(tmp_path)
    write_image(tmp_path / "test" / name / "0.png", gray(1))
    data = load("folder", root=tmp_path, size=16)
    assert name in data.kinds
    (notice,) = data.notices
    assert f"{name} is taken for a kind of defect; normal images belong in" in notice


def test_images_directly_in_test_are_counted(tmp_path):
    write_category(tmp_path)
    write_image(tmp_path / "test/0.png", gray(1))
    (notice,) = load("folder", root=tmp_path, size=16).notices
    assert notice.startswith("1 images directly in ")


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("train", "pass the folder above it, {root}"),
        ("train/good", "pass the folder above it, {root}"),
        ("test/good", "move images of good parts"),
    ],
)
def test_a_folder_inside_the_layout_names_the_right_one(tmp_path, inside, message):
    root = write_category(tmp_path / "nut")
    with pytest.raises(DataError) as caught:
        load("folder", root=root / inside)
    assert message.format(root=root) in str(caught.value)


def test_names_of_folders_are_lower_case(tmp_path):
    write_image(tmp_path / "Train/good/0.png", gray(1))
    with pytest.raises(DataError, match=r"does not contain train/good; rename .*Train to train"):
        load("folder", root=tmp_path)


def test_one_training_image_cannot_be_held_out(tmp_path):
    write_image(tmp_path / "train/good/000.png", gray(1))
    with pytest.raises(DataError, match="contains one image"):
        load("folder", root=tmp_path, size=16)


def test_a_folder_of_photos_says_where_to_put_them(tmp_path):
    write_image(tmp_path / "000.png", gray(1))
    with pytest.raises(DataError, match=r"does not contain train/good; move images of good parts"):
        load("folder", root=tmp_path)


# --- what was found -----------------------------------------------------------------------------


def test_one_line_says_what_was_found(tmp_path):
    root = write_category(tmp_path / "nut")
    write_image(root / "train/good/wide.png", gray(3, 20, 60))
    (root / "test/hole/notes.txt").touch()
    data = load("folder", root=root, size=16)
    assert data.found == (
        "nut: 4 normal for training, 2 normal and 3 defective (crack 2, hole 1) for testing, "
        "3 with masks; skipped 1 .txt; 9 .png; 8-bit gray, 24x20 to 60x20, stretched to 16x16"
    )
    assert "padded to 16x16" in load("folder", root=root, size=16, fit="pad").found
    assert load("textures", size=16).found == (
        "Crops of brick, grass, gravel, 16x16 pixels: 1200 normal for training, 180 normal and "
        "300 defective (grain 60, scratch 60, spot 60, stain 60, swap 60) for testing, "
        "300 with masks"
    )


def test_training_images_among_the_test_images_are_a_warning(tmp_path):
    root = write_category(tmp_path)
    assert load("folder", root=root, size=16).notices == ()
    write_image(root / "test/good/copy.bmp", gray(11))
    (notice,) = load("folder", root=root, size=16).notices
    assert notice.startswith("WARNING: 1 of 6 test images are equal to training images")
    assert "good/copy.bmp" in notice


# --- levels -------------------------------------------------------------------------------------


def write_deep(root: Path, scale: int) -> None:
    for index in range(3):
        write_image(root / f"train/good/{index}.png", np.full((20, 24), index * scale, np.uint16))
    for kind in ("good", "dent"):
        write_image(root / f"test/{kind}/0.png", np.full((20, 24), 2 * scale - 9, np.uint16))


def test_the_full_scale_comes_from_the_whole_data_set(tmp_path):
    write_deep(tmp_path, 2000)
    data = load("folder", root=tmp_path, size=16)
    assert data.preparation.full_scale == 4095
    assert not data.preparation.eight_bit
    assert data.train[:, 0, 0, 0].tolist() == [0, 125, 249]
    assert "12-bit gray" in data.found
    assert any("levels up to 4000: 4095 is taken as white" in each for each in data.notices)


def test_the_bit_depth_may_be_given(tmp_path):
    write_deep(tmp_path, 200)
    data = load("folder", root=tmp_path, size=16, bit_depth=12)
    assert data.preparation.full_scale == 4095
    assert data.train[:, 0, 0, 0].tolist() == [0, 12, 25]
    assert data.notices == ()
    with pytest.raises(DataError, match=r"--bit-depth 8 is too small for 3 of 5 files, .* 400 ex"):
        load("folder", root=tmp_path, size=16, bit_depth=8)


def test_a_few_files_beyond_the_bit_depth_are_listed(tmp_path):
    write_deep(tmp_path, 100)
    write_image(tmp_path / "test/dent/9.png", np.full((20, 24), 5000, np.uint16))
    with pytest.raises(BadFilesError, match=r"9.png: levels up to 5000 exceed 4095, .* 12 bits"):
        load("folder", root=tmp_path, size=16, bit_depth=12)


def test_a_bit_depth_of_8_bit_files_has_no_effect(tmp_path):
    write_category(tmp_path)
    data = load("folder", root=tmp_path, size=16, bit_depth=12)
    assert data.notices == ("--bit-depth 12 has no effect: all files have 8 bits per pixel",)


def test_floating_point_images(tmp_path):
    for place, level in (("train/good/0", 0.0), ("train/good/1", 0.5), ("test/good/0", 1.0)):
        write_image(tmp_path / f"{place}.tif", np.full((20, 24), level, np.float32))
    write_image(tmp_path / "test/dent/0.tif", np.full((20, 24), 0.25, np.float32))
    data = load("folder", root=tmp_path, size=16)
    assert data.preparation.full_scale == 1
    assert data.train[:, 0, 0, 0].tolist() == [0, 128]
    assert data.test[:, 0, 0, 0].tolist() == [255, 64]
    write_image(tmp_path / "test/dent/1.png", np.full((20, 24), 7, np.uint16))
    with pytest.raises(DataError, match=r"floating-point pixels.*integers"):
        load("folder", root=tmp_path, size=16)


def test_a_mixture_of_depths_is_noticed(tmp_path):
    write_deep(write_category(tmp_path), 2000)
    notices = load("folder", root=tmp_path, size=16).notices
    assert any("5 of 13 images have 16-bit" in notice for notice in notices)


def test_several_frames_are_noticed(tmp_path):
    frames = [Image.fromarray(gray(level)) for level in (40, 90)]
    path = write_category(tmp_path) / "train/good/zzz.tif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    data = load("folder", root=tmp_path, size=16)
    assert data.train[3, 0, 0, 0] == 40
    assert data.notices == ("1 files have several frames; only the first of each is used",)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "zoom"}, "fit must be one of stretch, pad, crop; got 'zoom'"),
        ({"bit_depth": 7}, "bit_depth must be from 8 to 16, got 7"),
        ({"hold_out": 1.0}, "hold_out must be between 0 and 1, got 1.0"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        load("folder", root=write_category(tmp_path), size=16, **options)


@pytest.mark.parametrize(
    "options", [{"fit": "pad"}, {"bit_depth": 12}, {"skip_bad": True}, {"hold_out": 0.5}]
)
def test_options_of_folders_are_errors_elsewhere(options):
    flag = "--" + next(iter(options)).replace("_", "-")
    with pytest.raises(DataError, match=f"{flag}.*requires the data set folder, got textures"):
        load("textures", **options)


def test_a_defect_outside_the_crop_is_noticed(tmp_path):
    root = write_category(tmp_path)
    mask = gray(0, 20, 24)
    mask[:, 0] = 255
    write_image(root / "ground_truth/hole/000_mask.png", mask)
    (notice,) = load("folder", root=root, size=16, fit="crop").notices
    assert "the defects of 1 images lie wholly outside" in notice


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_only_the_first_process_shows_a_bar(tmp_path, monkeypatch, capsys, rank, shown):
    root = factory.make(tmp_path / "rings", train=3, good=1, defects=1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("RANK", rank)
    load("folder", root=root, size=16)
    assert ("reading" in capsys.readouterr().err) == shown
