"""An autoencoder as a PyTorch Lightning module, trained with an amplified loss.

    python examples/lightning_autoencoder.py --epochs 5

Normal images are stripes; a defect is a patch of rotated stripes. To use the loss in your own
module, copy `training_step`, and for the scores `predict_step`. Requires `lightning`.
"""

import argparse

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lamp_kernels import AmplifiedReconstructionLoss, functional

SIDE = 32  # pixels


def stripes(count: int, seed: int) -> Tensor:
    """Images (count, 1, SIDE, SIDE) in [0, 1]: stripes along y with random widths and phases."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.6 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)  # radians per pixel
    phase = 6.28 * torch.rand(count, 1, 1, 1, generator=generator)
    columns = torch.arange(SIDE).expand(1, 1, SIDE, SIDE)
    return 0.5 + 0.4 * torch.sin(frequency * columns + phase)


def with_defects(images: Tensor) -> Tensor:
    """The images, each with a patch of 12 x 12 pixels rotated by 90 degrees."""
    images = images.clone()
    images[..., 10:22, 10:22] = images[..., 10:22, 10:22].transpose(-1, -2)
    return images


class Autoencoder(lightning.LightningModule):
    """A small convolutional autoencoder for images in [0, 1]."""

    def __init__(self, loss_function: nn.Module) -> None:
        super().__init__()
        self.loss_function = loss_function
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            nn.Sigmoid(),  # SSIM expects values in [0, data_range]
        )

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction."""
        return self.network(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The amplified loss of a batch."""
        (images,) = batch
        loss = self.loss_function(self(images), images)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """One anomaly score per image: the mean over the worst 5% of its map, not amplified."""
        (images,) = batch
        maps = functional.anomaly_map(self(images), images)
        return functional.anomaly_score(maps, pooling="topk", k=0.05)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def train_and_score(epochs: int, images: int, precision: str = "32-true") -> tuple[Tensor, Tensor]:
    """Train on normal images; return the scores of unseen ones without and with defects."""
    lightning.seed_everything(0, verbose=False)
    module = Autoencoder(AmplifiedReconstructionLoss(ssim=1.0, mse=1.0))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, loader(stripes(images, seed=1), shuffle=True))
    print(f"training loss {trainer.callback_metrics['train_loss']:.4f}")
    unseen = stripes(16, seed=2)
    normal, defective = (
        torch.cat(trainer.predict(module, loader(images)))
        for images in (unseen, with_defects(unseen))
    )
    return normal, defective


def loader(images: Tensor, *, shuffle: bool = False) -> DataLoader:
    """A loader for batches of the images."""
    return DataLoader(TensorDataset(images), batch_size=16, shuffle=shuffle)


def main() -> None:
    """Train, then print the scores of both kinds of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=256, help="number of training images")
    parser.add_argument("--precision", default="32-true", help="precision for lightning.Trainer")
    arguments = parser.parse_args()
    normal, defective = train_and_score(arguments.epochs, arguments.images, arguments.precision)
    print(f"mean score of normal images {normal.mean():.3f}, with defects {defective.mean():.3f}")
    higher = (defective[:, None] > normal).float().mean()
    print(f"AUROC {higher:.3f}: how often a defective image scores higher than a normal one")


if __name__ == "__main__":
    main()
