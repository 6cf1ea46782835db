"""An evaluation by several processes: the figures of one, no wait that grows with the set, errors told in all."""

import datetime
import io
import json
import os
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from fgclip_fast import figures_file, suites
from fgclip_fast.config import Data, Loss
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.evaluation.share import Share, Stopped, parts_of
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes import locate
from fgclip_fast.scenes.write import write_scenes
from fgclip_fast.suites import Task
from tests.models import MINI

PUBLIC = ["retrieval", "boxes", "compositional", "region-retrieval", "zero-shot", "segmentation"]
PUBLIC += ["ov-coco"] * (find_spec("pycocotools") is not None)
TIME_OUT = 4
"""Seconds after which a collective of the slow evaluation fails."""


def test_parts_do_not_depend_on_the_processes():
    assert [len(part) for part in parts_of(70)] == [32, 32, 6] and parts_of(0) == []


def figures(shard, questions, share, **settings):
    torch.manual_seed(0)
    data = Data(train="", val=str(shard))
    task = Task(data=data, loss=Loss(), questions=questions, images=questions.parent, share=share, **settings)
    found = suites.evaluate(FGCLIP(MINI), ["records", "fg-ovd"], task)
    found |= suites.evaluate(FGCLIP(MINI), ["levels"], replace(task, questions=None, images=None, limit=40))
    public = replace(task, questions=questions.parent / "sets", images=None, templates=questions.parent / "t.txt")
    for suite in PUBLIC:
        own = replace(
            public, questions=public.questions / suite if suite in ("zero-shot", "segmentation") else public.questions
        )
        found |= suites.evaluate(FGCLIP(MINI), [suite], own)
    return figures_file.described(found, Path("weights"), 3, task.limit)


def divided(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=4)
    groups = {2: dist.new_group([0, 1], timeout=datetime.timedelta(seconds=TIME_OUT)), 4: dist.group.WORLD}
    if rank < 2:
        share = Share(groups[2])
        slow = share.measure(range(8), lambda part: time.sleep(TIME_OUT / 2.5 * (rank == 0)) or part, sum)
        told = "nothing"
        try:
            share.measure([0, 1], lambda part: 1 // (1 - part), sum)
        except ZeroDivisionError as error:
            told = str(error)
        (folder / f"slow-{rank}.json").write_text(json.dumps([slow, told]))
    for world, group in groups.items():
        if rank < world:
            found = figures(folder / "val.tar", folder / "questions.jsonl", Share(group))
            (folder / f"{world}-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down; all is written


def noise(number):
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 40 + 3 * number).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three parts of records, the last ragged, one record bad; questions about two parts of images."""
    tmp_path = tmp_path_factory.mktemp("share")
    with ShardWriter(tmp_path / "val.tar") as writer:
        for number in range(70):
            regions = [
                {
                    "bbox": box,
                    "short_expr": f"thing {number}",
                    "short_expr_negs": {"0": f"thing {number + 1}", "1": "it"},
                }
                for box in ([0.1, 0.1, 0.5, 0.9], [0.4, 0.2, 0.9, 0.8], [0.0, 0.0, 0.3, 0.3])[: number % 4]
            ]
            record = {"short_caption": f"picture {number}", "caption": f"long {number}", "bbox_info": regions}
            image = noise(number) if number != 33 else b"not an image"
            writer.write(f"{number:06d}", jpg=image, json=json.dumps(record).encode())
    lines = []
    for number in range(40):
        (tmp_path / f"{number:02d}.png").write_bytes(noise(number))
        box = {"bbox": [1, 2, 20, 20], "width": 40, "height": 30}
        texts = {"pos_expression": [f"thing {number}"], "neg_expression": ["another", f"thing {number + 1}"]}
        lines += [json.dumps({"img_path": f"{number:02d}.png", **box, **texts})] * (1 + number % 3)
    lines.append(json.dumps({**json.loads(lines[0]), "img_path": "missing.png"}))
    (tmp_path / "questions.jsonl").write_text("\n".join([*lines, "no JSON"]))
    write_sets(tmp_path / "sets")
    (tmp_path / "t.txt").write_text("a {}\none {}")
    # A small set in the place of the embedded one, which has thousands of scenes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
        write_scenes(tmp_path / "cache" / f"{locate.EMBEDDED}-{locate._fingerprint()}", train=1, val=40, workers=1)
        yield tmp_path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On some CPUs a product's last bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(folder):
    """The figures of one process."""
    return json.loads(json.dumps(figures(folder / "val.tar", folder / "questions.jsonl", Share())))


def write_sets(folder):
    """COCO's captions and boxes, a folder for each class, and labels of pixels: two parts of images, one broken."""
    images = [{"id": n, "width": 40, "height": 30, "file_name": f"coco-{n}.png"} for n in range(35)]
    captions = [{"image_id": n, "caption": f"picture {(n * k) % 40}"} for n in range(35) for k in range(5)]
    boxes = [
        {"image_id": n, "bbox": [1, 2, 10 + k, 20], "category_id": (n + k) % 3} for n in range(35) for k in range(n % 4)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(("cat", "person", "cell phone"))]
    annotations = {"captions": {"annotations": captions}, "instances": {"annotations": boxes, "categories": categories}}
    (folder / "annotations").mkdir(parents=True)
    for name, content in annotations.items():
        (folder / "annotations" / f"{name}_val2017.json").write_text(json.dumps({"images": images, **content}))
    cases = {n: {"filename": f"coco-{n}.png", "caption": f"a {n}", "negative_caption": f"a {n + 1}"} for n in range(35)}
    refs = [
        {
            "ref_id": n,
            "ann_id": n,
            "image_id": one["image_id"],
            "split": "val",
            "sentences": [{"sent": f"thing {n % 9}"}],
        }
        for n, one in enumerate(boxes)
    ]
    numbered = [{**one, "id": n} for n, one in enumerate(boxes)]
    for place, name, content in [
        ("sugarcrepe", "swap_obj", cases),
        ("refcoco", "refs(unc)", refs),
        ("refcoco", "instances", {"images": images, "annotations": numbered, "categories": categories}),
    ]:
        (folder / place).mkdir(exist_ok=True)
        (folder / place / f"{name}.json").write_text(json.dumps(content))
    for n in range(35):
        for place in ("val2017", f"zero-shot/class {n % 3}", "segmentation/images"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            # A name that stands in several folders would not be guessed.
            name = f"coco-{n}.png" if place == "val2017" else f"{n}.png"
            (folder / place / name).write_bytes(noise(n) if n != 7 else b"broken")
        if n < 6:
            (folder / "segmentation" / "labels").mkdir(exist_ok=True)
            Image.new("L", (40, 30), n % 3).save(folder / "segmentation" / "labels" / f"{n}.png")
    (folder / "segmentation" / "classes.txt").write_text("cat\ndog, hound\ncow")


def test_one_two_and_four_processes_give_the_same_json(folder, alone):
    assert alone["records"]["images"] == 69 and alone["fg-ovd/questions"]["questions"] == 79
    assert alone["fg-ovd/questions"]["skipped"] == {"malformed line": 1, "missing or unreadable image": 1}
    assert {name.split("/")[0] for name in alone} == {"records", "fg-ovd", "unseen", "seen", *PUBLIC}
    assert {"records", "fg-ovd", "levels", "ov-coco", *PUBLIC} == set(suites.SUITES), "every suite is asked here"
    assert all(suite["of"]["asked"] > 0 for suite in alone.values())
    mp.spawn(divided, (folder,), nprocs=4)
    for world in (2, 4):
        for rank in range(world):
            assert json.loads((folder / f"{world}-{rank}.json").read_text()) == alone, (world, rank)
    # Four parts of 1.6 seconds each in one of two processes are more than the time-out of a collective.
    slow = [json.loads((folder / f"slow-{rank}.json").read_text()) for rank in range(2)]
    assert slow == [[28, "integer division or modulo by zero"]] * 2


@pytest.mark.parametrize("size", [1, 7, 64])
def test_figures_do_not_depend_on_the_batch_size(folder, alone, size):
    found = json.loads(json.dumps(figures(folder / "val.tar", folder / "questions.jsonl", Share(), batch_size=size)))
    assert found == alone


def test_a_signal_ends_the_work_before_the_next_part():
    done = []
    share = Share(stop=lambda: len(done) == 2)
    with pytest.raises(Stopped):
        share.measure([1, 2, 3], done.append, len)
    assert done == [1, 2]
