"""Metrics against worked examples and plain loops."""

import math

import pytest
import torch

from fgclip_fast.evaluation.metrics import interval, recall_at, retrieval


def test_recall_counts_rows_whose_target_is_near_the_top():
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8]])
    targets = torch.tensor([[True, False, False], [False, True, False]])
    assert recall_at(similarity, targets, (1, 2, 3)) == {"r@1": 0.5, "r@2": 1.0, "r@3": 1.0}


def test_any_of_several_targets_will_do():
    similarity = torch.tensor([[0.1, 0.9, 0.5]])
    assert recall_at(similarity, torch.tensor([[True, False, True]]), (1, 2)) == {"r@1": 0.0, "r@2": 1.0}


def test_a_constant_similarity_scores_zero():
    assert recall_at(torch.ones(4, 4), torch.eye(4, dtype=torch.bool), (1,)) == {"r@1": 0.0}


def test_rows_without_a_target_are_left_out():
    similarity, targets = torch.eye(2), torch.tensor([[True, False], [False, False]])
    assert recall_at(similarity, targets, (1,)) == {"r@1": 1.0}
    assert recall_at(similarity, torch.zeros(2, 2, dtype=torch.bool)) == {}


def test_retrieval_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(7, 5, generator=generator), torch.randn(12, 5, generator=generator)
    owner = torch.arange(12) % 7
    figures = retrieval(image, text, owner)
    hits = [owner[(image[i] @ text.T).argmax()] == i for i in range(7)]
    back = [(image @ text[t]).argmax() == owner[t] for t in range(12)]
    assert figures["image_to_text_r@1"] == pytest.approx(sum(map(int, hits)) / 7)
    assert figures["text_to_image_r@1"] == pytest.approx(sum(map(int, back)) / 12)


def test_interval_is_wilsons():
    low, high = interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(5, 5)[1] == 1.0 and not math.isnan(interval(5, 5)[0])
