"""`structural_similarity` of `skimage.metrics`, as in scikit-image 0.26, for tensors.

By default the window is uniform, 7 x 7 pixels, and variances are sample variances: they divide by
48, not by 49. That equals SSIM with population variances and C2 times 48/49, so the same options
work for the losses: `AmplifiedSSIMLoss(**preset())`. In volumes it is C2 times 342/343:
`preset(spatial_dims=3)`.

Differences:

- Images are tensors (H, W) or volumes (D, H, W), with `channel_axis` one dimension more, of one
  floating dtype. Any other number of dimensions raises ValueError: use
  `lamp_kernels.functional.ssim` for batches.
- The result is a differentiable tensor () with the images' dtype; half precision gives float32.
- `data_range` is required, as in scikit-image for floating images; it can be a tensor of one
  element.
- `gradient=True` and `full=True` raise NotImplementedError: autograd computes the gradient, and
  there is no equivalent of the map's border, where scikit-image mirrors the image and repeats the
  edge pixel.
- With `gaussian_weights`, `win_size` must be the size that follows from `sigma`. Any other raises
  ValueError; scikit-image then crops a border that differs from the window's.

Source: the signature and the behavior of scikit-image 0.26 (BSD-3-Clause).
"""

import math
from numbers import Integral
from typing import Any, Literal

from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.checks import check_positive, check_within, shown
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import DEFAULTS, STABILIZERS, LossSpec, check_window_size
from lamp_kernels.validation import MOST_CHANNELS, check_float_tensor

__all__ = ["preset", "structural_similarity"]

TRUNCATE = 3.5  # standard deviations at which a Gaussian window is cut off
NAMES = ("im1", "im2")


def preset(
    win_size: int | None = None,
    gaussian_weights: bool = False,
    *,
    use_sample_covariance: bool = True,
    K1: float = 0.01,
    K2: float = 0.03,
    sigma: float = 1.5,
    spatial_dims: Literal[2, 3] = 2,
) -> dict[str, Any]:
    """The options of `AmplifiedSSIMLoss` and `functional.ssim` that compute scikit-image's SSIM.

    Args:
        win_size, gaussian_weights, use_sample_covariance, K1, K2, sigma: as in
            `structural_similarity`.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        The options window, window_size, sigma, k1, k2 and padding, by name, and for volumes
        spatial_dims.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """
    spread = check_positive("sigma", sigma) if gaussian_weights else DEFAULTS.sigma
    size = 7
    if gaussian_weights:
        size = 2 * int(TRUNCATE * spread + 0.5) + 1
        if win_size is not None and win_size != size:
            raise ValueError(f"win_size must be None or {size} for sigma={sigma!r}, got {win_size}")
    elif win_size is not None:
        size = win_size
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {shown(spatial_dims)}")
    pixels = check_window_size(size, "win_size") ** spatial_dims
    k2 = check_within("K2", K2, STABILIZERS)
    if use_sample_covariance and pixels > 1:
        k2 *= math.sqrt((pixels - 1) / pixels)
    options = {
        "window": "gaussian" if gaussian_weights else "uniform",
        "window_size": size,
        "sigma": spread,
        "k1": check_within("K1", K1, STABILIZERS),
        "k2": k2,
        "padding": "valid",
    }
    return options | {"spatial_dims": 3} if spatial_dims == 3 else options


def structural_similarity(
    im1: Tensor,
    im2: Tensor,
    *,
    win_size: int | None = None,
    gradient: bool = False,
    data_range: float | Tensor | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    use_sample_covariance: bool = True,
    K1: float = 0.01,
    K2: float = 0.03,
    sigma: float = 1.5,
) -> Tensor:
    """Mean SSIM of two images, over the windows that fit inside and the channels.

    Args:
        im1, im2: images (H, W) or volumes (D, H, W), with `channel_axis` one dimension more; values
            expected in [0, data_range].
        win_size: side of the uniform window in pixels, odd, 1 to 31; None for 7.
        data_range: the distance between the smallest and the largest possible value.
        channel_axis: the dimension of the channels; None if there is none.
        gaussian_weights: use a Gaussian window, cut off at 3.5 standard deviations.
        sigma: the standard deviation of the Gaussian window in pixels.
        use_sample_covariance: divide variances by the number of the window's pixels less one.
        K1, K2: dimensionless constants.
        gradient, full: must be False.

    Returns:
        Tensor (), dimensionless, 1 for equal images.

    Raises:
        NotImplementedError: `gradient` or `full` is True.
        TypeError, ValueError: an image or an option is invalid.

    Source: scikit-image 0.26 (BSD-3-Clause), for the signature and the behavior.

    Example:
        >>> image = torch.rand(32, 32, 3)
        >>> structural_similarity(image, image, data_range=1.0, channel_axis=-1).item()
        1.0
    """
    for name, value, instead in (
        ("gradient", gradient, "autograd"),
        ("full", full, "lamp_kernels.functional.ssim with reduction='none'"),
    ):
        if value:
            raise NotImplementedError(f"{name} must be False, got {value!r}; use {instead}")
    if data_range is None:
        check_float_tensor("im1", im1)  # for integers the dtype is the first error to report
        raise ValueError(
            "data_range must be a number, got None: it does not follow from the dtype of floating "
            "images"
        )
    if channel_axis is not None and not isinstance(channel_axis, Integral):
        raise TypeError(f"channel_axis must be an integer or None, got {shown(channel_axis)}")
    images = [_image(im, name, channel_axis) for im, name in zip((im1, im2), NAMES, strict=True)]
    options = preset(
        win_size,
        gaussian_weights,
        use_sample_covariance=use_sample_covariance,
        K1=K1,
        K2=K2,
        sigma=sigma,
        spatial_dims=3 if images[0].dim() == 5 else 2,
    )
    options["data_range"] = _arguments.data_range(data_range, "data_range")
    _arguments.check_images(images[0], images[1], NAMES, LossSpec(**options))
    return functional.ssim(images[0], images[1], **options)


def _image(image: Tensor, name: str, channel_axis: int | None) -> Tensor:
    """(1, C, H, W) or (1, C, D, H, W)."""
    dims = check_float_tensor(name, image).dim()
    if channel_axis is None:
        if dims not in (2, 3) or (dims == 3 and min(image.shape) <= MOST_CHANNELS):
            raise ValueError(
                f"{name} must be (H, W) or (D, H, W) if channel_axis is None, got "
                f"{tuple(image.shape)}; pass channel_axis=-1 for (H, W, C), channel_axis=0 for "
                "(C, H, W)"
            )
        return image[None, None]
    if dims not in (3, 4) or not -dims <= channel_axis < dims:
        raise ValueError(
            f"{name} must have three or four dimensions, of which channel_axis={channel_axis} is "
            f"one, got {tuple(image.shape)}"
        )
    return image.movedim(channel_axis, 0)[None]
