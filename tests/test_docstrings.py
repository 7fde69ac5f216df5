"""Docstring examples run, and public docstrings cover all parameters and sections."""

import doctest
import inspect

import pytest
import torch

import lamp_kernels
from lamp_kernels import functional
from lamp_kernels.compat import fused_ssim, kornia, pytorch_msssim

PUBLIC = [
    getattr(module, name)
    for module in (lamp_kernels, functional, pytorch_msssim, kornia, fused_ssim)
    for name in module.__all__
    if callable(getattr(module, name))
]
NAMES = [f"{item.__module__.removeprefix('lamp_kernels.')}.{item.__qualname__}" for item in PUBLIC]


@pytest.mark.cpu_only("a tensor on another device prints its device")
@pytest.mark.parametrize("item", PUBLIC, ids=NAMES)
def test_examples(item):
    names = {name: getattr(lamp_kernels, name) for name in lamp_kernels.__all__}
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(item, globs={**names, "torch": torch}):
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("item", PUBLIC, ids=NAMES)
def test_every_public_name_is_documented(item):
    text = inspect.getdoc(item)
    assert text
    if inspect.isfunction(item) and "See `Amplified" not in text:
        for name in inspect.signature(item).parameters:
            assert name in text, f"{item.__qualname__} does not document {name}"
        for heading in ("Args:", "Returns:", "Raises:"):
            assert heading in text
