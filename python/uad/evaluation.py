"""Anomaly maps, image scores, and how well they agree with the ground truth.

Nothing here depends on the training loss: every network is evaluated the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize
from sklearn import metrics
from torch import Tensor, nn

from lamp_kernels import functional
from uad.data import GOOD, AnomalyData, to_unit
from uad.options import Scoring

PRO_LIMIT = 0.3
"""False-positive rate up to which the per-region overlap counts, as usual for MVTec AD."""


def anomaly_maps(
    model: nn.Module,
    images: Tensor,
    scoring: Scoring,
    *,
    batch_size: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Reconstructions, uint8 (M, C, H, W), and maps, float32 (M, H, W), both on the CPU.

    images: uint8 (M, C, H, W). The maps are computed before the reconstructions are rounded.
    """
    reconstructions, maps = [], []
    for original, reconstruction in reconstruct(model, images, batch_size, device):
        maps.append(anomaly_map(reconstruction, original, scoring).cpu())
        levels = (reconstruction * 255).round().clamp(0, 255)
        reconstructions.append(levels.to(torch.uint8).cpu())
    return torch.cat(reconstructions), torch.cat(maps)


def anomaly_map(
    reconstruction: Tensor, original: Tensor, scoring: Scoring, backend: str | None = None
) -> Tensor:
    """The maps of a batch, float32 (N, H, W), given images (N, C, H, W) in [0, 1]."""
    return functional.anomaly_map(
        reconstruction,
        original,
        metric=scoring.metric,
        channel_reduction="mean",
        smooth_sigma=scoring.smooth_sigma,
        mean_filter=scoring.mean_filter,
        backend=backend,
    )


def image_scores(maps: Tensor, scoring: Scoring) -> Tensor:
    """One score per image, float32 (M,), from maps (M, H, W); higher is more anomalous."""
    k = scoring.topk if scoring.pooling == "topk" else None
    return functional.anomaly_score(maps, pooling=scoring.pooling, k=k)


def psnr(
    model: nn.Module, images: Tensor, *, batch_size: int, device: torch.device | str
) -> Tensor:
    """Peak signal-to-noise ratio of each reconstruction in dB, float32 (M,), for a peak of 1.

    images: uint8 (M, C, H, W). The value is infinite where the reconstruction is exact.
    """
    errors = [
        (reconstruction - original).square().flatten(1).mean(dim=1).cpu()
        for original, reconstruction in reconstruct(model, images, batch_size, device)
    ]
    return -10 * torch.cat(errors).log10()


def reconstruct(
    model: nn.Module, images: Tensor, batch_size: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of originals in [0, 1] with their reconstructions, float32, on the device.

    Puts the model in evaluation mode, and back into its previous mode at the end.
    """
    training = model.training
    model.eval()
    try:
        for batch in torch.split(images, batch_size):
            original = to_unit(batch.to(device))
            with torch.no_grad():
                reconstruction = model(original)
            yield original, reconstruction.float()
    finally:
        model.train(training)


def evaluate(
    maps: Tensor, scores: Tensor, psnr_normal: Tensor, data: AnomalyData
) -> dict[str, Any]:
    """Figures of merit of maps (M, H, W) and scores (M,) on the test images, ready for JSON.

    psnr_normal: `psnr` of the normal test images; the result holds the mean.

    The result has these entries:
    image_auroc, image_ap: area under the ROC curve and average precision of the scores.
    pixel_auroc, pixel_ap: the same for all pixels of the maps, against the masks.
    aupro: area under the curve of per-region overlap against false-positive rate, up to a rate of
        `PRO_LIMIT` and divided by it. A region is an 8-connected component of a mask; all regions
        count the same, and the rate is taken over all pixels outside the masks.
    count_masks: anomalous images whose mask is known. The three pixel figures above ignore the
        other anomalous images.
    per_kind: all of these for the images of each defect kind together with all normal images.

    An undefined figure is None: without masks, without both classes, or for an infinite PSNR.
    Raises ValueError for a map or score that is not finite.
    """
    _check_finite("anomaly map", maps.flatten(1).isfinite().all(dim=1), data.kinds)
    _check_finite("score", scores.isfinite(), data.kinds)
    kinds = np.array(data.kinds)
    normal = kinds == GOOD
    known = annotated(data)
    masks = None if data.masks is None else data.masks.numpy()
    weights = None if masks is None else region_weights(masks)

    def figures(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        result = image_figures(~normal[chosen], scores.numpy()[chosen])
        if masks is None or weights is None:
            result |= {"pixel_auroc": None, "pixel_ap": None, "aupro": None}
        else:
            usable = chosen & known
            result |= pixel_figures(maps.numpy()[usable], masks[usable], weights[usable])
        return {**result, "count_masks": int((chosen & known & ~normal).sum())}

    mean_psnr = psnr_normal.mean().item() if len(psnr_normal) else math.nan
    return {
        **figures(np.ones_like(normal)),
        "psnr_normal": mean_psnr if math.isfinite(mean_psnr) else None,
        "count_normal": int(normal.sum()),
        "count_anomalous": int((~normal).sum()),
        "per_kind": {
            kind: figures(normal | (kinds == kind)) | {"count": int((kinds == kind).sum())}
            for kind in defect_kinds(data.kinds)
        },
    }


def annotated(data: AnomalyData) -> NDArray[np.bool_]:
    """Which test images have a known mask, (M,)."""
    if data.masks is None or data.annotated is None:
        return np.full(len(data.kinds), data.masks is not None)
    known: NDArray[np.bool_] = data.annotated.numpy()
    return known


def defect_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds that are not normal, in alphabetical order."""
    return sorted(set(kinds) - {GOOD})


def image_figures(
    anomalous: NDArray[np.bool_], scores: NDArray[np.float32]
) -> dict[str, float | None]:
    """image_auroc and image_ap of images (M,); None unless both classes are present."""
    if not _both_classes(anomalous):
        return {"image_auroc": None, "image_ap": None}
    return {
        "image_auroc": float(metrics.roc_auc_score(anomalous, scores)),
        "image_ap": float(metrics.average_precision_score(anomalous, scores)),
    }


def auroc_resamples(
    anomalous: NDArray[np.bool_], scores: NDArray[np.float32], *, resamples: int = 500
) -> NDArray[np.float64]:
    """Image AUROC under a bootstrap of the test images, (resamples,); requires both classes.

    Normal and anomalous images are resampled separately. The resamples are the same for every
    loss, so that differences between losses are paired. AUROC is the fraction of (anomalous,
    normal) pairs in the right order, with ties counting half.
    """
    rng = np.random.default_rng(0)
    bad, good = scores[anomalous], scores[~anomalous]
    ordered = np.heaviside(bad[:, None] - good, 0.5).astype(np.float32)
    counts = [
        rng.multinomial(len(side), np.full(len(side), 1 / len(side)), resamples)
        for side in (bad, good)
    ]
    pairs = (counts[0].astype(np.float32) @ ordered * counts[1]).sum(axis=1)
    resampled: NDArray[np.float64] = pairs / ordered.size
    return resampled


def auroc_half_width(auroc: float, anomalous: int, normal: int) -> float:
    """Half the width of the 95% interval of an AUROC, given the number of images of each class.

    1.96 times the standard error of Hanley and McNeil (The meaning and use of the area under a
    receiver operating characteristic (ROC) curve, Radiology 143, 1982, pages 29 to 36).
    """
    one, other = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc) + (anomalous - 1) * (one - auroc**2) + (normal - 1) * (other - auroc**2)
    ) / (anomalous * normal)
    return 1.96 * math.sqrt(max(variance, 0.0))  # rounding may leave -1e-19 for an AUROC of 1


def auroc_interval(auroc: float, anomalous: int, normal: int) -> tuple[float, float]:
    """The 95% interval of an AUROC, given the number of images of each class.

    The values that the standard error of Hanley and McNeil, taken at the value itself, does not
    exclude. So it stays within 0 and 1, and also an AUROC of 1 has an interval.
    """

    def excess(value: float) -> float:
        return auroc - value - auroc_half_width(value, anomalous, normal)

    def shortfall(value: float) -> float:
        return value - auroc - auroc_half_width(value, anomalous, normal)

    # At 0, 1 and the AUROC itself, the conditions hold by rounding only.
    tiny = 1e-9
    low = optimize.brentq(excess, 0, auroc - tiny) if auroc > tiny else 0.0
    high = optimize.brentq(shortfall, auroc + tiny, 1) if auroc < 1 - tiny else 1.0
    return float(low), float(high)


def region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 / (number of pixels in its region) for each defective pixel, 1 elsewhere; (M, H, W)."""
    neighbors = np.zeros((3, 3, 3), dtype=bool)
    neighbors[1] = True  # 8-connected within an image, not connected from one image to the next
    regions, _ = ndimage.label(masks, structure=neighbors)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 1
    weights: NDArray[np.float64] = (1.0 / sizes)[regions]
    return weights


def pixel_figures(
    maps: NDArray[np.float32], masks: NDArray[np.bool_], weights: NDArray[np.float64]
) -> dict[str, float | None]:
    """pixel_auroc, pixel_ap and aupro of maps (M, H, W); None unless both classes are present.

    weights: `region_weights` of the masks. With these weights the true-positive rate is the
    fraction of a region that is detected, averaged over the regions.
    """
    if not _both_classes(masks):
        return {"pixel_auroc": None, "pixel_ap": None, "aupro": None}
    values, defective, counts, region_share = _merge_normal(maps, masks, weights)
    false_positives, true_positives, _ = metrics.roc_curve(defective, values, sample_weight=counts)
    rate, overlap, _ = metrics.roc_curve(
        defective, values, sample_weight=np.where(defective, region_share, counts)
    )
    return {
        "pixel_auroc": float(metrics.auc(false_positives, true_positives)),
        "pixel_ap": float(metrics.average_precision_score(defective, values, sample_weight=counts)),
        "aupro": area_below(rate, overlap, PRO_LIMIT) / PRO_LIMIT,
    }


def area_below(x: NDArray[Any], y: NDArray[Any], limit: float) -> float:
    """Area under the piecewise linear curve through (x, y), x ascending, from 0 to `limit`."""
    within = x < limit
    return float(
        metrics.auc(np.append(x[within], limit), np.append(y[within], np.interp(limit, x, y)))
    )


def _merge_normal(
    maps: NDArray[np.float32], masks: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[NDArray[Any], ...]:
    """The pixels, with equivalent normal ones merged: values, labels, counts, weights, each (P,).

    Nearly all pixels are normal, and normal pixels that lie between the same two consecutive
    values of defective pixels are equivalent for every figure. They are merged into one pixel with
    a count, and each value is replaced by its rank among the defective pixels. The figures stay
    exactly the same and are computed several times faster.
    """
    order = np.argsort(maps[masks])
    bad, good = maps[masks][order], np.sort(maps[~masks])  # sorting speeds up the search a lot

    def rank(values: NDArray[np.float32]) -> NDArray[np.intp]:
        """A tie with a defective pixel has its rank; a value between two has a rank between."""
        return np.searchsorted(bad, values, "left") + np.searchsorted(bad, values, "right")

    counts = np.bincount(rank(good))
    ranks = counts.nonzero()[0]
    return (
        np.concatenate([rank(bad), ranks]),
        np.arange(len(bad) + len(ranks)) < len(bad),
        np.concatenate([np.ones(len(bad), dtype=np.intp), counts[ranks]]),
        np.concatenate([weights[masks][order], np.ones(len(ranks))]),
    )


def _both_classes(labels: NDArray[np.bool_]) -> bool:
    return bool(labels.any() and not labels.all())


def _check_finite(what: str, finite: Tensor, kinds: Sequence[str]) -> None:
    """Raise ValueError naming the first image for which `finite` (M,) is False."""
    bad = finite.logical_not().nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"the {what} of test image {bad[0]} ({kinds[bad[0]]}) is not finite; {len(bad)} of "
            f"{len(kinds)} images are affected: the network has diverged"
        )
