"""Bitwise identical results from run to run, with any number of threads or Python threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lamp_kernels import (
    AmplifiedMSELoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")


def loss_and_gradients(loss_function, x, y):
    leaves = [image.clone().requires_grad_() for image in (x, y)]
    loss = loss_function(*leaves)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


def assert_same(results):
    for result in results[1:]:
        assert all(torch.equal(one, first) for one, first in zip(result, results[0], strict=True))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


SHAPES = {
    "one large plane": (1, 1, 600, 700),
    "one high plane": (1, 1, 1500, 70),
    "several planes": (2, 3, 129, 257),
    "many small planes": (32, 8, 12, 20),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@every_shape
@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_any_number_of_threads(threads, level, shape):
    x, y = torch.rand(2, *shape)
    weight = torch.rand(1, 1, *shape[-2:])

    def loss_function(x, y):
        return AmplifiedReconstructionLoss(l1=1.0, amplify_over=level)(x, y, weight)

    results = []
    for count in (1, 2, 3, 4, 1):
        threads(count)
        results.append(loss_and_gradients(loss_function, x, y))
    assert_same(results)


@every_shape
@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
def test_the_map_at_any_number_of_threads(threads, padding, shape):
    x, y = torch.rand(2, *shape)
    loss_function = AmplifiedSSIMLoss(padding=padding, reduction="none")
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append([loss_function(x, y), *loss_and_gradients(loss_function, x, y)])
    assert_same(results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_large_plane_of_every_dtype(threads, each_backend, dtype):
    # the reference would take several seconds for a plane that is large for a kernel
    sides = (300, 350) if each_backend == "reference" else (1500, 700)
    x, y = torch.rand(2, 1, 1, *sides).to(dtype)
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(loss_and_gradients(AmplifiedSSIMLoss(), x, y))
    assert_same(results)


def test_a_long_vector(threads):
    x, y = torch.rand(2, 1, 1_000_003)
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(loss_and_gradients(AmplifiedMSELoss(), x, y))
    assert_same(results)
    exact = AmplifiedMSELoss()(x.double(), y.double())
    assert results[0][0].item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize(("pooling", "k"), [("max", None), ("mean", None), ("topk", 0.5)])
def test_scores(threads, pooling, k):
    maps = torch.rand(1, 1024, 1024)
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append([functional.anomaly_score(maps, pooling=pooling, k=k)])
    assert_same(results)


@pytest.mark.parametrize(
    "loss_function",
    [
        AmplifiedReconstructionLoss(),
        AmplifiedReconstructionLoss(amplify_over="image", padding="valid"),
        AmplifiedSSIMLoss(reduction="none", window_size=7),
        AmplifiedMSELoss(),
    ],
    ids=str,
)
def test_several_python_threads_at_once(threads, loss_function):
    threads(2)
    pairs = [torch.rand(2, 2, 3, side, 40) for side in (40, 16, 70, 33) for _ in range(2)]
    expected = [loss_and_gradients(loss_function, *pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: loss_and_gradients(loss_function, *pair), pairs))
    for pair in zip(found, expected, strict=True):
        assert_same(pair)
