"""A full training step of the training program's autoencoder, with each loss."""

import importlib.util
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from lamp_kernels import AmplifiedMSELoss, AmplifiedSSIMLoss, backends
from suite.cases import Size, textured_pair
from suite.measure import Entry, Row, interleave, progress

SEED = 0


def training_step(size: Size) -> list[Row]:
    """Rows for a step with each loss: zero_grad, forward, backward and Adam on the main shape."""
    progress("training step")
    shape = size.main_shape
    _, images = textured_pair(shape)
    entries = [
        Entry(
            {
                "contestant": name,
                "shape": list(shape),
                "elements": prod(shape),
                "pass": "training step",
                "threads": torch.get_num_threads(),
            },
            _step(loss, images),
        )
        for name, loss in _losses().items()
    ]
    return interleave(
        entries, budget=size.budget, min_rounds=size.min_rounds, max_rounds=size.max_rounds
    )


def _losses() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    best = backends.available()[0]
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "torch MSELoss": torch.nn.MSELoss(),
        f"AmplifiedMSELoss, {best}": AmplifiedMSELoss(),
        f"AmplifiedSSIMLoss, {best}": AmplifiedSSIMLoss(),
    }
    if importlib.util.find_spec("pytorch_msssim") is not None:
        from pytorch_msssim import ssim

        losses["pytorch-msssim"] = lambda x, y: 1.0 - ssim(x, y, data_range=1.0)
    return losses


def autoencoder(channels: int) -> torch.nn.Module:
    """The training program's network in its default size."""
    from uad.model import ConvAutoencoder  # here, because run.py has to make python/ importable

    return ConvAutoencoder(channels)


def _step(loss_function: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> Callable[[], None]:
    torch.manual_seed(SEED)
    model = autoencoder(images.shape[1])
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss_function(model(images), images).backward()
        optimizer.step()

    return step
