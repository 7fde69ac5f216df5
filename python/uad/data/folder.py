"""Image folders in the layout of MVTec AD.

<root>/<category>/train/good/*.png
<root>/<category>/test/good/*.png, test/<defect>/*.png
<root>/<category>/ground_truth/<defect>/<stem>_mask.png      optional, but all or none
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uad.data.base import GOOD, AnomalyData, DataError, Preparation

NAME = "folder"
DEFAULT_SIZE = 256
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MASK_THRESHOLD = 127  # pixels with a higher gray level are defective

# The exceptions that Pillow raises for damaged files and for files that are not images.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> Image.Image:
    """The picture in `path`, in mode "L" (gray) or "RGB"; DataError if it cannot be read."""
    try:
        with Image.open(path) as file:
            file.load()
            if file.mode.startswith("I"):  # 16-bit gray, which convert("L") would clip
                levels = np.asarray(file).astype(np.int64) >> 8
                return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
            if file.mode == "F":
                raise DataError(f"{path}: floating-point pixels; save the image with 8 or 16 bits")
            picture: Image.Image = file.convert("L" if file.mode in ("1", "L", "LA") else "RGB")
            return picture
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable image: {error}") from error


def read_mask(path: Path, image_path: Path, image_size: tuple[int, int], size: int) -> Tensor:
    """bool (size, size), True wherever a defective pixel of the mask file falls.

    Resized with the box filter, to which every source pixel contributes, so that a defect of a
    single pixel survives any reduction. Raises DataError for a mask that does not fit its image.
    """
    mask = read_image(path).convert("L")
    if mask.size != image_size:
        raise DataError(
            f"{path}: the mask must have the size of its image {image_path}, "
            f"{image_size[0]}x{image_size[1]} pixels, got {mask.width}x{mask.height}"
        )
    levels = np.asarray(mask)
    if 0 < levels.max() <= MASK_THRESHOLD:
        raise DataError(
            f"{path}: defective pixels must have values above {MASK_THRESHOLD}, but the maximum "
            f"is {levels.max()}; use 0 and 255"
        )
    defective = Image.fromarray((levels > MASK_THRESHOLD).astype(np.float32))
    resized = defective.resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(resized) > 0)


def resize(image: Image.Image, size: int) -> Image.Image:
    """Resize to (size, size); when reducing, Pillow's bilinear filter averages."""
    return image.resize((size, size), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """uint8 (channels, H, W)."""
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(image.height, image.width, channels).permute(2, 0, 1)


def image_paths(folder: Path) -> list[Path]:
    """The image files in a folder, in alphabetical order; DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{folder}: contains no images ({', '.join(SUFFIXES)})")
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _category_folders(root: Path, category: Sequence[str] | None) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    names = [path.name for path in _subfolders(root) if (path / "train").is_dir()]
    if category is None:
        if not (root / "train").is_dir():
            choices = f"; choose a category: {', '.join(names)}" if names else ""
            raise DataError(f"{root}: does not contain train/good{choices}")
        return [root]
    for unknown in (name for name in category if name not in names):
        choices = f"choose from {', '.join(names)}" if names else "no folder contains train/good"
        raise DataError(f"{root / unknown}: no such category; {choices}")
    return [root / name for name in dict.fromkeys(category)]


def load(
    *, root: Path, category: Sequence[str] | None, size: int | None, channels: int | None
) -> AnomalyData:
    """Load the data set; see `uad.data.load`."""
    size = DEFAULT_SIZE if size is None else size
    folders = _category_folders(root, category)

    train_paths = [path for folder in folders for path in image_paths(folder / "train" / GOOD)]
    train = [resize(read_image(path), size) for path in train_paths]
    if channels is None:
        channels = 1 if all(image.mode == "L" for image in train) else 3

    annotated = any((folder / "ground_truth").is_dir() for folder in folders)
    test: list[Tensor] = []
    kinds: list[str] = []
    masks: list[Tensor] = []
    for folder in folders:
        defects = [path for path in _subfolders(folder / "test") if path.name != GOOD]
        if not defects:
            raise DataError(f"{folder / 'test'}: contains no folder of defects besides {GOOD}")
        for kind_folder in (folder / "test" / GOOD, *defects):
            for path in image_paths(kind_folder):
                image = read_image(path)
                test.append(to_tensor(resize(image, size), channels))
                kinds.append(kind_folder.name)
                if annotated and kind_folder.name == GOOD:
                    masks.append(torch.zeros(size, size, dtype=torch.bool))
                elif annotated:
                    truth = folder / "ground_truth" / kind_folder.name / f"{path.stem}_mask.png"
                    if not truth.is_file():
                        raise DataError(f"{truth}: no such file; it should be the mask of {path}")
                    masks.append(read_mask(truth, path, image.size, size))

    return AnomalyData(
        name=NAME,
        title=f"{', '.join(folder.resolve().name for folder in folders)}, {size}x{size} pixels",
        note=(
            "Images from the user's folder; training used its normal images only. "
            + ("Its masks are the ground truth." if annotated else "It has no ground-truth masks.")
        ),
        train=torch.stack([to_tensor(image, channels) for image in train]),
        test=torch.stack(test),
        kinds=tuple(kinds),
        masks=torch.stack(masks) if annotated else None,
        preparation=Preparation(size, channels),
    )
