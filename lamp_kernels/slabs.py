"""Volumes in slabs along their depth: the reference holds the planes of a slab, not of the volume.

SSIM in plain PyTorch keeps some forty numbers per voxel for the backward pass. So a large volume is
computed slab by slab, and the backward pass computes each slab once more. Windows reach beyond a
slab, so it overlaps its neighbors by the window's radius; only the volume's own first and last
plane are borders. The slabs change nothing but rounding: the shifts of `reference`, which are
constants to the derivative, are those of a slab.

That takes time, and a part of the memory still grows with the volume: the map, the gradients, and
what the allocator keeps.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lamp_kernels.spec import LossSpec
from lamp_kernels.tensors import Images, being_traced

# Voxels of a slab, in all images and channels together. Volumes up to this size are one slab.
VOXELS = 2**21


class Edges(NamedTuple):
    """Whether a slab contains the volume's first plane along D, and its last."""

    first: bool = True
    last: bool = True


WHOLE = Edges()


def by_slabs(compute: Callable[[Images, Edges], Tensor], images: Images, spec: LossSpec) -> Tensor:
    """`compute` of the images, or of the slabs of large volumes, put together again."""
    count = _count(images.input, spec)
    if count == 1:
        return compute(images, WHOLE)

    def compute_slab(number: int, parts: Sequence[list[Tensor]]) -> Tensor:
        input, target, weight, mask = (torch.cat(each, dim=2) if each else None for each in parts)
        assert input is not None
        assert target is not None
        slab = Images(input, target, weight, mask, images.data_range)
        return compute(slab, Edges(number == 0, number == count - 1))

    cuts = [_slabs(tensor, count, spec) for tensor in _at_full_depth(images)]
    return torch.cat(
        [
            checkpoint(compute_slab, *slab, use_reentrant=False, preserve_rng_state=False)
            if torch.is_grad_enabled()
            else compute_slab(*slab)
            for slab in enumerate(zip(*cuts, strict=True))
        ],
        dim=2,
    )


def _count(volume: Tensor, spec: LossSpec) -> int:
    """The number of slabs.

    A slab is at least as deep as the window, so that it overlaps its next neighbors only. A graph
    is not cut, because it is planned as a whole, nor are the batches of torch.vmap, which cannot
    checkpoint.
    """
    if volume.dim() != 5 or being_traced() or torch._C._are_functorch_transforms_active():
        return 1
    depth = spec.grids(volume.shape)[0][2]
    planes = max(VOXELS * volume.shape[2] // max(volume.numel(), 1), spec.window_size)
    return max(-(-depth // planes), 1) if depth >= 2 * spec.window_size else 1


def _at_full_depth(images: Images) -> list[Tensor | None]:
    """The tensors with a depth, expanded to that of the volume."""
    depth = images.input.shape[2]
    return [
        None if tensor is None else tensor.expand(-1, -1, depth, -1, -1) for tensor in images[:4]
    ]


def _slabs(volume: Tensor | None, count: int, spec: LossSpec) -> list[list[Tensor]]:
    """The parts of each slab: its own planes, and the window's radius of those beside them.

    The volume is split first and the neighbors are taken from its parts, because the gradient of
    each view of the whole volume would be as large as the volume.
    """
    if volume is None:
        return [[] for _ in range(count)]
    radius = spec.window_size // 2
    outside = radius if spec.padding == "valid" else 0  # planes that are no window's center
    depth = volume.shape[2] - 2 * outside
    sizes = [depth // count + (number < depth % count) for number in range(count)]
    sizes[0] += outside
    sizes[-1] += outside
    own = volume.split(sizes, dim=2)
    slabs = []
    for number, part in enumerate(own):
        parts = [part]
        if number > 0:
            before = own[number - 1]
            parts.insert(0, before.narrow(2, before.shape[2] - radius, radius))
        if number < count - 1:
            parts.append(own[number + 1].narrow(2, 0, radius))
        slabs.append(parts)
    return slabs
