"""report.html of a run: a self-contained page, made from the files in the run folder.

`python -m uad.report RUN`, run in the folder `python/`, rewrites it.
"""

from __future__ import annotations

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
from uad.run_folder import EVALUATION, EXAMPLES, RunFolderError, read_metrics

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

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
        """The scores of the test images, (M,) for each arm."""
        return {arm: arrays["scores"] for arm, arrays in self.evaluations.items()}

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which of the test images are anomalous, (M,)."""
        marks: NDArray[np.bool_] = next(iter(self.evaluations.values()))["kinds"] != GOOD
        return marks


def read_run(folder: Path) -> Run:
    """All files in the run folder that a report needs; RunFolderError naming a bad one."""
    metrics = read_metrics(folder)
    return Run(
        metrics,
        _read_arrays(folder / EXAMPLES),
        {arm: _read_arrays(folder / arm / EVALUATION) for arm in metrics["arms"]},
    )


def _read_arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path}: cannot be read: {error}") from error


def write_report(run_folder: Path) -> Path:
    """Write report.html and examples.png into the run folder; return the report's path.

    Raises RunFolderError if a file of the run is missing or damaged.
    """
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
    title = f"Anomaly detection by reconstruction: {run.metrics['data']['title']}"
    by_kind = "".join(
        kind_table(run.arms, *figure)
        for figure in (("image_auroc", "Image AUROC"), ("aupro", "AUPRO"))
    )
    sections = {
        "Results": findings(run) + result_table(run.arms),
        "Results by kind of defect": by_kind,
        "Examples": pictures(run, grid),
        "Scores": score_figures(run),
        "Training": training_figures(run.arms),
        "Loss landscape": landscape(folder),
        "How to reproduce this run": settings(run.metrics),
    }
    return document(title, summary(run.metrics), sections)


# --- in words -----------------------------------------------------------------------------------


def summary(metrics: Mapping[str, Any]) -> str:
    """What was trained on which data, and how the arms differ."""
    data, config, arms = metrics["data"], metrics["config"], metrics["arms"]
    channels, height, width = data["size"]
    parameters = next(iter(arms.values()))["parameters"]
    names = _listing([_bold(arm) for arm in arms])
    losses = f"once with each of {len(arms)} training losses: {names}. Only the training loss "
    losses += "differed; the initial weights, the order of the images and the scoring of the test "
    losses += "images were the same each time."
    if len(arms) == 1:
        losses = f"with the training loss {names}."
    kinds = _listing([escape(kind) for kind in data["kinds"] if kind != GOOD])
    text = (
        f'<p class="lead">A convolutional autoencoder with {parameters:,} parameters was trained '
        f"to reconstruct {data['train']:,} normal {'gray' if channels == 1 else 'color'} images of "
        f"{width}&times;{height} pixels, {losses} It was tested on {data['test_normal']:,} other "
        f"normal images and {data['test_anomalous']:,} anomalous ones ({kinds}).</p>\n"
        f"<p>{escape(data['note'])}</p>\n<p>{scoring(metrics['scoring'])}</p>\n"
    )
    if any(arm.startswith("amplified-") for arm in arms):
        text += (
            "<p>An amplified loss replaces the error <i>L</i> of each "
            f"{escape(config['amplify_over'])} by &minus;log(1&nbsp;&minus;&nbsp;<i>L</i>), which "
            "hardly changes small errors and gives large ones more and more weight. This is the "
            "idea of LAMP (arXiv 2308.14595).</p>\n"
        )
    missing = [arm for arm in config.get("compare") or () if arm not in arms]
    if missing:
        text += f"<p>Not finished yet: {_listing([_bold(arm) for arm in missing])}.</p>\n"
    return text


def scoring(options: Mapping[str, Any]) -> str:
    """How maps and scores are computed."""
    error = {"mse": "squared error", "l1": "absolute error", "ssim": "SSIM dissimilarity"}
    count = options["topk"]
    top = f"{count} pixels" if isinstance(count, int) else f"{100 * count:.3g}% of the pixels"
    pooled = {"max": "maximum of", "mean": "mean of", "topk": f"mean over the worst {top} of"}
    sigma = options["smooth_sigma"]
    smoothed = f", smoothed with a Gaussian of sigma {sigma:g} pixels" if sigma else ""
    return (
        "The worse an image is reconstructed, the more anomalous it is considered. Its anomaly map "
        f"is the {error[options['metric']]} of its reconstruction{smoothed}. Its score is the "
        f"{pooled[options['pooling']]} the map."
    )


def findings(run: Run) -> str:
    """Which arm has the highest image AUROC, by how much, and how reliable that is."""
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
        "On these test images it is better than all of them"
        if clear
        else "Where an interval contains 0, even these test images do not show which loss is better"
    )
    return (
        f"<p>Image AUROC is highest with {_bold(best)}: {aurocs[best]:.3f}. It leads "
        f"{_listing(sorted(leads))}; the brackets hold the 95% interval from resampling the test "
        f"images. {verdict}. This is <b>one run with one seed</b>: another seed may reverse any "
        "order.</p>\n"
    )


def _bold(text: str) -> str:
    return f"<b>{escape(text)}</b>"


def _listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


# --- figures ------------------------------------------------------------------------------------


def pictures(run: Run, grid: bytes) -> str:
    """The picture grid, given as a PNG, with its caption."""
    truth = "masks" in run.examples
    caption = (
        "Test images, chosen by their position in the test set and not by their scores"
        f"{'; the second column outlines the ground truth' if truth else ''}. All anomaly maps of "
        "all losses share a color scale: brighter pixels are reconstructed worse. The scale ends "
        f"at the value that {100 - figures.MAP_LIMIT:g}% of these pixels exceed. A loss works well "
        "if its maps of defective images stand out from its maps of normal images."
    )
    style = "large" if len(run.arms) > 1 else ""
    return picture(grid, "png", "Originals, reconstructions and anomaly maps", caption, style)


def score_figures(run: Run) -> str:
    """How the scores of normal and anomalous images are distributed."""
    histograms = _drawing(
        figures.score_histograms(run.scores, run.anomalous),
        "Histograms of the anomaly scores of each loss",
        "Scores of normal images (gray) and of anomalous images (color); the less they overlap, "
        "the better. All losses use the same bins.",
    )
    if run.anomalous.all() or not run.anomalous.any():
        return histograms
    curves = _drawing(
        figures.roc_curves(run.scores, run.anomalous),
        "ROC curves of all losses",
        "Fraction of anomalous images that are detected against fraction of normal images that are "
        "falsely reported, for every threshold of the score. The dotted line is guessing.",
    )
    return f'<div class="pair">{histograms}{curves}</div>\n'


def training_figures(arms: Mapping[str, Any]) -> str:
    """How the training went."""
    histories = {arm: content["history"] for arm, content in arms.items()}
    losses = _drawing(
        figures.loss_curves(histories),
        "Training losses over the epochs",
        "Each training loss relative to its value in epoch 1, on a logarithmic axis. Different "
        "losses measure different things, so the curves show whether a run has converged, "
        "not which loss is better.",
    )
    if any(any(history["tangent_share"]) for history in histories.values()):
        tangent = _drawing(
            figures.tangent_curves(histories),
            "Fraction of elements on the tangent over the epochs",
            "Fraction of elements with an error above 1&nbsp;&minus;&nbsp;eps, in the last batch "
            "of each epoch. There the amplification continues as a straight line, its tangent. For "
            "a plain loss: the elements that would be there if it were amplified.",
        )
    else:
        tangent = (
            "<p>No element was on the tangent of the amplification in the last batch of any epoch, "
            "that is, none had an error above 1&nbsp;&minus;&nbsp;eps. Where all errors are small, "
            "amplification hardly changes them.</p>\n"
        )
    return f'<div class="pair">{losses}{tangent}</div>\n'


def _drawing(figure: Figure, alternative: str, caption: str) -> str:
    return picture(figures.encode(figure, "svg"), "svg+xml", alternative, caption)


def landscape(folder: Path) -> str:
    """What landscape.py wrote into the run folder; empty if it wrote nothing."""
    tables = landscapes.read_tables(folder)
    if not tables:
        return ""
    caption = (
        "The training loss around the trained weights: on the plane of two random directions, and "
        "along several. A step of 1 is as long as the weights themselves. The planes in a row "
        "share a logarithmic color scale."
    )
    content = (folder / landscapes.PICTURE).read_bytes()
    return picture(content, "png", "Loss landscapes", caption, "large") + "".join(
        html_table(each.heads, each.rows) + f'<p class="note">{escape(each.caption)}</p>\n'
        for each in tables
    )


# --- settings -----------------------------------------------------------------------------------


def settings(metrics: Mapping[str, Any]) -> str:
    """The command line, configuration and environment."""
    words = " ".join(
        f"<span>{escape(shlex.join(group))}</span>" for group in command(metrics["config"])
    )
    lists = "".join(
        definitions(title, metrics[title.lower()]) for title in ("Config", "Scoring", "Environment")
    )
    return f'<pre>{words}</pre>\n<div class="settings">{lists}</div>\n'


def command(config: Mapping[str, Any]) -> list[list[str]]:
    """The command line that repeats this run, in groups of an option and its values.

    It names another folder, because a run is never overwritten.
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
    """Write the report of the run folder given as the only argument."""
    if len(arguments) != 1:
        print("usage: python -m uad.report RUN", file=sys.stderr)
        return 2
    try:
        print(write_report(Path(arguments[0])))
    except RunFolderError as error:
        print(f"uad.report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
