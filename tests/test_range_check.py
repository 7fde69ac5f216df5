"""check_range, the explicit check of values."""

import math
from typing import Any

import pytest
import torch

from lamp_kernels import check_range


def test_values_within_the_range():
    found = check_range(torch.tensor([0.0, 1.0]), torch.tensor([0.25]))
    assert found
    assert (found.minimum, found.maximum, found.nonfinite) == (0.0, 1.0, 0)
    assert str(found) == "within [0, 1]: values from 0 to 1"
    assert check_range(torch.tensor([255.0]), torch.tensor([0.0]), data_range=255)


def test_the_limits_are_exact():
    just_above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    just_below = torch.nextafter(torch.tensor(0.0), torch.tensor(-1.0))
    inside = torch.tensor([0.0, 1.0])
    assert check_range(inside, inside)
    assert not check_range(inside, just_above)
    assert not check_range(just_below, inside)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([-0.1, 1.0], "-0.1"),
        ([0.0, 1.1], "1.1"),
        ([math.nan, 0.5], "from 0.5 to 0.5, 1 NaN or infinite."),
    ],
)
def test_values_outside_the_range(values, word):
    good = torch.tensor([0.5])
    for pair in [(torch.tensor(values), good), (good, torch.tensor(values))]:
        found = check_range(*pair)
        assert not found
        assert str(found).startswith("not within [0, 1]")
        assert word in str(found)


@pytest.mark.parametrize("scale", [255.0, 65535 / 4095])
def test_a_range_that_is_far_too_large(scale):
    image, other = torch.rand(2, 3, 8, 8), scale * torch.rand(2, 3, 8, 8)
    for pair, where in [
        ((image, image), ("input", "target")),
        ((other, image), ("target",)),
    ]:
        found = check_range(*pair, data_range=scale)
        assert not found
        assert (found.problem, found.where) == ("data_range too large", where)
        assert "far too large for " + " and ".join(where) in str(found)
    assert check_range(other, other, data_range=scale)
    assert check_range(image, other, data_range=scale)  # an untrained network's output may be small


def test_the_message_gives_the_range_of_the_tensor_it_names():
    input, target = torch.tensor([0.25, 2.0]), torch.tensor([-0.5, 0.75])
    found = check_range(input, target)
    assert "input: input has values from 0.25 to 2. " in str(found)
    assert "-0.5" not in str(found)
    assert (found.minimum, found.maximum) == (-0.5, 2.0)
    assert (found.target.minimum, found.target.maximum) == (-0.5, 0.75)


def test_values_below_0_take_precedence_over_a_too_large_data_range():
    small = torch.tensor([-0.02, 0.02])
    assert check_range(small, small).problem == "below 0"
    assert check_range(small, torch.tensor([0.0, 1.0])).where == ("input",)


def test_the_tensor_that_causes_the_problem():
    image = torch.tensor([0.0, 0.5, 1.0])
    found = check_range(255 * image, image)
    assert (found.problem, found.where) == ("data_range too small", ("input",))
    assert "too small" in str(found)
    found = check_range(image, image - 0.5)
    assert (found.problem, found.where) == ("below 0", ("target",))
    assert "below 0" in str(found)
    assert check_range(torch.zeros(3), torch.zeros(3), 255)  # constant 0 reveals no range


def test_a_tensor_without_finite_values_reports_no_range():
    broken, image = torch.tensor([math.nan, math.inf, -math.inf]), torch.tensor([0.25, 0.75])
    found = check_range(broken, image)
    assert (found.problem, found.where) == ("not finite", ("input",))
    assert "input has no finite values (3 NaN or infinite). " in str(found)
    assert (found.minimum, found.maximum) == (0.25, 0.75)
    assert math.isnan(found.input.minimum)
    assert math.isnan(found.input.maximum)
    both = check_range(broken, broken)
    assert both.where == ("input", "target")
    assert math.isnan(both.minimum)
    assert math.isnan(both.maximum)


def test_empty_tensors_and_half_types():
    empty = check_range(torch.zeros(0), torch.zeros(0))
    assert empty
    assert str(empty) == "within [0, 1]: no values"
    assert check_range(torch.ones(2).half(), torch.zeros(2).bfloat16())


def test_hidden_values_do_not_count():
    image = torch.rand(2, 3, 4, 4)
    image[0, :, 1, 2] = math.nan
    mask = torch.ones(2, 1, 4, 4)
    assert check_range(image, image).problem == "not finite"
    mask[0, :, 1, 2] = 0.0
    assert check_range(image, image, mask=mask)
    assert check_range(image, image, mask=torch.tensor([False, True]))
    with pytest.raises(ValueError, match="mask of shape"):
        check_range(image, image, mask=torch.ones(5, 5))


def test_ranges_of_images_are_divided_out():
    with pytest.raises(TypeError, match=r"data_range must be a number here.*input / ranges"):
        check_range(torch.rand(2), torch.rand(2), torch.ones(2))  # type: ignore[arg-type] # the mistake under test


def test_errors():
    with pytest.raises(TypeError, match="input"):
        check_range([0.5], torch.zeros(1))  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(TypeError, match=r"target.*int64"):
        check_range(torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="data_range"):
        check_range(torch.zeros(1), torch.zeros(1), data_range=0)
    ranges: Any = torch.ones(2)
    with pytest.raises(TypeError, match=r"data_range.*\(2,\)"):
        check_range(torch.zeros(2), torch.zeros(2), data_range=ranges)
