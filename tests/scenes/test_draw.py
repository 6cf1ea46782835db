"""Each noun is drawn inside its box, at its size, in distinguishable colours."""

from itertools import combinations

import numpy as np
import pytest

from fgclip_fast.scenes import draw, surface
from fgclip_fast.scenes.compose import SIDE, compose, render
from fgclip_fast.scenes.grammar import ATTRIBUTES, COLOURS, FINISHES, NOUNS, PATTERNS, Thing
from fgclip_fast.scenes.sheet import contact_sheet
from fgclip_fast.scenes.write import scene_of


def sprite(noun, length=46.0, colour="red", finish="matte", pattern="plain", **pose):
    shape = draw.outline(noun, draw.Pose(length, **pose))
    placement = surface.Pattern(pattern, 7.0, 0.3, (0.2, 0.6))
    return shape, draw.paint(shape, colour, finish, placement, (0.0, 0.0))


@pytest.mark.parametrize("noun", NOUNS)
def test_the_box_is_that_of_the_visible_thing(noun):
    shape, seen = sprite(noun, mirrored=True, angle=7, stretch=1.1)
    rows, columns = (np.flatnonzero(seen.alpha.max(axis) > 0.2) for axis in (1, 0))
    assert max(shape.width, shape.height) == pytest.approx(46, abs=0.1)
    assert abs(np.ptp(columns) + 1 - shape.width) < 2.5 and abs(np.ptp(rows) + 1 - shape.height) < 2.5
    assert rows[0] - seen.pad < 2 and columns[0] - seen.pad < 2


def test_boxes_of_all_nouns_have_about_the_same_shape():
    shapes = [draw.outline(noun, draw.Pose(46)) for noun in NOUNS]
    assert all(0.87 < shape.width / shape.height < 1.15 for shape in shapes)


def test_colours_are_far_apart():
    tones = [np.array(surface.TONES[colour][2], float) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(tones, 2)) > 80


def test_each_pattern_and_finish_changes_the_image():
    plain = sprite("mug")[1].rgb
    for pattern in PATTERNS[1:]:
        assert np.abs(sprite("mug", pattern=pattern)[1].rgb - plain).mean() > 5, pattern
    for finish in FINISHES[1:]:
        assert np.abs(sprite("mug", finish=finish)[1].rgb - plain).mean() > 1, finish


def test_a_pattern_leaves_the_colour_visible():
    for pattern in PATTERNS[1:]:
        ink = surface.ink_mask((400, 400), 0.25, surface.Pattern(pattern, 7.0, 0.3, (0.2, 0.6))).mean()
        assert 0.2 < ink < 0.55, pattern


def test_a_scene_is_a_function_of_its_seed():
    scene = scene_of("train", 3)
    assert scene == scene_of("train", 3) != scene_of("train", 3, seed=1)
    assert np.array_equal(render(scene), render(scene))


def test_things_stand_within_the_image():
    for i in range(50):
        for placed in scene_of("val", i).placed:
            left, top, right, bottom = placed.box
            assert 0 <= left < right <= SIDE and 0 <= top < bottom <= SIDE


def test_no_thing_is_hidden():
    for i in range(200):
        boxes = [placed.box for placed in scene_of("train", i).placed]
        for behind, front in combinations(boxes, 2):
            width, height = (min(behind[k + 2], front[k + 2]) - max(behind[k], front[k]) for k in (0, 1))
            if width > 0 and height > 0:
                assert width * height < 0.35 * (behind[2] - behind[0]) * (behind[3] - behind[1])


def test_all_words_can_be_drawn():
    for k in range(max(map(len, ATTRIBUTES.values()))):
        thing = Thing(*(values[k % len(values)] for values in ATTRIBUTES.values()))
        assert render(compose([thing], (k,))).size == (SIDE, SIDE)


def test_the_contact_sheet_shows_every_word():
    assert contact_sheet(40).width > 24 * 20
