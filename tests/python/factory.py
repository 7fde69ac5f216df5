"""Folders of pictures as a factory has them: rings of metal, some with dents and scratches.

`make` writes such a folder, and `spoil` adds what real folders contain besides: many formats and
sizes, turned photographs, hidden and broken files, missing masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.float64]


def ring(rng: np.random.Generator, side: int) -> Levels:
    """A brushed metal ring on a dark table, levels from 0 to 1, (side, side)."""
    rows, columns = np.indices((side, side)) / side - 0.5 + rng.normal(0, 0.01, (2, 1, 1))
    radius = np.hypot(rows, columns)
    brushed = 0.06 * np.sin(60 * np.arctan2(rows, columns)) + rng.normal(0, 0.015, (side, side))
    inside = 1 / (1 + np.exp(-(0.42 - radius) * 80)) / (1 + np.exp(-(radius - 0.18) * 80))
    shown: Levels = (0.12 + inside * (0.5 + 0.25 * rows + brushed)).clip(0, 1)
    return shown


def damage(kind: str, part: Levels, rng: np.random.Generator) -> tuple[Levels, NDArray[np.bool_]]:
    """The part with a "dent" or a "scratch", and where it is."""
    side = len(part)
    rows, columns = np.indices(part.shape) / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    row, column = 0.3 * np.sin(angle), 0.3 * np.cos(angle)
    if kind == "dent":
        mask = np.hypot(rows - row, columns - column) < rng.uniform(0.04, 0.07)
        return np.where(mask, 0.35 * part, part), mask
    turn = rng.uniform(0, np.pi)
    along = (rows - row) * np.sin(turn) + (columns - column) * np.cos(turn)
    across = (rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)
    mask = (np.abs(along) < 0.12) & (np.abs(across) < 0.02)
    return np.where(mask, part + 0.35, part).clip(0, 1), mask


def save(levels: Levels, path: Path, bits: int = 8, orientation: int = 1) -> None:
    """Write levels from 0 to 1; more than 8 bits go into a 16-bit file, 32 into floating point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if bits == 32:
        image = Image.fromarray(levels.astype(np.float32))
    else:
        kind = np.uint8 if bits == 8 else np.uint16
        image = Image.fromarray(np.rint(levels * (2**bits - 1)).astype(kind))
    if orientation == 1:
        image.save(path)
        return
    # Stored lying on its side, with a tag that says so, as telephones do.
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    image.transpose(turn).save(path, exif=exif)


def make(
    root: Path,
    *,
    train: int = 24,
    good: int = 8,
    defects: int = 6,
    side: int = 64,
    bits: int = 8,
    suffix: str = "png",
    seed: int = 0,
) -> Path:
    """A folder with `defects` dents and as many scratches, each with a mask; all of one format."""
    rng = np.random.default_rng(seed)
    for index in range(train):
        save(ring(rng, side), root / f"train/good/{index:03}.{suffix}", bits)
    for index in range(good):
        save(ring(rng, side), root / f"test/good/{index:03}.{suffix}", bits)
    for kind in ("dent", "scratch"):
        for index in range(defects):
            part, mask = damage(kind, ring(rng, side), rng)
            save(part, root / f"test/{kind}/{index:03}.{suffix}", bits)
            save(mask.astype(float), root / f"ground_truth/{kind}/{index:03}_mask.png")
    return root


def spoil(root: Path, seed: int = 1) -> Path:
    """Add to a folder of `make` everything that must not stop or mislead anyone."""
    rng = np.random.default_rng(seed)
    good = root / "train/good"
    for index, suffix in enumerate(("jpg", "webp", "gif", "jp2", "bmp", "tif", "pgm")):
        save(ring(rng, 60 + 9 * index), good / f"other{index}.{suffix}")
    save(ring(rng, 80)[:, 10:70], good / "turned.jpg", orientation=6)
    save(ring(rng, 80)[10:70], good / "turned.png", orientation=8)
    for name in (".ipynb_checkpoints/000-checkpoint.png", "__MACOSX/000.png"):
        for place in ("test", "train/good", "ground_truth/dent"):
            save(ring(rng, 64), root / place / name)
    for place in ("train/good", "test/dent"):
        (root / place / "._000.png").write_bytes(b"\0\5\x16\7")
        (root / place / "Thumbs.db").write_bytes(b"\xd0\xcf")
        (root / place / "notes.txt").write_text("camera 2, exposure 4 ms")
    (root / "ground_truth/scratch/001_mask.png").unlink()
    return root


def break_files(root: Path) -> list[Path]:
    """Replace four files of the folder by unusable ones; return them."""
    cut, text, empty = (
        root / "train/good/001.png", root / "train/good/002.png", root / "test/good/001.png",
    )  # fmt: skip
    cut.write_bytes(cut.read_bytes()[:200])
    text.write_text("not a picture")
    empty.write_bytes(b"")
    mask = root / "ground_truth/dent/001_mask.png"
    save(np.ones((30, 31)), mask)
    return [cut, text, empty, mask]
