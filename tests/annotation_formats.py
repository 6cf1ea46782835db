"""The same drawn pictures and boxes, written as users bring them: one function for each format of annotations.

Each takes an empty folder, the pictures drawn, and the folder with their files, and returns what is given to the
import. Names of classes are ``<colour>_thing``.
"""

import csv
import json
import shutil
from xml.sax.saxutils import escape

CLASSES = ("red_thing", "green_thing", "blue_thing")


def yolo(folder, drawn, photos, polygons=False):
    """``data.yaml`` with images and labels of 12 pictures to train on, 5 to validate and 3 to test."""
    for number, picture in enumerate(drawn):
        split = "train" if number < 12 else "valid" if number < 17 else "test"
        for name in ("images", "labels"):
            (folder / name / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / picture.name, folder / "images" / split / picture.name)
        rows = [yolo_row(k, box, picture, polygons) for k, box in enumerate(picture.boxes.values())]
        (folder / "labels" / split / picture.name).with_suffix(".txt").write_text("\n".join(rows))
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(CLASSES))
    splits = "train: images/train\nval: images/valid\ntest: images/test\n"
    (folder / "data.yaml").write_text(f"path: .\n{splits}names:\n{names}\n")
    return folder


def yolo_row(label, box, picture, polygon=False):
    """A line of a label file."""
    x1, y1, x2, y2 = box[0] / picture.width, box[1] / picture.height, box[2] / picture.width, box[3] / picture.height
    numbers = [x1, y1, x2, y1, x2, y2, (x1 + x2) / 2, y2, x1, y2]
    return " ".join(map(str, [label, *(numbers if polygon else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])]))


def voc(folder, drawn, photos):
    """A VOCdevkit with lists of 12 pictures to train on and 8 to validate."""
    year = folder / "VOC2012"
    for name in ("Annotations", "ImageSets/Main"):
        (year / name).mkdir(parents=True)
    shutil.copytree(photos, year / "JPEGImages")
    for picture in drawn:
        (year / "Annotations" / picture.name).with_suffix(".xml").write_text(voc_xml(picture))
    stems = [picture.name.partition(".")[0] for picture in drawn]
    (year / "ImageSets" / "Main" / "train.txt").write_text("\n".join(stems[:12]))
    (year / "ImageSets" / "Main" / "val.txt").write_text("\n".join(stems[12:]))
    return folder


def voc_xml(picture, names=CLASSES):
    """An annotation of one picture; pixels count from 1, and the last is inside."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmax>{x2}</xmax><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<ymax>{y2}</ymax></bndbox><part><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></part></object>"
        for name, (x1, y1, x2, y2) in zip(names, picture.boxes.values(), strict=True)
    )
    size = f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{picture.name}</filename>{size}{objects}</annotation>"


def cvat(folder, drawn, photos):
    """One XML for all images; red is a box, green a polygon, blue a mask."""
    images = []
    for number, picture in enumerate(drawn):
        (a, b, c, d), (e, f, g, h), (left, top, right, bottom) = picture.boxes.values()
        shapes = (
            f'<box label="red_thing" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}" occluded="0"><attribute name="note">a'
            f' red note {number}</attribute></box><polygon label="green_thing" points="{e},{f};{g},{f};{g},{h};{e},{h}"'
            f'/><mask label="blue_thing" rle="9" left="{left}" top="{top}" width="{right - left}"'
            f' height="{bottom - top}"/><points label="red_thing" points="1,1"/>'
        )
        subset = "Train" if number < 15 else "Validation"
        images.append(
            f'<image id="{number}" name="{picture.name}" subset="{subset}" width="{picture.width}"'
            f' height="{picture.height}">{shapes}</image>'
        )
    meta = "<version>1.1</version><meta><task><id>1</id></task></meta>"
    (folder / "annotations.xml").write_text(f"<annotations>{meta}{''.join(images)}</annotations>")
    return folder / "annotations.xml"


def labelme(folder, drawn, photos):
    """A JSON beside each picture; red is a rectangle, green a polygon, blue a mask."""
    for picture in drawn:
        shutil.copy(photos / picture.name, folder / picture.name)
        (folder / picture.name).with_suffix(".json").write_text(json.dumps(labelme_json(picture)))
    return folder


def labelme_json(picture):
    """The annotation of one picture."""
    (a, b, c, d), (e, f, g, h), (left, top, right, bottom) = picture.boxes.values()
    shapes = [
        {"label": "red_thing", "points": [[c, d], [a, b]], "shape_type": "rectangle"},
        {"label": "green_thing", "points": [[e, f], [g, f], [g, h], [e, h]], "shape_type": "polygon"},
        {"label": "blue_thing", "points": [[left, top], [right - 1, bottom - 1]], "shape_type": "mask"},
        {"label": "red_thing", "points": [[1, 1]], "shape_type": "point"},
    ]
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": picture.name, "imageData": None,
            "imageHeight": picture.height, "imageWidth": picture.width}  # fmt: skip


def coco_json(drawn):
    """COCO's JSON of instances."""
    boxes = [(i, k, box) for i, picture in enumerate(drawn) for k, box in enumerate(picture.boxes.values())]
    return {
        "images": [{"id": i, "file_name": p.name, "width": p.width, "height": p.height} for i, p in enumerate(drawn)],
        "annotations": [{"id": 10 * i + k, "image_id": i, "category_id": k, "iscrowd": 0,
                         "bbox": [x1, y1, x2 - x1, y2 - y1]} for i, k, (x1, y1, x2, y2) in boxes],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES)],
    }  # fmt: skip


def coco(folder, drawn, photos):
    """Instances."""
    (folder / "instances.json").write_text(json.dumps(coco_json(drawn)))
    return folder


def refcoco(folder, drawn, photos):
    """References with three sentences to each box; pictures 15 to 17 are of testA, 18 and 19 of val."""
    coco(folder, drawn, photos)
    references = []
    for i in range(len(drawn)):
        for k, name in enumerate(CLASSES):
            texts = [f"the {name[:-6]} one of {i}", name[:-6], f"{name[:-6]} left"]
            sentences = [{"sent": text, "sent_id": len(references), "tokens": text.split()} for text in texts]
            split = "train" if i < 15 else "testA" if i < 18 else "val"
            references.append({"ref_id": len(references), "ann_id": 10 * i + k, "image_id": i, "split": split,
                               "file_name": f"COCO_train2014_{i}_{k}.jpg", "sentences": sentences})  # fmt: skip
    (folder / "refs(unc).json").write_text(json.dumps(references))
    return folder


def visual_genome(folder, drawn, photos):
    """Region descriptions, and the data of the images; the pictures lie in VG_100K and VG_100K_2."""
    entries, images = [], []
    for i, picture in enumerate(drawn):
        place = photos / ("VG_100K" if i < 9 else "VG_100K_2") / f"{i}.jpg"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(photos / picture.name, place)
        url = f"https://cs.stanford.edu/people/rak248/{place.parent.name}/{i}.jpg"
        images.append({"image_id": i, "url": url, "width": picture.width, "height": picture.height, "coco_id": None})
        entries.append({"id": i, "regions": [
            {"region_id": 10 * i + k, "image_id": i, "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1,
             "phrase": f"a {CLASSES[k][:-6]} patch of {i} "} for k, (x1, y1, x2, y2) in
            enumerate(picture.boxes.values())]})  # fmt: skip
    (folder / "region_descriptions.json").write_text(json.dumps(entries))
    (folder / "image_data.json").write_text(json.dumps(images))
    return folder


def flickr30k_entities(folder, drawn, photos):
    """Sentences with phrases, and their boxes; the blue one is given in two halves."""
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        (folder / name).mkdir()
    for i, picture in enumerate(drawn):
        shutil.copy(photos / picture.name, folder / "flickr30k-images" / f"{i}.jpg")
        red, green, blue = picture.boxes.values()
        middle = (blue[0] + blue[2]) // 2
        halves = [(blue[0], blue[1], max(middle, blue[0] + 1), blue[3]), (middle, *blue[1:])]
        lines = [
            f"[/EN#1/people A red thing] beside [/EN#2/other a green thing] of [/EN#0/notvisual all] {i} .",
            f"[/EN#3/bodyparts/other Two blue things] and [/EN#1/people red] {i} .",
        ]
        (folder / "Sentences" / f"{i}.txt").write_text("\n".join(lines))
        objects = "".join(flickr_object(k, box) for k, box in ((1, red), (2, green), *((3, half) for half in halves)))
        size = f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"
        none = "<object><name>4</name><scene>1</scene><nobndbox>0</nobndbox></object>"
        text = f"<annotation><filename>{i}.jpg</filename>{size}{objects}{none}</annotation>"
        (folder / "Annotations" / f"{i}.xml").write_text(text)
    for name, numbers in (("train", range(14)), ("val", range(14, 17)), ("test", range(17, 20))):
        (folder / f"{name}.txt").write_text("\n".join(map(str, numbers)))
    return folder


def flickr_object(number, box):
    """An object of one box; pixels count from 1."""
    x1, y1, x2, y2 = box
    return (
        f"<object><name>{number}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
    )


def open_images(folder, drawn, photos):
    """Boxes of 14 pictures to train on and 6 to validate, and names of classes."""
    columns = [
        "ImageID",
        "Source",
        "LabelName",
        "Confidence",
        "XMin",
        "XMax",
        "YMin",
        "YMax",
        "IsOccluded",
        "IsGroupOf",
    ]
    rows = {"train": [columns], "validation": [columns]}
    for i, picture in enumerate(drawn):
        shutil.copy(photos / picture.name, photos / f"{i:016x}.jpg")
        for k, (x1, y1, x2, y2) in enumerate(picture.boxes.values()):
            sides = [x1 / picture.width, x2 / picture.width, y1 / picture.height, y2 / picture.height]
            row = [f"{i:016x}", "xclick", f"/m/0{k}", 1, *(f"{side:.6f}" for side in sides), 0, 0]
            rows["train" if i < 14 else "validation"].append(row)
    for split, listed in rows.items():
        with (folder / f"{split}-annotations-bbox.csv").open("w", newline="") as file:
            csv.writer(file).writerows(listed)
    names = "".join(f"/m/0{k},{escape(name.replace('_', ' ').title())}\n" for k, name in enumerate(CLASSES))
    (folder / "class-descriptions-boxable.csv").write_text(names.lower())
    return folder
