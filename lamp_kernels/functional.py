"""The losses, and what networks are evaluated with, as functions.

Each function turns its options into a checked `LossSpec`; `lamp_kernels.losses` does the rest.
Images are (N, C, H, W) for SSIM and GMS, (N, C, D, H, W) with spatial_dims=3, and any (N, ...) for
pointwise losses, with values in [0, data_range]; features (N, C, ...) for the cosine loss.
`data_range` is one number, or a tensor (N,) with one range per image, without a gradient; `mask` is
that of `AmplifiedSSIMLoss`.

Every function raises a TypeError or ValueError that names the argument and its value before any
work is done: for tensors that differ in shape, device or (outside autocast) dtype, images too small
for the window, options out of range, and weights that do not broadcast or that require grad. NaN
and infinity in the data reach the result.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lamp_kernels import losses, reference
from lamp_kernels import ms_ssim as multiscale
from lamp_kernels.anomaly import anomaly_map, anomaly_score
from lamp_kernels.checks import check_choice
from lamp_kernels.signatures import by_name
from lamp_kernels.spec import (
    COEFFICIENTS,
    DEFAULTS,
    SCALE_WEIGHTS,
    SIMILARITY,
    Amplification,
    Dissimilarity,
    Level,
    LossSpec,
    Padding,
    Reduction,
    Term,
    check_scale_weights,
    check_terms,
)
from lamp_kernels.tensors import Images
from lamp_kernels.validation import check_float_tensor, split_range
from lamp_kernels.windows import Window

__all__ = [
    "amplified_charbonnier_loss",
    "amplified_cosine_loss",
    "amplified_gms_loss",
    "amplified_l1_loss",
    "amplified_ms_ssim_loss",
    "amplified_mse_loss",
    "amplified_msgms_loss",
    "amplified_reconstruction_loss",
    "amplified_ssim_loss",
    "amplify",
    "anomaly_map",
    "anomaly_score",
    "gms",
    "ms_ssim",
    "msgms",
    "ssim",
]

SSIM, MSE, L1 = (Term("ssim"),), (Term("mse"),), (Term("l1"),)
CHARBONNIER = (Term("charbonnier"),)
GMS, MSGMS = (Term("gms"),), (Term("msgms"),)
COSINE = (Term("cosine"),)


def amplify(
    loss: Tensor,
    amplification: Amplification = DEFAULTS.amplification,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
) -> Tensor:
    """Amplify any elementwise loss: A(L) = -log1p(-L), continued by its tangent above 1 - eps.

    This brings LAMP to your own metric: compute its loss element by element, scaled so that 1 is a
    completely wrong element, amplify, then take the mean. Differentiable.

    Args:
        loss: floating tensor of any shape, dimensionless; 0 is perfect, 1 completely wrong. Values
            above 1 are allowed; "log" continues on its tangent.
        amplification: "log"; "power" for A(L) = (L + delta)^gamma - delta^gamma; or "none" for
            A(L) = L.
        eps: for "log": the tangent starts at 1 - eps and has the slope 1/eps. 1e-6 <= eps < 1.
        gamma, delta: for "power"; 1e-3 <= gamma <= 8, 1e-3 <= delta <= 1e3.

    Returns:
        Tensor of the same shape; float32 for half types.

    Raises:
        TypeError: loss is not a floating tensor, or an option is of the wrong type.
        ValueError: an option is out of range.

    Source: the idea is the paper's (arXiv 2308.14595), which amplifies "any reconstruction error
    metric"; its equation was not available to us. The form -log(1 - L) is from the first author's
    earlier public code for anomaly detection. The tangent and eps are ours, and so is "power".

    Example:
        >>> amplify(torch.tensor([0.0, 0.5]))
        tensor([0.0000, 0.6931])
    """
    check_float_tensor("loss", loss)
    spec = LossSpec(amplification=amplification, eps=eps, gamma=gamma, delta=delta).checked()
    return reference.amplify(loss, spec)


@by_name
def amplified_ssim_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    padding: Padding = DEFAULTS.padding,
    spatial_dims: Literal[2, 3] = DEFAULTS.spatial_dims,
    dissimilarity: Dissimilarity = DEFAULTS.dissimilarity,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified SSIM loss. See `AmplifiedSSIMLoss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        SSIM, common, window_size, sigma, k1, k2, padding, dissimilarity,
        window=window, spatial_dims=spatial_dims,
        amplification=amplification, eps=eps, gamma=gamma, delta=delta, amplify_over=amplify_over,
        reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_mse_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified squared error. See `AmplifiedMSELoss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        MSE, common, amplification=amplification, eps=eps, gamma=gamma, delta=delta,
        amplify_over=amplify_over, reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_l1_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified absolute error. See `AmplifiedL1Loss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        L1, common, amplification=amplification, eps=eps, gamma=gamma, delta=delta,
        amplify_over=amplify_over, reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_charbonnier_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    charbonnier_epsilon: float = DEFAULTS.charbonnier_epsilon,
    data_range: float | Tensor = DEFAULTS.data_range,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified Charbonnier loss. See `AmplifiedCharbonnierLoss` for formula, options, errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        CHARBONNIER, common, charbonnier_epsilon=charbonnier_epsilon,
        amplification=amplification, eps=eps, gamma=gamma, delta=delta, amplify_over=amplify_over,
        reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_reconstruction_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    ssim: float = COEFFICIENTS["ssim"],
    mse: float = COEFFICIENTS["mse"],
    l1: float = COEFFICIENTS["l1"],
    charbonnier: float = COEFFICIENTS["charbonnier"],
    gms: float = COEFFICIENTS["gms"],
    msgms: float = COEFFICIENTS["msgms"],
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    padding: Padding = DEFAULTS.padding,
    spatial_dims: Literal[2, 3] = DEFAULTS.spatial_dims,
    dissimilarity: Dissimilarity = DEFAULTS.dissimilarity,
    charbonnier_epsilon: float = DEFAULTS.charbonnier_epsilon,
    gms_constant: float = DEFAULTS.gms_constant,
    gms_scales: int = DEFAULTS.gms_scales,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Weighted sum of amplified terms. See `AmplifiedReconstructionLoss` for all else."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        check_terms(
            {
                "ssim": ssim, "mse": mse, "l1": l1, "charbonnier": charbonnier, "gms": gms,
                "msgms": msgms,
            }
        ),
        common, window_size, sigma, k1, k2, padding, dissimilarity,
        window=window, spatial_dims=spatial_dims, gms_constant=gms_constant, gms_scales=gms_scales,
        charbonnier_epsilon=charbonnier_epsilon, amplification=amplification, eps=eps,
        gamma=gamma, delta=delta, amplify_over=amplify_over, reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_ms_ssim_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    padding: Padding = DEFAULTS.padding,
    dissimilarity: Dissimilarity = DEFAULTS.dissimilarity,
    scale_weights: Sequence[float] = SCALE_WEIGHTS,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified MS-SSIM loss. See `AmplifiedMSSSIMLoss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        SSIM, common, window_size, sigma, k1, k2, padding, dissimilarity, window=window,
        amplification=amplification, eps=eps, gamma=gamma, delta=delta, amplify_over=amplify_over,
        reduction=reduction, scale_weights=check_scale_weights(scale_weights),
    ).checked()  # fmt: skip
    return multiscale.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_gms_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    gms_constant: float = DEFAULTS.gms_constant,
    data_range: float | Tensor = DEFAULTS.data_range,
    padding: Padding = DEFAULTS.padding,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified GMS loss. See `AmplifiedGMSLoss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        GMS, common, padding=padding, gms_constant=gms_constant,
        amplification=amplification, eps=eps, gamma=gamma, delta=delta, amplify_over=amplify_over,
        reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_msgms_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    gms_constant: float = DEFAULTS.gms_constant,
    gms_scales: int = DEFAULTS.gms_scales,
    data_range: float | Tensor = DEFAULTS.data_range,
    padding: Padding = DEFAULTS.padding,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified MSGMS loss. See `AmplifiedMSGMSLoss` for formula, options, shapes and errors."""
    common, ranges = split_range(data_range)
    spec = LossSpec(
        MSGMS, common, padding=padding, gms_constant=gms_constant, gms_scales=gms_scales,
        amplification=amplification, eps=eps, gamma=gamma, delta=delta, amplify_over=amplify_over,
        reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask, ranges), backend)


@by_name
def amplified_cosine_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    cosine_epsilon: float = DEFAULTS.cosine_epsilon,
    amplification: Amplification = DEFAULTS.amplification,
    amplify_over: Level = DEFAULTS.amplify_over,
    eps: float = DEFAULTS.eps,
    gamma: float = DEFAULTS.gamma,
    delta: float = DEFAULTS.delta,
    reduction: Reduction = DEFAULTS.reduction,
    backend: str | None = None,
) -> Tensor:
    """Amplified cosine distance. See `AmplifiedCosineLoss` for formula, options, shapes, errors."""
    spec = LossSpec(
        COSINE, cosine_epsilon=cosine_epsilon, amplification=amplification, eps=eps, gamma=gamma,
        delta=delta, amplify_over=amplify_over, reduction=reduction,
    ).checked()  # fmt: skip
    return losses.loss(spec, Images(input, target, weight, mask), backend)


@by_name
def ssim(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    padding: Padding = SIMILARITY.padding,
    spatial_dims: Literal[2, 3] = DEFAULTS.spatial_dims,
    reduction: Literal["mean", "image", "none"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """Structural similarity itself, 1 for equal images, never above 1. Differentiable.

    The defaults are those of scikit-image's Gaussian SSIM with population covariance, of
    pytorch-msssim and of kornia's `padding="valid"`.

    Args:
        input, target: images (N, C, H, W) with values in [0, data_range], or volumes
            (N, C, D, H, W) with spatial_dims=3.
        mask: as in `AmplifiedSSIMLoss`; the mean is over what is not masked, and the map is 1 where
            the mask is 0.
        data_range: R, the distance between the smallest and the largest possible value; one
            number, or a tensor (N,).
        window: "gaussian", "uniform", or the taps along one axis.
        window_size: side of the window in pixels, odd, 1 to 31.
        sigma: standard deviation of the Gaussian window in pixels.
        k1, k2: the constants in C1 = (k1 R)^2 and C2 = (k2 R)^2.
        padding: "valid", "reflect" or "zeros", as in `AmplifiedSSIMLoss`.
        reduction: "mean" over everything, "image" for (N,), "none" for the map (N, C, H', W').
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        Tensor in [-1, 1], dimensionless; float32, or float64 for float64 images. The mean of an
        empty batch is 1.

    Raises:
        TypeError, ValueError: like all functions of this module.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, in the difference form of
    `lamp_kernels.reference`.
    """
    check_choice("reduction", reduction, ("mean", "image", "none"))
    common, ranges = split_range(data_range)
    spec = SIMILARITY.replace(
        data_range=common, window=window, spatial_dims=spatial_dims,
        window_size=window_size, sigma=sigma, k1=k1, k2=k2, padding=padding, reduction=reduction,
    ).checked()  # fmt: skip
    return 1.0 - losses.loss(spec, Images(input, target, None, mask, ranges), backend)


@by_name
def ms_ssim(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    padding: Padding = SIMILARITY.padding,
    scale_weights: Sequence[float] = SCALE_WEIGHTS,
    reduction: Literal["mean", "image"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """Multi-scale structural similarity itself, 1 for equal images, never above 1. Differentiable.

    The product over the scales of (mean contrast-structure term)^weight, at the last scale (mean
    SSIM)^weight, for each channel; then the mean over channels. Each scale halves the sides. The
    defaults are those of pytorch-msssim.

    Args:
        input, target: images (N, C, H, W) with values in [0, data_range]. "valid"
            with the default window and scales requires sides of at least 161 pixels, "reflect" 81.
        mask, data_range, window, window_size, sigma, k1, k2, padding: as in `ssim`.
        scale_weights: the exponents, >= 0, dimensionless, fine to coarse, one per scale.
        reduction: "mean" over everything, or "image" for (N,).
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        Tensor in [0, 1], dimensionless; float32, or float64 for float64 images. A channel that is
        negative at some scale counts as 0, with a gradient of 0. The mean of an empty batch is 1.

    Raises:
        TypeError, ValueError: like all functions of this module.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003. See `lamp_kernels.ms_ssim`.
    """
    check_choice("reduction", reduction, ("mean", "image"))
    common, ranges = split_range(data_range)
    spec = SIMILARITY.replace(
        data_range=common, window=window, window_size=window_size, sigma=sigma, k1=k1, k2=k2,
        padding=padding, reduction=reduction, scale_weights=check_scale_weights(scale_weights),
    ).checked()  # fmt: skip
    return 1.0 - multiscale.loss(spec, Images(input, target, None, mask, ranges), backend)


@by_name
def gms(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    gms_constant: float = DEFAULTS.gms_constant,
    padding: Padding = DEFAULTS.padding,
    reduction: Literal["mean", "image", "none"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """Gradient magnitude similarity (GMS) of each channel, 1 for equal images. Differentiable.

    (2 a b + c)/(a^2 + b^2 + c), a and b the magnitudes of the images' gradients under the 3 x 3
    Prewitt operator.

    Args:
        input, target: images (N, C, H, W) with values in [0, data_range].
        mask: as in `AmplifiedGMSLoss`; the mean is over the positions that see no masked pixel, and
            the map is 1 at the others.
        data_range: R, the distance between the smallest and the largest possible value; one
            number, or a tensor (N,).
        gms_constant: c, in units of data_range^2, 1e-12 to 1e6.
        padding: "reflect", "valid" or "zeros", as in `AmplifiedGMSLoss`.
        reduction: "mean" over everything, "image" for (N,), "none" for the map (N, C, H', W').
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        Tensor in [0, 1], dimensionless; float32, or float64 for float64 images. The mean of an
        empty batch is 1.

    Raises:
        TypeError, ValueError: like all functions of this module.

    Source: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation: a highly efficient
    perceptual image quality index", IEEE TIP 23(2), 2014. They first average over 2 x 2 pixels
    and take the luminance; do so before the call to compare.
    """
    check_choice("reduction", reduction, ("mean", "image", "none"))
    common, ranges = split_range(data_range)
    spec = LossSpec(
        GMS, common, padding=padding, gms_constant=gms_constant,
        amplification="none", reduction=reduction,
    ).checked()  # fmt: skip
    return 1.0 - losses.loss(spec, Images(input, target, None, mask, ranges), backend)


@by_name
def msgms(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    data_range: float | Tensor = DEFAULTS.data_range,
    gms_constant: float = DEFAULTS.gms_constant,
    gms_scales: int = DEFAULTS.gms_scales,
    padding: Padding = DEFAULTS.padding,
    reduction: Literal["mean", "image"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """Multi-scale gradient magnitude similarity: the mean of `gms` over scales. Differentiable.

    Each further scale averages the previous one over 2 x 2 pixels. See `lamp_kernels.gms`.

    Args:
        input, target: images (N, C, H, W) with values in [0, data_range]. "reflect" with four
            scales requires sides of at least 9 pixels, "valid" 17.
        mask, data_range, gms_constant, padding: as in `gms`.
        gms_scales: the number of scales, 1 to 16.
        reduction: "mean" over everything, or "image" for (N,).
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        Tensor in [0, 1], dimensionless; float32, or float64 for float64 images. The mean of an
        empty batch is 1.

    Raises:
        TypeError, ValueError: like all functions of this module.

    Source: Zavrtanik, Kristan, Skocaj, "Reconstruction by inpainting for visual anomaly
    detection" (RIAD), Pattern Recognition 112, 2021.
    """
    check_choice("reduction", reduction, ("mean", "image"))
    common, ranges = split_range(data_range)
    spec = LossSpec(
        MSGMS, common, padding=padding, gms_constant=gms_constant, gms_scales=gms_scales,
        amplification="none", reduction=reduction,
    ).checked()  # fmt: skip
    return 1.0 - losses.loss(spec, Images(input, target, None, mask, ranges), backend)
