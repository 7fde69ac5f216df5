"""A run folder for tests, and a reader of its report.

The images are crops of a real picture, and average pooling plays the network.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import numpy as np
import torch
from skimage import data as pictures
from torch import nn
from torch.nn import functional
from uad.cli.train_options import build_parser
from uad.data import GOOD, AnomalyData, Preparation
from uad.evaluation import image_figures
from uad.evaluation_files import choose_examples, save_evaluation, save_examples
from uad.losses import LossSettings
from uad.options import RunOptions, Scoring, TrainingOptions
from uad.outcome import describe_data, evaluate_baselines, evaluate_network
from uad.report.page import write_report

KINDS = (GOOD, "hole", "stain")
LOSSES = ("mse", "amplified-mse")
OPTIONS = RunOptions(LOSSES, 4, 2, LossSettings(), TrainingOptions(), Scoring())
SIZE = 32


class Pooling(nn.Module):
    """Stands for a trained network: the larger the window, the less detail it reconstructs."""

    def __init__(self, radius):
        super().__init__()
        self.radius = radius

    def forward(self, images):
        return functional.avg_pool2d(images, 2 * self.radius + 1, 1, self.radius)


class Constant(nn.Module):
    """A network that has learned nothing: uniform gray, whatever the image."""

    def forward(self, images):
        return torch.full_like(images, 0.5)


def make_data(kinds=KINDS, masks="all", channels=1, each=6, **fields):
    """Crops of a brick wall with dark rectangles in them.

    masks: "all", "none", or "some": every other image of each kind of defect has one.
    """
    rng = np.random.default_rng(0)
    names = [kind for kind in kinds for _ in range(each)]
    images, truth = [], []
    for name in names:
        top, left = rng.integers(0, 512 - SIZE, 2)
        image = pictures.brick()[top : top + SIZE, left : left + SIZE].copy()
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        if name != GOOD:
            mask[8:18, 20:32] = True  # up to the border
            image[mask] = image[mask] // 4
        images.append(np.stack([image] * channels))
        truth.append(mask)
    known = np.array([name == GOOD or masks == "all" or place % 2 == 0
                      for place, name in enumerate(names)])  # fmt: skip
    shown = np.stack(truth) & known[:, None, None]
    test = torch.from_numpy(np.stack(images))
    return AnomalyData(
        "textures", "Crops of a brick wall", "All defects are synthetic.", test[:6], test,
        tuple(names), None if masks == "none" else torch.from_numpy(shown),
        Preparation(SIZE, channels),
        files=tuple(f"{name}/{place % each:03}.png" for place, name in enumerate(names)),
        annotated=None if masks == "none" else torch.from_numpy(known), **fields,
    )  # fmt: skip


def make_run(
    folder, losses=LOSSES, data=None, networks=None, tangent=0.01, history=(0.1, 0.05, 0.01),
    scores=None, **config,
):  # fmt: skip
    """A run folder like those of train.py.

    networks: one for each loss; pooling with different windows by default.
    scores: of the test images, in place of those of every network.
    """
    data = data or make_data()
    networks = networks or [Pooling(number) for number in range(1, len(losses) + 1)]
    folder.mkdir()
    examples = choose_examples(data.kinds)
    save_examples(folder / "examples.npz", data, examples)
    arms = {}
    for number, (loss, network) in enumerate(zip(losses, networks, strict=True), start=1):
        figures, outputs, maps, found = evaluate_network(
            network, data, OPTIONS, torch.device("cpu")
        )
        if scores is not None:
            found = torch.tensor(scores, dtype=torch.float32)
            figures |= image_figures(np.array(data.kinds) != GOOD, found.numpy())
        path = folder / loss / "evaluation.npz"
        path.parent.mkdir()
        save_evaluation(path, outputs, maps, found, data, examples)
        arms[loss] = {
            "evaluation": figures,
            "history": {
                "epoch": list(range(1, len(history) + 1)),
                "loss": [number * value for value in history],
                "tangent_share": [tangent, *[0.0] * (len(history) - 1)],
            },
            "seconds_per_step": 0.0123 * number,
            "loss_share": 0.25 / number,
            "steps": 12,
            "parameters": 84721,
        }
    defaults = vars(build_parser().parse_args([]))
    del defaults["out"], defaults["resume"]
    metrics = {
        "config": {
            **defaults, "root": "my pictures", "category": ["brick", "grass"],
            "compare": list(losses), "epochs": 3, "compile": True, "width": 4, "latent": 2,
            "device": "cpu", "nproc_per_node": 1, **config,
        },
        "environment": {
            "python": "3.11", "device": "cpu", "torch": "2.9", "lamp_kernels": "1.0",
            "date": "2026-01-01",
        },
        "data": describe_data(data) | {"train": 1200},
        "scoring": asdict(OPTIONS.scoring),
        "arms": arms,
        "baselines": evaluate_baselines(data, OPTIONS),
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics, allow_nan=False))
    return folder


def change_metrics(folder, change):
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


def change_scores(folder, loss, scores, kinds):
    """Replace a loss's scores, and whatever is derived from them, except for the pictures."""
    path = folder / loss / "evaluation.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if not name.startswith("extreme_")}
    files = np.array([f"{kind}/{place}.png" for place, kind in enumerate(kinds)])
    changed = {"scores": np.asarray(scores, np.float32), "kinds": np.array(kinds), "files": files}
    np.savez(path, **arrays | changed)


class Reader(HTMLParser):
    """Collects the text and the tags of a page, and checks that each tag is closed."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self, page):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def files(self, subtype):
        prefix = f"data:image/{subtype};base64,"
        sources = [attrs["src"] for tag, attrs in self.tags if tag == "img"]
        return [
            base64.b64decode(source.removeprefix(prefix), validate=True)
            for source in sources
            if source.startswith(prefix)
        ]


def read_report(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


def plain(html):
    """The text of a piece of HTML."""
    return Reader(html).text
