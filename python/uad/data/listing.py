"""Which images and masks a folder in the layout of MVTec AD has, before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uad.data.base import GOOD, DataError
from uad.data.images import SUFFIXES, Picture, Skipped, images_in, is_hidden

NORMAL_NAMES = ("fine", "io", "normal", "ok", "okay", "pass", "passed")
"""Names, besides `GOOD`, that people give to folders of normal images, in lower case."""


@dataclass
class Entry:
    """An image file of the data set."""

    path: Path
    name: str
    """Unique in the data set, such as "dent/003.png"."""
    kind: str
    category: str = ""
    """Name of its category's folder."""
    mask: Path | None = None
    picture: Picture | None = None
    """The image in its square, once it has been read."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the file's image."""


@dataclass
class Listed:
    """The files of a data set, before any is opened."""

    train: list[Entry] = field(default_factory=list)
    test: list[Entry] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    notices: list[str] = field(default_factory=list)


def category_folders(root: Path, category: Sequence[str] | None) -> list[Path]:
    """The folders of the categories; the root itself without `category`."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    names = category_names(root)
    if category is None:
        if not _has(root, "train"):
            raise DataError(f"{root}: does not contain train/{GOOD}{_advice(root, names)}")
        return [root]
    for unknown in (name for name in category if name not in names):
        choices = f"choose from {', '.join(names)}" if names else "no folder contains train/good"
        raise DataError(f"{root / unknown}: no such category; {choices}")
    return [root / name for name in dict.fromkeys(category)]


def category_names(root: Path) -> list[str]:
    """The names of the categories in a folder, in alphabetical order."""
    return [path.name for path in _subfolders(root) if (path / "train").is_dir()]


def _advice(root: Path, categories: Sequence[str]) -> str:
    if categories:
        return f"; choose a category: {', '.join(categories)}"
    upright = root.resolve()
    for above in (upright.parent, upright.parent.parent):
        if above / "train" in (upright, *upright.parents) and _has(above / "train", GOOD):
            return f"; pass the folder above it, {above}"
    for path in _subfolders(root):
        if path.name.lower() == "train":
            return f"; rename {path} to train"
    if images_in(root, Skipped()):
        return f"; move images of good parts to {root / 'train' / GOOD}"
    return ""


def _has(folder: Path, name: str) -> bool:
    """Whether a folder has a subfolder of exactly this name, even on disks that ignore case."""
    return any(path.name == name for path in _subfolders(folder))


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in alphabetical order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def list_category(folder: Path, prefix: str, listed: Listed) -> None:
    """Add the files of a category. prefix: what the names of its images begin with."""
    train, test = folder / "train", folder / "test"
    if not _has(train, GOOD):
        others = ", ".join(path.name for path in _subfolders(train))
        hint = f"; {train} contains {others}" if others else ""
        raise DataError(f"{train / GOOD}: no such folder{hint}")
    for path in _images(train / GOOD, listed.skipped):
        listed.train.append(Entry(path, f"{prefix}train/{GOOD}/{path.name}", GOOD, folder.name))
    for other in _subfolders(train):
        if other.name != GOOD:
            listed.notices.append(f"{other} is not used: training uses {train / GOOD} only")
    if test.is_dir() and (loose := images_in(test, Skipped())):
        listed.notices.append(
            f"{len(loose)} images directly in {test} are not used: move them to {test / GOOD}, or "
            "to a folder named after their defect"
        )
    masks = _Masks(folder / "ground_truth")
    hidden = [path for path in test.iterdir() if is_hidden(path.name)] if test.is_dir() else []
    listed.skipped.hidden_folders += sum(path.is_dir() for path in hidden)
    for kind in sorted(_subfolders(test), key=lambda path: (path.name != GOOD, path.name)):
        if kind.name == GOOD and not images_in(kind, Skipped()):
            continue  # as if there were no test/good
        if kind.name != GOOD and kind.name.lower() in (GOOD, *NORMAL_NAMES):
            listed.notices.append(
                f"{kind} is taken for a kind of defect; normal images belong in {test / GOOD}"
            )
        for path in _images(kind, listed.skipped):
            mask = None if kind.name == GOOD else masks.take(kind.name, path)
            name = f"{prefix}{kind.name}/{path.name}"
            listed.test.append(Entry(path, name, kind.name, folder.name, mask))
    listed.notices += masks.notices()


def _images(folder: Path, skipped: Skipped) -> list[Path]:
    found = images_in(folder, skipped)
    if not found:
        raise DataError(f"{folder}: contains no images ({', '.join(SUFFIXES)})")
    return found


class _Masks:
    """The mask files of a category, found by the names of their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {
            kind.name: {path.stem: path for path in reversed(images_in(kind, Skipped()))}
            for kind in _subfolders(folder)
            if kind.name != GOOD
        }
        self.used: set[Path] = set()

    def take(self, kind: str, image: Path) -> Path | None:
        """The mask of an image: <stem>_mask, or <stem>, with the suffix of any image format."""
        of_kind = self.files.get(kind, {})
        mask = of_kind.get(f"{image.stem}_mask") or of_kind.get(image.stem)
        if mask is not None:
            self.used.add(mask)  # two images that differ in suffix share a mask
        return mask

    def notices(self) -> list[str]:
        """A line if masks belong to no image, which is often a misspelt name."""
        rest = [
            path
            for files in self.files.values()
            for path in files.values()
            if path not in self.used
        ]
        if not rest:
            return []
        more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        return [f"{rest[0]}{more}: the mask of no test image"]
