"""Scores of resampled images against a plain loop over them, and against scikit-learn's weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from some_conditions import random_parts

from fedmpt.conditions.scores.bootstrap import difference_interval, draw_counts, resampled_means
from fedmpt.evaluation.metrics import multilabel_scores


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_resampled_scores_are_those_of_resampled_rows(unknown: float) -> None:
    parts = random_parts(num_images=40, unknown=unknown)
    table = parts.probabilities()
    counts = draw_counts(40, 30, seed=5)
    assert (counts.sum(0) == 40).all()
    found = resampled_means(table, parts.labels, counts)
    for resample in range(30):
        rows = torch.from_numpy(np.repeat(np.arange(40), counts[:, resample]))
        assert found[resample] == pytest.approx(multilabel_scores(table[rows], parts.labels[rows]).mAP, abs=1e-9)
    assert len(set(found.tolist())) > 20


def test_resampled_scores_are_scikit_learns_weighted_ones() -> None:
    parts = random_parts(unknown=0.0)
    table, counts = parts.probabilities(), draw_counts(50, 5, seed=1)
    for resample, found in enumerate(resampled_means(table, parts.labels, counts)):
        weights = counts[:, resample]
        expected = average_precision_score(parts.labels.numpy(), table.numpy(), sample_weight=weights)
        assert found == pytest.approx(100 * expected)


def test_resamples_without_positives_have_no_score_and_are_left_out_of_intervals() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [0, 0]], dtype=torch.int8)
    table = torch.tensor([[0.5, 0.1], [0.7, 0.2], [0.2, 0.3]])
    counts = np.array([[1, 0, 2], [1, 2, 1], [1, 1, 0]], dtype=np.int32)
    found = resampled_means(table, labels, counts)
    np.testing.assert_allclose(found, [50, np.nan, 100 * 2 / 3])
    assert difference_interval(found, found - 1) == pytest.approx((1, 1))
    assert all(map(math.isnan, difference_interval(found[1:2], found[1:2])))
