"""Brick, grass and gravel: three photographs from scikit-image, with synthetic defects.

Training crops come from the upper half of each picture and test crops from the lower half, so that
they share no pixel. (The halves are upper and lower because the brick wall is seen in perspective:
its left and right halves lean in opposite directions.)

Calibration: a test that is too easy or too hard proves nothing, so the contrasts in defects.py
are chosen to give a pooled image AUROC between 0.7 and 0.95 for ConvAutoencoder trained with
torch.nn.MSELoss (Adam, learning rate 1e-3, batch size 32, 64x64 pixels) and scored by squared
error, Gaussian smoothing with sigma 2 and the mean of the top 1% of pixels. Measured with seeds 0,
1, 2 after 1,200 steps: 0.81, 0.80, 0.79; after 2,500 steps (seed 0): 0.81. By kind, mean of the
three seeds: scratch 0.87, spot 0.72, stain 0.73, grain 0.94, swap 0.73. By texture: brick 0.99,
gravel 0.91, grass 0.66. Grass is the hardest, because the network reconstructs its blades badly
and one threshold serves all three textures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from uad.data import defects
from uad.data.base import GOOD, AnomalyData, DataError, Preparation

NAME = "textures"
CATEGORIES = ("brick", "grass", "gravel")
SIDE = 512  # of each picture, in pixels
HALF = SIDE // 2
TRAIN_ROWS = (0, HALF)
TEST_ROWS = (HALF, SIDE)
DEFAULT_SIZE = 64

TRAIN_CROPS = 1200  # over all categories, so that an epoch has the same length for one or three
GOOD_CROPS = 60  # per category
DEFECT_CROPS = 20  # per category and kind


def random_crop(
    picture: NDArray[np.uint8], rows: tuple[int, int], size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A random square with side `size` between the two `rows`, the second one excluded."""
    top, left = rng.integers((rows[0], 0), (rows[1] - size + 1, SIDE - size + 1))
    return picture[top : top + size, left : left + size]


def load(
    *, category: Sequence[str] | None, size: int | None, channels: int | None, seed: int
) -> AnomalyData:
    """Load the data set; see `uad.data.load`."""
    categories = tuple(dict.fromkeys(category or CATEGORIES))
    for unknown in (c for c in categories if c not in CATEGORIES):
        raise DataError(
            f"category must be among {', '.join(CATEGORIES)} for textures; got {unknown!r}"
        )
    size = DEFAULT_SIZE if size is None else size
    if size > HALF:
        raise DataError(f"size must be at most {HALF} pixels for textures, got {size}")
    # "swap" uses every texture, whether or not it is among the categories.
    pictures = {c: getattr(skimage.data, c)() for c in CATEGORIES}

    train: list[NDArray[np.uint8]] = []
    test: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.bool_]] = []
    kinds: list[str] = []
    for name in categories:
        # One stream per category, so that its crops do not depend on which others are chosen.
        train_rng, test_rng = np.random.default_rng([seed, CATEGORIES.index(name)]).spawn(2)
        for _ in range(TRAIN_CROPS // len(categories)):
            train.append(random_crop(pictures[name], TRAIN_ROWS, size, train_rng))
        for _ in range(GOOD_CROPS):
            test.append(random_crop(pictures[name], TEST_ROWS, size, test_rng))
            masks.append(np.zeros((size, size), dtype=bool))
            kinds.append(GOOD)
        foreign = [c for c in CATEGORIES if c != name]
        for kind in defects.KINDS:
            for _ in range(DEFECT_CROPS):
                clean = random_crop(pictures[name], TEST_ROWS, size, test_rng)
                other_picture = pictures[str(test_rng.choice(foreign))]
                other = random_crop(other_picture, TEST_ROWS, size, test_rng)
                crop, mask = defects.paint(kind, clean, other, test_rng)
                test.append(crop)
                masks.append(mask)
                kinds.append(kind)

    repeat = (1, channels or 1, 1, 1)
    pooled = (
        " One threshold serves all textures, although some are reconstructed far better than "
        "others."
    )
    return AnomalyData(
        name=NAME,
        title=f"Crops of {', '.join(categories)}, {size}x{size} pixels",
        note=(
            "Photographs from scikit-image (CC0); training crops come from the upper half of each, "
            "test crops from the lower half. All defects are synthetic: a program draws them into "
            f"test crops ({', '.join(defects.KINDS)}).{pooled if len(categories) > 1 else ''}"
        ),
        train=torch.from_numpy(np.stack(train)).unsqueeze(1).repeat(repeat),
        test=torch.from_numpy(np.stack(test)).unsqueeze(1).repeat(repeat),
        kinds=tuple(kinds),
        masks=torch.from_numpy(np.stack(masks)),
        preparation=Preparation(size, channels or 1),
    )
