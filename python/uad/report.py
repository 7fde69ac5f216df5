"""report.html of a run: one file that needs no other, made from the files of the run folder.

`python -m uad.report RUN`, called in the folder `python/`, writes it anew.
"""

from __future__ import annotations

import json
import shlex
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uad import figures
from uad.checkpoint import atomic_write
from uad.data import GOOD
from uad.evaluation import auroc_resamples
from uad.html import document, html_table, picture
from uad.landscape import table as landscapes
from uad.report_tables import definitions, kind_table, result_table

Arrays = dict[str, NDArray[Any]]


class ReportError(Exception):
    """A run folder of which no report can be made. The message names the file."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    metrics: dict[str, Any]
    examples: Arrays
    evaluations: dict[str, Arrays]

    @property
    def arms(self) -> dict[str, Any]:
        """The results of each training loss."""
        arms: dict[str, Any] = self.metrics["arms"]
        return arms

    @property
    def scores(self) -> Arrays:
        """The scores of the test images, (M,) of each arm."""
        return {arm: arrays["scores"] for arm, arrays in self.evaluations.items()}

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which of the test images are, (M,)."""
        marks: NDArray[np.bool_] = next(iter(self.evaluations.values()))["kinds"] != GOOD
        return marks


def read_run(folder: Path) -> Run:
    """All files of the run folder that a report needs."""
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
    if not metrics["arms"]:
        raise ReportError(f"{path}: no loss has been trained to its end yet")
    return Run(
        metrics,
        _read_arrays(folder / "examples.npz"),
        {arm: _read_arrays(folder / arm / "evaluation.npz") for arm in metrics["arms"]},
    )


def _read_arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error


def write_report(run_folder: Path) -> Path:
    """Write report.html and examples.png into the run folder, and return the report's path."""
    run = read_run(run_folder)
    grid = figures.encode(figures.example_grid(run.examples, run.evaluations), "png")
    with atomic_write(run_folder / "examples.png") as file:
        file.write(grid)
    path = run_folder / "report.html"
    with atomic_write(path) as file:
        file.write(page(run, grid, run_folder).encode())
    return path


def page(run: Run, grid: bytes, folder: Path) -> str:
    """The whole document. grid: the picture grid as a PNG."""
    title = f"Anomalies by reconstruction: {run.metrics['data']['title']}"
    by_kind = "".join(
        kind_table(run.arms, *figure)
        for figure in (("image_auroc", "Image AUROC"), ("aupro", "AUPRO"))
    )
    sections = {
        "Results": findings(run) + result_table(run.arms),
        "By kind of defect": by_kind,
        "Pictures": pictures(run, grid),
        "Scores": score_figures(run),
        "Training": training_figures(run.arms),
        "Loss landscape": landscape(folder),
        "How to repeat it": settings(run.metrics),
    }
    return document(title, summary(run.metrics), sections)


# --- in words -----------------------------------------------------------------------------------


def summary(metrics: Mapping[str, Any]) -> str:
    """What was trained on what, and what differs between the arms."""
    data, config, arms = metrics["data"], metrics["config"], metrics["arms"]
    channels, height, width = data["size"]
    parameters = next(iter(arms.values()))["parameters"]
    names = _listing([_bold(arm) for arm in arms])
    losses = f"once with each of {len(arms)} training losses, {names}. Only the training loss "
    losses += "differs: initial weights, the order of the images and the way test images are "
    losses += "scored are the same every time."
    if len(arms) == 1:
        losses = f"with the training loss {names}."
    kinds = _listing([escape(kind) for kind in data["kinds"] if kind != GOOD])
    text = (
        f'<p class="lead">A convolutional autoencoder of {parameters:,} parameters learnt to '
        f"reconstruct {data['train']:,} normal {'grey' if channels == 1 else 'colour'} images of "
        f"{width}&times;{height} pixels, {losses} It was tested on {data['test_normal']:,} other "
        f"normal images and {data['test_anomalous']:,} anomalous ones ({kinds}).</p>\n"
        f"<p>{escape(data['note'])}</p>\n<p>{scoring(metrics['scoring'])}</p>\n"
    )
    if any(arm.startswith("amplified-") for arm in arms):
        text += (
            "<p>An amplified loss replaces the error <i>L</i> of each "
            f"{escape(config['amplify_over'])} by &minus;log(1&nbsp;&minus;&nbsp;<i>L</i>), which "
            "hardly changes small errors and makes large ones count ever more: the idea of LAMP "
            "(arXiv 2308.14595).</p>\n"
        )
    missing = [arm for arm in config.get("compare") or () if arm not in arms]
    if missing:
        text += f"<p>Not finished yet: {_listing([_bold(arm) for arm in missing])}.</p>\n"
    return text


def scoring(options: Mapping[str, Any]) -> str:
    """How maps and scores come about."""
    error = {"mse": "squared error", "l1": "absolute error", "ssim": "SSIM dissimilarity"}
    count = options["topk"]
    top = f"{count} pixels" if isinstance(count, int) else f"{100 * count:.3g} % of the pixels"
    pooled = {"max": "greatest value", "mean": "mean", "topk": f"mean over the worst {top}"}
    sigma = options["smooth_sigma"]
    smoothed = f", smoothed by a Gaussian of {sigma:g} pixels" if sigma else ""
    return (
        "An image counts as the more anomalous, the worse it is reconstructed. Its anomaly map is "
        f"the {error[options['metric']]} of its reconstruction{smoothed}, and its score the map's "
        f"{pooled[options['pooling']]}."
    )


def findings(run: Run) -> str:
    """Which arm has the highest image AUROC, by how much, and what that is worth."""
    aurocs = {arm: content["evaluation"]["image_auroc"] for arm, content in run.arms.items()}
    if len(aurocs) < 2 or None in aurocs.values():
        return ""
    best = max(aurocs, key=lambda arm: aurocs[arm])
    resamples = {arm: auroc_resamples(run.anomalous, run.scores[arm]) for arm in aurocs}
    leads, clear = [], True
    for arm in aurocs.keys() - {best}:
        low, high = np.quantile(resamples[best] - resamples[arm], (0.025, 0.975))
        clear = clear and low > 0
        leads.append(f"{_bold(arm)} by {aurocs[best] - aurocs[arm]:.3f} ({low:.3f} to {high:.3f})")
    verdict = (
        "It is ahead of all of them on these test images"
        if clear
        else "An interval that contains 0 leaves open which loss is better, on these very images"
    )
    return (
        f"<p>Image AUROC is highest with {_bold(best)}: {aurocs[best]:.3f}. It leads "
        f"{_listing(sorted(leads))}; in brackets the 95 % interval from drawing the test images "
        f"anew. {verdict}; and this is <b>one run with one seed</b>, so another seed may turn "
        "any order round.</p>\n"
    )


def _bold(text: str) -> str:
    return f"<b>{escape(text)}</b>"


def _listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


# --- figures ------------------------------------------------------------------------------------


def pictures(run: Run, grid: bytes) -> str:
    """The picture grid, a PNG, with its caption."""
    truth = "masks" in run.examples
    caption = (
        "Test images, chosen by their place in the test set and not by their scores"
        f"{'; the ground truth is outlined in the second column' if truth else ''}. "
        "All anomaly maps of all losses have one scale of colours, the brighter the worse "
        f"reconstructed; it ends where {100 - figures.MAP_LIMIT:g} % of the pixels shown lie "
        "above. A loss serves well where its maps of defects stand out from its own maps of "
        "normal images."
    )
    style = "large" if len(run.arms) > 1 else ""
    return picture(grid, "png", "Originals, reconstructions and anomaly maps", caption, style)


def score_figures(run: Run) -> str:
    """How the scores of normal and anomalous images lie."""
    histograms = _drawing(
        figures.score_histograms(run.scores, run.anomalous),
        "Histograms of the anomaly scores of each loss",
        "Scores of normal images (grey) and of anomalous ones (coloured): the less they overlap, "
        "the better. All losses have the same bins.",
    )
    if run.anomalous.all() or not run.anomalous.any():
        return histograms
    curves = _drawing(
        figures.roc_curves(run.scores, run.anomalous),
        "ROC curves of all losses",
        "Share of anomalous images that are found against share of normal images that are wrongly "
        "reported, at every threshold of the score. The dotted line is guessing.",
    )
    return f'<div class="pair">{histograms}{curves}</div>\n'


def training_figures(arms: Mapping[str, Any]) -> str:
    """How the training went."""
    histories = {arm: content["history"] for arm, content in arms.items()}
    losses = _drawing(
        figures.loss_curves(histories),
        "Training losses over the epochs",
        "Each training loss as a share of its own value in epoch 1, on a logarithmic axis. "
        "Different losses measure different things: the curves tell whether a training has "
        "settled, not which loss is the better one.",
    )
    if any(any(history["tangent_share"]) for history in histories.values()):
        tangent = _drawing(
            figures.tangent_curves(histories),
            "Share of elements on the tangent over the epochs",
            "Share of elements whose error exceeds 1&nbsp;&minus;&nbsp;eps, in the last batch "
            "of each epoch. There the amplification goes on as a straight line, its tangent. Of a "
            "plain loss: those that would be there.",
        )
    else:
        tangent = (
            "<p>In the last batch of no epoch was any element on the tangent of the amplification, "
            "that is, wrong by more than 1&nbsp;&minus;&nbsp;eps. Where all errors are small, "
            "amplification leaves them nearly as they are.</p>\n"
        )
    return f'<div class="pair">{losses}{tangent}</div>\n'


def _drawing(figure: Figure, alternative: str, caption: str) -> str:
    return picture(figures.encode(figure, "svg"), "svg+xml", alternative, caption)


def landscape(folder: Path) -> str:
    """What landscape.py has left in the run folder; empty where it has not been there."""
    picture_path, lines_path = folder / landscapes.PICTURE, folder / landscapes.LINES
    if not picture_path.exists() or not lines_path.exists():
        return ""
    lines = [json.loads(line) for line in lines_path.read_text(encoding="utf-8").splitlines()]
    caption = (
        "The training loss around the trained weights, on the plane of two random directions and "
        "along several. A step of 1 is as long as the weights themselves. Planes of a row have "
        "one scale of colours, logarithmic."
    )
    return picture(picture_path.read_bytes(), "png", "Loss landscapes", caption, "large") + "".join(
        html_table(heads, rows) + f'<p class="note">{escape(note)}</p>\n'
        for heads, rows, note in (
            (
                landscapes.STEEPNESS_HEADS,
                landscapes.steepness_rows(lines),
                landscapes.STEEPNESS_NOTE,
            ),
            (landscapes.RATIO_HEADS, landscapes.ratio_rows(lines), landscapes.RATIO_NOTE),
        )
        if rows
    )


# --- settings -----------------------------------------------------------------------------------


def settings(metrics: Mapping[str, Any]) -> str:
    """Command line, configuration and environment."""
    words = " ".join(
        f"<span>{escape(shlex.join(group))}</span>" for group in command(metrics["config"])
    )
    lists = "".join(
        definitions(title, metrics[title.lower()]) for title in ("Config", "Scoring", "Environment")
    )
    return f'<pre>{words}</pre>\n<div class="settings">{lists}</div>\n'


def command(config: Mapping[str, Any]) -> list[list[str]]:
    """The command line that makes this run again, in groups of an option and its values.

    It names another folder, since a run is never overwritten.
    """
    processes = config.get("nproc_per_node", 1)
    groups = [["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]]
    groups.append(["python/train.py"])
    for name, value in config.items():
        if value is None or value is False or name == "nproc_per_node":
            continue
        option = "--" + name.replace("_", "-")
        if value is True:
            groups.append([option])
        elif name == "compare":
            groups.append([option, ",".join(value)])
        else:
            groups.append([option, *map(str, value if isinstance(value, list) else [value])])
    return [*groups, ["--out", "runs/again"]]


def main(arguments: Sequence[str]) -> int:
    """Write the report of the run folder that is the one argument."""
    if len(arguments) != 1:
        print("usage: python -m uad.report RUN", file=sys.stderr)
        return 2
    try:
        print(write_report(Path(arguments[0])))
    except ReportError as error:
        print(f"uad.report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
