"""tests/test_fuzz.py for the Triton kernels, in the interpreter: random cases of each dtype."""

import math

import pytest
import test_fuzz
import torch
from hypothesis import HealthCheck, assume, given, settings

pytestmark = pytest.mark.cpu_only("interprets the kernels on the CPU")

# A case takes a hundred times as long as one of the compiled kernels.
SHARE = 0.006
ROWS = 100  # of all planes: the interpreter takes them one by one, of any width


def settings_of(dtype):
    whole = test_fuzz.cases_of(dtype)
    few = math.ceil(SHARE * whole.max_examples)
    return settings(whole, max_examples=few, suppress_health_check=list(HealthCheck))


def compare(interpret, case, dtype):
    import interpreted

    *planes, height, _ = (1, 1, *case.shape)
    assume(math.prod(planes) * height <= ROWS)
    interpret(interpreted.fuzz, case, dtype)


@settings_of(torch.float32)
@given(test_fuzz.cases(torch.float32))
def test_float32(interpret, case):
    compare(interpret, case, torch.float32)


@settings_of(torch.float64)
@given(test_fuzz.cases(torch.float64))
def test_float64(interpret, case):
    compare(interpret, case, torch.float64)


@settings_of(torch.float16)
@given(test_fuzz.cases(torch.float16))
def test_float16(interpret, case):
    compare(interpret, case, torch.float16)


@settings_of(torch.bfloat16)
@given(test_fuzz.cases(torch.bfloat16))
def test_bfloat16(interpret, case):
    compare(interpret, case, torch.bfloat16)
