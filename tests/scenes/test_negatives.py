"""Groups follow FG-OVD's levels, and cannot be solved by the box, by another thing, or by the texts alone."""

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from fgclip_fast.scenes import draw
from fgclip_fast.scenes.compose import LENGTHS
from fgclip_fast.scenes.grammar import ATTRIBUTES, NOUNS, Thing
from fgclip_fast.scenes.negatives import QUALITIES, changing_attribute, changing_qualities, other_things

CHANGES = {"hard": 1, "medium": 2, "easy": 3}


def thing(rng):
    return Thing(*(rng.choice(values) for values in ATTRIBUTES.values()))


def groups(changes, count=500, seed=0):
    """Groups of a level: the right thing, then the negatives."""
    rng = Random(seed)
    for _ in range(count):
        positive = thing(rng)
        yield [positive, *changing_qualities(positive, changes, rng)]


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def solved(score, changes, seed=1):
    """Share of groups in which the right text has the highest score; ties are broken at random."""
    rng, right = Random(seed), 0
    for group in (found := list(groups(changes))):
        scores = score(group, rng)
        right += rng.choice([i for i, s in enumerate(scores) if s == max(scores)]) == 0
    return right / len(found)


@pytest.mark.parametrize("name", CHANGES)
def test_each_negative_changes_as_many_qualities_as_its_level_says(name):
    for group in groups(CHANGES[name]):
        assert len(set(group)) == 11
        assert all(distance(group[0], other) == CHANGES[name] and other.noun == group[0].noun for other in group[1:])


@pytest.mark.parametrize("name", CHANGES)
def test_no_group_changes_the_size_everywhere(name):
    assert all(sum(other.size != group[0].size for other in group[1:]) <= 3 for group in groups(CHANGES[name]))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_group_of_one_attribute_changes_that_alone(attribute):
    rng = Random(0)
    positive = thing(rng)
    negatives = changing_attribute(positive, attribute, rng)
    assert len(set(negatives)) == min(10, len(ATTRIBUTES[attribute]) - 1)
    assert all(other._replace(**{attribute: getattr(positive, attribute)}) == positive for other in negatives)
    assert positive not in negatives


def test_other_things_are_not_this_one():
    rng = Random(0)
    things = [thing(rng) for _ in range(40)]
    found = other_things(things[0], things, rng)
    assert len(set(found)) == 10 and things[0] not in found


@pytest.mark.parametrize("name", CHANGES)
def test_the_box_does_not_solve_a_group(name):
    """Guess by the size alone, known for certain."""
    assert solved(lambda group, rng: [text.size == group[0].size for text in group], CHANGES[name]) <= 0.2


@pytest.mark.parametrize("name", CHANGES)
def test_another_thing_does_not_solve_a_group(name):
    """Guess by all attributes of another thing, with random weights."""

    def score(group, rng):
        seen, weights = thing(rng), [rng.random() for _ in ATTRIBUTES]
        return [sum(w for w, a, b in zip(weights, text, seen, strict=True) if a == b) for text in group]

    assert solved(score, CHANGES[name]) <= 0.2


@pytest.mark.parametrize("name", ["medium", "easy"])
def test_the_text_most_like_the_others_is_not_the_right_one(name):
    """The hard level is left out: there it is the right text, from which each negative differs in one attribute."""
    assert solved(lambda group, rng: [-sum(distance(a, b) for b in group) for a in group], CHANGES[name]) <= 0.2


@pytest.mark.parametrize("name", CHANGES)
def test_the_text_least_like_the_others_is_not_the_right_one(name):
    assert solved(lambda group, rng: [sum(distance(a, b) for b in group) for a in group], CHANGES[name]) <= 0.2


@pytest.mark.parametrize("name", CHANGES)
def test_no_words_are_right_more_often_than_by_chance(name):
    """A model that ignores the region can only score texts by their words."""
    right, asked = Counter(), Counter()
    for group in groups(CHANGES[name], count=1500):
        for quality in QUALITIES:
            right[getattr(group[0], quality)] += 1
            asked.update(getattr(text, quality) for text in group)
    assert all(0.05 < right[word] / asked[word] < 0.13 for word in asked)


def test_the_shape_of_a_box_does_not_tell_the_noun():
    """Guess by the proportions of the box, with the margins of training, as well as can be done."""
    rng = np.random.default_rng(0)

    def proportion(noun):
        length = rng.uniform(*LENGTHS[rng.choice(list(LENGTHS))])
        pose = draw.Pose(length, bool(rng.integers(2)), rng.uniform(-8, 8), float(np.exp(rng.uniform(-0.12, 0.12))))
        shape = draw.outline(noun, pose)
        return np.log((shape.width + rng.uniform(0, 6)) / (shape.height + rng.uniform(0, 6)))

    edges = np.linspace(-0.6, 0.6, 25)
    seen = np.stack([np.histogram([proportion(noun) for _ in range(150)], edges)[0] + 0.5 for noun in NOUNS])
    right = 0
    for i in rng.integers(len(NOUNS), size=600):
        bin_ = np.clip(np.digitize(proportion(NOUNS[i]), edges) - 1, 0, len(edges) - 2)
        rivals = rng.permutation([j for j in range(len(NOUNS)) if j != i])[:10]
        right += seen[i, bin_] > seen[rivals, bin_].max()
    assert right / 600 <= 0.2


def test_groups_are_functions_of_the_seed():
    assert all(a == b for a, b in zip(groups(2, 20), groups(2, 20), strict=True))
    assert any(a != b for a, b in pairwise(groups(2, 20)))
