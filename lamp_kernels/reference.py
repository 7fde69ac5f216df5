"""The mathematics in plain PyTorch: the oracle for every kernel, and the fallback without one.

Written to be read beside the formulas; autograd computes the derivatives. Half types are computed
in float32. `input` is x, the reconstruction; `target` is y; R is `data_range`.

SSIM in difference form. With d = (x - y)/R, s = (x + y)/R, windowed means mu and variances var
under the normalized Gaussian window G*, C1 = k1^2 and C2 = k2^2:

    M = (mu_d^2 + mu_s^2)/2 + C1      p = mu_d^2 / M     (1 - p is SSIM's luminance term)
    V = (var_d  + var_s )/2 + C2      q = var_d  / V     (1 - q its contrast-structure term)
    T = p + q - p q = 1 - SSIM

The loss is never a difference of nearly equal numbers. In float32, for flat images that are 1e-3
apart, the textbook form is 7% off in 1 - SSIM, this one 1e-7 (bench/accuracy.py).
Source of SSIM: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004.
"""

import math

import torch
from torch import Tensor

from lamp_kernels import filters
from lamp_kernels.slabs import WHOLE, Edges, by_slabs
from lamp_kernels.spec import LossSpec, Metric
from lamp_kernels.tensors import (
    Images,
    being_traced,
    compute_dtype,
    with_dims_of,
    without_autocast,
)

SUMMED_AT_ONCE = 4096  # elements; PyTorch computes sums of up to 32,768 on one thread

# ---- Amplification -----------------------------------------------------------------------------


def amplify(loss: Tensor, spec: LossSpec) -> Tensor:
    """A(L), element by element, in float32 or float64. NaN gives NaN."""
    loss = loss.to(compute_dtype(loss.dtype))
    if spec.amplification == "log":
        return amplify_log(loss, spec.eps)
    if spec.amplification == "power":
        return amplify_power(loss, spec.gamma, spec.delta)
    return loss


def amplify_log(loss: Tensor, eps: float) -> Tensor:
    """A(L) = -log1p(-L) up to L = 1 - eps, continued above by its tangent there.

    The slope 1/(1 - L) grows from 1 at L = 0 to 1/eps and stays there, so a finite loss has a
    finite value and a gradient that never vanishes. The tangent's part is exactly 0 below the knee,
    and so is its slope: 1/eps - 1/eps would leave the rounding error of 1/eps in a slope of 1.
    """
    knee = 1.0 - eps
    # Not clamp, whose derivative at the knee itself is 0 in PyTorch 2.14.
    return torch.relu(loss - knee) / eps - torch.log1p(-loss.masked_fill(loss > knee, knee))


def amplify_power(loss: Tensor, gamma: float, delta: float) -> Tensor:
    """A(L) = (L + delta)^gamma - delta^gamma, accurate for the smallest L > -delta.

    The slope gamma (L + delta)^(gamma - 1) is finite at L = 0 for every gamma. It grows with L for
    gamma > 1 and falls for gamma < 1.
    """
    scale: float = delta**gamma
    exponent = gamma * torch.log1p(loss / delta)
    # Far above 1, the scale goes into the exponential, so that it overflows no earlier than A.
    large = exponent > 40.0
    small = scale * torch.expm1(exponent.masked_fill(large, 0.0))
    return torch.where(large, torch.exp(exponent + gamma * math.log(delta)) - scale, small)


# ---- Pointwise losses --------------------------------------------------------------------------


def pointwise_loss(metric: Metric, images: Images, spec: LossSpec) -> Tensor:
    """L of a metric without a window, element by element, from d = (x - y)/R; 0 where masked."""
    difference = _in_units_of(_range_of(images, spec), images.input - images.target)
    if images.mask is not None:
        difference = torch.where(images.mask == 0, 0.0, difference)
    if metric == "mse":
        return squared_error(difference)
    if metric == "l1":
        return absolute_error(difference)
    return charbonnier(difference, spec.charbonnier_epsilon)


def squared_error(difference: Tensor) -> Tensor:
    """d^2."""
    return difference.square()


def absolute_error(difference: Tensor) -> Tensor:
    """|d|; its derivative at d = 0 is 0, and NaN at NaN."""
    nan = torch.where(difference.isnan(), difference, 0.0).detach()  # abs() would drop its gradient
    return torch.where(difference.isnan(), difference * nan, difference.abs())


HUGE = 1e18  # the squares of larger numbers are hardly finite in float32


def charbonnier(difference: Tensor, epsilon: float) -> Tensor:
    """(sqrt(d^2 + e^2) - e)/(sqrt(1 + e^2) - e): 0 at d = 0, 1 at |d| = 1.

    Quadratic for |d| far below e, linear far above. Computed as n d^2/(sqrt(d^2 + e^2) + e) with
    n = sqrt(1 + e^2) + e, which subtracts no nearly equal numbers; as n |d| where d^2 overflows.
    Source: Charbonnier, Blanc-Feraud, Aubert, Barlaud, ICIP 1994.
    """
    norm = math.sqrt(1.0 + epsilon**2) + epsilon
    huge = difference.abs() > HUGE
    d2 = difference.masked_fill(huge, 0.0).square()
    loss = norm * (d2 / ((d2 + epsilon**2).sqrt() + epsilon))
    return torch.where(huge, norm * difference.abs(), loss)


def _range_of(images: Images, spec: LossSpec) -> Tensor | float:
    """R, one number or (N, 1, ...)."""
    if images.data_range is None:
        return spec.data_range
    return with_dims_of(images.data_range.to(images.input.dtype), images.input)


def _in_units_of(data_range: Tensor | float, value: Tensor) -> Tensor:
    one = not isinstance(data_range, Tensor) and data_range == 1.0
    return value if one else value / data_range


# ---- SSIM --------------------------------------------------------------------------------------


def ssim_dissimilarity(images: Images, spec: LossSpec, edges: Edges = WHOLE) -> Tensor:
    """T = 1 - SSIM at each window position, T >= 0: (N, C, H, W) -> (N, C, H', W').

    With a mask m, G* is a normalized convolution, G*(m v) / G*m: pixels of m = 0 are in no window.
    At their own positions T is finite and means nothing.

    Volumes (N, C, D, H, W) have a third axis; `edges` says which of its ends have a border. A
    weight improves accuracy only: pixels of weight 0 do not influence the shifts.
    """
    input, target, weight, mask, _ = images
    d = _in_units_of(_range_of(images, spec), input - target)
    s = _in_units_of(_range_of(images, spec), input + target)
    seen = weight if mask is None else mask
    if mask is not None:
        d, s = _without_hidden(d, mask), _without_hidden(s, mask)
    (mu_d, mu_s), (var_d, var_s) = _window_moments(d, s, spec, seen, mask, edges)
    mu_d2, mu_s2 = mu_d.square(), mu_s.square()
    p = mu_d2 / (torch.lerp(mu_d2, mu_s2, 0.5) + spec.k1**2)
    q = var_d / (torch.lerp(var_d, var_s, 0.5) + spec.k2**2)
    return _at_least_zero(torch.addcmul(p, q, 1.0 - p))


def _without_hidden(values: Tensor, mask: Tensor) -> Tensor:
    """The values with the mean of each plane's unmasked ones wherever the mask is 0."""
    hidden = (mask == 0).expand(values.shape)
    with torch.no_grad():
        spatial = list(range(2, values.dim()))
        visible = (~hidden).sum(spatial, keepdim=True).clamp(min=1)
        mean = values.masked_fill(hidden, 0.0).sum(spatial, keepdim=True) / visible
    return torch.where(hidden, mean.nan_to_num(0.0, 0.0, 0.0), values)


def _window_moments(
    d: Tensor,
    s: Tensor,
    spec: LossSpec,
    weight: Tensor | None,
    mask: Tensor | None,
    edges: Edges,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Windowed means of d and s, and their variances.

    var v = G*(v - c)^2 - (G*(v - c))^2 for any constant c, the shift. The rounding error grows with
    (v - c)^2. d has one shift; s, which has the picture's contrast, has two, and each window uses
    the closer one. The derivative treats shifts as the constants that they are.
    """
    if spec.window_size == 1:
        return (d, s), (torch.zeros_like(d), torch.zeros_like(s))
    sides = d.shape[2:]
    taps = list(spec.window_taps)
    radius = len(taps) // 2
    # 0 where not finite, so that a NaN reaches only the windows that see it.
    shifts = [
        shift.nan_to_num(0.0, 0.0, 0.0)
        for shift in (_shift_of_difference(d, weight), *_shifts_of_sum(s))
    ]
    d, s = (filters.pad(v, radius, spec.padding, edges) for v in (d, s))
    centered = torch.cat([v - shift for v, shift in zip((d, s, s), shifts, strict=True)], dim=1)
    planes = torch.cat([centered, centered.square()], dim=1)
    if mask is not None:
        mask = mask.to(planes.dtype).expand(*mask.shape[:2], *sides)
        planes, inverse = _masked(planes, filters.pad(mask, radius, spec.padding, edges), taps)
    means = filters.window_mean(planes, taps)
    if mask is not None:
        means = means * inverse.repeat(1, 6 if inverse.shape[1] > 1 else 1, *[1] * (d.dim() - 2))
    mean, square = means.chunk(2, dim=1)
    mean_d, mean_low, mean_high = mean.chunk(3, dim=1)
    var_d, var_low, var_high = _at_least_zero(square - mean.square()).chunk(3, dim=1)
    low = mean_low.detach().abs() < mean_high.detach().abs()
    mu_s = torch.where(low, mean_low + shifts[1], mean_high + shifts[2])
    return (mean_d + shifts[0], mu_s), (var_d, torch.where(low, var_low, var_high))


def _masked(planes: Tensor, mask: Tensor, taps: list[float]) -> tuple[Tensor, Tensor]:
    """Six planes per channel times the mask, and 1/(G*m) at the window positions; all padded.

    Outside of the image the mask is 0 with padding="zeros", so that windows are cut at the edge.
    Where nothing in a window is masked, G*m is 1 exactly, and not 1 but for the taps' rounding;
    where its center is masked, the loss does not count, and the factor is 1. A window that sees so
    little of the mask that the reciprocal might not be finite sees nothing: the factor is 0.
    """
    covered = filters.window_mean(torch.cat([mask, 1.0 - mask], dim=1), taps)
    covered, masked_share = covered.chunk(2, dim=1)
    center = on_grid(mask, mask.shape, covered.shape)
    whole = (masked_share == 0) | (center == 0)
    nothing = ~whole & (covered < 16 * torch.finfo(covered.dtype).tiny)
    inverse = torch.where(whole | nothing, 1.0, covered).reciprocal().masked_fill(nothing, 0.0)
    repeats = 6 if mask.shape[1] > 1 else 1
    return planes * mask.repeat(1, repeats, *[1] * (mask.dim() - 2)), inverse


EQUAL = 1e-6  # in units of data_range; smaller differences all count the same for a shift


@torch.no_grad()
def _shift_of_difference(d: Tensor, weight: Tensor | None) -> Tensor:
    """The shift of d in each plane, (N, C, 1, 1).

    Rounding matters where the images are nearly equal, and hardly where they differ. So the shift
    is a mean that weighs each pixel by 1/d^2, with d^2 summed over eight pixels around it. A defect
    in otherwise equal images does not affect it, whether the defect covers a hundredth of the plane
    or most of it; neither do single equal pixels, such as clipped ones. If all pixels differ by the
    same offset in brightness, the shift is that offset.
    """
    around = d.square()
    for columns in (1, 2, 4):  # a sum over eight
        around = around + around.roll(columns, -1)
    by_pixel = (around + EQUAL**2).reciprocal()
    if weight is not None:
        by_pixel = by_pixel.masked_fill(weight == 0, 0.0)
    return _mean_of_plane(by_pixel * d) / _mean_of_plane(by_pixel)


@torch.no_grad()
def _shifts_of_sum(s: Tensor) -> tuple[Tensor, Tensor]:
    """A dark and a bright shift for each plane, (N, C, 1, 1): its two tones, if it has two."""
    spatial = tuple(range(2, s.dim()))
    mean = _mean_of_plane(s)
    deviation = (_mean_of_plane(s.square()) - mean.square()).clamp(min=0.0).sqrt()
    low = torch.maximum(mean - deviation, s.amin(spatial, keepdim=True))
    high = torch.minimum(mean + deviation, s.amax(spatial, keepdim=True))
    return low, high


def _mean_of_plane(planes: Tensor) -> Tensor:
    """(N, C, 1, 1); row by row, because PyTorch does not split rows among threads."""
    for dim in range(planes.dim() - 1, 1, -1):
        planes = planes.mean(dim, keepdim=True)
    return planes


def _at_least_zero(value: Tensor) -> Tensor:
    """max(value, 0) with the derivative of `value`.

    A value below 0 is the rounding error of a small number, whose derivative is not 0: a clamp
    would lose several percent of the gradient. NaN stays NaN.
    """
    return value - value.detach().clamp(max=0.0)


# ---- GMS ---------------------------------------------------------------------------------------


def gms_dissimilarity(images: Images, spec: LossSpec) -> Tensor:
    """1 - GMS, gradient magnitude similarity: (N, C, H, W) -> (N, C, H', W'), from 0 to 1.

    L = (a - b)^2/(a^2 + b^2 + c), a = |grad x|, b = |grad y|, in units of R. That equals the
    textbook's 1 - (2 a b + c)/(a^2 + b^2 + c), but is never a difference of nearly equal numbers:
    a - b is (a^2 - b^2)/(a + b), and a^2 - b^2 = grad d . (grad x + grad y) with d = x - y. Where a
    or b is 0, the gradient has no direction, and its derivative counts as 0. Where the mask, one of
    positions, is 0, so is L: the operator may see NaN there.
    Source: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE TIP 23(2), 2014.
    """
    x, y = images.input, images.target
    planes = _in_units_of(_range_of(images, spec), torch.cat([x, y, x - y], dim=1))
    planes = filters.pad(planes, 1, spec.padding)
    along = _prewitt(planes)
    if images.mask is not None:
        mask = on_grid(images.mask, x.shape, spec.grids(x.shape)[-1])
        hidden = (mask == 0).repeat(1, 3 if mask.shape[1] > 1 else 1, 1, 1)
        along = along[0].masked_fill(hidden, 0.0), along[1].masked_fill(hidden, 0.0)
    (x1, y1, d1), (x2, y2, d2) = (each.chunk(3, dim=1) for each in along)
    a2, b2 = x1.square() + x2.square(), y1.square() + y2.square()
    total = _root(a2) + _root(b2)
    apart = (d1 * (x1 + y1) + d2 * (x2 + y2)) / total.masked_fill(total == 0, 1.0)
    return apart.square() / (a2 + b2 + spec.gms_constant)


def _prewitt(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the planes along x and along y, where the 3 x 3 operator fits.

    Differences before sums: those of nearly equal pixels are exact.
    """
    gradients = []
    for along, across in ((-1, -2), (-2, -1)):
        size, sides = planes.shape[along] - 2, planes.shape[across] - 2
        difference = planes.narrow(along, 2, size) - planes.narrow(along, 0, size)
        lines = [difference.narrow(across, line, sides) for line in range(3)]
        gradients.append((lines[0] + lines[1] + lines[2]) / 3.0)
    return gradients[0], gradients[1]


def _root(value: Tensor) -> Tensor:
    """sqrt(value) with derivative 0 at 0, where sqrt has an infinite one."""
    zero = value == 0
    return value.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


# ---- Cosine ------------------------------------------------------------------------------------


def cosine_dissimilarity(images: Images, spec: LossSpec) -> Tensor:
    """(1 - cos)/2 of the channels at each position: (N, C, ...) -> (N, 1, ...), from 0 to 1.

    With a = x/|x| and b = y/|y|, |a - b|^2 = 2 - 2 cos, so L = |a - b|^2/4. A norm below
    `cosine_epsilon` counts as that: L is 0 for two zero vectors, and 1/4 for one and a larger one.

    a - b is formed from d = x - y, which is exact for nearly equal x and y: for |x| >= |y|

        a - b = (d - y (|x| - |y|)/|y|)/|x|      |x| - |y| = d . (x + y)/(|x| + |y|)

    and the same with x instead of y, and the norms swapped, for |x| < |y|. In float32, for features
    that are 1e-4 apart, 1 - cos has no correct digit, and this form is 1e-7 off.

    Where the mask is 0, both vectors count as 0.
    """
    x, y = images.input, images.target
    if images.mask is not None:
        x, y = (torch.where(images.mask == 0, 0.0, v) for v in (x, y))
    d, epsilon = x - y, spec.cosine_epsilon
    norms = [_root(_dot(v, v)) for v in (x, y)]
    norm_x, norm_y = (torch.where(norm < epsilon, epsilon, norm) for norm in norms)
    small = (norms[0] < epsilon) | (norms[1] < epsilon)
    apart = torch.where(small, norm_x - norm_y, _dot(d, x + y) / (norm_x + norm_y))
    larger = norm_x >= norm_y
    least, greatest = torch.where(larger, norm_y, norm_x), torch.where(larger, norm_x, norm_y)
    difference = (d - torch.where(larger, y, x) * (apart / least)) / greatest
    return _dot(difference, difference) / 4.0


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


# ---- Losses and their sums ---------------------------------------------------------------------


def elementwise_loss(metric: Metric, images: Images, spec: LossSpec) -> Tensor:
    """A(L) of one metric on its own grid, in float32 or float64; not multiplied by the weight."""
    input, target = images.input, images.target
    with without_autocast(input.device.type):
        dtype = compute_dtype(input.dtype, target.dtype)
        images = images._replace(input=input.to(dtype), target=target.to(dtype))
        if metric == "ssim":
            return by_slabs(lambda slab, edges: _amplified_ssim(slab, spec, edges), images, spec)
        if metric == "gms":
            return amplify(gms_dissimilarity(images, spec), spec)
        if metric == "cosine":
            return amplify(cosine_dissimilarity(images, spec), spec)
        return amplify(pointwise_loss(metric, images, spec), spec)


def _amplified_ssim(images: Images, spec: LossSpec, edges: Edges) -> Tensor:
    loss = ssim_dissimilarity(images, spec, edges)
    if spec.ssim_scale != 1.0:
        loss = loss * spec.ssim_scale
    return amplify(loss, spec)


def on_grid(weight: Tensor, shape: torch.Size, grid: torch.Size) -> Tensor:
    """The weight as it broadcasts to the loss's grid: for "valid" its value at window centers.

    Its own size is kept: a mask with one channel is never written out for every channel.
    """
    for dim in range(weight.dim()):
        lost = shape[dim] - grid[dim]
        if lost and weight.shape[dim] != 1:
            weight = weight.narrow(dim, lost // 2, grid[dim])
    return weight


def sum_images(values: Tensor) -> Tensor:
    """The sum over each image: (N, ...) -> (N,), bitwise the same for any number of threads.

    PyTorch splits a long sum among threads, which changes the rounding, but not a short one. In a
    graph for dynamic sizes, the number of short sums would become a constant or a condition: there
    it is one sum, and the compiler decides how to split it.
    """
    if values.dim() == 1:
        return values
    values = values.flatten(1)
    if being_traced():
        return values.sum(dim=1)
    whole = values.shape[1] // SUMMED_AT_ONCE
    rest = values.shape[1] - whole * SUMMED_AT_ONCE
    pieces, remainder = torch.split(values, [whole * SUMMED_AT_ONCE, rest], dim=1)
    partial = pieces.reshape(values.shape[0], whole, SUMMED_AT_ONCE).sum(dim=2)
    return partial.sum(dim=1) + remainder.sum(dim=1)
