"""The autoencoder: shapes, range, determinism, no skip connections, no BatchNorm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from uad.model import ConvAutoencoder

SIZES = [(16, 16), (28, 28), (37, 50), (64, 64), (17, 95)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_output_has_the_shape_of_the_input_and_lies_in_0_1(channels, size):
    torch.manual_seed(0)
    model = ConvAutoencoder(channels)
    for images in (torch.rand(2, channels, *size), torch.zeros(1, channels, *size)):
        output = model(images)
        assert output.shape == images.shape
        assert output.dtype == torch.float32
        assert output.min() > 0
        assert output.max() < 1


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_depth_supports_odd_sizes(depth):
    images = torch.rand(1, 1, 37, 50)
    assert ConvAutoencoder(1, width=8, latent=4, depth=depth)(images).shape == images.shape


@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_code_has_the_promised_channels_and_size(size):
    model = ConvAutoencoder(1, latent=5, depth=3)
    codes = []
    model.encoder.register_forward_hook(lambda module, inputs, output: codes.append(output))
    model(torch.rand(2, 1, *size))
    assert codes[0].shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))


def test_the_output_depends_on_the_code_alone():
    """No skip connection: with the code held fixed, the input does not matter."""
    torch.manual_seed(0)
    model = ConvAutoencoder(1).eval()
    first, second = torch.rand(2, 1, 1, 32, 32)
    code = model.encoder(first)
    assert not torch.equal(model(first), model(second))
    expected = model(first)
    model.encoder.register_forward_hook(lambda module, inputs, output: code)
    assert torch.equal(model(second), expected)


def test_each_image_is_reconstructed_on_its_own():
    """No BatchNorm: half a batch gives half of the output, in training mode too."""
    torch.manual_seed(0)
    model = ConvAutoencoder(1).train()
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert not list(model.buffers())
    images = torch.rand(4, 1, 32, 32)
    halves = torch.cat([model(images[:2]), model(images[2:])])
    torch.testing.assert_close(model(images), halves)


def test_cropping_undoes_padding_for_odd_sizes():
    """With identities as encoder and decoder the network returns the sigmoid of its input."""
    model = ConvAutoencoder(1)
    model.encoder, model.decoder = nn.Identity(), nn.Identity()
    images = torch.rand(1, 1, 37, 50)
    torch.testing.assert_close(model(images), torch.sigmoid(images))


def test_seed_determines_the_weights_and_one_step():
    def train_one_step(seed):
        torch.manual_seed(seed)
        model = ConvAutoencoder(1)
        images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(7))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        nn.functional.mse_loss(model(images), images).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train_one_step(3), train_one_step(3))
    assert not torch.equal(train_one_step(3), train_one_step(4))


def test_the_network_learns_to_reconstruct():
    torch.manual_seed(0)
    model = ConvAutoencoder(1)
    images = torch.linspace(0, 1, 32).expand(8, 1, 32, 32) * torch.rand(8, 1, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(model(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_deepcopy_and_state_dict_round_trip():
    torch.manual_seed(0)
    model = ConvAutoencoder(3)
    images = torch.rand(1, 3, 32, 32)
    other = ConvAutoencoder(3)
    assert not torch.equal(model(images), other(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))
    assert torch.equal(model(images), copy.deepcopy(model)(images))


@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_compiling_has_no_graph_break(size):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = ConvAutoencoder(1)
    images = torch.rand(2, 1, *size)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize(
    "shape", [(1, 3, 32, 32), (1, 1, 15, 32), (1, 1, 32, 15), (1, 32, 32), (2, 1, 32)]
)
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        ConvAutoencoder(1)(torch.rand(shape))


@pytest.mark.parametrize(
    "arguments", [{"depth": 0}, {"depth": 5}, {"width": 1}, {"latent": 0}, {"channels": 0}]
)
def test_wrong_argument_is_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ConvAutoencoder(**{"channels": 1, **arguments})
