"""Scoring stored features."""

from __future__ import annotations

from dataclasses import replace

import torch
from synthetic import separable, with_views
from toy_method import CLASSES, WIDTH, toy

from fedmpt.backbone.views import StrongView, TowerTokens
from fedmpt.data.features.store import FeatureSet
from fedmpt.data.pairs import count_pairs
from fedmpt.evaluation.context_shift import context_shift
from fedmpt.evaluation.scoring import probabilities, score


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


def test_moved_images_have_scores_of_their_own() -> None:
    features = separable(60, num_classes=CLASSES, width=WIDTH)
    names, pairs = [f"class {number}" for number in range(CLASSES)], [(0, 1), (1, 2)]
    found = torch.rand(60, CLASSES, generator=torch.Generator().manual_seed(0))
    counted = count_pairs(features.labels, features.labels, pairs)
    assert "moved" not in score(found, features, names, calibration=None, pairs=counted)["context_shift"]
    words = ("", "", "moved") * 20
    kept = torch.arange(60)[5:]  # As where images could not be read.
    marked = replace(features, split=replace(features.split, columns={"ties": words})).subset(kept)
    scores = score(found[kept], marked, names, calibration=None, pairs=counted)["context_shift"]
    is_moved = torch.tensor([word == "moved" for word in words])[kept]
    expected = context_shift(found[kept], features.labels[kept], pairs, moved=is_moved)
    assert scores["moved"] == expected.to_json(pairs, names)
    assert scores["false_coactivation"] == context_shift(found[kept], features.labels[kept], pairs).false_coactivation
    assert scores["per_pair"]["class 0 -> class 1"]["num_train_joint"] == counted.per_pair[0].num_train_joint
