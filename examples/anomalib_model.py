"""A reconstruction model for anomalib, trained with `AmplifiedReconstructionLoss`.

    python examples/anomalib_model.py --root DIR --epochs 5

`AmplifiedAutoencoder` is an anomalib model like those in the package. It computes the loss in
`training_step`; `Network` computes the anomaly map, which is not amplified. Without `--root` the
program makes striped images with defects; a folder must contain `normal/`, `abnormal/` and
`masks/`. Requires `anomalib`, which requires torchvision.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from anomalib import LearningType
from anomalib.data import Batch, Folder, InferenceBatch
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from lamp_kernels import AmplifiedReconstructionLoss, functional

SIDE = 64  # pixels


class Network(nn.Module):
    """An autoencoder that returns reconstructions in training, otherwise maps and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),  # SSIM expects values in [0, data_range]
        )

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        """Reconstruct images (N, 3, H, W) in [0, 1], where H and W are multiples of 4.

        Returns the reconstructions in training, otherwise maps (N, 1, H, W) and scores (N,).
        """
        reconstruction = self.layers(images)
        if self.training:
            return reconstruction
        maps = functional.anomaly_map(reconstruction, images, smooth_sigma=1.0)
        scores = functional.anomaly_score(maps, pooling="topk", k=0.02)
        return InferenceBatch(pred_score=scores, anomaly_map=maps.unsqueeze(1))


class AmplifiedAutoencoder(AnomalibModule):
    """Trains the autoencoder; anomalib provides post-processing, metrics and pictures."""

    def __init__(self, ssim: float = 1.0, mse: float = 1.0, **components: object) -> None:
        super().__init__(**components)
        self.model = Network()
        self.loss = AmplifiedReconstructionLoss(ssim=ssim, mse=mse)

    def training_step(self, batch: Batch, *args: object, **kwargs: object) -> Tensor:
        """The amplified loss of a batch of normal images."""
        loss = self.loss(self.model(batch.image), batch.image)
        size = len(batch.image)
        self.log("train_loss", loss, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, *args: object, **kwargs: object) -> Batch:
        """Add maps and scores to a batch."""
        return batch.update(**self.model(batch.image)._asdict())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=3e-3)

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize only: the loss expects images in [0, 1], and normalization would leave that."""
        return PreProcessor(transform=Resize(image_size or (SIDE, SIDE), antialias=True))

    @property
    def trainer_arguments(self) -> dict[str, object]:
        """Arguments that this model requires for Lightning's trainer."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """This model learns from normal images only."""
        return LearningType.ONE_CLASS


def make_images(root: Path, count: int) -> None:
    """Write `count` striped images, and a quarter as many with a patch of rotated stripes.

    Each image with a patch has a mask.
    """
    generator = torch.Generator().manual_seed(0)
    patch = slice(20, 44)
    for folder in ("normal", "abnormal", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count + count // 4):
        frequency, phase = torch.rand(2, generator=generator).tolist()
        columns = torch.arange(SIDE).expand(SIDE, SIDE)
        image = 0.5 + 0.4 * torch.sin((0.6 + 0.6 * frequency) * columns + 6.28 * phase)
        name, folder = f"{number:04}.png", "normal"
        if number >= count:
            folder = "abnormal"
            image[patch, patch] = image[patch, patch].T.clone()
            mask = torch.zeros(SIDE, SIDE)
            mask[patch, patch] = 1.0
            save(mask, root / "masks" / name)
        save(image, root / folder / name)


def save(image: Tensor, path: Path) -> None:
    """Write a gray image in [0, 1] as a PNG file with three channels."""
    Image.fromarray((255 * image).round().byte().numpy()).convert("RGB").save(path)


def train_and_test(root: Path, results: Path, epochs: int) -> dict[str, float]:
    """Train on normal images from `root`; return anomalib's metrics on held-out images by name."""
    data = Folder(
        name="example",
        root=root,
        normal_dir="normal",
        abnormal_dir="abnormal",
        mask_dir="masks",
        train_batch_size=16,
        eval_batch_size=16,
        num_workers=0,
        seed=0,
    )
    model = AmplifiedAutoencoder(visualizer=False)
    engine = Engine(max_epochs=epochs, default_root_dir=results, logger=False, accelerator="auto")
    engine.fit(model, datamodule=data)
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    return dict(metrics)


def main() -> None:
    """Train, test and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder with normal/, abnormal/ and masks/")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--images", type=int, default=96, help="normal images to make without --root"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root or Path(scratch) / "images"
        if arguments.root is None:
            make_images(root, arguments.images)
        metrics = train_and_test(root, Path(scratch) / "results", arguments.epochs)
    for name, value in metrics.items():
        print(f"{name} {value:.3f}")


if __name__ == "__main__":
    main()
