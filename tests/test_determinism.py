"""Bitwise the same: from run to run, at any number of threads, from several Python threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lamp_kernels import AmplifiedMSELoss, AmplifiedReconstructionLoss, functional


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


@pytest.mark.parametrize("shape", [(1, 1, 600, 700), (2, 3, 129, 257)])
@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_any_number_of_threads(threads, level, shape):
    x, y = torch.rand(2, *shape)
    weight = torch.rand(shape[-2:])

    def loss_function(x, y):
        return AmplifiedReconstructionLoss(l1=1.0, amplify_over=level)(x, y, weight)

    results = []
    for count in (1, 2, 3, 4, 1):
        threads(count)
        results.append(loss_and_gradients(loss_function, x, y))
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


@pytest.mark.parametrize("pooling", ["max", "mean", "topk"])
def test_scores(threads, pooling):
    maps = torch.rand(1, 1024, 1024)
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append([functional.anomaly_score(maps, pooling=pooling, k=0.5)])
    assert_same(results)


def test_several_python_threads_at_once():
    loss_function = AmplifiedReconstructionLoss()
    pairs = [torch.rand(2, 2, 3, 40, 40) for _ in range(8)]
    expected = [loss_and_gradients(loss_function, *pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: loss_and_gradients(loss_function, *pair), pairs))
    for pair in zip(found, expected, strict=True):
        assert_same(pair)
