"""Retrieval: recall by hand, each published layout, captions that repeat, images that are missing."""

import json
import re
import subprocess
import sys

import pytest
import torch

from fgclip_fast.evaluation import published, retrieval
from fgclip_fast.evaluation.metrics import answers_before
from fgclip_fast.model.fgclip import FGCLIP
from tests.evaluation.planted import Planted, grey, unit
from tests.models import MINI


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        grey(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def model(**texts):
    return Planted({n: unit(n) for n in range(4)}, texts)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def asked(path, planted, images=None, **more):
    figures = retrieval.evaluate(planted, path, images, **more)
    return figures, {k: v for k, v in figures.values.items() if k.endswith("@1")}


CLEAR = {"zero": unit(0), "one": unit(1), "two": unit(2), "other zero": [0.6, 0.8, 0, 0]}


def test_recall_is_that_of_a_calculation_by_hand(folder):
    """Caption 'other zero' is nearer to image 1 than to its own; image 1 has a nearer one, so all images are right."""
    rows = [["0.png", ["zero", "other zero"]], ["1.png", ["one"]], ["2.png", ["two"]]]
    path = write(folder / "pairs.json", [{"filename": name, "caption": own} for name, own in rows])
    figures, recall = asked(path, model(**CLEAR), folder / "images")
    assert recall == {"image_to_text_r@1": 1.0, "text_to_image_r@1": 3 / 4}
    assert figures.values["text_to_image_r@5"] == 1.0 and (figures.values["images"], figures.values["captions"]) == (
        3,
        4,
    )
    assert figures.outcomes["text_to_image_r@1"] == {"0.png": (1, 2), "1.png": (1, 1), "2.png": (1, 1)}
    assert figures.skipped == {} and figures.asked == 3 and "pairs of pairs.json" in figures.protocol


def test_a_caption_that_repeats_is_right_for_each_of_its_images(folder):
    grey(folder / "images" / "3.png", 0)  # looks like image 0, and has the same caption
    rows = [("0.png", "zero"), ("3.png", "zero"), ("1.png", "one"), ("2.png", "two")]
    path = write(folder / "pairs.csv", "image,caption\n" + "\n".join(",".join(row) for row in rows))
    _, recall = asked(path, model(**CLEAR), folder / "images")
    assert recall == {"image_to_text_r@1": 1.0, "text_to_image_r@1": 1.0}


def test_a_wrong_caption_counts_as_often_as_it_stands_in_the_set(folder):
    rows = [(f"{n % 3}.png", "one") for n in (1, 1, 1, 1, 1)] + [("0.png", "far"), ("2.png", "two")]
    path = write(folder / "pairs.csv", "image,caption\n" + "\n".join(",".join(row) for row in rows))
    figures, recall = asked(path, model(one=[0.9, 0.9, 0, 0], far=[0.1, 0, 0, 0.9], two=unit(2)), folder / "images")
    assert recall["image_to_text_r@1"] == 2 / 3, "of image 0, 'one' is nearer, five times"
    assert figures.values["image_to_text_r@5"] == 2 / 3 and figures.values["image_to_text_r@10"] == 1.0


def test_ties_count_against(folder):
    path = write(folder / "p.json", [{"image": f"{n}.png", "text": f"t{n}"} for n in range(3)])
    planted = Planted({n: unit(0) for n in range(3)}, {f"t{n}": unit(0) for n in range(3)})
    figures, recall = asked(path, planted, folder / "images")
    assert recall == {"image_to_text_r@1": 0.0, "text_to_image_r@1": 0.0} and figures.values["image_to_text_r@5"] == 1.0


def test_texts_are_embedded_once_and_images_decoded_once(folder):
    path = write(folder / "p.json", [{"image": f"{n % 3}.png", "text": "same"} for n in range(9)])
    planted = model(same=unit(0))
    asked(path, planted, folder / "images")
    assert planted.asked == ["same"] and sorted(planted.decoded) == ["0.png", "1.png", "2.png"]


def test_missing_images_and_bad_records_are_counted_by_cause(folder):
    (folder / "images" / "broken.png").write_bytes(b"no image")
    records = [
        {"image": "0.png", "caption": " zero "}, {"image": "none.png", "caption": "x"}, {"image": "1.png"}, 7,
        {"image": "broken.png", "caption": "never asked"}, {"image": "1.png", "caption": 12},
        {"image": "1.png", "caption": ""},
    ]  # fmt: skip
    figures, recall = asked(
        write(folder / "p.json", records), Planted({0: unit(0)}, {"zero": unit(0), "never asked": unit(0)})
    )
    assert figures.asked == 1 and recall == {"image_to_text_r@1": 1.0, "text_to_image_r@1": 1.0}
    assert figures.skipped == {
        "missing or unreadable image": 2, "record without a caption": 3, "record without an image": 1
    }  # fmt: skip


def layouts(folder):
    """Each published layout of the same three images; images, captions, text path."""
    three = range(3)
    names = {n: f"{n:012d}.jpg" for n in three}
    for n in three:
        grey(folder / "val2017" / names[n], n)
        grey(folder / "image" / f"{n}.png", n)
        write(folder / "caption" / f"{n}.txt", f"t{n}\nsecond line")
        write(
            folder / "dci" / "annotations" / f"{n}.json",
            {"image": f"{n}.png", "extra_caption": f"t{n}", "short_caption": "no"},
        )
        grey(folder / "dci" / "images" / f"{n}.png", n)
    captions = [
        {"image_id": n, "id": 9 * n + k, "caption": f"t{n}" if k < 5 else "sixth"} for k in range(6) for n in three
    ]
    coco = {"images": [{"id": n, "file_name": names[n]} for n in three], "annotations": captions}
    karpathy = [
        {"filename": f"COCO_val2014_{names[n]}", "filepath": "val2014", "split": split,
         "sentences": [{"raw": f"t{n}"}] * 5}
        for n, split in [(0, "test"), (1, "test"), (2, "test"), (0, "train"), (1, "restval")]
    ]  # fmt: skip
    docci = [{"split": "test", "image_file": names[n], "description": f"t{n}", "example_id": n} for n in three]
    docci.append({"split": "train", "image_file": names[0], "description": "train", "example_id": 9})
    share = [{"image": f"sam/images/{names[n]}", "conversations": [{"value": "?"}, {"value": f"t{n}"}]} for n in three]
    tokens = [f"{names[n]}#{k}\tt{n}" for k in range(5) for n in three]
    # Five rounds over the images, so lines of an image stand apart; no line break at the end.
    coco_cn = [f"COCO_val2014_{n:012d}#zhm#{k}\tt{n}" for k in range(5) for n in three]
    written = [f"COCO_val2014_{n:012d}#zhb#{k} t{n}" for n in (*three, 7) for k in range(1 + (n == 2))]
    flickr_cna = [f"{n:012d}#{k}\tt{n}" for k in range(5) for n in three]
    chinese = folder / "coco-cn-version1805v1.1"
    write(chinese / "coco-cn_test.txt", "\n".join(f"COCO_val2014_{n:012d}" for n in three))
    blip = [{"image": f"val2014/COCO_val2014_{names[n]}", "caption": [f"t{n}"] * 5} for n in three]
    lines = "\n".join
    return {
        "coco captions": (write(folder / "annotations" / "captions_val2017.json", coco), 15, "short"),
        "karpathy": (write(folder / "dataset_coco.json", {"images": karpathy, "dataset": "coco"}), 15, "short"),
        "pairs of": (write(folder / "coco_karpathy_test.json", blip), 15, "short"),
        "docci": (write(folder / "docci_descriptions.jsonlines", lines(map(json.dumps, docci))), 3, "long"),
        "sharegpt4v-1k": (write(folder / "share.json", share), 3, "long"),
        "token file": (write(folder / "results_20130124.token", lines(tokens)), 15, "short"),
        "coco-cn lines of imageid.manually-translated-caption.txt, images of coco-cn_test.txt": (
            write(chinese / "imageid.manually-translated-caption.txt", lines(coco_cn)), 15, "short",
        ),
        "coco-cn lines of imageid.human-written-caption.txt, images of coco-cn_test.txt": (
            write(chinese / "imageid.human-written-caption.txt", lines(written)), 4, "short",
        ),
        "coco-cn lines of pair.txt, all images": (write(folder / "eval" / "pair.txt", lines(coco_cn)), 15, "short"),
        "flickr30k-cna lines of flickr30k_cna_test.txt, all images": (
            write(folder / "test" / "flickr30k_cna_test.txt", lines(flickr_cna)), 15, "short",
        ),
        "urban1k": (folder, 3, "long"),
        "dci": (folder / "dci", 3, "long"),
    }  # fmt: skip


LAYOUTS = [
    "coco captions", "karpathy", "pairs of", "docci", "sharegpt4v-1k", "token file", "urban1k", "dci",
    "coco-cn lines of imageid.manually-translated-caption.txt, images of coco-cn_test.txt",
    "coco-cn lines of imageid.human-written-caption.txt, images of coco-cn_test.txt",
    "coco-cn lines of pair.txt, all images", "flickr30k-cna lines of flickr30k_cna_test.txt, all images",
]  # fmt: skip


@pytest.mark.parametrize("protocol", LAYOUTS)
def test_each_published_layout_is_read(tmp_path, protocol):
    path, captions, kind = layouts(tmp_path)[protocol]
    planted = model(t0=unit(0), t1=unit(1), t2=unit(3))
    figures, recall = asked(path, planted, root=tmp_path)
    assert figures.protocol.startswith(protocol) and planted.kinds == {kind}, figures.protocol
    assert (figures.asked, figures.values["captions"], figures.skipped) == (3, captions, {})
    right = (captions - 2 if captions == 4 else captions * 2 / 3) / captions
    assert recall == {"image_to_text_r@1": 2 / 3, "text_to_image_r@1": right}, "image 2 ties with all captions"


def test_another_text_path_than_the_protocols_is_said(tmp_path):
    path, *_ = layouts(tmp_path)["docci"]
    figures, _ = asked(path, planted := model(t0=unit(0), t1=unit(1), t2=unit(2)), kind="short")
    assert planted.kinds == {"short"} and figures.protocol.endswith("short text path (not the protocol's)")


def test_order_of_a_file_batch_and_limit(folder):
    records = [{"image": f"{n}.png", "caption": f"t{n}"} for n in range(3)]
    planted = model(t0=[0.9, 0.1, 0, 0], t1=[0.5, 0.6, 0.2, 0], t2=[0.7, 0.1, 0.6, 0])
    one = asked(write(folder / "p.json", records), planted)[0].values
    assert asked(write(folder / "p.json", records[::-1]), planted, batch_size=1)[0].values == one
    assert asked(write(folder / "p.json", records), planted, limit=2)[0].asked == 2


def test_captions_over_77_tokens_lose_their_end_on_the_short_path_alone(folder):
    """Two captions that differ in their last word only tie once they are cut; the third, a short one, is itself."""
    torch.manual_seed(0)
    long = "a very small red mug " * 20
    records = [{"image": f"{n}.png", "caption": text} for n, text in enumerate([long + "left", long + "right", "two"])]
    path = write(folder / "p.json", records)
    with pytest.warns(UserWarning, match="2 of 3 texts were cut to 77 tokens"):
        short, _ = asked(path, network := FGCLIP(MINI))
    assert (short.asked, short.skipped) == (3, {})
    rows = network.encode_text([long + "left", long + "right"])
    assert torch.equal(rows[0], rows[1]) and short.values["text_to_image_r@1"] <= 2 / 3
    rows = network.encode_text([long + "left", long + "right"], kind="long")
    assert not torch.equal(rows[0], rows[1])
    assert asked(path, network, kind="long")[0].asked == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", {"a": 1}, "must hold a list of records, or COCO's or Karpathy's images"),
        ("p.json", [{"photo": "a", "words": "b"}], "must have an image .* and a caption .*, got photo, words"),
        ("p.csv", "a,b\n1,2", "must have columns for an image .*, got a, b"),
        ("p.json", {"images": [], "annotations": [{"bbox": []}]}, "must hold captions in its annotations"),
        ("p.json", {"images": [{"split": "train"}]}, "must hold images with split 'test'"),
        ("p.txt", "just prose", "must be JSON, JSON lines, CSV, TSV or lines of NAME#N and a text"),
    ],
)
def test_a_file_of_no_known_layout_is_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        retrieval.evaluate(model(), write(tmp_path / name, content))


def test_public_sets_are_found_in_a_folder_and_the_others_listed(tmp_path):
    layouts(tmp_path)
    found, missing = published.find("retrieval", tmp_path)
    assert set(found) == {"coco", "coco-karpathy", "flickr30k", "docci", "dci", "coco-cn", "flickr30k-cna"}
    assert found["coco-cn"].name == "imageid.manually-translated-caption.txt"
    assert {one.name for one in missing} == {"urban1k", "sharegpt4v-1k"}
    own = write(tmp_path / "own" / "mine.csv", "image,caption")
    assert published.find("retrieval", own) == ({"mine": own}, [])


def test_lines_in_chinese_sets_are_known_by_their_content_not_by_their_name(tmp_path):
    """Lists of images and captions of other sets have like names; a renamed file is found."""
    write(tmp_path / "coco-cn" / "coco-cn_train.txt", "COCO_train2014_000000000001\n")
    write(tmp_path / "coco-cn" / "imageid.human-written-caption.txt", "COCO_val2014_000000000001#zhb#0\ta")
    write(tmp_path / "flickr30k_cn_test.txt", "1000092795#zhb#0\ta")
    assert not {"coco-cn", "flickr30k-cna"} & set(published.find("retrieval", tmp_path, only_public=True)[0])
    mine = write(tmp_path / "coco-cn" / "renamed.txt", "COCO_val2014_000000000001#zhm#0\ta")
    other = write(tmp_path / "CNA" / "my-test.txt", "1000092795#0\ta")
    found = published.find("retrieval", tmp_path, only_public=True)[0]
    assert found == {"coco-cn": mine, "flickr30k-cna": other}


def test_every_public_set_has_a_place_and_a_size_or_says_that_it_is_unknown():
    for one in published.SETS:
        assert one.source and (published.UNKNOWN in one.size or re.search(r"\d [MG]B", one.size)), one.name


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_answers_before_equals_a_loop(chunk):
    generator = torch.Generator().manual_seed(0)
    queries, answers = torch.randn(7, 5, generator=generator), torch.randn(11, 5, generator=generator)
    right = [[q, (q * 3) % 11] for q in range(7)]
    copies = torch.arange(1, 12)
    counted = answers_before(queries, answers, right, copies, chunk)
    for q in range(7):
        cosines = (queries[q] @ answers.T).tolist()
        best = max(cosines[a] for a in right[q])
        assert counted[q] == sum(int(copies[a]) for a in range(11) if cosines[a] > best and a not in right[q])


def test_data_are_told_by_their_content(tmp_path):
    grey(tmp_path / "0.png", 0)
    planted = model(zero=unit(0), one=unit(1))
    first = asked(write(tmp_path / "a.csv", "image,caption\n0.png,zero"), planted)[0].data
    same = asked(write(tmp_path / "b.csv", "image,caption\n0.png,zero"), planted)[0].data
    other = asked(write(tmp_path / "a.csv", "image,caption\n0.png,one"), planted)[0].data
    assert first["sha256"] == same["sha256"] != other["sha256"] and first["found by"] == {"path as given": 1}


@pytest.mark.slow
def test_recall_of_30_000_images_and_150_000_captions_stays_below_2_gb():
    """Embeddings of width 512 and all; a process of its own, since the peak of one never falls."""
    program = """
import torch, torch.nn.functional as F
from collections import Counter
from pathlib import Path
from fgclip_fast.evaluation import retrieval

images, captions = 30_000, 150_000
rows = F.normalize(torch.randn(images, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
texts = torch.randn(captions, 512, generator=torch.Generator().manual_seed(1))
texts.view(images, 5, 512).add_(rows[:, None], alpha=3)
own = [list(range(5 * n, 5 * n + 5)) for n in range(images)]
gallery = retrieval._Gallery([Path(f"{n}.jpg") for n in range(images)], [str(n) for n in range(captions)], own)
seen = dict(zip(gallery.images, rows))
found = retrieval._figures(gallery, seen, F.normalize(texts, dim=-1, out=texts), Counter())
assert found.values["captions"] == captions and 0 < found.values["text_to_image_r@1"] < 1, found.values
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2e9
