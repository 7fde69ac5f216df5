"""The form in which every data set is handed to the training program."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GOOD = "good"
"""The kind of a normal test image, as MVTec AD names its folder."""


class DataError(Exception):
    """Unusable data. The message names the file or the argument and says what to do."""


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadFilesError(DataError):
    """Files that cannot be used, all of them; the message has a line for each."""

    def __init__(self, problems: Sequence[Problem], advice: str = "") -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        if len(lines) > 1:
            lines = [f"{len(lines)} files cannot be used:", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines) + advice)


@dataclass(frozen=True)
class Preparation:
    """How an image file becomes the input of a network. Checkpoints store it as a dictionary."""

    size: int
    """Side of the square in pixels."""
    channels: int
    """1 for gray, 3 for color."""
    fit: str = "stretch"
    """How an image that is not square becomes square: "stretch", "pad" or "crop"."""
    full_scale: float | None = None
    """The level of 16-bit and floating-point files that counts as white, such as 4095 for 12 bits;
    None if there was no such file."""
    eight_bit: bool = True
    """Whether there were 8-bit files."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class AnomalyData:
    """Normal images to train on, and test images, each of them normal or with a kind of defect.

    Every test image may be normal; then there is nothing to measure detection with.
    """

    name: str
    title: str
    """One line that tells people what the images are."""
    note: str
    """A few sentences: the source, the license, what is synthetic."""
    train: Tensor
    """uint8 (N, C, H, W), normal images only."""
    test: Tensor
    """uint8 (M, C, H, W)."""
    kinds: tuple[str, ...]
    """Length M: "good" for a normal image, otherwise the kind of its defect."""
    masks: Tensor | None
    """bool (M, H, W), True where the image is defective; None without pixel annotations."""
    preparation: Preparation
    files: tuple[str, ...] = ()
    """Names of the test images, length M, unique; made up where images are not files."""
    annotated: Tensor | None = None
    """bool (M,): images whose mask is known, which normal images' always is; None without masks."""
    subject: str = ""
    """What the images show, in a few words; "" for the title."""
    form: str = ""
    """Formats and sizes of the files, and what was skipped."""
    notices: tuple[str, ...] = ()
    """What people should know before they trust a result, a line each."""
    held_out: int = 0
    """How many of the normal test images were taken from the training images."""
    fingerprints: tuple[str, ...] = field(default=(), repr=False)
    """`fingerprint` of each training image."""

    @property
    def found(self) -> str:
        """One line: how many images of which kind and format, and what was skipped."""
        counts = Counter(self.kinds)
        normal = counts.pop(GOOD, 0)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        defective = f" and {counts.total()} defective ({kinds})" if counts else ""
        line = f"{self.subject or self.title}: {len(self.train)} normal for training, "
        line += f"{normal} normal{defective} for testing"
        if counts and self.masks is not None:
            with_mask = counts.total()
            if self.annotated is not None:
                with_mask -= int((~self.annotated).sum())
            line += f", {with_mask} with masks"
        return f"{line}; {self.form}" if self.form else line


def fingerprint(image: Tensor) -> str:
    """A hash of the pixels of a prepared image, uint8 (C, H, W)."""
    pixels = image.contiguous().numpy().tobytes()
    return hashlib.blake2b(pixels, digest_size=12).hexdigest()


def to_unit(images: Tensor) -> Tensor:
    """Convert uint8 images in [0, 255] to float32 in [0, 1]."""
    return images.to(torch.float32) / 255
