"""What is compared: this library's backends, other packages, and MSELoss as the floor.

Each is set up as its users would: images in [0, 1], a Gaussian window of 11 pixels and sigma
1.5, and the package's own default border. A package is imported only when it is set up, so the
suite also runs if some are missing.
"""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import AmplifiedSSIMLoss, backends, functional
from lamp_kernels.spec import Dissimilarity, Padding

Loss = Callable[[Tensor, Tensor], Tensor]
OURS = "lamp_kernels"
NATIVE = "lamp_kernels native"
NATIVE_PLAIN = "lamp_kernels native, valid, not amplified"
NATIVE_ZEROS = "lamp_kernels native, zeros, not amplified"
REFERENCE = "lamp_kernels reference"
REFERENCE_PLAIN = "lamp_kernels reference, valid, not amplified"
COMPILED = "lamp_kernels reference, compiled"
TRITON = "lamp_kernels triton"
TEXTBOOK = "textbook SSIM"
FUSED = "fused-ssim"
MSSSIM = "pytorch-msssim"
FLOOR = "torch MSELoss"


@dataclass(frozen=True)
class Passes:
    """A contestant set up on one pair of images. Both calls can be repeated."""

    forward: Callable[[], Any]  # the loss without a gradient
    forward_backward: Callable[[], tuple[Any, Tensor]]  # the loss and its gradient


@dataclass(frozen=True)
class Contestant:
    """A loss, how to call it, and its value in exact arithmetic.

    name: unique, as in tables. distribution: its name for pip. border: how its SSIM treats the
    border. setup: turns input and target into the calls to time. exact: the same definition, to
    be called with float64 images. threads: 1, or None if it uses as many as torch. margin: the
    width in pixels of the border where its gradient is defined differently and is not compared.
    """

    name: str
    distribution: str
    border: str
    setup: Callable[[Tensor, Tensor], Passes]
    exact: Loss
    threads: int | None = None
    margin: int = 0

    @property
    def version(self) -> str | None:
        """The installed version, or None if it is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def unavailable(self) -> str | None:
        """Why it cannot be measured here, or None if it can."""
        ours = (name for name in ("native", "triton") if self.name.startswith(f"{OURS} {name}"))
        kernels = next(ours, None)
        if kernels is not None and kernels not in backends.available():
            return f"the {kernels} kernels of lamp_kernels are not available"
        # fused-ssim is built from source; a module without package metadata will do.
        bare = self.name == FUSED and importlib.util.find_spec("fused_ssim") is not None
        if self.version is None and self.distribution != OURS and not bare:
            return f"{self.distribution} is not installed"
        return None


def select(
    only: Sequence[str] | None = None,
    *,
    compiled: bool = True,
    among: Sequence[Contestant] | None = None,
    device: str = "cpu",
) -> tuple[list[Contestant], list[dict[str, str]]]:
    """The contestants to measure, and a row with the reason for each skipped one.

    only: prefixes of names; None selects all. compiled: whether to compile the reference. among:
    the candidates, CONTESTANTS if None. device: the type of the images' device.
    """
    taken: list[Contestant] = []
    skipped: list[dict[str, str]] = []
    for contestant in CONTESTANTS if among is None else among:
        if only is not None and not contestant.name.startswith(tuple(only)):
            continue
        reason = contestant.unavailable()
        if reason is None and contestant.name == TRITON and device == "cpu":
            reason = "not available on the CPU: the Triton kernels run on GPUs"
        if reason is None and contestant.name == COMPILED and not compiled:
            reason = "compiling takes too long for a quick run"
        if reason is None:
            taken.append(contestant)
        else:
            skipped.append({"contestant": contestant.name, "reason": reason})
    return taken, skipped


def torch_setup(make: Callable[[], Loss]) -> Callable[[Tensor, Tensor], Passes]:
    """The setup of a loss that autograd differentiates."""

    def setup(input: Tensor, target: Tensor) -> Passes:
        loss_function = make()
        leaf = input.detach().requires_grad_()

        def forward() -> Tensor:
            with torch.no_grad():
                return loss_function(input, target)

        def forward_backward() -> tuple[Tensor, Tensor]:
            loss = loss_function(leaf, target)
            loss.backward()
            gradient, leaf.grad = leaf.grad, None  # as after an optimizer's zero_grad
            assert gradient is not None
            return loss, gradient

        return Passes(forward, forward_backward)

    return setup


def _ours(name: str, *, backend: str, compiled: bool = False, **options: Any) -> Contestant:
    def make() -> Loss:
        loss = AmplifiedSSIMLoss(backend=backend, **options)
        # dynamic=False compiles each shape as a training run with that shape would.
        return torch.compile(loss, fullgraph=True, dynamic=False) if compiled else loss

    border = options.get("padding", "reflect")
    exact = AmplifiedSSIMLoss(backend="reference", **options)
    return Contestant(name, OURS, border, torch_setup(make), exact)


def _plain(padding: Padding, dissimilarity: Dissimilarity = "full") -> Loss:
    """The SSIM loss that other packages compute, by this library's reference."""
    return AmplifiedSSIMLoss(
        padding=padding, dissimilarity=dissimilarity, amplification="none", backend="reference"
    )


def _pytorch_msssim() -> Loss:
    from pytorch_msssim import ssim

    return lambda input, target: 1.0 - ssim(input, target, data_range=1.0)


def _fused_ssim() -> Loss:
    from fused_ssim import fused_ssim

    return lambda input, target: 1.0 - fused_ssim(input, target)


def _textbook() -> Loss:
    """The textbook formula in plain PyTorch, with a separable window."""
    side = torch.arange(11) - 5
    taps = torch.exp(-side.square() / (2 * 1.5**2))
    taps = taps / taps.sum()

    def loss(input: Tensor, target: Tensor) -> Tensor:
        channels = input.shape[1]
        along_x = taps.to(input).expand(channels, 1, 1, -1)
        along_y = along_x.mT

        def mean(image: Tensor) -> Tensor:
            rows = torch.nn.functional.conv2d(image, along_x, groups=channels)
            return torch.nn.functional.conv2d(rows, along_y, groups=channels)

        x, y = mean(input), mean(target)
        xx, yy, xy = mean(input * input), mean(target * target), mean(input * target)
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * x * y + c1) / (x * x + y * y + c1)
        structure = (2 * (xy - x * y) + c2) / (xx - x * x + yy - y * y + c2)
        return 1.0 - (luminance * structure).mean()

    return loss


def _kornia() -> Loss:
    from kornia.losses import SSIMLoss

    return SSIMLoss(11)


def _torchmetrics() -> Loss:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    def loss(input: Tensor, target: Tensor) -> Tensor:
        value = ssim(input, target, data_range=1.0)
        assert isinstance(value, Tensor)  # a tuple only if the map is requested as well
        return 1.0 - value

    return loss


def _piq() -> Loss:
    loss: Loss = piq_module("ssim").SSIMLoss(downsample=False, data_range=1.0)
    return loss


def piq_module(name: str) -> ModuleType:
    """A module of piq; skips piq/__init__.py if torchvision, which it imports, is missing."""
    if "piq" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        spec = importlib.util.find_spec("piq")
        assert spec is not None
        sys.modules["piq"] = importlib.util.module_from_spec(spec)  # registered, but not executed
    return importlib.import_module(f"piq.{name}")


def _frame_analytics() -> Loss:
    from frame_analytics import SSIM

    loss: Loss = SSIM(data_range=1.0).loss
    return loss


def _scikit_image(input: Tensor, target: Tensor) -> Passes:
    """Image by image, through NumPy; its gradient is with respect to the second image."""
    from skimage.metrics import structural_similarity

    options = {
        "data_range": 1.0,
        "gaussian_weights": True,
        "use_sample_covariance": False,
        "channel_axis": 0,
    }

    def forward() -> float:
        values = [
            structural_similarity(y, x, **options)
            for x, y in zip(input.numpy(), target.numpy(), strict=True)
        ]
        return 1.0 - float(sum(values)) / len(values)

    def forward_backward() -> tuple[float, Tensor]:
        value, gradient = 0.0, torch.empty_like(input)
        count, channels = input.shape[:2]
        for index, (x, y) in enumerate(zip(input.numpy(), target.numpy(), strict=True)):
            one, slope = structural_similarity(y, x, gradient=True, **options)
            value += one / count
            gradient[index] = torch.from_numpy(slope)
        return 1.0 - value, gradient.mul_(-1.0 / (count * channels))

    return Passes(forward, forward_backward)


def _scikit_image_exact(input: Tensor, target: Tensor) -> Tensor:
    """Its value, with its gradient: that of the map's sum divided by the number of pixels."""
    ssim = functional.ssim(input, target, reduction="none", backend="reference")
    value, slope = 1.0 - ssim.mean(), -ssim.sum() / input.numel()
    return slope + (value - slope).detach()


def _peer(name: str, border: str, make: Callable[[], Loss], exact: Loss) -> Contestant:
    return Contestant(name, name, border, torch_setup(make), exact)


_PLAIN: dict[str, Any] = {"padding": "valid", "dissimilarity": "full", "amplification": "none"}

CONTESTANTS = (
    _ours(NATIVE, backend="native"),
    _ours(NATIVE_PLAIN, backend="native", **_PLAIN),
    _ours(COMPILED, backend="reference", compiled=True),
    _ours(REFERENCE, backend="reference"),
    _ours(REFERENCE_PLAIN, backend="reference", **_PLAIN),
    _peer(MSSSIM, "valid", _pytorch_msssim, _plain("valid")),
    _peer("frame-analytics", "valid", _frame_analytics, _plain("valid")),
    _peer("kornia", "reflect", _kornia, _plain("reflect", "half")),
    _peer("torchmetrics", "reflect", _torchmetrics, _plain("reflect")),
    _peer("piq", "valid", _piq, _plain("valid")),
    Contestant(
        "scikit-image",
        "scikit-image",
        "valid",
        _scikit_image,
        _scikit_image_exact,
        threads=1,
        margin=10,  # two windows
    ),
    Contestant(FLOOR, "torch", "-", torch_setup(torch.nn.MSELoss), torch.nn.MSELoss()),
)

_BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
# The contestants that accept GPU tensors; fused-ssim accepts no others.
ON_GPU = (
    *(_BY_NAME[name] for name in (NATIVE, NATIVE_PLAIN)),
    # Computes the same loss as fused-ssim.
    _ours(NATIVE_ZEROS, backend="native", **{**_PLAIN, "padding": "zeros"}),
    _ours(TRITON, backend="triton"),
    *(_BY_NAME[name] for name in (COMPILED, REFERENCE)),
    Contestant(TEXTBOOK, "torch", "valid", torch_setup(_textbook), _plain("valid")),
    _peer(FUSED, "zeros", _fused_ssim, _plain("zeros")),
    *(_BY_NAME[name] for name in (MSSSIM, "kornia", "torchmetrics", FLOOR)),
)
