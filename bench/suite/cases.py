"""What the suite measures, as data: shapes, image pairs, and the two sizes of a run."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Shape = tuple[int, int, int, int]

FULL_SHAPES: tuple[Shape, ...] = (
    (8, 3, 256, 256),
    (1, 3, 1080, 1920),
    (64, 1, 28, 28),
    (4, 3, 1024, 1024),
)
MAIN_SHAPE = FULL_SHAPES[0]  # also used for thread scaling, the training step and the roofline


@dataclass(frozen=True)
class Size:
    """How much one run of the suite measures. Budgets are in seconds of interleaved rounds."""

    name: str
    shapes: tuple[Shape, ...]
    main_shape: Shape
    sweep_sides: tuple[int, ...]
    memory_shape: Shape
    matmul_side: int
    budget: float  # per shape
    sweep_budget: float  # per side
    min_rounds: int
    max_rounds: int
    compiled: bool  # compiling takes longer than the rest of a quick run
    memory_brief: bool  # only forward + backward, only the contestants of the sweep


QUICK = Size(
    name="quick",
    shapes=((2, 3, 128, 128), (16, 1, 28, 28)),
    main_shape=(2, 3, 128, 128),
    sweep_sides=(64, 128, 256),
    memory_shape=(1, 1, 1024, 1024),
    matmul_side=512,
    budget=1.0,
    sweep_budget=0.5,
    min_rounds=3,
    max_rounds=20,
    compiled=False,
    memory_brief=True,
)
FULL = Size(
    name="full",
    shapes=FULL_SHAPES,
    main_shape=MAIN_SHAPE,
    sweep_sides=(64, 128, 256, 512, 1024, 2048, 4096),
    memory_shape=(1, 3, 2048, 2048),
    matmul_side=2048,
    budget=40.0,
    sweep_budget=6.0,
    min_rounds=5,
    max_rounds=60,
    compiled=True,
    memory_brief=False,
)
SIZES = {size.name: size for size in (QUICK, FULL)}

# A contestant that would exceed one of these at some shape is skipped there.
LIMIT_SECONDS = 20.0  # per call
LIMIT_BYTES = 6e9  # beyond the images


@dataclass(frozen=True)
class OperatorCase:
    """One call of this library's SSIM loss for pytest-benchmark."""

    shape: Shape
    dtype: torch.dtype = torch.float32
    padding: Literal["reflect", "valid", "zeros"] = "reflect"
    gradients: Literal["none", "input", "both"] = "input"

    @property
    def id(self) -> str:
        """The name in pytest's output."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{shape_name(self.shape)}-{dtype}-{self.padding}-gradients={self.gradients}"


_SMALL = (2, 3, 128, 128)
OPERATOR_CASES = (
    *(OperatorCase(shape) for shape in FULL_SHAPES),
    *(OperatorCase(_SMALL, gradients=gradients) for gradients in ("none", "input", "both")),
    *(OperatorCase(_SMALL, padding=padding) for padding in ("valid", "zeros")),
    *(OperatorCase(_SMALL, dtype=dtype) for dtype in (torch.bfloat16, torch.float16)),
    OperatorCase(_SMALL, dtype=torch.float64),
)


def shape_name(shape: tuple[int, ...]) -> str:
    """8x3x256x256."""
    return "x".join(map(str, shape))


def textured_pair(
    shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Input and target in [0, 1], a standard deviation of 0.1 apart; the same in every run."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    noise = torch.randn(shape, generator=generator).mul_(0.1)
    return noise.add_(target).clamp_(0, 1).to(dtype), target.to(dtype)


def nearly_equal_pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A flat image of 0.95 with noise of 1e-3 and without it, as at the end of training."""
    generator = torch.Generator().manual_seed(0)
    target = torch.full(shape, 0.95)
    return target + 1e-3 * torch.randn(shape, generator=generator), target
