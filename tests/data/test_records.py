"""Records: every defect has its cause and drops as little as possible, and nothing else is raised."""

import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from fgclip_fast.data import causes
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.records import parse, parse_sample
from fgclip_fast.inputs import boxes


def region(bbox=(0.1, 0.2, 0.6, 0.9), **fields):
    """A region of a record, with two negatives."""
    texts = {"short_expr": "a mug", "long_expr": "a red mug"}
    return {"bbox": list(bbox), **texts, "flag_short_neg": 1, "short_expr_negs": {"0": "b", "1": "c"}, **fields}


def with_regions(*regions):
    return parse({"caption": "long", "short_caption": "short", "bbox_info": list(regions)})


def found(record):
    return [defect.cause for defect in record.defects]


def test_a_complete_record_is_taken_as_it_is(record):
    parsed = parse(json.dumps(record(7)).encode())
    (one,) = parsed.regions
    assert parsed[:2] == ("mug 7", "a red mug, number 7") and parsed.defects == ()
    assert one.box == pytest.approx((0.1, 0.2, 0.6, 0.9)) and one[1:3] == ("a red mug", "a glossy red mug")
    assert one.negatives == ("a green mug", "a blue mug", "a grey mug")


@pytest.mark.parametrize(
    "raw, cause",
    [
        (b"", causes.NOT_JSON),
        (b'{"caption": "a mu', causes.NOT_JSON),
        (b"[" * 100_000, causes.NOT_JSON),
        (b'{"caption": ' + b"9" * 10_000 + b"}", causes.NOT_JSON),
        (b'{"caption": "a m\xffg"}', causes.NOT_UTF8),
        (b'{"caption": "half a \\ud83d pair"}', causes.NOT_UTF8),
        (b'["a mug"]', causes.WRONG_TYPE),
        (b'{"caption": ["a mug", 3]}', causes.WRONG_TYPE),
        (b'{"caption": []}', causes.NO_TEXT),
        (b'{"caption": "a mug", "bbox_info": {}}', causes.WRONG_TYPE),
        (b"{}", causes.NO_TEXT),
        (b'{"caption": " \\n", "short_caption": null, "bbox_info": []}', causes.NO_TEXT),
    ],
)
def test_a_bad_record_has_a_cause(raw, cause):
    with pytest.raises(BadRecord) as bad:
        parse(raw)
    assert bad.value.cause == cause and cause in causes.BAD


@pytest.mark.parametrize(
    "box, cause",
    [
        ([0.1, 0.2, 0.3], boxes.SHORT),
        ([], boxes.SHORT),
        (None, boxes.WRONG_TYPE),
        ("0.1 0.2 0.3 0.4", boxes.WRONG_TYPE),
        ([0.1, "0.2", 0.3, 0.4], boxes.WRONG_TYPE),
        ([0.1, 0.2, 0.3, True], boxes.WRONG_TYPE),
        ([0.1, 0.2, float("nan"), 0.4], boxes.NOT_FINITE),
        ([0.1, 0.2, float("inf"), 0.4], boxes.NOT_FINITE),
        ([0.1, 0.2, 10**400, 0.4], boxes.NOT_FINITE),
        ([0.1, 0.2, 1e300, 0.4], boxes.NOT_FINITE),
        ([0.6, 0.2, 0.1, 0.9], boxes.INVERTED),
        ([0.1, 0.9, 0.6, 0.2], boxes.INVERTED),
        ([0.1, 0.2, 0.1, 0.9], boxes.EMPTY),
        ([0.5, 0.2, 0.5 + 1e-12, 0.9], boxes.EMPTY),  # in fp32
        ([1.0, 0.2, 1.5, 0.9], boxes.OUTSIDE),
        ([0.1, -0.9, 0.6, 0.0], boxes.OUTSIDE),
        ([120, 40, 300, 200], boxes.OUTSIDE),
    ],
    ids=str,
)
def test_a_bad_box_drops_its_region_only(box, cause):
    parsed = with_regions(region(), {**region(), "bbox": box}, region())
    assert len(parsed.regions) == 2 and found(parsed) == [cause] and cause in causes.DROPPED
    assert parsed.defects[0].detail.startswith("region 1: ") and parsed.defects[0].region == 1


@pytest.mark.parametrize("box", [[-0.5, 0.2, 0.5, 1.5], [0, 0, 1, 1], [0, 0, 1, 1, "extra"]], ids=str)
def test_boxes_that_cover_some_of_the_image_stay_as_given(box):
    assert with_regions(region(box)).regions[0].box == pytest.approx(box[:4])


@pytest.mark.parametrize(
    "given_region, cause",
    [
        ("a mug", causes.WRONG_REGION),
        (region(short_expr=3), causes.WRONG_REGION),
        (region(short_expr="", long_expr=None), causes.NO_EXPRESSION),
    ],
)
def test_a_region_without_usable_text_is_dropped(given_region, cause):
    parsed = with_regions(given_region, region())
    assert len(parsed.regions) == 1 and found(parsed) == [cause]


@pytest.mark.parametrize(
    "fields, negatives",
    [
        ({}, ("b", "c")),
        ({"flag_short_neg": 0}, ()),
        ({"short_expr_negs": {}}, ()),
        ({"short_expr_negs": None}, ()),
        ({"short_expr_negs": ["x"]}, ("x",)),
        ({"short_expr_negs": {str(i): f"n{i}" for i in range(30)}}, tuple(f"n{i}" for i in range(30))),
    ],
)
def test_any_number_of_negatives_is_taken_in_file_order(fields, negatives):
    parsed = with_regions(region(**fields))
    assert parsed.regions[0].negatives == negatives and parsed.defects == ()


def test_a_negative_equal_to_its_positive_or_repeated_is_dropped_and_counted():
    negatives = ["a red mug", " A  RED\tmug ", "\uff41 red mug", "a blue mug", "A blue mug", "a grey mug"]
    parsed = with_regions(region(short_expr="a red mug", short_expr_negs=negatives))
    assert parsed.regions[0].negatives == ("a blue mug", "a grey mug")
    assert found(parsed) == [causes.EQUAL_NEGATIVE] * 3 + [causes.REPEATED_NEGATIVE]
    alone = with_regions(region(short_expr="a red mug", short_expr_negs=negatives[:1]))
    assert alone.regions[0].negatives == () and found(alone) == [causes.EQUAL_NEGATIVE]


@pytest.mark.parametrize("negatives, kept", [({"0": "b", "1": 3, "2": ""}, ("b",)), ("b", ())])
def test_a_bad_negative_is_dropped_alone(negatives, kept):
    parsed = with_regions(region(short_expr_negs=negatives))
    assert parsed.regions[0].negatives == kept and set(found(parsed)) == {causes.WRONG_NEGATIVE}


def test_a_missing_caption_is_filled_and_counted():
    texts = lambda **fields: (parse(fields)[:2], found(parse(fields)))  # noqa: E731
    assert texts(caption="l") == (("l", "l"), [causes.SHORT_FROM_LONG])
    assert texts(short_caption="s", caption=" ") == (("s", "s"), [causes.LONG_FROM_SHORT])
    both = region(short_expr="a cup"), {**region(short_expr="a pot"), "bbox": [1, 2, 3]}
    joined, defects = texts(bbox_info=list(both))
    assert joined == ("a cup, a pot",) * 2 and sorted(defects) == sorted([boxes.SHORT, causes.BOTH_FROM_REGIONS])


def test_a_missing_expression_is_filled_and_counted():
    long_only, short_only = with_regions(region(short_expr=None), region(long_expr="")).regions
    assert long_only[1:] == ("a red mug", "a red mug", ()), "negatives would contradict a text that is not there"
    assert short_only[1:] == ("a mug", "a mug", ("b", "c"))


def test_laion_shards_are_records_too():
    texts = lambda **parts: parse_sample({"jpg": b"image", **parts})[1][:2]  # noqa: E731
    assert texts(txt=b" alt ") == ("alt", "alt")
    assert texts(txt=b"alt", json=b'{"caption": "alt", "url": "u", "width": 3}') == ("alt", "alt")
    assert texts(txt=b"alt", json=b'{"long_caption": "recaptioned"}') == ("alt", "recaptioned")
    assert texts(json=b'\xef\xbb\xbf{"caption": "byte order mark"}')[1] == "byte order mark"


@pytest.mark.parametrize(
    "parts, cause",
    [
        ({"json": b"{}"}, causes.NO_IMAGE),
        ({}, causes.NO_IMAGE),
        ({"jpg": b"image"}, causes.NO_TEXT),
        ({"png": b"image", "txt": b"\xff"}, causes.NOT_UTF8),
    ],
)
def test_a_sample_needs_an_image_and_a_text(parts, cause):
    with pytest.raises(BadRecord) as bad:
        parse_sample(parts)
    assert bad.value.cause == cause


@pytest.mark.parametrize(
    "parts",
    [
        {"jpg": b"image", "txt": b"a mug"},
        {"mask.png": b"mask", "image.jpg": b"image", "caption.txt": b"a mug", "meta.json": b"{}"},
        {"seg.png": b"mask", "jpeg": b"image", "text": b"a mug"},
        {"cam0.webp": b"image", "info.json": b'{"text": "a mug"}'},
        {"jpg": b"image", "json": b'{"caption": ["a mug"]}'},
        {"jpg": b"image", "json": b'{"caption": 2020}', "txt": b"a mug"},
        {"jpg": b"image", "json": b'{"caption": NaN, "text": 3}', "txt": b"a mug"},
        {"jpg": b"image", "json": b'{"captions": "a mug"}'},
    ],
    ids=lambda parts: "+".join(parts),
)
def test_the_parts_of_a_sample_have_many_names(parts):
    image, parsed = parse_sample(parts)
    assert image == b"image" and parsed[:2] == ("a mug", "a mug") and parsed.captions == ()


def test_several_captions_are_kept_and_counted():
    parsed = parse(b'{"caption": ["a mug", " ", "a cup", "a mug"], "short_caption": "mug"}')
    assert parsed[:2] == ("mug", "a mug") and parsed.captions == ("a mug", "a cup")
    assert found(parsed) == [causes.SEVERAL_CAPTIONS]
    assert found(parse(b'{"caption": 7}', b"a mug")) == [causes.CAPTION_FROM_TEXT, causes.LONG_FROM_SHORT]


@pytest.mark.parametrize(
    ("fields", "text", "short", "long", "captions"),
    [
        ({}, "a mug\n\n a cup \na mug\n", "a mug", "a mug", ("a mug", "a cup")),
        ({"caption": "long"}, "a mug\r\na cup", "a mug", "long", ("a mug", "a cup")),
        ({"caption": "a mug\na cup"}, "a mug\na cup\n", "a mug\na cup", "a mug\na cup", ()),
        ({"caption": ["long", "longer"]}, "a mug\na cup", "a mug", "long", ("long", "longer")),
        ({"short_caption": "own"}, "a mug\na cup", "own", "own", ()),
        ({"text": ["a mug", "a cup"]}, None, "a mug", "a mug", ("a mug", "a cup")),
        ({"short_caption": ["a mug", "a cup"], "caption": "long"}, None, "a mug", "long", ("a mug", "a cup")),
        ({"short_caption": "a mug", "caption": "a mug a cup", "captions": ["a mug", "a cup"]}, None, "a mug",
         "a mug a cup", ("a mug", "a cup")),
        ({"short_caption": "mug", "caption": "long", "captions": ["a mug", "a cup"]}, None, "mug", "long", ()),
    ],
    ids=["lines", "lines beside a long one", "lines of one text", "both several", "own", "text", "short", "imported",
         "others"],
)  # fmt: skip
def test_each_line_of_a_text_file_is_a_caption_and_lists_hold_several(fields, text, short, long, captions):
    parsed = parse(fields, None if text is None else text.encode())
    assert (parsed.short, parsed.long, parsed.captions) == (short, long, captions)
    assert found(parsed).count(causes.SEVERAL_CAPTIONS) == bool(captions)


words = st.text("mug \n\ud83d", max_size=5)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
a_region = st.fixed_dictionaries({}, optional=dict.fromkeys(region(), anything)) | anything
regions = st.lists(a_region, max_size=3) | anything
a_record = st.fixed_dictionaries({}, optional={"caption": anything, "short_caption": anything, "bbox_info": regions})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(fields=a_record)
def test_any_json_is_a_record_or_has_a_cause(fields):
    try:
        parsed = parse(json.dumps(fields).encode())
    except BadRecord as bad:
        assert bad.cause in causes.BAD
    else:
        assert parsed.short and parsed.long
        assert all(defect.cause in (*causes.DROPPED, *causes.FILLED) for defect in parsed.defects)


@given(raw=st.binary(max_size=60))
def test_any_bytes_are_a_record_or_have_a_cause(raw):
    try:
        parse(raw)
    except BadRecord as bad:
        assert bad.cause in causes.BAD
