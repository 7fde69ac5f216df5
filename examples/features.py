"""A student that reproduces the features of a frozen teacher, trained with the cosine loss.

    python examples/features.py

The scheme of reverse distillation (Deng, Li, CVPR 2022), small enough for half a minute on a core:
the teacher is a bank of Gabor filters instead of a pretrained network, and the student sees the
image through a bottleneck. It learns the features of normal textures only, so where a texture is
not normal, its features point elsewhere. Loss and anomaly map are cosine distances at each
position, at two scales. For features of your own, replace `Teacher`.
"""

import argparse
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from lamp_kernels import AmplifiedCosineLoss, functional

SIDE = 64  # pixels of an image
ORIENTATIONS = 8
PERIODS = (4.0, 8.0)  # pixels; the filters of each scale
TAPS = 9  # side of a filter in pixels
CHANNELS = ORIENTATIONS * len(PERIODS)


class Teacher(nn.Module):
    """Gabor energy at two scales: (N, 1, S, S) -> (N, CHANNELS, S/2, S/2), (N, CHANNELS, S/4, S/4).

    The energy of an orientation and period is the magnitude of the image's correlation with a wave
    under a Gaussian, so it does not depend on the phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", gabor_filters())

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """The features, fine to coarse."""
        features = []
        for _ in range(2):
            even, odd = conv2d(images, self.filters, padding=TAPS // 2).chunk(2, dim=1)
            features.append(avg_pool2d((even.square() + odd.square()).sqrt(), 2))
            images = avg_pool2d(images, 2)
        return features


def gabor_filters() -> Tensor:
    """(2 CHANNELS, 1, TAPS, TAPS): all even filters, then all odd ones. None sees a constant."""
    y, x = torch.meshgrid(*[torch.arange(TAPS) - TAPS // 2] * 2, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (TAPS / 4) ** 2))
    filters = []
    for wave in (torch.cos, torch.sin):
        for period in PERIODS:
            for orientation in range(ORIENTATIONS):
                angle = math.pi * orientation / ORIENTATIONS
                along = x * math.cos(angle) + y * math.sin(angle)
                taps = envelope * wave(2 * math.pi * along / period)
                filters.append(taps - envelope * (taps.sum() / envelope.sum()))
    return torch.stack(filters).unsqueeze(1)


class Student(nn.Module):
    """From the image through a bottleneck to the teacher's features at both scales."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 4, 4, stride=4),  # the bottleneck, 4 channels of SIDE/16
        )
        self.coarse = nn.Sequential(nn.ConvTranspose2d(4, 32, 4, stride=4), nn.ReLU())
        self.fine = nn.Sequential(nn.ConvTranspose2d(32, 32, 2, stride=2), nn.ReLU())
        self.heads = nn.ModuleList([nn.Conv2d(32, CHANNELS, 3, padding=1) for _ in range(2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features, fine to coarse."""
        coarse = self.coarse(self.encoder(images))
        return [self.heads[0](self.fine(coarse)), self.heads[1](coarse)]


def textures(count: int, generator: torch.Generator) -> Tensor:
    """Normal images (count, 1, SIDE, SIDE) in [0, 1]: nearly upright waves and some noise."""
    angle, phase, noise = (
        torch.randn(count, 1, *sides, generator=generator)
        for sides in ((1, 1), (1, 1), (SIDE, SIDE))
    )
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    along = x * torch.cos(0.1 * angle) + y * torch.sin(0.1 * angle)
    waves = torch.sin(2 * math.pi * along / 7.0 + 6.28 * phase)
    return (0.5 + 0.3 * waves + 0.05 * noise).clamp(0.0, 1.0)


def with_defects(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images, each with a patch of 14 x 14 pixels turned by 90 degrees somewhere."""
    images = images.clone()
    for image in images:
        row, column = torch.randint(4, SIDE - 18, (2,), generator=generator).tolist()
        patch = image[:, row : row + 14, column : column + 14]
        patch.copy_(patch.transpose(-1, -2).clone())
    return images


def train(teacher: Teacher, images: Tensor, steps: int) -> Student:
    """Train a student on normal images."""
    student, loss_function = Student(), AmplifiedCosineLoss()
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    for step in range(steps):
        batch = images[torch.randint(len(images), (16,))]
        pairs = zip(student(batch), teacher(batch), strict=True)
        loss = sum(loss_function(found, wanted) for found, wanted in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.4f}")
    return student


@torch.no_grad()
def scores(teacher: Teacher, student: Student, images: Tensor) -> Tensor:
    """One score per image, (N,): the worst 1% of the map, which adds both scales, enlarged."""
    total = torch.zeros(len(images), SIDE, SIDE)
    for found, wanted in zip(student(images), teacher(images), strict=True):
        errors = functional.anomaly_map(found, wanted, metric="cosine")
        total += interpolate(errors[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0]
    return functional.anomaly_score(total, pooling="topk", k=0.01)


def auroc(normal: Tensor, defective: Tensor) -> float:
    """How often a defective image scores higher than a normal one."""
    return (defective[:, None] > normal).float().mean().item()


def run(steps: int, images: int = 256) -> tuple[Tensor, Tensor]:
    """Train; return the scores of unseen images without and with defects."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    teacher = Teacher()
    student = train(teacher, textures(images, generator), steps)
    unseen = textures(64, generator)
    return (
        scores(teacher, student, unseen),
        scores(teacher, student, with_defects(unseen, generator)),
    )


def main() -> None:
    """Train, then print the scores of both kinds of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps of 16 images")
    normal, defective = run(parser.parse_args().steps)
    print(f"mean score of normal images {normal.mean():.3f}, with defects {defective.mean():.3f}")
    print(f"AUROC {auroc(normal, defective):.3f}")


if __name__ == "__main__":
    main()
