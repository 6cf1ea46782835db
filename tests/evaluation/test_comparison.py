"""Differences of two models: planted answers, known differences and intervals, and when a verdict is given."""

import json

import numpy as np
import pytest
import torch

from fgclip_fast import figures_file, figures_table
from fgclip_fast.evaluation.comparison import RESAMPLES, compare, described, difference
from fgclip_fast.evaluation.figures import Figures


def answers(*right, asked=1):
    """Image → (right answers, questions)."""
    return {f"{number}.jpg": (own, asked) for number, own in enumerate(right)}


def test_difference_of_equal_models_is_zero():
    found = difference(*[{f"{i}.jpg": (i % 3, 3) for i in range(20)}] * 2)
    assert (found.value, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "no difference shown")


def test_a_planted_difference_has_the_interval_of_its_binomial():
    # Of 400 images, 100 are right for the first model alone: a resample has Binomial(400, 1/4) of these.
    found = difference(answers(*[1] * 100, *[0] * 300), answers(*[0] * 400))
    assert (found.first, found.second, found.value, found.images, found.changed) == (0.25, 0.0, 0.25, 400, 100)
    deviation = (0.25 * 0.75 / 400) ** 0.5
    assert found.low == pytest.approx(0.25 - 1.96 * deviation, abs=0.004)
    assert found.high == pytest.approx(0.25 + 1.96 * deviation, abs=0.004)
    assert found.verdict == "better"


def test_the_interval_is_that_of_drawing_images_one_by_one():
    generator = np.random.default_rng(0)
    asked = generator.integers(1, 5, 60)
    right = generator.binomial(asked, [[0.7], [0.5]])
    first, second = (
        {str(i): (int(r), int(a)) for i, (r, a) in enumerate(zip(own, asked, strict=True))} for own in right
    )
    drawn = generator.integers(60, size=(RESAMPLES, 60))
    slow = np.quantile((right[0] - right[1])[drawn].sum(1) / asked[drawn].sum(1), [0.025, 0.975])
    found = difference(first, second)
    assert [found.low, found.high] == pytest.approx(slow.tolist(), abs=0.02)


def test_the_other_way_round_is_worse_by_as_much():
    first, second = answers(*[1] * 30, *[0] * 10), answers(*[0] * 30, *[1] * 10)
    there, back = difference(first, second), difference(second, first)
    assert (there.verdict, back.verdict) == ("better", "worse") and there.value == -back.value


@pytest.mark.parametrize(
    ("changed", "verdict"), [(1, "no difference shown"), (5, "no difference shown"), (6, "better")]
)
def test_a_handful_of_images_gives_no_verdict(changed, verdict):
    assert difference(answers(*[1] * changed), answers(*[0] * changed)).verdict == verdict


def test_interval_covers_the_true_difference():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(100):
        right = (torch.rand(2, 80, 3, generator=generator) < torch.tensor([0.7, 0.6]).reshape(2, 1, 1)).sum(dim=2)
        first, second = (answers(*own, asked=3) for own in right.tolist())
        found = difference(first, second, seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert 88 <= covered <= 100


def test_order_of_images_does_not_matter():
    first, second = answers(1, 0, 1, 1, 0, 1, 1, 1), answers(0, 0, 1, 0, 0, 1, 0, 0)
    assert difference(first, second) == difference(dict(reversed(first.items())), second)


def test_images_that_one_model_was_not_asked_the_same_about_do_not_count():
    first = {"a": (1, 1), "b": (0, 1), "other number": (1, 2), "nothing": (0, 0)}
    found = difference(first, {"a": (0, 1), "c": (1, 1), "other number": (1, 1), "nothing": (0, 0)})
    assert (found.first, found.second, found.images) == (1.0, 0.0, 1)


def figures(**outcomes):
    return Figures(values={"top1": 0.5}, asked=1, outcomes=outcomes)


def test_a_suite_is_judged_by_its_first_figure():
    first = figures(main=answers(*[1] * 20), beside=answers(*[0] * 20), alone=answers(1))
    found = described(compare(first, figures(main=answers(*[0] * 20), beside=answers(*[1] * 20))))
    assert found["verdict"] == "better" and list(found["differences"]) == ["main", "beside"]
    assert found["differences"]["beside"]["verdict"] == "worse"
    assert found["differences"]["main"]["interval"] == [1.0, 1.0] and json.dumps(found, allow_nan=False)


def test_a_suite_without_common_images_shows_no_difference(capsys):
    found = figures_file.compared({"x": figures(main={})}, {"x": figures(main={})}, "init", 0)
    assert found["x"]["verdict"] == "no difference shown" and found["x"]["differences"] == {}
    figures_table.show_comparison({"x": {"against": found["x"]}})
    assert "x: no difference shown (no image was asked about by both)" in capsys.readouterr().out
