"""Figures that others' code computes too, on the same embeddings: CLIP_benchmark's, torchmetrics', SCLIP's windows."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip_fast.evaluation import retrieval, segmentation, zero_shot
from tests.evaluation.planted import SIDE, STEP, Planted, grey

WIDTH, LEVELS = 6, 24


def vectors(count, seed):
    """Embeddings of several lengths."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).tolist()


class Peer:
    """The planted model as CLIP_benchmark calls it: images are their levels, tokens are rows of texts."""

    def __init__(self, planted):
        self.images = torch.tensor([planted.images[n] for n in range(len(planted.images))])
        self.texts = list(planted.texts)
        self.rows = torch.tensor(list(planted.texts.values()))

    def tokenizer(self, texts):
        return torch.tensor([self.texts.index(text) for text in texts])

    def encode_text(self, tokens):
        return self.rows[tokens]

    def encode_image(self, levels):
        return self.images[levels]


@pytest.mark.parametrize("seed", range(3))
def test_zero_shot_is_that_of_clip_benchmark(tmp_path, seed):
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    names, templates = [f"class {c}" for c in "abcdefg"], ["a photo of a {}.", "a {}."]
    texts = [t.replace("{}", name) for name in names for t in templates]
    planted = Planted(
        dict(enumerate(vectors(LEVELS, seed))), dict(zip(texts, vectors(len(texts), seed + 9), strict=True))
    )
    labels = [(n * n + n // 3) % len(names) for n in range(LEVELS)]
    for level, label in enumerate(labels):
        grey(tmp_path / "val" / names[label] / f"{level}.png", level)
    (tmp_path / "t.txt").write_text("\n".join(templates))
    mine = zero_shot.evaluate(planted, tmp_path / "val", templates=tmp_path / "t.txt").values

    # Its classes and scores; its own counting of hits fails with NumPy 2.4.
    theirs = Peer(planted)
    classifier = peer.zero_shot_classifier(
        theirs, theirs.tokenizer, names, [t.replace("{}", "{c}") for t in templates], "cpu", amp=False
    )
    scores, target = peer.run_classification(
        theirs, classifier, [(torch.arange(LEVELS), torch.tensor(labels))], "cpu", amp=False
    )
    for k in (1, 5):
        hits = (scores.topk(k).indices == target[:, None]).any(dim=1)
        assert mine[f"top{k}"] == pytest.approx(hits.float().mean().item())
    assert mine["top1_mean_of_classes"] == pytest.approx(peer.balanced_accuracy_score(target, scores.argmax(dim=1)))


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_is_that_of_clip_benchmark(tmp_path, seed):
    """Captions differ, since of one that repeats CLIP_benchmark counts its first image alone."""
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    captions = [[f"caption {n} {k}" for k in range(1 + n % 4)] for n in range(LEVELS)]
    texts = [text for own in captions for text in own]
    planted = Planted(
        dict(enumerate(vectors(LEVELS, seed))), dict(zip(texts, vectors(len(texts), seed + 9), strict=True))
    )
    for level in range(LEVELS):
        grey(tmp_path / f"{level}.png", level)
    rows = [{"image": f"{n}.png", "caption": own} for n, own in enumerate(captions)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    mine = retrieval.evaluate(planted, tmp_path / "pairs.json", tmp_path).values

    theirs = Peer(planted)
    batches = [(part, captions[int(part[0]) : int(part[-1]) + 1]) for part in torch.arange(LEVELS).split(10)]
    found = peer.evaluate(theirs, batches, theirs.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    for k in (1, 5, 10):
        assert mine[f"image_to_text_r@{k}"] == pytest.approx(found[f"text_retrieval_recall@{k}"])
        assert mine[f"text_to_image_r@{k}"] == pytest.approx(found[f"image_retrieval_recall@{k}"])


def test_mean_intersection_over_union_is_that_of_torchmetrics(tmp_path, monkeypatch):
    classification = pytest.importorskip("torchmetrics.classification")
    names = ["cat", "dog", "bird", "cow"]
    axes = dict(enumerate(torch.eye(4).tolist()))
    planted = Planted(axes, {f"a {name}": axes[n] for n, name in enumerate(names)})
    random = np.random.default_rng(0)
    (tmp_path / "classes.txt").write_text("\n".join(names))
    (tmp_path / "t.txt").write_text("a {}")
    labels, predictions = [], []
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    for number in range(5):
        blocks = np.kron(random.integers(0, 4, (4, 4)), np.ones((16, 16))).astype(np.uint8)
        Image.fromarray(np.stack([STEP * blocks] * 3, axis=-1)).save(tmp_path / "images" / f"{number}.png")
        # Class 3 is predicted, and labelled nowhere: not in the mean, though torchmetrics' "macro" would count it as 0.
        label = np.where(random.random((64, 64)) < 0.3, random.integers(0, 3, (64, 64)), blocks % 3).astype(np.uint8)
        label[random.random((64, 64)) < 0.1] = segmentation.IGNORED
        Image.fromarray(label).save(tmp_path / "labels" / f"{number}.png")
        labels.append(torch.from_numpy(label.astype(np.int64)))

    def kept(*arguments):
        predictions.append(before(*arguments))
        return predictions[-1]

    before = segmentation._predict
    monkeypatch.setattr(segmentation, "_predict", kept)
    mine = segmentation.evaluate(planted, tmp_path, templates=tmp_path / "t.txt").values
    peer = classification.MulticlassJaccardIndex(4, average=None, ignore_index=segmentation.IGNORED)
    found = peer(torch.stack(predictions), torch.stack(labels)).tolist()
    assert list(mine["iou_by_class"].values())[:3] == pytest.approx(found[:3]) and found[3] == 0
    assert mine["iou_by_class"]["3 cow"] is None and mine["miou"] == pytest.approx(sum(found[:3]) / 3)
    assert 0.1 < mine["miou"] < 0.9


def as_sclip(model, pixels, vectors, owner, shape, threshold):
    """SCLIP's inference in plain loops (its clip_segmentor.py): windows, their mean, softmax, classes, background."""
    size, stride = SIDE, SIDE // 2
    height, width = pixels.shape[1:]
    total, copies = np.zeros((len(vectors), height, width)), np.zeros((height, width))
    for i in range(-(-max(height - size, 0) // stride) + 1):
        for j in range(-(-max(width - size, 0) // stride) + 1):
            bottom, right = min(i * stride + size, height), min(j * stride + size, width)
            window = np.s_[..., max(bottom - size, 0) : bottom, max(right - size, 0) : right]
            patches = model.encode_dense(torch.from_numpy(pixels[window])[None])[0]
            logits = (patches @ vectors.T).permute(2, 0, 1)[None]
            total[window] += F.interpolate(logits, (size, size), mode="bilinear")[0].numpy()
            copies[window] += 1
    logits = F.interpolate(torch.from_numpy(total / copies)[None], shape, mode="bilinear")[0]
    shares = (40 * logits).softmax(dim=0)
    of_class = torch.stack([shares[owner == c].amax(dim=0) for c in range(int(owner.max()) + 1)])
    return torch.where(of_class.amax(dim=0) < threshold, 0, of_class.argmax(dim=0))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("size", [(64, 64), (97, 64), (64, 150), (40, 33)])
def test_segmentation_is_that_of_sclips_sliding_windows(size, threshold):
    random = np.random.default_rng(0)
    planted = Planted(dict(enumerate(vectors(256 // STEP + 1, 0))), {})
    text = F.normalize(torch.tensor(vectors(6, 1)), dim=-1)
    owner = torch.tensor([0, 1, 1, 2, 3, 3])
    blocks = np.kron(random.integers(0, LEVELS, (20, 20)), np.ones((8, 8)))[: size[1], : size[0]].astype(np.uint8)
    image = Image.fromarray(np.stack([STEP * blocks] * 3, axis=-1))
    scale = 48 / min(size)
    scaled = image.resize([max(SIDE, round(side * scale)) for side in size], Image.Resampling.BICUBIC)
    shape = (size[1] + 3, size[0] + 5)
    theirs = as_sclip(planted, np.array(scaled).transpose(2, 0, 1), text, owner, shape, threshold)
    cosines = F.interpolate(segmentation._cosines(planted, image, text, 3)[None], shape, mode="bilinear")[0]
    mine = segmentation._predict(cosines, owner, threshold)
    # Of thousands of pixels a few lie where two classes are equal to the last digit: theirs are sums in fp64.
    assert mine.shape == theirs.shape == shape and (mine != theirs).float().mean() < 1e-3
    assert len(mine.unique()) > 1
