"""tests/test_fuzz.py for the Triton kernels, in the interpreter: random cases of each dtype."""

import math

import hypothesis.strategies as st
import pytest
import test_fuzz
import torch
from hypothesis import assume, given, settings

pytestmark = pytest.mark.cpu_only("interprets the kernels on the CPU")

# A case takes a hundred times as long as one of the compiled kernels.
SHARE = 0.006
ROWS = 100  # of all planes: the interpreter takes them one by one, of any width
AS_MANY = test_fuzz.cases_of(torch.float32)


@pytest.mark.parametrize("dtype", test_fuzz.SHARES, ids=str)
@settings(AS_MANY, max_examples=math.ceil(SHARE * AS_MANY.max_examples))
@given(data=st.data())
def test_random_cases(interpret, dtype, data):
    import interpreted

    case = data.draw(test_fuzz.cases(dtype))
    assume(math.prod(case.shape[:-1]) <= ROWS)  # rows of all planes
    interpret(interpreted.fuzz, case, dtype)
