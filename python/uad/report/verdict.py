"""The first paragraph of a report: what people must know before they use a result."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from uad import threshold_words
from uad.baselines import MEAN_IMAGE
from uad.data import GOOD
from uad.evaluation import auroc_interval
from uad.report.convergence import ENOUGH_EPOCHS, NOTABLE_SLOPE, epochs_used, trend
from uad.report.run import Run, image_aurocs
from uad.wording import asked_percent, bold, counted, four_digits, listing, percent, sentence

SAME_PICTURE = 0.01
"""Variance between the reconstructions of different normal images, as a fraction of the variance
between the images, below which a network is said to ignore its input."""

ADVICE = "Train longer (--epochs), or change --lr or the loss."


def verdict(run: Run) -> str:
    """The results in a sentence or two, then a list of what speaks against them."""
    warnings = [
        same_pictures(run),
        worse_than_mean(run),
        convergence(run),
        weaker_arms(run),
        too_few_images(run),
        *(f"Data: {escape(text)}." for text in run.metrics["data"].get("notices") or ()),
    ]
    items = "".join(f"<li>{warning}</li>\n" for warning in warnings if warning)
    return (
        f'<div class="verdict">\n<p class="lead">{lead(run)}</p>\n'
        + (f"<ul>\n{items}</ul>\n" if items else "")
        + "</div>\n"
    )


def lead(run: Run) -> str:
    """What the run shows about detection."""
    if run.good_only:
        threshold = next(iter(run.thresholds.values()))
        return (
            f"<b>This run cannot tell how well defects are detected</b>: all "
            f"{counted(threshold.count, 'test image')} are normal. It does provide a threshold: "
            f"{threshold_words.expected_rate(threshold)} ({threshold_words.interval(threshold)}). "
            "The report lists the images needed to measure detection."
        )
    if not run.aurocs:
        return (
            "<b>This run has neither an AUROC nor a threshold</b>: all "
            f"{counted(len(run.anomalous), 'test image')} are anomalous. Both require normal test "
            "images."
        )
    return f"{_best(run)} {_against_baselines(run)}{_at_threshold(run)}"


def _best(run: Run) -> str:
    leaders, auroc = run.leaders, max(run.aurocs.values())
    names = listing([bold(arm) for arm in leaders])
    if len(run.arms) == 1:
        text = f"{names} reaches an image AUROC of {four_digits(auroc)}"
    elif len(leaders) == 1:
        text = f"{names} has the highest image AUROC, {four_digits(auroc)}"
    else:
        text = f"{names} have the same highest image AUROC to four digits, {four_digits(auroc)}"
    low, high = _interval(run, auroc)
    text += f" (95% interval {four_digits(low)} to {four_digits(high)})"
    return text + f".{' That is no better than guessing.' if low <= 0.5 else ''}"


def _interval(run: Run, auroc: float) -> tuple[float, float]:
    anomalous = int(run.anomalous.sum())
    return auroc_interval(auroc, anomalous, len(run.anomalous) - anomalous)


def _half_width(run: Run, auroc: float) -> float:
    low, high = _interval(run, auroc)
    return (high - low) / 2


def _against_baselines(run: Run) -> str:
    aurocs, auroc = image_aurocs(run.baselines), max(run.aurocs.values())
    if not aurocs:
        return ""
    shown = {name: f"{name} ({four_digits(value)})" for name, value in aurocs.items()}
    ahead = [name for name, value in aurocs.items() if auroc > value]
    behind = [shown[name] for name in aurocs if name not in ahead]
    equal = [shown[name] for name, value in aurocs.items() if value == auroc]
    pronoun = "It" if len(run.leaders) == 1 else "They"
    if behind and behind == equal:
        verb = "is" if pronoun == "It" else "are"
        need = "requires" if len(equal) == 1 else "require"
        text = f"{pronoun} {verb} <b>no better than</b> the {' or the '.join(equal)}, which {need} "
        text += "no network at all. "
        if auroc == 1:
            text += "These test images cannot tell them apart: test with defects that are harder. "
        return text
    if behind:
        verb = "does" if pronoun == "It" else "do"
        return (
            f"{pronoun} {verb} <b>not beat</b> the {' or the '.join(behind)}, which "
            f"{'requires' if len(behind) == 1 else 'require'} no network at all. "
        )
    verb = "beats" if pronoun == "It" else "beat"
    text = f"{pronoun} {verb} the baselines, {listing([shown[name] for name in ahead])}"
    unsure = [
        name
        for name in ahead
        if auroc - aurocs[name] <= max(_half_width(run, auroc), _half_width(run, aurocs[name]))
    ]
    if unsure:
        text += (
            f", but the lead over the {' and the '.join(unsure)} is smaller than the uncertainty "
            "that so few test images leave"
        )
    return text + ". "


def _at_threshold(run: Run) -> str:
    total = int(run.anomalous.sum())
    found = [
        f"{bold(arm)} detects {int(run.detected(arm)[run.anomalous].sum()):,}"
        for arm in run.leaders
    ]
    return (
        f"At the threshold for a false-positive rate of {asked_percent(run.rate)}, "
        f"{listing(found)} of {counted(total, 'anomalous image')}."
    )


def weaker_arms(run: Run) -> str:
    """Losses other than the best that do not beat a baseline."""
    baselines, texts = image_aurocs(run.baselines), []
    for arm, auroc in run.aurocs.items():
        unbeaten = [
            f"{name} ({four_digits(value)})" for name, value in baselines.items() if auroc <= value
        ]
        if unbeaten and arm not in run.leaders:
            texts.append(
                f"{bold(arm)} ({four_digits(auroc)}) does not beat the {' or the '.join(unbeaten)}"
            )
    return f"Image AUROC: {'; '.join(texts)}." if texts else ""


def same_pictures(run: Run) -> str:
    """Networks whose reconstructions hardly depend on the image."""
    if not (names := constant_arms(run)):
        return ""
    return (
        f"{listing([bold(arm) for arm in names])}: the network returns nearly <b>the same picture "
        "for every image</b>, so a score only says how far an image is from that picture. "
        f"{ADVICE}"
    )


def constant_arms(run: Run) -> list[str]:
    """Arms with less than `SAME_PICTURE` of the variance between normal images."""
    normal = run.examples["kinds"] == GOOD
    images = _variance(run.examples["originals"][normal])
    return [
        arm
        for arm, arrays in run.evaluations.items()
        if _variance(arrays["reconstructions"][normal]) < SAME_PICTURE * images
    ]


def _variance(images: NDArray[np.uint8]) -> float:
    """Variance of a pixel between images, (K, C, H, W), averaged over the pixels."""
    return float(images.astype(np.float32).var(axis=0).mean()) if len(images) > 1 else 0.0


def worse_than_mean(run: Run) -> str:
    """Networks that reconstruct normal images worse than their mean does."""
    mean = (run.baselines.get(MEAN_IMAGE) or {}).get("psnr_normal")
    if mean is None:
        return ""
    psnr = {arm: each["evaluation"]["psnr_normal"] for arm, each in run.arms.items()}
    worse = [
        f"{bold(arm)} ({value:.1f} dB)"
        for arm, value in psnr.items()
        if value is not None
        and round(value, 1) <= round(mean, 1)
        and arm not in constant_arms(run)  # which says it already
    ]
    if not worse:
        return ""
    return (
        f"Normal images are reconstructed <b>no better than by the mean training image</b> (PSNR "
        f"{mean:.1f} dB) by {listing(worse)}: the network has not learned what these images look "
        f"like. {ADVICE}"
    )


def convergence(run: Run) -> str:
    """Losses that still change at the end of the training, or too few epochs to tell."""
    histories = {arm: each["history"]["loss"] for arm, each in run.arms.items()}
    trends = {arm: trend(losses) for arm, losses in histories.items()}
    known = {arm: value for arm, value in trends.items() if value is not None}
    epochs = max(map(len, histories.values()))
    falling = [
        f"{bold(arm)} by {percent(-value)}"
        for arm, value in known.items()
        if value < -NOTABLE_SLOPE
    ]
    rising = [
        f"{bold(arm)} by {percent(value)}" for arm, value in known.items() if value > NOTABLE_SLOPE
    ]
    longer = f"repeat the command with --resume and --epochs {2 * epochs}"
    texts = []
    if falling:
        texts.append(
            f"The training loss <b>still falls</b> at the end, per epoch over the last "
            f"{epochs_used(epochs)} epochs: {listing(falling)}. Train longer: {longer}."
        )
    if rising:
        texts.append(
            f"The training loss <b>rises</b> at the end, per epoch over the last "
            f"{epochs_used(epochs)} epochs: {listing(rising)}. Try a smaller --lr."
        )
    if not texts and epochs < ENOUGH_EPOCHS:
        texts.append(
            f"It takes at least {ENOUGH_EPOCHS} epochs to tell whether the training has converged; "
            f"this run has {epochs}. To train longer, {longer}."
        )
    return " ".join(texts)


def too_few_images(run: Run) -> str:
    """A false-positive rate that the normal test images cannot promise."""
    unmet = [threshold for threshold in run.thresholds.values() if not threshold.met]
    return sentence(threshold_words.too_few_images(unmet[0])) if unmet else ""
