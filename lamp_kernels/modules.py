"""The losses as `torch.nn` modules: options in the constructor, tensors in the call.

They follow the conventions of `torch.nn.MSELoss`: a `reduction`, no parameters, no buffers, nothing
in the `state_dict`. Options are keyword-only: a positional 11 would be the data range here and the
window size in other packages.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from lamp_kernels import losses
from lamp_kernels import ms_ssim as multiscale
from lamp_kernels.backends import check_request
from lamp_kernels.signatures import by_name, tensors_only
from lamp_kernels.spec import (
    COEFFICIENTS,
    DEFAULTS,
    FIELDS,
    METRICS,
    SCALE_WEIGHTS,
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
from lamp_kernels.windows import Window

__all__ = [
    "AmplifiedCharbonnierLoss",
    "AmplifiedCosineLoss",
    "AmplifiedGMSLoss",
    "AmplifiedL1Loss",
    "AmplifiedMSELoss",
    "AmplifiedMSGMSLoss",
    "AmplifiedMSSSIMLoss",
    "AmplifiedReconstructionLoss",
    "AmplifiedSSIMLoss",
]


class _AmplifiedLoss(_Loss):
    """Keeps the options as attributes of the same names, and the spec made of them.

    The constructor checks the spec. After an option has changed, each call checks a new one.
    """

    _terms: ClassVar[tuple[Term, ...]]
    _loss = staticmethod(losses.loss)
    _count_on_tangent = staticmethod(losses.count_on_tangent)
    _options: tuple[str, ...] = ()
    _spec: LossSpec | None = None
    backend: str | None

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """arguments: the `locals()` of the subclass's constructor: self and the options."""
        options = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
        super().__init__(reduction=options["reduction"])
        for name, value in options.items():
            setattr(self, name, value)
        self._options = tuple(options)
        check_request(self.backend)
        self._spec = self._checked_spec()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._options:
            self._spec = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spec": None}  # other versions have other fields

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # A module pickled by an earlier version lacks the options that are newer.
        parameters = inspect.signature(type(self).__init__).parameters.values()
        options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        for name in options.keys() - self.__dict__.keys():
            setattr(self, name, options[name])
        self._options = tuple(options) or self._options

    def _checked_spec(self) -> LossSpec:
        return LossSpec(**self._fields()).checked()

    def _fields(self) -> dict[str, Any]:
        """The fields of the spec that differ from the defaults, or may."""
        options = {k: getattr(self, k) for k in self._options if k in FIELDS}
        return {"terms": self._terms, **options}

    @tensors_only
    def forward(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        data_range: Tensor | None = None,
    ) -> Tensor:
        images = Images(input, target, weight, mask, data_range)
        return self._loss(self._spec or self._checked_spec(), images, self.backend)

    @torch.no_grad()
    def tangent_share(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        data_range: Tensor | None = None,
    ) -> Tensor:
        """The share of elements with L > 1 - eps, a scalar tensor.

        There the amplification "log" is a straight line of slope 1/eps. Several percent suggest
        that the images do not lie within `data_range`, or that the network is far from them: the
        loss then cannot tell wrong from completely wrong. Elements of weight 0 do not count;
        elements of every term do, for MS-SSIM and MSGMS every position of every scale. The share
        does not depend on what is amplified, nor how. Computes the losses once more, without
        synchronizing with the device.
        """
        spec = self._spec or self._checked_spec()
        images = Images(input, target, weight, mask, data_range)
        calls = [losses.prepare(part, images, self.backend) for part in spec.separated()]
        counts = [torch.stack(self._count_on_tangent(*call)) for call in calls]
        found, counted = torch.stack(counts).sum(0).unbind()
        return found / counted.clamp(min=1)

    def extra_repr(self) -> str:
        own_taps = not isinstance(getattr(self, "window", "gaussian"), str)
        return ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in self._options
            if not (own_taps and name == "window_size")  # the taps say it
        )


class AmplifiedSSIMLoss(_AmplifiedLoss):
    r"""Amplified structural dissimilarity: a replacement for `torch.nn.MSELoss()`.

    For each pixel L = a (1 - SSIM), in a form that is accurate for nearly equal images (see
    `lamp_kernels.reference`); then A(L) = -log1p(-L) up to L = 1 - eps, continued by its tangent;
    then the mean.

    Args:
        data_range: R, the distance between the smallest and the largest possible value. SSIM
            expects images in [0, R]. Rescale others (normalized inputs, no sigmoid) first; see
            README.md, and `check_range`.
        window: "gaussian"; "uniform"; or the taps along one axis, an odd number of them, symmetric
            and at least 0, which are divided by their sum.
        window_size: side of the window in pixels, odd, 1 to 31; leave it out if `window` is taps.
        sigma: standard deviation of the Gaussian window in pixels, positive.
        k1, k2: positive, dimensionless constants; C1 = (k1 R)^2 and C2 = (k2 R)^2.
        padding: the border. "reflect" mirrors the image without repeating the edge pixel, so the
            map has the size of the image (sides > window_size // 2). "valid" uses only windows
            that fit (sides >= window_size); a corner pixel then weighs a millionth of an inner
            one. "zeros" treats everything outside as black.
        spatial_dims: 2 for images (N, C, H, W), 3 for volumes (N, C, D, H, W) with a window in
            three dimensions.
        dissimilarity: "half" for a = 1/2, L in [0, 1]; "full" for a = 1, L in [0, 2].
        amplification: "log"; "power" for A(L) = (L + delta)^gamma - delta^gamma; or "none" for
            A(L) = L, the plain SSIM loss.
        amplify_over: what A is applied to: each "element", the mean of each "image", or the mean
            of the "batch" (under data parallelism the local batch). Amplifying a mean has almost
            no effect on small losses.
        eps: for "log". The slope of A grows up to 1/eps, at L = 1 - eps; 1e-6 <= eps < 1.
        gamma, delta: for "power", dimensionless; 1e-3 <= gamma <= 8, 1e-3 <= delta <= 1e3. The
            slope gamma (L + delta)^(gamma - 1) grows with L if gamma > 1. With the defaults
            A(L) = L + L^2.
        reduction: "mean", "sum", "image" for shape (N,), or "none" for the map. With
            amplify_over="image" there is no "none", with "batch" only "mean".
        backend: None for the automatic choice, or "native", "triton", "reference"; see
            `lamp_kernels.backends.resolve`.

    Call: ``loss(input, target, weight=None, mask=None, data_range=None)``
        input: the reconstruction, (N, C, H, W), float16, bfloat16, float32 or float64.
        target: the original, of the same shape, device and dtype; under autocast the floating
            dtypes may differ.
        weight: m >= 0, dimensionless (not checked), of any real or boolean dtype. It has as many
            dimensions as `input`, each of the same size or 1, so an (N, 1, H, W) mask applies to
            every channel; or it is (N,), one number per image; or one number. Pass (N, H, W) as
            `weight[:, None]`, and (H, W) as `weight[None, None]`. Means divide by the sum of the
            weights, from 1e-45 to 1e38 in float32. For "valid", the weight at the center of the
            window counts. A weight of 0 does not hide NaN. An all-zero weight and an empty batch
            give 0. The map is multiplied by the weight as it is, and has gradients for weights up
            to 1e30.
        mask: m in [0, 1] or bool (not checked), of the shapes of a weight. Where it is 0, pixels
            are not looked at: they are in no window, their loss does not count, and they may hold
            NaN. Windows are normalized convolutions, G*(m v)/G*m; with "zeros" they are cut at the
            edge of the image. The loss at a pixel counts m times.
        data_range: (N,), one range per image, in place of the option; without a gradient.

    Returns: a scalar, (N,) or the map, dimensionless, float32 (float64 for float64 images).

    Raises:
        TypeError: an argument is no tensor or of the wrong dtype, or an option of the wrong type.
        ValueError: shapes or devices differ, the image is too small for the border, an option is
            out of range, a weight does not broadcast or requires grad, or a requested backend is
            not available.

    Warns:
        UserWarning: the images are almost certainly (N, H, W, C), so H would be taken as channels.

    ``loss.tangent_share``, called like the loss, is the share of elements with L > 1 - eps.

    Source: SSIM by Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004. Amplification by LAMP
    (arXiv 2308.14595), of which we know the abstract: amplifying the reconstruction loss, whatever
    the metric, sharpens the loss landscape. Its equation was not available to us; -log(1 - L) is
    the form in the first author's earlier public code. The tangent and eps are ours.

    Example:
        >>> loss_function = AmplifiedSSIMLoss()
        >>> image = torch.rand(2, 3, 32, 32)
        >>> loss_function(image, image).item()
        0.0
    """

    _terms = (Term("ssim"),)

    @by_name
    def __init__(
        self,
        *,
        data_range: float = DEFAULTS.data_range,
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
    ) -> None:
        super().__init__(locals())


class AmplifiedMSELoss(_AmplifiedLoss):
    """Amplified squared error: L = ((x - y)/R)^2 per element, then A(L), then the mean.

    With `amplification="none"` and `data_range=1.0` it equals `torch.nn.MSELoss()`.

    Args:
        data_range, amplification, amplify_over, eps, gamma, delta, reduction, backend: as in
            `AmplifiedSSIMLoss`.

    Call: ``loss(input, target, weight=None, mask=None, data_range=None)`` as in
    `AmplifiedSSIMLoss`, with images of any shape (N, ...).

    Returns, Raises, Source: as in `AmplifiedSSIMLoss`.

    Example:
        >>> AmplifiedMSELoss()(torch.tensor([0.5]), torch.tensor([0.0]))  # -log(1 - 0.25)
        tensor(0.2877)
    """

    _terms = (Term("mse"),)

    @by_name
    def __init__(
        self,
        *,
        data_range: float = DEFAULTS.data_range,
        amplification: Amplification = DEFAULTS.amplification,
        amplify_over: Level = DEFAULTS.amplify_over,
        eps: float = DEFAULTS.eps,
        gamma: float = DEFAULTS.gamma,
        delta: float = DEFAULTS.delta,
        reduction: Reduction = DEFAULTS.reduction,
        backend: str | None = None,
    ) -> None:
        super().__init__(locals())


class AmplifiedL1Loss(AmplifiedMSELoss):
    """Amplified absolute error: L = |x - y|/R per element, then A(L), then the mean.

    Against binary targets this is binary cross-entropy. With `amplification="none"` and
    `data_range=1.0` it equals `torch.nn.L1Loss()`. Everything else as in `AmplifiedMSELoss`.

    Example:
        >>> AmplifiedL1Loss()(torch.tensor([0.5]), torch.tensor([0.0]))  # -log(1 - 0.5)
        tensor(0.6931)
    """

    _terms = (Term("l1"),)


class AmplifiedCharbonnierLoss(_AmplifiedLoss):
    """Amplified Charbonnier loss: L = (sqrt(d^2 + e^2) - e)/(sqrt(1 + e^2) - e), d = (x - y)/R.

    A smooth absolute error: quadratic for |d| far below e, linear far above, scaled to 1 at
    |d| = 1. Then A(L) per element, then the mean.

    Args:
        charbonnier_epsilon: e, in units of data_range, 1e-9 to 1e9; other packages call it eps.
        data_range, amplification, amplify_over, eps, gamma, delta, reduction, backend: as in
            `AmplifiedSSIMLoss`.

    Call, Returns, Raises: as in `AmplifiedMSELoss`.

    Source: Charbonnier, Blanc-Feraud, Aubert, Barlaud, "Two deterministic half-quadratic
    regularization algorithms for computed imaging", ICIP 1994. Amplification as in
    `AmplifiedSSIMLoss`; the scale is ours.

    Example:
        >>> loss_function = AmplifiedCharbonnierLoss(charbonnier_epsilon=0.75)
        >>> loss_function(torch.tensor([1.0]), torch.tensor([0.0]))  # L = 1: A(1 - eps) + 1
        tensor(5.6052)
    """

    _terms = (Term("charbonnier"),)

    @by_name
    def __init__(
        self,
        *,
        charbonnier_epsilon: float = DEFAULTS.charbonnier_epsilon,
        data_range: float = DEFAULTS.data_range,
        amplification: Amplification = DEFAULTS.amplification,
        amplify_over: Level = DEFAULTS.amplify_over,
        eps: float = DEFAULTS.eps,
        gamma: float = DEFAULTS.gamma,
        delta: float = DEFAULTS.delta,
        reduction: Reduction = DEFAULTS.reduction,
        backend: str | None = None,
    ) -> None:
        super().__init__(locals())


class AmplifiedGMSLoss(_AmplifiedLoss):
    """Amplified dissimilarity of gradient magnitudes (GMS): where edges are lost or invented.

    L = (a - b)^2/(a^2 + b^2 + c) for each pixel of each channel, a and b the magnitudes of the
    images' gradients, in units of data_range; then A(L), then the mean. L = 1 - GMS, in a form that
    is accurate for nearly equal images. The gradient is Prewitt's: differences over 3 x 3 pixels,
    divided by 3. Images that differ by a constant have L = 0: add a term that sees brightness.

    Args:
        gms_constant: c, in units of data_range^2, 1e-12 to 1e6. The default is 170 for
            data_range=255.
        padding: the border. "reflect" mirrors the image without repeating the edge pixel (sides of
            at least 2), "valid" uses only the pixels that have all neighbors (sides of at least
            3), "zeros" treats everything outside as black, which draws an edge into both images.
        data_range, amplification, amplify_over, eps, gamma, delta, reduction, backend: as in
            `AmplifiedSSIMLoss`.

    Call: ``loss(input, target, weight=None, mask=None, data_range=None)`` as in
        `AmplifiedSSIMLoss`, but a mask is stricter: a position counts where all pixels that the
        operator sees are unmasked, times the smallest of their m. With a mask and "zeros",
        positions at the image's edge do not count.

    Returns, Raises: as in `AmplifiedSSIMLoss`.

    Gradient: finite on flat images. Where an image's gradient is exactly 0 it has no direction, and
    the derivative counts as 0: a network that reconstructs a constant does not learn from this
    loss alone.

    Source: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation: a highly efficient
    perceptual image quality index", IEEE TIP 23(2), 2014. Amplification as in `AmplifiedSSIMLoss`.

    Example:
        >>> loss_function = AmplifiedGMSLoss()
        >>> image = torch.rand(2, 3, 32, 32)
        >>> loss_function(image, image).item()
        0.0
    """

    _terms = (Term("gms"),)

    @by_name
    def __init__(
        self,
        *,
        gms_constant: float = DEFAULTS.gms_constant,
        data_range: float = DEFAULTS.data_range,
        padding: Padding = DEFAULTS.padding,
        amplification: Amplification = DEFAULTS.amplification,
        amplify_over: Level = DEFAULTS.amplify_over,
        eps: float = DEFAULTS.eps,
        gamma: float = DEFAULTS.gamma,
        delta: float = DEFAULTS.delta,
        reduction: Reduction = DEFAULTS.reduction,
        backend: str | None = None,
    ) -> None:
        super().__init__(locals())


class AmplifiedMSGMSLoss(_AmplifiedLoss):
    """Amplified multi-scale GMS: the mean of `AmplifiedGMSLoss` over scales, as RIAD trains with.

    Each scale averages the previous one over 2 x 2 pixels (see `lamp_kernels.gms`).

    Args:
        gms_scales: the number of scales, 1 to 16. Four scales with "reflect" require sides of at
            least 9 pixels, with "valid" 17; "zeros" has no minimum.
        amplify_over: what A is applied to: each "element" of each scale; the mean of L over the
            scales for each "image"; or that for the "batch".
        reduction: "mean", or "image" for (N,). With amplify_over="image" also "sum", with "batch"
            only "mean". There is no map ("none"), because the maps of the scales differ in size.
        others: as in `AmplifiedGMSLoss`.

    Call: ``loss(input, target, weight=None, mask=None, data_range=None)`` as in `AmplifiedGMSLoss`.
        Weight and mask are halved along with the images, and with a mask a pixel is halved to the
        mean of what is not masked.

    Returns: a scalar or (N,), dimensionless, float32 (float64 for float64 images).

    Raises, Gradient: as in `AmplifiedGMSLoss`.

    Source: Zavrtanik, Kristan, Skocaj, "Reconstruction by inpainting for visual anomaly detection"
    (RIAD), Pattern Recognition 112, 2021: four scales and their mean. Public implementations of
    RIAD average the channels first, which is `loss(input.mean(1, keepdim=True), ...)`.
    Amplification as in `AmplifiedSSIMLoss`; how we combine it with scales is ours.

    Example:
        >>> loss_function = AmplifiedMSGMSLoss()
        >>> image = torch.rand(2, 3, 32, 32)
        >>> loss_function(image, image).item()
        0.0
    """

    _terms = (Term("msgms"),)

    @by_name
    def __init__(
        self,
        *,
        gms_constant: float = DEFAULTS.gms_constant,
        gms_scales: int = DEFAULTS.gms_scales,
        data_range: float = DEFAULTS.data_range,
        padding: Padding = DEFAULTS.padding,
        amplification: Amplification = DEFAULTS.amplification,
        amplify_over: Level = DEFAULTS.amplify_over,
        eps: float = DEFAULTS.eps,
        gamma: float = DEFAULTS.gamma,
        delta: float = DEFAULTS.delta,
        reduction: Reduction = DEFAULTS.reduction,
        backend: str | None = None,
    ) -> None:
        super().__init__(locals())


class AmplifiedCosineLoss(_AmplifiedLoss):
    """Amplified cosine distance of features: L = (1 - cos)/2 per position, then A(L), then mean.

    cos is that of the angle between the C channels of input and target. For networks that
    reconstruct the features of another one, as reverse distillation does. L is 0 for the same
    direction, 1/2 for orthogonal and 1 for opposite ones; the length of the vectors has no effect.
    Accurate for nearly equal features, where 1 - cos loses all digits. Float32 gradients of nearly
    parallel vectors of different lengths are off by about 1e-7 over the angle in radians.

    Args:
        cosine_epsilon: the least norm, in the unit of the features, 1e-15 to 1e15. A smaller norm
            counts as that one, so the gradient is finite at zero vectors, at most
            1/(2 cosine_epsilon). Two zero vectors are equal, L = 0; one beside a larger vector has
            L = 1/4.
        amplification, amplify_over, eps, gamma, delta, reduction, backend: as in
            `AmplifiedSSIMLoss`; an element is a position, an image a sample.

    Call: ``loss(input, target, weight=None, mask=None)`` with features (N, C, ...): (N, C),
        (N, C, H, W) or with any other number of dimensions of positions. Norms must be finite in
        the compute type: in float32 below 1e19. weight, mask: (N, 1, ...) or (1, 1, ...), each
        dimension of the features' size or of size 1, or (N,). Where a mask is 0 the features are
        not looked at and may be NaN; elsewhere it is a weight.

    Returns: a scalar; (N,) for reduction="image"; (N, 1, ...) for "none"; dimensionless, float32
        (float64 for float64 features). NaN in a vector makes its position NaN.

    Raises: as `AmplifiedSSIMLoss`, and a ValueError for features without a channel dimension, for a
        weight or mask with several channels, and for a data_range.

    Source: Deng, Li, "Anomaly detection via reverse distillation from one-class embedding", CVPR
    2022, for the loss 1 - cos, which is 2 L, per position; the form and the scale are ours.
    cosine_epsilon as the `eps` of `torch.nn.functional.cosine_similarity`, by which L differs from
    (1 - cosine_similarity)/2 only where a norm is below it. Amplification as in
    `AmplifiedSSIMLoss`.

    Example:
        >>> loss_function = AmplifiedCosineLoss()
        >>> loss_function(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))  # -log(1 - 1/2)
        tensor(0.6931)
    """

    _terms = (Term("cosine"),)

    @by_name
    def __init__(
        self,
        *,
        cosine_epsilon: float = DEFAULTS.cosine_epsilon,
        amplification: Amplification = DEFAULTS.amplification,
        amplify_over: Level = DEFAULTS.amplify_over,
        eps: float = DEFAULTS.eps,
        gamma: float = DEFAULTS.gamma,
        delta: float = DEFAULTS.delta,
        reduction: Reduction = DEFAULTS.reduction,
        backend: str | None = None,
    ) -> None:
        super().__init__(locals())


class AmplifiedReconstructionLoss(_AmplifiedLoss):
    """Weighted sum of terms, each amplified on its own: ssim A(L_ssim) + mse A(L_mse) + ...

    Args:
        ssim, mse, l1, charbonnier, gms, msgms: coefficients of the terms, >= 0, at least one
            positive. A term with coefficient 0 is not computed; below 1e-18 a coefficient counts
            as 0. RIAD's sum is ssim=1, msgms=1, mse=1.
        charbonnier_epsilon: as in `AmplifiedCharbonnierLoss`.
        gms_constant, gms_scales: as in `AmplifiedMSGMSLoss`.
        others: as in `AmplifiedSSIMLoss`.

    Call, Returns, Raises, Source: as in `AmplifiedSSIMLoss`. Images are (N, C, H, W) if `ssim`,
    `gms` or `msgms` is positive. There is no map (reduction="none" is a ValueError) with `msgms`,
    nor with padding="valid" and several terms, of which those with a window have smaller maps.

    Example:
        >>> loss_function = AmplifiedReconstructionLoss(ssim=1.0, mse=0.0, l1=0.5)
        >>> image = torch.rand(2, 3, 32, 32)
        >>> loss_function(image, image).item()
        0.0
    """

    _terms = ()  # by the coefficients

    @by_name
    def __init__(
        self,
        *,
        ssim: float = COEFFICIENTS["ssim"],
        mse: float = COEFFICIENTS["mse"],
        l1: float = COEFFICIENTS["l1"],
        charbonnier: float = COEFFICIENTS["charbonnier"],
        gms: float = COEFFICIENTS["gms"],
        msgms: float = COEFFICIENTS["msgms"],
        data_range: float = DEFAULTS.data_range,
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
    ) -> None:
        super().__init__(locals())

    def _fields(self) -> dict[str, Any]:
        terms = check_terms({metric: getattr(self, metric) for metric in METRICS})
        return {**super()._fields(), "terms": terms}


class AmplifiedMSSSIMLoss(_AmplifiedLoss):
    """Amplified multi-scale structural dissimilarity: SSIM's contrast and structure at each scale.

    Each scale halves the sides. The last scale takes SSIM itself, the others its contrast-structure
    term 1 - q. MS-SSIM of a channel is the product of the scales' means, each to the power of its
    weight (see `lamp_kernels.ms_ssim`).

    Args:
        scale_weights: w_j >= 0, dimensionless, fine to coarse, one per scale; below 1e-18 a weight
            counts as 0.
        amplify_over: what A is applied to. "element": L = a q (a (1 - SSIM) at the last scale) at
            each position of each scale; the loss is sum_j w_j times the mean of A(L), because the
            logarithm of a product is a sum. "image": L = a (1 - MS-SSIM) of each image, with
            MS-SSIM averaged over channels. "batch": the mean of that over the batch.
        amplification: with "none" the loss is a (1 - MS-SSIM), for every `amplify_over`.
        reduction: "mean", or "image" for (N,). With amplify_over="image" also "sum", with "batch"
            only "mean". There is no map ("none"), because the maps of the scales differ in size.
        others: as in `AmplifiedSSIMLoss`. With the default window and scales, "reflect" requires
            sides of at least 81 pixels, "valid" 161; "zeros" has no minimum.

    Call: ``loss(input, target, weight=None, mask=None, data_range=None)`` as in
        `AmplifiedSSIMLoss`. Weight and mask are halved along with the images, and with a mask a
        pixel is halved to the mean of what is not masked. Where no element is amplified, the
        weight acts within each channel of an image, and its sum over that channel determines how
        much the channel counts.

    Returns: a scalar or (N,), dimensionless, float32 (float64 for float64 images).

    Raises: as `AmplifiedSSIMLoss`.

    Gradient: finite where a scale is negative. With amplify_over="element" such a scale has a
    gradient like any other. Otherwise, and with amplification="none", MS-SSIM of that channel is 0
    and so is its gradient: a network that starts there does not learn from that channel.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003; weights and halving as in pytorch-msssim. Amplification as in
    `AmplifiedSSIMLoss`; how we combine it with scales is ours.

    Example:
        >>> loss_function = AmplifiedMSSSIMLoss()
        >>> image = torch.rand(2, 3, 96, 96)
        >>> loss_function(image, image).item()
        0.0
    """

    _terms = (Term("ssim"),)
    _loss = staticmethod(multiscale.loss)
    _count_on_tangent = staticmethod(multiscale.count_on_tangent)
    scale_weights: Sequence[float]

    @by_name
    def __init__(
        self,
        *,
        data_range: float = DEFAULTS.data_range,
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
    ) -> None:
        # A tuple: a list could be changed in place, unnoticed.
        scale_weights = check_scale_weights(scale_weights)
        super().__init__(locals())

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "scale_weights": check_scale_weights(self.scale_weights)}
