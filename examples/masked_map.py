"""Draw the anomaly map of a printed part with and without a mask over its label.

    python examples/masked_map.py --out masked_map.png

Each part carries a serial number, so no reconstruction can know its digits. Their error is not a
defect, but it spreads: an SSIM window of 11 pixels sees them from 5 pixels away, and a scratch
there drowns. Hiding the label in the finished map leaves that rim. `mask=` leaves masked pixels out
of every window. Requires matplotlib.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lamp_kernels import functional

SIDE = 96  # pixels
LABEL = (slice(34, 62), slice(16, 80))  # rows, columns
SCRATCHES = ((slice(65, 67), slice(30, 58)), (slice(14, 16), slice(52, 80)))


class Part(NamedTuple):
    """All (1, 1, SIDE, SIDE); images in [0, 1], masks of bool."""

    image: Tensor
    reconstruction: Tensor  # of a network that has seen many parts: no scratch, blurred digits
    mask: Tensor  # False on the label
    scratched: Tensor  # True on the scratches


class Maps(NamedTuple):
    """Anomaly maps (1, SIDE, SIDE)."""

    whole: Tensor  # without a mask
    hidden: Tensor  # the same, 0 on the label
    masked: Tensor  # with mask=


def part() -> Part:
    """A brushed surface with a label of random digits and two faint scratches."""
    generator = torch.Generator().manual_seed(0)
    strokes = torch.randn(SIDE, 1, generator=generator).expand(SIDE, SIDE)
    surface = 0.6 + 0.06 * strokes + 0.005 * torch.randn(SIDE, SIDE, generator=generator)
    cells = torch.rand(7, 16, generator=generator) < 0.5  # of 4 x 4 pixels
    digits = torch.where(cells, 0.1, 0.95).repeat_interleave(4, 0).repeat_interleave(4, 1)
    image = surface.clone()
    image[LABEL] = digits
    scratched = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for scratch in SCRATCHES:
        scratched[scratch] = True
    image = torch.where(scratched, image - 0.12, image)
    reconstruction = 0.6 + 0.06 * strokes
    reconstruction = reconstruction.clone()
    reconstruction[LABEL] = 0.5
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[LABEL] = False
    tensors = (image.clamp(0, 1), reconstruction.clamp(0, 1), mask, scratched)
    return Part(*(each[None, None] for each in tensors))


def maps(part: Part) -> Maps:
    """The part's anomaly map: of the whole image, with the label hidden, and masked."""
    whole = functional.anomaly_map(part.reconstruction, part.image)
    masked = functional.anomaly_map(part.reconstruction, part.image, part.mask)
    return Maps(whole, whole * part.mask[:, 0], masked)


def draw(part: Part, maps: Maps, path: Path) -> None:
    """Write the picture: the image and the three maps on one color scale."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    axes[0].imshow(part.image[0, 0], cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("image: two scratches")
    titles = ("no mask", "no mask, label hidden in the map", "mask=")
    for axis, title, values in zip(axes[1:], titles, maps, strict=True):
        shown = axis.imshow(values[0], cmap="magma", vmin=0, vmax=float(maps.masked.max()))
        axis.set_title(title)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.title.set_fontsize(10)
    figure.colorbar(shown, ax=axes, label="(1 - SSIM)/2", extend="max")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw the picture, and print how far each scratch stands out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("masked_map.png"), help="a PNG to write")
    arguments = parser.parse_args()
    scene = part()
    found = maps(scene)
    draw(scene, found, arguments.out)
    good = scene.mask & ~near(scene.scratched)
    for name, values in found._asdict().items():
        print(f"{name:7} scratches {peak(values, scene.scratched):.2f}", end=", ")
        print(f"highest elsewhere off the label {peak(values, good):.2f}")
    print(f"wrote {arguments.out}")


def near(pixels: Tensor) -> Tensor:
    """Pixels whose SSIM window of side 11 sees one of these."""
    return torch.nn.functional.max_pool2d(pixels.float(), 11, stride=1, padding=5) > 0


def peak(values: Tensor, pixels: Tensor) -> float:
    """The highest value of a map on these pixels."""
    return values[pixels[:, 0]].max().item()


if __name__ == "__main__":
    main()
