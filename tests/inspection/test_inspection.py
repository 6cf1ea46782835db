"""A data set with known flaws gives the right counts, the right warnings, and a safe page."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fgclip_fast.data import __main__ as command
from fgclip_fast.data.shards import ShardWriter, expand
from fgclip_fast.inspection import Settings, survey, write
from fgclip_fast.inspection.findings import duplicates, equal_texts, truncated, warnings
from tests import browser

HOSTILE = '<script>alert("x")</script>'


def picture(seed, width=320, height=240, **options):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def region(box=(0.1, 0.1, 0.6, 0.6), text="a red mug", negatives=("a blue mug",)):
    return {"bbox": list(box), "short_expr": text, "short_expr_negs": list(negatives)}


def write_set(folder, **splits):
    """Shards by split, of (image, record) pairs."""
    for name, samples in splits.items():
        with ShardWriter(folder / f"{name}-00000.tar") as shard:
            for i, (image, record) in enumerate(samples):
                shard.write(f"{i:06d}", jpg=image, json=json.dumps(record).encode())
    return expand(str(folder))


def record(i, *regions, **fields):
    return {
        "short_caption": f"thing {i}",
        "caption": f"a long text about thing {i}",
        "bbox_info": list(regions),
        **fields,
    }


def titles(found):
    return [warning.title for warning in warnings(found, duplicates(found))]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    train = [(picture(i), record(i, region(text=f"mug {i}", negatives=[f"cup {i}"]))) for i in range(12)]
    return survey(write_set(folder, train=train, val=[(picture(99), record(99))]), workers=1)


def test_a_sound_set_has_no_warning(sound):
    assert titles(sound) == []
    assert sound.splits == ["train", "val"] and len(sound.part.addresses) == 13
    assert sound.part.regions.tolist() == [1] * 12 + [0]
    # Half of 224 pixels is seven patches of 16.
    assert np.allclose(sound.part.boxes[0], [7, 7, 0.25, 1])
    assert truncated(sound) == {"short": (0, 13), "long": (0, 13), "region": (0, 12), "negative": (0, 12)}


def test_the_number_of_workers_changes_nothing(sound):
    again = survey(sound.shards, workers=2)
    for mine, other in zip(sound.part, again.part, strict=True):
        if isinstance(mine, np.ndarray):
            assert np.array_equal(mine, other)
        elif not isinstance(mine, dict):
            assert mine == other


FLAWS = {
    "Boxes may be corner and size": lambda i: record(i, region((0.5, 0.5, 0.4, 0.4))),
    "Boxes may be in pixels or thousandths": lambda i: record(i, region((10, 20, 300, 200))),
    "Boxes may be in pixels": lambda i: record(i, region((10, 20, 3000, 2000))),
    "Boxes are the whole image": lambda i: record(i, region((0, 0, 1, 0.99))),
    "Boxes are tiny": lambda i: record(i, region((0.1, 0.1, 0.11, 0.11))),
    "Text in a wrong encoding": lambda i: record(i, caption=f"a cafÃ© of number {i}"),
    "Special tokens of a tokenizer in a text": lambda i: record(i, caption=f"[CLS] number {i}"),
    "Negative equal to its positive": lambda i: record(i, region(text="A red  mug", negatives=["a red mug"])),
    "Negative that contains its positive": lambda i: record(i, region(negatives=["a red mug on a table"])),
    "One caption for many images": lambda i: record(i, short_caption="a photo"),
    "Many short captions are cut": lambda i: record(i, short_caption=f"{i} " + "word " * 90),
    "Many long captions are cut": lambda i: record(i, caption=f"{i} " + "word " * 260),
}


@pytest.mark.parametrize("title", FLAWS)
def test_each_flaw_is_warned_of(tmp_path, title):
    found = survey(write_set(tmp_path, train=[(picture(i), FLAWS[title](i)) for i in range(12)]), workers=1)
    assert title in titles(found)
    others = set(titles(found)) - {title, "Many regions are dropped"}
    assert others == set(), "a flaw must not look like another"


def test_duplicates_inside_and_across_splits(tmp_path):
    saved_again = picture(3, 300, 225)
    train = [(picture(i), record(i)) for i in range(5)] + [(picture(0), record(77))]
    found = survey(write_set(tmp_path, train=train, val=[(saved_again, record(9))]), workers=1)
    seen = duplicates(found)
    assert (seen.inside, seen.across, seen.groups) == (1, 1, [[3, 6], [0, 5]])
    assert titles(found) == ["Validation images in training"]


def test_boxes_count_in_a_record_of_a_longer_name(tmp_path):
    with ShardWriter(tmp_path / "train-00000.tar") as shard:
        for i in range(12):
            of_pixels = json.dumps(record(i, region((10, 10, 200, 150), f"mug {i}"))).encode()
            shard.write(f"{i:06d}", **{"image.jpg": picture(i), "meta.json": of_pixels})
    found = survey(expand(str(tmp_path)), workers=1)
    assert any("pixels" in title for title in titles(found)), titles(found)


def test_bad_images_are_counted_by_cause_and_shown(tmp_path):
    half = picture(0)[: len(picture(0)) // 2]
    grey = Image.open(io.BytesIO(picture(1)))
    grey.paste((128, 128, 128), (0, 180, 320, 240))
    file = io.BytesIO()
    grey.save(file, "JPEG", quality=95)
    samples = [
        (half, record(0)),
        (b"no image", record(1)),
        (file.getvalue(), record(2)),
        (picture(2, 100, 80), record(3)),
    ]
    found = survey(write_set(tmp_path, train=samples), workers=1)
    assert found.part.causes == {"truncated image": 1, "not an image": 1}
    assert titles(found) == ["Records are left out", "Images may be half loaded", "Images are small"]
    write(found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "train-00000.tar:1" in text and "truncated image" in text


def test_expected_equal_texts():
    from collections import Counter

    assert equal_texts(Counter({"a": 5, "b": 5}), 2) == pytest.approx(0.5)
    assert equal_texts(Counter({"a": 1}), 64) == 1.0 and equal_texts(Counter(), 64) == 0.0


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    train = [
        (picture(i), record(i, region(text=f"{HOSTILE} {i}", negatives=[HOSTILE]), short_caption=HOSTILE + str(i)))
        for i in range(12)
    ]
    write(survey(write_set(folder, train=train), workers=1), folder / "inspect.html")
    return folder / "inspect.html"


def test_the_page_escapes_texts_and_refers_to_nothing(page):
    text = page.read_text()
    assert HOSTILE not in text and "&lt;script&gt;" in text
    assert "script-src 'none'" in text and "<script" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)


@pytest.mark.browser
@browser.needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_fits_the_screen(page, tmp_path, width):
    script = """const o = document.createElement("output"); o.id = "wide";
    o.textContent = document.documentElement.scrollWidth + " " + document.images.length; document.body.append(o);"""
    found = re.search(r'<output id="wide">(\d+) (\d+)<', browser.dom_after(page, script, tmp_path, width))
    assert int(found[1]) <= width and int(found[2]) == 24


def test_the_command_prints_counts_and_names_the_page(tmp_path, capsys):
    boxes = region((0.5, 0.5, 0.4, 0.4))
    write_set(tmp_path, train=[(picture(i), record(i, boxes, short_caption="\x1b[2J")) for i in range(3)])
    command.main(["inspect", str(tmp_path), "--workers", "1", "--model", "vit-l14-336"])
    printed = capsys.readouterr().out
    assert "images          3 train" in printed and "warning: Boxes may be corner and size: 3 of 3" in printed
    assert (tmp_path / "inspect.html").is_file() and "\x1b" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vit-x"], "--model must be vit-b16, vit-l14-336 or a folder with a config.json, got vit-x"),
        (["--limit", "0"], "--limit must be at least 1 record, got 0"),
        (["--output", "no/page.html"], "must lie in an existing folder, got no/page.html"),
    ],
)
def test_a_wrong_argument_is_named(shards, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        command.main(["inspect", str(shards), *arguments])
    assert message in str(ended.value)


def test_a_set_without_a_usable_record_is_refused(tmp_path):
    shards = write_set(tmp_path, train=[(b"no image", record(0))])
    with pytest.raises(ValueError, match="no record of 1 shards is usable: 1 x not an image"):
        survey(shards, Settings(), workers=1)
