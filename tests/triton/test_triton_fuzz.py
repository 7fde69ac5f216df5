"""tests/test_fuzz.py for the Triton kernels, interpreted: some random cases of each dtype."""

import math

import pytest
import test_fuzz
import torch
from hypothesis import HealthCheck, given, settings

pytestmark = pytest.mark.cpu_only("interprets the kernels on the CPU")

# A case takes a hundred times as long as one of the compiled kernels.
SHARE = 0.02


def settings_of(dtype):
    whole = test_fuzz.cases_of(dtype)
    few = math.ceil(SHARE * whole.max_examples)
    return settings(whole, max_examples=few, suppress_health_check=list(HealthCheck))


def compare(interpret, case, dtype):
    import interpreted

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
