"""Metrics against worked examples and plain loops."""

import math

import pytest
import torch

from fgclip_fast.evaluation.metrics import hits_at, interval, recall_at, retrieval


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


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_hits_are_those_of_a_loop_and_rows_of_equal_id_are_right(chunk):
    generator = torch.Generator().manual_seed(0)
    queries, answers = torch.randn(9, 3, generator=generator), torch.randn(9, 3, generator=generator)
    answers[4] = answers[1]  # a tie between other ids
    ids = torch.tensor([0, 1, 2, 3, 4, 0, 2, 7, 0])
    cosines = (queries @ answers.T).tolist()
    for k, hits in zip((1, 2), hits_at(queries, answers, ids, (1, 2), chunk), strict=True):
        for q in range(9):
            best = max(cosines[q][a] for a in range(9) if ids[a] == ids[q])
            assert hits[q] == (sum(cosines[q][a] >= best for a in range(9) if ids[a] != ids[q]) < k)


def test_interval_is_wilsons():
    low, high = interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(5, 5)[1] == 1.0 and not math.isnan(interval(5, 5)[0])
