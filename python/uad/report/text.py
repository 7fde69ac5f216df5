"""The paragraphs of a report that describe the run, compare the losses, and repeat the run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from uad.data import GOOD
from uad.evaluation import auroc_resamples
from uad.options import ERROR_NAMES
from uad.report.run import Run
from uad.report.tables import definitions
from uad.wording import bold, counted, four_digits, listing, rounded


def summary(metrics: Mapping[str, Any]) -> str:
    """What was trained on which data, and how the arms differ."""
    data, config, arms = metrics["data"], metrics["config"], metrics["arms"]
    channels, height, width = data["size"]
    parameters = next(iter(arms.values()))["parameters"]
    names = listing([bold(arm) for arm in arms])
    losses = f"with the training losses {names}. Only the training loss differs: initial weights "
    losses += "and the batches of images were the same each time."
    if len(arms) == 1:
        losses = f"with the training loss {names}."
    inpaint = config.get("inpaint")
    task = "reconstruct" if inpaint is None else "fill in hidden squares of"
    text = (
        f"<p>A convolutional autoencoder with {parameters:,} parameters was trained "
        f"to {task} {data['train']:,} normal {'gray' if channels == 1 else 'color'} images of "
        f"{width}&times;{height} pixels, {losses} {_tested_on(data)}</p>\n"
    )
    if inpaint is not None:
        text += f"<p>{inpainting(inpaint, config['inpaint_loss'])}</p>\n"
    if data.get("found"):
        text += f"<p>Data: {escape(data['found'])}</p>\n"
    text += f"<p>{escape(data['note'])}</p>\n<p>{scoring(metrics['scoring'])}</p>\n"
    if any(arm.startswith("amplified-") for arm in arms):
        text += (
            "<p>An amplified loss replaces the error <i>L</i> of each "
            f"{escape(config['amplify_over'])} by &minus;log(1&nbsp;&minus;&nbsp;<i>L</i>), which "
            "hardly changes small errors and gives large ones more and more weight. This is the "
            "idea of LAMP (arXiv 2308.14595).</p>\n"
        )
    missing = [arm for arm in config.get("compare") or () if arm not in arms]
    if missing:
        text += f"<p>Not finished yet: {listing([bold(arm) for arm in missing])}.</p>\n"
    return text


def inpainting(square: int, counted_pixels: str) -> str:
    """How the network inpaints."""
    counts = "all pixels" if counted_pixels == "all" else "the hidden pixels only"
    return (
        f"A third of the squares of {square}&times;{square} pixels, chosen at random, was hidden "
        f"in each training image; the loss counts {counts}. A test image is reconstructed in three "
        "parts, each hidden while the network infers it from the rest."
    )


def _tested_on(data: Mapping[str, Any]) -> str:
    """The sentence about the test images."""
    held_out = data.get("held_out", 0)
    parts = []
    if data["test_normal"]:
        parts.append(counted(data["test_normal"], "other normal image"))
    if data["test_anomalous"]:
        kinds = listing([escape(kind) for kind in data["kinds"] if kind != GOOD])
        parts.append(f"{counted(data['test_anomalous'], 'anomalous image')} ({kinds})")
    text = f"It was tested on {listing(parts)}."
    if held_out:
        share = "All" if held_out == data["test_normal"] else f"{held_out:,}"
        text += f" {share} of the normal ones were held out from the training images."
    return text


def scoring(options: Mapping[str, Any]) -> str:
    """How maps and scores are computed."""
    count = options["topk"]
    top = f"{count} pixels" if isinstance(count, int) else f"{100 * count:.3g}% of the pixels"
    pooled = {"max": "maximum of", "mean": "mean of", "topk": f"mean over the worst {top} of"}
    side, sigma = options.get("mean_filter", 0), options["smooth_sigma"]
    filters = [f"averaged over {side}x{side} pixels"] if side > 1 else []
    filters += [f"smoothed with a Gaussian of sigma {sigma:g} pixels"] if sigma else []
    smoothed = f", {listing(filters)}" if filters else ""
    return (
        "The worse an image is reconstructed, the more anomalous it is considered. Its anomaly map "
        f"is the {ERROR_NAMES[options['metric']]} of its reconstruction{smoothed}. "
        f"Its score is the {pooled[options['pooling']]} the map."
    )


def findings(run: Run) -> str:
    """By how much the best arm leads the others, and how reliable that is."""
    if len(run.aurocs) < 2:
        return ""
    best, *ties = run.leaders
    resamples = {arm: auroc_resamples(run.anomalous, run.scores[arm]) for arm in run.arms}
    leads, clear = [], True
    for arm in run.arms:
        if arm == best:
            continue
        low, high = np.quantile(resamples[best] - resamples[arm], (0.025, 0.975))
        clear = clear and rounded(low) > 0
        interval = f"({four_digits(low)} to {four_digits(high)})"
        if arm in ties:
            leads.append(f"equals {bold(arm)} to four digits {interval}")
        else:
            lead = run.aurocs[best] - run.aurocs[arm]
            leads.append(f"leads {bold(arm)} by {four_digits(lead)} {interval}")
    verdict = (
        f"On these test images {bold(best)} is better than every other loss"
        if clear
        else "Where an interval contains 0, even these test images do not show which loss is better"
    )
    return (
        f"<p>In image AUROC, {bold(best)} {listing(leads)}. The brackets hold the 95% interval of "
        f"the difference from resampling the test images. {verdict}. This is <b>one run with one "
        "seed</b>: another seed may reverse any order.</p>\n"
    )


def masks_note(run: Run) -> str:
    """How many anomalous images the pixel figures are about, if not about all of them."""
    evaluation = next(iter(run.arms.values()))["evaluation"]
    total = evaluation["count_anomalous"]
    known = evaluation.get("count_masks", total)
    if evaluation["pixel_auroc"] is None or known == total:
        return ""
    return (
        f"<p>Masks: {known:,} of {counted(total, 'anomalous image')}. Pixel AUROC and AUPRO leave "
        "out the anomalous images without a mask; all other figures cover all images.</p>\n"
    )


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
