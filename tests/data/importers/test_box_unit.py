"""The unit of boxes follows from all of them, or the import ends with the counts."""

import numpy as np
import pytest

from fgclip_fast.data.importers.box_unit import UNITS, Evidence, as_fractions, check, detect, evidence


def boxes(count, seed=0):
    """Corners of random boxes, fractions."""
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


def stated(boxes, unit, width, height):
    """Boxes in the numbers of a unit."""
    form, _, scale = unit.partition("-")
    x1, y1, x2, y2 = (boxes * np.tile([width, height] if scale == "pixel" else [float(scale)] * 2, 2)
                      if scale != "fraction" else boxes).T  # fmt: skip
    if form == "xywh":
        return np.stack([x1, y1, x2 - x1, y2 - y1], 1)
    if form == "cxcywh":
        return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
    return np.stack([x1, y1, x2, y2], 1)


def of(unit, width=640, height=480, count=60, seed=0):
    return evidence(stated(boxes(count, seed), unit, width, height).tolist(), width, height)


@pytest.mark.parametrize("unit", UNITS)
def test_a_box_becomes_the_fractions_that_it_was_made_of(unit):
    truth = boxes(9)
    numbers = stated(truth, unit, 640, 480)
    assert np.allclose([as_fractions(box, unit, 640, 480) for box in numbers.tolist()], truth)


@pytest.mark.parametrize("size", [(640, 480), (4000, 3000), (120, 90)], ids=str)
@pytest.mark.parametrize("unit", [unit for unit in UNITS if "cx" not in unit and "999" not in unit])
def test_the_unit_is_detected(unit, size):
    assert detect(of(unit, *size))[0] == unit


def test_to_999_differs_from_to_1000_by_its_largest_number():
    numbers = stated(boxes(30), "xyxy-999", 1, 1).round()
    numbers[:3, 2] = 999
    assert detect(evidence(numbers.tolist(), 640, 480))[0] == "xyxy-999"


def test_an_ambiguous_or_mixed_source_needs_a_stated_unit():
    with pytest.raises(ValueError, match=r"--boxes must say .* xyxy-pixel and xywh-pixel both fit; of 1 boxes"):
        detect(evidence([[20, 10, 100, 40]], 200, 100))
    with pytest.raises(ValueError, match=r"no unit fits: boxes of different units, or broken; of 120 boxes"):
        detect(of("xyxy-pixel").plus(of("xyxy-fraction")))
    few = evidence([[20, 10, 900, 800]] * 2, 1300, 1300)  # thousandths, or pixels that by luck do not pass 1000
    with pytest.raises(ValueError, match=r"xyxy-pixel and xyxy-1000 .*both fit"):
        detect(few.plus(evidence([[600, 600, 900, 990]] * 4, 1300, 1300)))


def test_a_stated_unit_that_fits_badly_is_refused_with_the_likely_one():
    with pytest.raises(ValueError, match=r"must be xyxy-pixel, but .* only \d+ of 60; .* --boxes xywh-pixel"):
        check(of("xywh-pixel"), "xyxy-pixel")
    with pytest.raises(ValueError, match=r"pass --boxes xyxy-1000"):
        check(of("xyxy-1000"), "xyxy-pixel")
    with pytest.raises(ValueError, match=r"must be xyxy-pixel, but that fits only"):
        check(of("xyxy-pixel", count=20).plus(of("xyxy-fraction")), "xyxy-pixel")
    assert "cxcywh-fraction fits 60" in check(of("cxcywh-fraction"), "cxcywh-fraction")


def test_some_broken_boxes_do_not_hide_the_unit():
    broken = evidence([[50, 50, 40, 60]] * 5, 640, 480)
    assert detect(of("xyxy-pixel").plus(broken))[0] == "xyxy-pixel"


def test_evidence_of_parts_is_that_of_the_whole():
    numbers = stated(boxes(40), "xywh-pixel", 1200, 900).tolist()
    parts = evidence(numbers[:7], 1200, 900).plus(evidence(numbers[7:], 1200, 900)).plus(Evidence())
    whole = evidence(numbers, 1200, 900)
    assert parts._replace(luck=0) == whole._replace(luck=0) and parts.luck == pytest.approx(whole.luck)
