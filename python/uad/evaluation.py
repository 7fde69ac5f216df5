"""Anomaly maps, image scores, and how well they agree with the ground truth.

Nothing here depends on the training loss: every network is evaluated the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn import metrics
from torch import Tensor, nn

from lamp_kernels import functional
from uad.checkpoint import atomic_write
from uad.data import GOOD, AnomalyData, to_unit
from uad.options import Scoring

PRO_LIMIT = 0.3
"""False-positive rate up to which the per-region overlap counts, as usual for MVTec AD."""

EXAMPLES = 12
"""Approximate number of test images in a report."""


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


def anomaly_map(reconstruction: Tensor, original: Tensor, scoring: Scoring) -> Tensor:
    """The maps of a batch, float32 (N, H, W), given images (N, C, H, W) in [0, 1]."""
    return functional.anomaly_map(
        reconstruction,
        original,
        metric=scoring.metric,
        channel_reduction="mean",
        smooth_sigma=scoring.smooth_sigma,
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
    per_kind: all of these for the images of each defect kind together with all normal images.

    An undefined figure is None: without masks, without both classes, or for an infinite PSNR.
    Raises ValueError for a map or score that is not finite.
    """
    _check_finite("anomaly map", maps.flatten(1).isfinite().all(dim=1), data.kinds)
    _check_finite("score", scores.isfinite(), data.kinds)
    kinds = np.array(data.kinds)
    masks = None if data.masks is None else data.masks.numpy()
    weights = None if masks is None else region_weights(masks)

    def figures(chosen: NDArray[np.bool_]) -> dict[str, float | None]:
        result = image_figures(kinds[chosen] != GOOD, scores.numpy()[chosen])
        if masks is None or weights is None:
            return result | {"pixel_auroc": None, "pixel_ap": None, "aupro": None}
        return result | pixel_figures(maps.numpy()[chosen], masks[chosen], weights[chosen])

    normal = kinds == GOOD
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


def choose_examples(kinds: Sequence[str]) -> list[int]:
    """Indices of about `EXAMPLES` images, the same number of each kind, normal ones first.

    The choice depends on the positions alone, not on the scores. It is spread over each kind,
    because test sets are sorted by category, and shifted from kind to kind, so that the categories
    take turns.
    """
    names = [name for name in (GOOD, *defect_kinds(kinds)) if name in kinds][:EXAMPLES]
    indices = []
    for number, name in enumerate(names):
        places = [index for index, kind in enumerate(kinds) if kind == name]
        count = min(max(1, EXAMPLES // len(names)), len(places))
        shift = (number + 0.5) / len(names)
        indices += [places[int((each + shift) * len(places) / count)] for each in range(count)]
    return indices


def save_examples(path: Path, data: AnomalyData, indices: Sequence[int]) -> None:
    """Write the chosen test images with their masks and kinds to `path`, examples.npz."""
    chosen = list(indices)
    arrays: dict[str, Any] = {
        "originals": data.test[chosen].numpy(),
        "kinds": np.array([data.kinds[index] for index in chosen]),
        "indices": np.array(chosen),
    }
    if data.masks is not None:
        arrays["masks"] = data.masks[chosen].numpy()
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def save_evaluation(
    path: Path,
    reconstructions: Tensor,
    maps: Tensor,
    scores: Tensor,
    data: AnomalyData,
    indices: Sequence[int],
) -> None:
    """Write all scores, and the reconstructions and maps of the examples, to `path`.

    reconstructions, maps, scores: for all test images. path: <loss>/evaluation.npz.
    """
    chosen = list(indices)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            scores=scores.numpy(),
            kinds=np.array(data.kinds),
            reconstructions=reconstructions[chosen].numpy(),
            maps=maps[chosen].numpy(),
        )
