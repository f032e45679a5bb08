"""Scoring stored features."""

from __future__ import annotations

import torch
from synthetic import with_views
from toy_method import toy

from fedmpt.backbone.views import StrongView, TowerTokens
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.scoring import probabilities


def test_in_the_features_order_whatever_the_batch_size(test_set: FeatureSet) -> None:
    method = toy()
    pooled = torch.from_numpy(test_set.store.pooled)
    expected = (pooled @ method.weight.T + method.offset).sigmoid().detach()
    for batch_size in (1, 5, 12, 64):
        found = probabilities(method, test_set, batch_size=batch_size)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)


def test_text_is_encoded_once(test_set: FeatureSet) -> None:
    method, calls = toy(), []
    encode = method.encode_text
    method.encode_text = lambda: (calls.append(1), encode())[1]  # type: ignore[method-assign]
    probabilities(method, test_set, batch_size=3)
    assert len(calls) == 1


def test_scores_in_evaluation_mode(test_set: FeatureSet) -> None:
    method = toy().train()
    probabilities(method, test_set)
    assert not method.training


def test_what_only_training_reads_is_left_on_the_disk(test_set: FeatureSet) -> None:
    method, given = toy(), []
    method.views, method.training_views = {"near": TowerTokens(0)}, {"strong": StrongView()}
    tokens = torch.zeros(len(test_set), 1, 3, 5)
    features = with_views(test_set, {"near": tokens, "strong": tokens})
    method.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    probabilities(method, features)
    assert [list(batch.views) for batch in given] == [["near"]]
    assert list(features.batch(torch.arange(2)).views) == ["near", "strong"]
