"""A detector in one file: images in, anomaly maps and scores out, without this package."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uad.data.base import to_unit
from uad.detector import Detector
from uad.evaluation import anomaly_map, image_scores
from uad.run_folder import EXAMPLES

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "metadata.json"
"""Name of the extra file in a .pt2."""

TOLERANCE = 1e-4
"""Greatest difference from PyTorch that is accepted, relative to the greatest value."""

MOST_IMAGES = 4
"""Images to check with; onnx.reference takes seconds for each."""

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Maps (N, S, S) and scores (N,)."""


class ExportError(Exception):
    """An export that is not possible or not right. The message says why."""


class MapAndScore(nn.Module):
    """The network with its anomaly map and score, in operators of plain PyTorch only."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = detector.network
        self.scoring = detector.scoring

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, S, S) and scores (N,) of images (N, C, S, S) in [0, 1]."""
        maps = anomaly_map(self.network(images), images, self.scoring, backend="reference")
        return maps, image_scores(maps, self.scoring)


@dataclass(frozen=True)
class Check:
    """How an exported file compares with PyTorch."""

    images: str
    """What it was compared on."""
    runtime: str
    """What computed the exported network."""
    difference: float
    """Greatest difference, relative to the greatest value."""


def metadata(detector: Detector) -> dict[str, Any]:
    """What a program must know to prepare images and to decide; None where there is nothing."""
    preparation, limit = detector.preparation, detector.threshold()
    return {
        "loss": detector.loss,
        "size": preparation.size,
        "channels": preparation.channels,
        "fit": preparation.fit,
        "full_scale": preparation.full_scale,
        "threshold": None if limit is None else limit.value,
        "rate": None if limit is None else float(f"{limit.rate:.6g}"),
    }


def export(detector: Detector, kind: str, out: Path, run_folder: Path | None) -> Check:
    """Write `out`, unless the exported network differs from the detector.

    kind: "onnx" or "torch". run_folder: where to look for images to check with.
    Requires that no package is missing. ExportError if the export fails, or the outputs differ.
    """
    images, described = check_images(detector, run_folder)
    # In the same folder, so that the finished file can be moved to its name.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        file = Path(folder) / f"network{SUFFIXES[kind]}"
        with _quiet():
            try:
                _write_onnx(detector, file) if kind == "onnx" else _write_torch(detector, file)
                runtime, compute = _load_onnx(file) if kind == "onnx" else _load_torch(file)
                check = compare(detector, images, described, runtime, compute)
            except ExportError:
                raise
            except Exception as error:  # the exporters raise exceptions of many kinds
                reason = " ".join(str(error).split())[:300]
                raise ExportError(
                    f"the export failed ({type(error).__name__}: {reason})"
                ) from error
        os.replace(file, out)
    return check


def missing_packages(kind: str) -> list[str]:
    """The packages to install for this format."""
    needed = ("onnx", "onnxscript") if kind == "onnx" else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


def check_images(detector: Detector, run_folder: Path | None) -> tuple[Tensor, str]:
    """Prepared images, uint8 (N, C, S, S), and what they are: the run's examples if they exist."""
    preparation = detector.preparation
    shape = (preparation.channels, preparation.size, preparation.size)
    if run_folder is not None:
        path = run_folder / EXAMPLES
        try:
            with np.load(path, allow_pickle=False) as arrays:
                originals = torch.from_numpy(arrays["originals"])
            if originals.shape[1:] == shape and originals.dtype == torch.uint8:
                chosen = originals[:: max(1, len(originals) // MOST_IMAGES)][:MOST_IMAGES]
                return chosen, f"{len(chosen)} images of {path}"
        except (OSError, KeyError, ValueError, BadZipFile):
            pass
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (MOST_IMAGES, *shape), generator=generator, dtype=torch.uint8)
    return levels, f"{MOST_IMAGES} random images, because the run's examples are not there"


def compare(
    detector: Detector,
    images: Tensor,
    described: str,
    runtime: str,
    compute: Callable[[NDArray[np.float32]], Outputs],
) -> Check:
    """Compare on all images together and on the first alone; ExportError if outputs differ."""
    difference = 0.0
    for some in (images, images[:1]):
        maps = detector.maps(some)
        expected = (maps.numpy(), image_scores(maps, detector.scoring).numpy())
        for name, ours, theirs in zip(
            ("map", "score"), expected, compute(to_unit(some).numpy()), strict=True
        ):
            if ours.shape != theirs.shape:
                raise ExportError(f"the {name} has shape {theirs.shape} instead of {ours.shape}")
            scale = float(np.abs(ours).max()) or 1.0
            found = float(np.abs(ours - theirs).max()) / scale
            if not found <= TOLERANCE:
                raise ExportError(
                    f"the {name} computed by {runtime} differs from PyTorch by {found:.2g} of its "
                    f"greatest value, at most {TOLERANCE:g} is accepted; nothing was written"
                )
            difference = max(difference, found)
    return Check(described, runtime, difference)


# --- formats ------------------------------------------------------------------------------------


def _example(detector: Detector) -> Tensor:
    """The images to trace with: two, because a batch of one would become a constant."""
    preparation = detector.preparation
    return torch.zeros(2, preparation.channels, preparation.size, preparation.size)


def _write_torch(detector: Detector, file: Path) -> None:
    with torch.no_grad():
        program = torch.export.export(
            MapAndScore(detector).eval(),
            (_example(detector),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        ).run_decompositions({})  # removes empty autocast blocks, which torch.export.load rejects
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata(detector))})


def _load_torch(file: Path) -> tuple[str, Callable[[NDArray[np.float32]], Outputs]]:
    network = torch.export.load(file).module()

    def compute(images: NDArray[np.float32]) -> Outputs:
        with torch.no_grad():
            maps, scores = network(torch.from_numpy(images))
        return maps.numpy(), scores.numpy()

    return "torch.export", compute


def _write_onnx(detector: Detector, file: Path) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            MapAndScore(detector).eval(),
            (_example(detector),),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            input_names=["images"],
            output_names=["map", "score"],
            verbose=False,
        )
    assert program is not None  # as without a file name
    values = {key: str(value) for key, value in metadata(detector).items() if value is not None}
    program.model.metadata_props.update(values)
    program.save(file, external_data=False)


def _load_onnx(file: Path) -> tuple[str, Callable[[NDArray[np.float32]], Outputs]]:
    """onnxruntime if it is installed, and the slower reference of the package onnx otherwise."""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        runtime = f"onnxruntime {onnxruntime.__version__}"
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(file)
        runtime = "onnx.reference (onnxruntime is not installed)"

    def compute(images: NDArray[np.float32]) -> Outputs:
        maps, scores = session.run(["map", "score"], {"images": images})
        return maps, scores

    return runtime, compute


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and log lines, which users can do nothing about."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
