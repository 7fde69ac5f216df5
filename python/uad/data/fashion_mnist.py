"""Fashion-MNIST, 28x28 gray pictures of clothes: one class is normal, the other nine are not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from uad.data.base import GOOD, AnomalyData, DataError, Preparation

NAME = "fashion-mnist"
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
PACKAGE = "dataset-fashion-mnist"
PACKAGE_ROOT = Path("/usr/share/datasets/fashion-mnist")
NATIVE_SIZE = 28
UNSIGNED_BYTE = 8  # idx code of the only element type supported here


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The uint8 array in an idx file, which is compressed if its name ends in .gz.

    The idx format: two zero bytes, the element type, the number of dimensions, each dimension as a
    big-endian uint32, then the elements. Raises DataError for any other content.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        raise DataError(f"{path}: cannot be read: {error}") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise DataError(
            f"{path}: not an idx file of bytes in {dimensions} dimensions "
            f"(its first bytes: {data[:4].hex(' ') or 'none'})"
        )
    if len(data) < start:
        raise DataError(f"{path}: truncated within the header")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    elements = torch.Size(shape).numel()
    if len(data) - start != elements:
        raise DataError(
            f"{path}: the shape {shape} requires {elements} bytes of data, got {len(data) - start}"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:].reshape(shape)


def _find(root: Path, stem: str) -> Path:
    for path in (root / stem, root / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{root / stem}[.gz]: no such file; install the Debian package {PACKAGE}, or pass the "
        "folder with the four idx files as --root"
    )


def _read_split(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) and labels (N,) of "train" or "t10k"."""
    image_path = _find(root, f"{split}-images-idx3-ubyte")
    label_path = _find(root, f"{split}-labels-idx1-ubyte")
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (NATIVE_SIZE, NATIVE_SIZE):
        raise DataError(
            f"{image_path}: images must have 28x28 pixels, got {tuple(images.shape[1:])}"
        )
    if len(images) != len(labels):
        raise DataError(f"{label_path}: {len(labels)} labels for {len(images)} images")
    if len(labels) and labels.max() >= len(CLASSES):
        raise DataError(f"{label_path}: labels must be from 0 to 9, got {int(labels.max())}")
    return images.unsqueeze(1), labels


def load(
    *, root: Path | None, size: int | None, channels: int | None, normal_class: int
) -> AnomalyData:
    """Load the data set; see `uad.data.load`."""
    if not 0 <= normal_class < len(CLASSES):
        choices = ", ".join(f"{number} ({name})" for number, name in enumerate(CLASSES))
        raise DataError(f"normal_class must be one of {choices}; got {normal_class}")
    root = PACKAGE_ROOT if root is None else root
    train, train_labels = _read_split(root, "train")
    test, test_labels = _read_split(root, "t10k")
    train = train[train_labels == normal_class]
    kinds = tuple(GOOD if k == normal_class else CLASSES[k] for k in test_labels.tolist())
    if not len(train) or GOOD not in kinds or set(kinds) == {GOOD}:
        raise DataError(
            f"{root}: both splits must contain images of class {normal_class}, and the test split "
            "images of other classes too"
        )

    def prepare(images: Tensor) -> Tensor:
        if size not in (None, NATIVE_SIZE):
            images = functional.interpolate(
                images, size=(size, size), mode="bilinear", antialias=True
            )
        return images.repeat(1, channels or 1, 1, 1)

    normal = CLASSES[normal_class]
    return AnomalyData(
        name=NAME,
        title=f"Fashion-MNIST, normal class {normal}",
        note=(
            f"Zalando's Fashion-MNIST (MIT license): the training images of class {normal} and the "
            "whole test split. Anomalies are pictures of other classes, so there are no defects "
            "to mark."
        ),
        train=prepare(train),
        test=prepare(test),
        kinds=kinds,
        masks=None,
        preparation=Preparation(size or NATIVE_SIZE, channels or 1),
    )
