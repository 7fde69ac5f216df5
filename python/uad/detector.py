"""A trained network ready to score images: load a checkpoint, then score files.

detector = load_detector(Path("runs/bottle/mse/checkpoint.pt"))
for result in detector.score(sorted(Path("photos").glob("*.png"))):
    print(result.name, result.error or result.score)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from uad import checkpoint
from uad.checkpoint import CheckpointError
from uad.data.base import DataError, Preparation, fingerprint, to_unit
from uad.data.images import prepare
from uad.detector_entry import check_description, check_weights
from uad.evaluation import anomaly_map, image_scores
from uad.evaluation_files import normal_scores
from uad.inpainting import scoring_network
from uad.model import ConvAutoencoder
from uad.options import Scoring
from uad.run_folder import CHECKPOINT, EVALUATION, RunFolderError, read_metrics
from uad.threads import in_threads
from uad.threshold import DEFAULT_RATE, Threshold, choose_threshold

FORMAT = 1
"""Version of the entry "detector" in a checkpoint."""

BATCH = 16

NamedFile = tuple[Path, str]
"""A file and the name under which its result is listed."""


class DetectorError(Exception):
    """A file that is not a usable checkpoint. The message names it and says what to pass."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a detector says about one image file: a score and a map, or an error."""

    path: Path
    name: str
    score: float = math.nan
    """Higher is more anomalous; NaN if there is an error."""
    map: Tensor | None = None
    """float32 (S, S) on the CPU, aligned with the prepared image; None if there is an error."""
    error: str = ""
    """Why the file could not be scored; empty if it was."""
    trained_on: bool = False
    """Whether the network was trained on this very image."""


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained network in evaluation mode with everything that scoring requires."""

    network: nn.Module
    preparation: Preparation
    scoring: Scoring
    loss: str
    """The training loss."""
    data: str
    """One line that tells people what the training images were."""
    normal_scores: tuple[float, ...]
    """Scores of the normal test images; empty if training has not finished."""
    false_positive_rate: float
    """The rate chosen when the network was trained."""
    fingerprints: frozenset[str] = field(repr=False)
    """`uad.data.fingerprint` of each training image."""
    sha256: str
    """Of the checkpoint file."""
    inpaint: int | None = None
    """Side of the squares that the network inpaints; None if it sees the whole image."""

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Detector:
        """Moves the network to a device; returns the detector."""
        self.network.to(device)
        return self

    def threshold(self, rate: float | None = None) -> Threshold | None:
        """The threshold that the normal test images give, or None without any.

        rate: the false-positive rate; None for the one chosen when the network was trained. If
        there are too few images for it, the result's `met` is False and its `rate` is higher.
        """
        if not self.normal_scores:
            return None
        return choose_threshold(
            self.normal_scores, self.false_positive_rate if rate is None else rate
        )

    def score(
        self, files: Iterable[Path | str | NamedFile], batch_size: int = BATCH
    ) -> Iterator[Result]:
        """One result for each image file, in the same order.

        files: paths, or pairs of a path and the name that the result is to have; by default that is
        the name of the file. Keeps the images of one batch in memory.
        """
        named = (_named(file) for file in files)
        while batch := list(islice(named, batch_size)):
            yield from self.score_batch(batch)

    def score_batch(self, files: Sequence[NamedFile]) -> list[Result]:
        """The results of a few files, all in memory at once."""
        return self.results(files, in_threads(self._read, files))

    def _read(self, file: NamedFile) -> Tensor | str:
        path, _ = file
        try:
            return prepare(path, self.preparation)
        except (DataError, OSError) as error:
            return reason(error, path)

    def results(self, files: Sequence[NamedFile], images: Sequence[Tensor | str]) -> list[Result]:
        """The results of files that have been read.

        images: for each file the prepared image, uint8 (C, S, S), or why there is none.
        """
        usable = [image for image in images if isinstance(image, Tensor)]
        scored = self._score_images(usable) if usable else iter(())
        return [
            Result(path, name, error=image)
            if isinstance(image, str)
            else Result(path, name, **next(scored))
            for (path, name), image in zip(files, images, strict=True)
        ]

    def _score_images(self, images: list[Tensor]) -> Iterator[dict[str, Any]]:
        """The fields of the result of each prepared image."""
        maps = self.maps(torch.stack(images))
        scores = image_scores(maps, self.scoring).tolist()
        for image, each, score in zip(images, maps, scores, strict=True):
            seen = fingerprint(image) in self.fingerprints
            if math.isfinite(score):
                yield {"score": score, "map": each, "trained_on": seen}
            else:
                yield {"error": f"the score is {score}: the network has diverged"}

    def maps(self, images: Tensor) -> Tensor:
        """Anomaly maps, float32 (N, S, S) on the CPU, of prepared images, uint8 (N, C, S, S)."""
        with torch.no_grad():
            original = to_unit(images.to(self.device))
            return anomaly_map(self.network(original), original, self.scoring).cpu()

    def rehearse(self) -> None:
        """Do everything once, so that settings that do not go together raise before any image."""
        preparation = self.preparation
        shape = (1, preparation.channels, preparation.size, preparation.size)
        image_scores(self.maps(torch.zeros(shape, dtype=torch.uint8)), self.scoring)
        self.threshold()


def load_detector(path: Path | str) -> Detector:
    """The detector in a checkpoint of train.py, on the CPU.

    path: checkpoint.pt, which may have been moved or renamed. Also accepts the folder of a loss,
    and a run folder with a single loss. A checkpoint written before checkpoints described their
    network has to be in its run folder, beside metrics.json.

    Raises DetectorError, with the path and a reason, for anything else. Runs no code from the file.
    """
    path = find_checkpoint(Path(path))
    try:
        state = checkpoint.load(path, torch.device("cpu"))
    except CheckpointError as error:
        if path.suffix in (".onnx", ".pt2"):
            raise DetectorError(
                f"{path}: an exported network; pass the {CHECKPOINT} that it was made from"
            ) from error
        cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        raise DetectorError(f"{path}: damaged, or not a checkpoint of train.py{cause}") from error
    if not isinstance(state.get("model"), dict):
        raise DetectorError(f"{path}: not a checkpoint of train.py: it holds no network")
    entry = state["detector"] if "detector" in state else _entry_of_old_run(path)
    if isinstance(entry, dict) and entry.get("format") != FORMAT:
        raise DetectorError(
            f"{path}: written by another version of train.py: its format is "
            f"{entry.get('format')}, and this version reads format {FORMAT}"
        )
    try:
        check_description(entry)
        check_weights(entry["network"], state["model"])
        described = dict(entry["network"])
        inpaint = described.pop("inpaint", None)
        network = ConvAutoencoder(**described)
        network.load_state_dict(state["model"])
        preparation = Preparation(**entry["preparation"])
        detector = Detector(
            network=scoring_network(network, inpaint, preparation.size).eval(),
            preparation=preparation,
            inpaint=inpaint,
            scoring=Scoring(**entry["scoring"]),
            loss=entry["loss"],
            data=entry["data"],
            normal_scores=tuple(map(float, entry["normal_scores"])),
            false_positive_rate=entry["false_positive_rate"],
            fingerprints=frozenset(entry["fingerprints"]),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        detector.rehearse()
    except Exception as error:  # an edited file can hold anything; see also checkpoint.load
        text = " ".join(str(error).split())
        raise DetectorError(
            f"{path}: damaged, or not a checkpoint of train.py ({type(error).__name__}: {text})"
        ) from error
    return detector


def find_checkpoint(path: Path) -> Path:
    """The file that `path` means: itself, or the only checkpoint in a loss or run folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DetectorError(f"{path}: no such file")
    if (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    inside = sorted(path.glob(f"*/{CHECKPOINT}"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise DetectorError(
            f"{path}: holds several checkpoints; pass one of {', '.join(map(str, inside))}"
        )
    raise DetectorError(f"{path}: is a folder without a checkpoint; pass <run>/<loss>/{CHECKPOINT}")


def _named(file: Path | str | NamedFile) -> NamedFile:
    if isinstance(file, tuple):
        return file
    return Path(file), Path(file).name


def _entry_of_old_run(path: Path) -> dict[str, Any]:
    """The entry "detector" for a checkpoint without one, from the files of its run folder."""
    loss_folder = path.resolve().parent
    try:
        metrics = read_metrics(loss_folder.parent)
        config, data = metrics["config"], metrics["data"]
        channels, size, _ = data["size"]
        return {
            "format": FORMAT,
            "loss": loss_folder.name,
            "data": data["title"],
            "network": {
                "channels": channels, "width": config["width"], "latent": config["latent"],
            },
            "preparation": Preparation(size, channels).to_dict(),
            "scoring": metrics["scoring"],
            "false_positive_rate": DEFAULT_RATE,
            "normal_scores": _normal_scores(loss_folder / EVALUATION),
            "fingerprints": (),
        }  # fmt: skip
    except (RunFolderError, KeyError, TypeError, ValueError) as error:
        raise DetectorError(
            f"{path}: an older checkpoint, which does not describe its network: leave it in its "
            f"run folder, or train again ({error})"
        ) from error


def _normal_scores(path: Path) -> list[float]:
    """Scores of the normal test images in evaluation.npz; none if the file cannot be read."""
    try:
        return normal_scores(path)
    except (OSError, KeyError, ValueError, BadZipFile):
        return []


def reason(error: Exception, path: Path) -> str:
    """The message of an error without the path, which stands beside it."""
    return str(error).removeprefix(f"{path}: ")
