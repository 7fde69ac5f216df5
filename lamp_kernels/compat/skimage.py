"""`structural_similarity` as scikit-image 0.26 has it in `skimage.metrics`, for tensors.

By default the window is uniform, 7 x 7 pixels, and variances are those of a sample: they divide by
48, not 49. That is SSIM with population variances and C2 times 48/49, so the same options serve the
losses: `AmplifiedSSIMLoss(**preset())`.

What differs:

- Images are tensors, (H, W), or with `channel_axis` of three dimensions, of one floating dtype.
  Other numbers of dimensions are a ValueError: `lamp_kernels.functional.ssim` has batches, and
  volumes need a window of three dimensions.
- The result is a tensor (), of the images' dtype and differentiable; half types give float32.
- `data_range` is needed, as it is there for floating images; a tensor of one number is taken.
- `gradient=True` and `full=True` are a NotImplementedError: autograd has the gradient, and the map
  outside of the whole windows, mirrored with the edge pixel repeated, is not one of ours.
- With `gaussian_weights` a `win_size` other than the one that `sigma` gives is a ValueError; there
  it crops another border than the window has.

Source: the signature and the behaviour of scikit-image 0.26 (BSD-3-Clause).
"""

import math
from numbers import Integral
from typing import Any

from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.checks import check_positive, check_within, shown
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import STABILIZERS, LossSpec, check_window_size
from lamp_kernels.validation import check_float_tensor

__all__ = ["preset", "structural_similarity"]

UNIFORM = 1e9  # pixels: at this standard deviation all taps of a window are equal, to the digit
TRUNCATE = 3.5  # standard deviations, where a Gaussian window is cut off
NAMES = ("im1", "im2")


def preset(
    win_size: int | None = None,
    gaussian_weights: bool = False,
    *,
    use_sample_covariance: bool = True,
    K1: float = 0.01,
    K2: float = 0.03,
    sigma: float = 1.5,
) -> dict[str, Any]:
    """The options of `AmplifiedSSIMLoss` and `functional.ssim` that compute scikit-image's SSIM.

    Args:
        as of `structural_similarity`.

    Returns:
        window_size, sigma, k1, k2 and padding by name.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """
    spread = check_positive("sigma", sigma) if gaussian_weights else UNIFORM
    size = 7
    if gaussian_weights:
        size = 2 * int(TRUNCATE * spread + 0.5) + 1
        if win_size is not None and win_size != size:
            raise ValueError(f"win_size must be None or {size} for sigma={sigma!r}, got {win_size}")
    elif win_size is not None:
        size = win_size
    pixels = check_window_size(size, "win_size") ** 2
    k2 = check_within("K2", K2, STABILIZERS)
    if use_sample_covariance and pixels > 1:
        k2 *= math.sqrt((pixels - 1) / pixels)
    return {
        "window_size": size,
        "sigma": spread,
        "k1": check_within("K1", K1, STABILIZERS),
        "k2": k2,
        "padding": "valid",
    }


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
    """The mean SSIM of two images over whole windows and channels; 1 for equal images.

    Args:
        im1, im2: images (H, W), with `channel_axis` three dimensions; values meant to lie in [0,
            data_range].
        win_size: side of the uniform window in pixels, odd, 1 to 31; None for 7.
        data_range: the distance between the least and the greatest possible value.
        channel_axis: the dimension of the channels, None where there is none.
        gaussian_weights: a Gaussian window of standard deviation `sigma` pixels, cut off at 3.5.
        use_sample_covariance: variances that divide by the window's pixels less one.
        K1, K2: constants without unit.
        gradient, full: False.

    Returns:
        Tensor () without unit.

    Raises:
        NotImplementedError: `gradient` or `full`.
        TypeError, ValueError: an image or an option is wrong.

    Example:
        >>> image = torch.rand(32, 32, 3)
        >>> structural_similarity(image, image, data_range=1.0, channel_axis=-1).item()
        1.0
    """
    for name, value in (("gradient", gradient), ("full", full)):
        if value:
            raise NotImplementedError(
                f"{name} must be False, got {value!r}: see this module's text"
            )
    if data_range is None:
        check_float_tensor("im1", im1)  # of integers that is what there is to say
        raise ValueError("data_range must be given: floating images do not tell their range")
    if channel_axis is not None and not isinstance(channel_axis, Integral):
        raise TypeError(f"channel_axis must be an integer or None, got {shown(channel_axis)}")
    options = preset(
        win_size,
        gaussian_weights,
        use_sample_covariance=use_sample_covariance,
        K1=K1,
        K2=K2,
        sigma=sigma,
    )
    options["data_range"] = _arguments.data_range(data_range, "data_range")
    images = [_image(im, name, channel_axis) for im, name in zip((im1, im2), NAMES, strict=True)]
    _arguments.check_images(images[0], images[1], NAMES, LossSpec(**options))
    return functional.ssim(images[0], images[1], **options)


def _image(image: Tensor, name: str, channel_axis: int | None) -> Tensor:
    """(1, C, H, W)."""
    dims = check_float_tensor(name, image).dim()
    if channel_axis is None:
        if dims != 2:
            raise ValueError(
                f"{name} must be (H, W) where channel_axis is None, got {tuple(image.shape)}; of "
                "(H, W, C) the channel_axis is -1, of (C, H, W) 0"
            )
        return image[None, None]
    if dims != 3 or not -dims <= channel_axis < dims:
        raise ValueError(
            f"{name} must have three dimensions where channel_axis={channel_axis} is one of them, "
            f"got {tuple(image.shape)}"
        )
    return image.movedim(channel_axis, 0)[None]
