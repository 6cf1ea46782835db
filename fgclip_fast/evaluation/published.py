"""Public data sets of the suites: the names of their files, where they are published, and what they weigh."""

import re
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "size unknown"
"""Stands where no size could be sourced."""
_COCO = "annotations 241 MB, val2017 images 1 GB"
_FIRST_BYTES = 4096
"""Of a file, read to know it by its first line."""


class Published(NamedTuple):
    """A public data set."""

    suite: str
    name: str
    patterns: tuple[str, ...]
    """Its questions, as glob patterns below the folder of ``--data``; the first that finds something is taken."""
    source: str
    """The place where it is published."""
    size: str
    """What it weighs: its questions, then its images."""
    begins: str = ""
    """The pattern of its first line, where the name of a file does not tell what it holds."""


SETS = (
    Published("retrieval", "coco", ("**/captions_val2017.json",), "cocodataset.org", _COCO),
    Published(
        "retrieval",
        "coco-karpathy",
        ("**/dataset_coco.json", "**/coco_karpathy_test.json"),
        "cs.stanford.edu/people/karpathy/deepimagesent; images: cocodataset.org, val2014",
        f"captions: {UNKNOWN}, images 6 GB",
    ),
    Published(
        "retrieval",
        "flickr30k",
        ("**/dataset_flickr30k.json", "**/flickr30k_test.json", "**/results_20130124.token"),
        "shannon.cs.illinois.edu/DenotationGraph; test split: cs.stanford.edu/people/karpathy/deepimagesent",
        "flickr30k.zip of the split 198 MB, images 4.4 GB",
    ),
    Published(
        "retrieval",
        "coco-cn",
        ("**/imageid.manually-translated-caption.txt", "**/*[cC][nN]*/**/*.txt", "**/*[cC][nN]*.txt", "**/pair.txt"),
        "huggingface.co/datasets/AIMClab-RUC/COCO-CN; images: cocodataset.org, train2014 and val2014",
        "captions 15 MB, images 13 and 6 GB",
        r"COCO_(train|val)2014_\d{12}#zhm#\d",
    ),
    Published(
        "retrieval",
        "flickr30k-cna",
        ("**/flickr30k_cna_test.txt", "**/flickr30k_cn*_test.txt", "**/*[cC][nN]*/**/*test*.txt"),
        "zero.so.com (Flickr30k-CNA); images: shannon.cs.illinois.edu/DenotationGraph",
        f"captions: {UNKNOWN}, images 4.4 GB",
        r"\d+(\.jpg)?#\d\t",
    ),
    Published(
        "retrieval",
        "dci",
        ("dci", "DCI", "densely_captioned_images"),
        "github.com/facebookresearch/DCI; images: SA-1B's archive sa_000138.tar",
        UNKNOWN,
    ),
    Published(
        "retrieval",
        "docci",
        ("**/docci_descriptions.jsonlines",),
        "google.github.io/docci",
        "descriptions 11 MB, images 7.6 GB",
    ),
    Published("retrieval", "urban1k", ("urban1k", "Urban1k"), "huggingface.co/datasets/BeichenZhang/Urban1k", "81 MB"),
    Published(
        "retrieval",
        "sharegpt4v-1k",
        ("**/share-captioner_coco_lcs_sam_1246k_1107.json",),
        "huggingface.co/datasets/Lin-Chen/ShareGPT4V; images of the first 1,000: SA-1B",
        f"captions 1.5 GB, images: {UNKNOWN}",
    ),
    Published(
        "zero-shot",
        "imagenet-1k",
        ("imagenet/val", "imagenet-1k/val", "ILSVRC2012/val", "imagenet/ILSVRC2012_img_val"),
        "image-net.org: ILSVRC2012 validation images; flat, with LOC_val_solution.csv beside them",
        "6.3 GB",
    ),
    Published(
        "zero-shot",
        "imagenet-v2",
        ("imagenetv2-matched-frequency-format-val", "imagenet-v2/imagenetv2-matched-frequency-format-val"),
        "huggingface.co/datasets/vaishaal/ImageNetV2: matched frequency",
        "1.2 GB",
    ),
    Published("boxes", "coco", ("**/instances_val2017.json",), "cocodataset.org", _COCO),
    Published(
        "boxes",
        "lvis",
        ("**/lvis_v1_val.json",),
        "lvisdataset.org; images: COCO's val2017",
        "annotations 64 MB, images 1 GB",
    ),
    Published(
        "ov-coco",
        "coco",
        ("**/instances_val2017_all_2.json", "**/instances_val2017.json"),
        "cocodataset.org",
        _COCO,
    ),
    Published(
        "fg-ovd",
        "fg-ovd",
        (
            "**/h_attributes_llava.jsonl",
            "**/1_attributes_llava.jsonl",
            "**/1_attributes.jsonl",
            "**/1_attributes.json",
        ),
        "huggingface.co/datasets/qihoo360/FG-OVD; images: COCO's val2017",
        f"questions: {UNKNOWN}, images 1 GB",
    ),
    Published(
        "compositional",
        "sugarcrepe",
        ("sugarcrepe", "sugar-crepe", "sugar-crepe/data", "SugarCrepe"),
        "github.com/RAIVNLab/sugar-crepe; images: COCO's val2017",
        "questions 2 MB, images 1 GB",
    ),
    Published(
        "compositional",
        "aro-relation",
        ("**/visual_genome_relation.json",),
        "github.com/mertyg/vision-language-models-are-bows",
        f"questions: {UNKNOWN}, images 1.1 GB",
    ),
    Published(
        "compositional",
        "aro-attribution",
        ("**/visual_genome_attribution.json",),
        "github.com/mertyg/vision-language-models-are-bows",
        f"questions: {UNKNOWN}, images 1.1 GB",
    ),
    Published(
        "compositional",
        "winoground",
        ("winoground/**/examples.jsonl",),
        "huggingface.co/datasets/facebook/winoground, after agreeing to its terms",
        UNKNOWN,
    ),
    *(
        Published(
            "region-retrieval",
            name,
            (name,),
            "github.com/lichengunc/refer, its refs as JSON; images: cocodataset.org, train2014",
            f"references: {UNKNOWN}, images 13 GB",
        )
        for name in ("refcoco", "refcoco+", "refcocog")
    ),
    Published(
        "region-retrieval",
        "flickr30k-entities",
        ("flickr30k_entities", "Flickr30kEntities", "flickr30k-entities"),
        "github.com/BryanPlummer/flickr30k_entities; images: shannon.cs.illinois.edu/DenotationGraph",
        f"annotations: {UNKNOWN}, images 4.4 GB",
    ),
    Published(
        "segmentation",
        "voc",
        ("VOCdevkit/VOC2012", "voc/VOCdevkit/VOC2012", "VOC2012"),
        "host.robots.ox.ac.uk/pascal/VOC/voc2012",
        "2 GB",
    ),
    Published(
        "segmentation",
        "context",
        ("VOCdevkit/VOC2010", "context/VOCdevkit/VOC2010", "VOC2010"),
        "cs.stanford.edu/~roozbeh/pascal-context; images: host.robots.ox.ac.uk/pascal/VOC/voc2010",
        f"labels: {UNKNOWN}, images 1.3 GB",
    ),
    Published(
        "segmentation",
        "ade",
        ("ADEChallengeData2016", "ade/ADEChallengeData2016"),
        "sceneparsing.csail.mit.edu: ADEChallengeData2016",
        "1 GB",
    ),
)
"""All known sets, by suite."""


def find(suite: str, data: Path, *, only_public: bool = False) -> tuple[dict[str, Path], list[Published]]:
    """Find the data sets of a suite.

    Args:
        suite: its name.
        data: a file or folder of questions, or a folder that holds public data sets in their published layout.
        only_public: whether a folder without a public set of the suite holds nothing for it.

    Returns:
        name → file or folder of questions, and the sets that are not there. A path that is not the home of a public
        set is taken as the questions themselves, under its own name; nothing is missing then.

    Raises:
        FileNotFoundError: ``data`` does not exist.
    """
    if not data.exists():
        raise FileNotFoundError(f"data must be an existing file or folder, got {data}")
    found: dict[str, Path] = {}
    missing: list[Published] = []
    for one in (row for row in SETS if row.suite == suite):
        hits = (path for pattern in one.patterns for path in sorted(data.glob(pattern))) if data.is_dir() else iter(())
        if (hit := next((path for path in hits if _fits(path, one.begins)), None)) is not None:
            found[one.name] = hit
        else:
            missing.append(one)
    return (found, missing) if found or (only_public and data.is_dir()) else ({data.stem: data}, [])


def _fits(path: Path, begins: str) -> bool:
    """Whether a file begins as a set's does; a set without such a pattern takes what its name says."""
    if not begins:
        return True
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST_BYTES)
    except OSError:
        return False
    return re.match(begins, first.decode("utf-8-sig", "replace")) is not None
