"""The rule of a box, by itself: every way to fail has a reason, and rounding comes once, at the end."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from fgclip_fast.inputs import boxes
from fgclip_fast.inputs.boxes import BadBox, checked, corners, fractions, numbers

HUGE = 10**400
ABOVE_HALF = 0.5 + 1e-12
"""Equal to a half in fp32."""


@pytest.mark.parametrize(
    "box, reason",
    [
        ([0.1, 0.2, math.nan, 0.4], boxes.NOT_FINITE),
        ([-math.inf, 0.2, 0.3, 0.4], boxes.NOT_FINITE),
        ([0.1, 0.2, 1e300, 0.4], boxes.NOT_FINITE),
        ([0.1, 0.2, HUGE, 0.4], boxes.NOT_FINITE),
        ([0.6, 0.2, 0.1, 0.9], boxes.INVERTED),
        ([0.1, 0.9, 0.6, 0.2], boxes.INVERTED),
        ([0.1, 0.9, 0.1, 0.2], boxes.INVERTED),
        ([0.1, 0.2, 0.1, 0.9], boxes.EMPTY),
        ([0.1, 0.2, 0.3, 0.2], boxes.EMPTY),
        ([0.5, 0.2, ABOVE_HALF, 0.9], boxes.EMPTY),
        ([ABOVE_HALF, 0.2, 0.5, 0.9], boxes.EMPTY),
        ([1.0, 0.2, 1.5, 0.9], boxes.OUTSIDE),
        ([1 - 1e-12, 0.2, 1.5, 0.9], boxes.OUTSIDE),
        ([0.1, 1.0, 0.6, 1.2], boxes.OUTSIDE),
        ([-0.9, 0.1, 0.0, 0.6], boxes.OUTSIDE),
        ([0.1, -0.9, 0.6, 0.0], boxes.OUTSIDE),
        ([120, 40, 300, 200], boxes.OUTSIDE),
    ],
    ids=str,
)
def test_a_bad_box_has_a_reason_and_a_rule(box, reason):
    with pytest.raises(BadBox, match=r"^must ") as bad:
        checked(box)
    assert bad.value.reason == reason and reason in boxes.REASONS


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [-0.5, 0.2, 0.5, 1.5], [0.999, 0.2, 7.0, 0.3]], ids=str)
def test_a_box_may_reach_over_the_edges(box):
    assert list(checked(box)) == torch.tensor(box, dtype=torch.float32).tolist()


@pytest.mark.parametrize(
    "value, reason",
    [
        (None, boxes.WRONG_TYPE),
        ("0.1 0.2 0.3 0.4", boxes.WRONG_TYPE),
        ((0.1, 0.2, 0.3, 0.4), boxes.WRONG_TYPE),
        ([0.1, "0.2", 0.3, 0.4], boxes.WRONG_TYPE),
        ([0.1, 0.2, 0.3, True], boxes.WRONG_TYPE),
        ([0.1, None, 0.3, 0.4], boxes.WRONG_TYPE),
        ([], boxes.SHORT),
        ([0.1, "0.2", 0.3], boxes.SHORT),
    ],
    ids=str,
)
def test_a_value_that_is_not_four_numbers_has_a_reason(value, reason):
    with pytest.raises(BadBox, match=r"^must ") as bad:
        numbers(value)
    assert bad.value.reason == reason and reason in boxes.REASONS


def test_the_first_four_of_a_list_are_the_box():
    assert numbers([0, 0.5, 1, HUGE, 0.9, "a mug"]) == [0, 0.5, 1, HUGE]


def test_layouts_are_converted():
    assert corners([10, 5, 20, 30]) == (10, 5, 30, 35)
    assert fractions([10, 5, 30, 35], 64, 48) == (10 / 64, 5 / 48, 30 / 64, 35 / 48)
    with pytest.raises(ZeroDivisionError):
        fractions([10, 5, 30, 35], 0, 48)


side = st.integers(-(2**20), 2**20).map(lambda n: n / 2**12)  # numbers of fp32, from -256 to 256


@given(box=st.lists(side, min_size=4, max_size=4), width=st.integers(1, 8000), height=st.integers(1, 8000))
def test_pixels_in_fp32_give_the_quotients_of_fp32(box, width, height):
    quotients = torch.tensor(box, dtype=torch.float32) / torch.tensor([width, height] * 2, dtype=torch.float32)
    try:
        assert list(checked(fractions(box, width, height))) == quotients.tolist()
    except BadBox as bad:
        x1, y1, x2, y2 = quotients.tolist()
        assert (bad.reason == boxes.INVERTED) == (x1 > x2 or y1 > y2)
        assert x1 >= x2 or y1 >= y2 or x1 >= 1 or y1 >= 1 or x2 <= 0 or y2 <= 0


@given(box=st.lists(st.floats() | st.integers(-(10**400), 10**400), min_size=4, max_size=4))
def test_any_numbers_are_a_box_or_have_a_reason(box):
    try:
        x1, y1, x2, y2 = checked(box)
    except BadBox as bad:
        assert bad.reason in boxes.REASONS
    else:
        assert -math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf
        assert x1 < 1 and y1 < 1 and x2 > 0 and y2 > 0
