"""Scores of conditions against the run's own, and against elimination and resampling by plain loops."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from some_conditions import CLASSES, images, random_parts, trained_like
from synthetic import feature_set
from torch import Tensor

import fedmpt.conditions.scores.scores as scores_module
from fedmpt.conditions.scores.bootstrap import draw_counts
from fedmpt.conditions.scores.parts import ConditionParts, condition_parts
from fedmpt.conditions.scores.scores import SEED, score_conditions
from fedmpt.evaluation.biased_pairs import biased_pairs
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities, score
from fedmpt.types import InputError


def test_scores_of_all_conditions_are_those_of_the_run(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    features = images(method)
    found = score_conditions(condition_parts(method, features)).full.to_json(CLASSES)
    pairs = biased_pairs(features.labels, features.labels)
    expected = score(probabilities(method, features), features, CLASSES, calibration=None, pairs=pairs)["test"]
    assert found.keys() == expected.keys()
    for key in ("mAP", "CF1", "OF1", "CF1_PR", "per_class", "num_images"):
        assert found[key] == pytest.approx(expected[key])


def test_losses_and_intervals_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "NUM_RESAMPLES", 40)
    parts = random_parts(calibrated=True)
    found = score_conditions(parts)
    counts = draw_counts(50, 40, seed=SEED)
    for index, dropped in enumerate(found.dropped):
        kept = [other for other in range(4) if other != index]
        without, full = parts.probabilities(kept), parts.probabilities()
        scores = multilabel_scores(without, parts.labels)
        assert dropped.scores == scores
        assert dropped.loss == pytest.approx(found.full.mAP - scores.mAP)
        losses = []
        for resample in range(40):
            rows = torch.from_numpy(np.repeat(np.arange(50), counts[:, resample]))
            labels = parts.labels[rows]
            losses.append(multilabel_scores(full[rows], labels).mAP - multilabel_scores(without[rows], labels).mAP)
        assert dropped.interval == pytest.approx(tuple(np.percentile(losses, [2.5, 97.5])))
        changed = ((full > 0.5) != (without > 0.5)).numpy().mean()
        assert dropped.decisions_changed == pytest.approx(changed)
    assert any(dropped.decisions_changed > 0 for dropped in found.dropped)


def eliminated_by_hand(parts: ConditionParts) -> list[tuple[tuple[int, ...], float]]:
    kept = list(range(parts.num_conditions))
    found = [(tuple(kept), multilabel_scores(parts.probabilities(kept), parts.labels).mAP)]
    while len(kept) > 1:
        options = [[index for index in kept if index != gone] for gone in kept]
        values = [multilabel_scores(parts.probabilities(option), parts.labels).mAP for option in options]
        kept = options[int(np.argmax(values))]
        found.append((tuple(kept), max(values)))
    return found


def test_elimination_drops_what_costs_least() -> None:
    parts = random_parts()
    found = score_conditions(parts)
    assert [(step.kept, step.mAP) for step in found.steps] == eliminated_by_hand(parts)
    assert found.steps[0].dropped is None
    for before, after in pairwise(found.steps):
        assert set(before.kept) - set(after.kept) == {after.dropped}


def test_of_conditions_that_cost_the_same_the_least_used_goes() -> None:
    parts = random_parts()
    same = parts.predictions[:, :1].expand(-1, 4, -1).contiguous()
    gate = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).repeat(50, 1)
    found = score_conditions(dataclasses.replace(parts, predictions=same, gate=gate))
    assert found.steps[-1].dropped == 0
    assert found.by_drop.kept == (2,)
    assert all(dropped.loss == pytest.approx(0, abs=1e-9) for dropped in found.dropped)


def test_equal_conditions_are_too_many_even_without_tolerance() -> None:
    parts = random_parts(num=2)
    same = parts.predictions[:, :1].expand(-1, 2, -1).contiguous()
    found = score_conditions(dataclasses.replace(parts, predictions=same), tolerance=0)
    least_used = min((0, 1), key=lambda index: found.use.mean[index])
    # Weighed by numbers that are not powers of two, the mAP differs in its last digit.
    assert found.steps[-1].dropped == least_used
    assert found.by_drop.kept == (1 - least_used,)


def test_the_fewest_within_the_tolerance_are_suggested() -> None:
    # Each knows as little as the others, so that together they know more.
    parts = random_parts(least=0.3, most=0.3)
    by_hand = eliminated_by_hand(parts)
    numbers = set()
    for tolerance in (0.0, 2.0, 5.0, 100.0):
        found = score_conditions(parts, tolerance=tolerance)
        enough = [(kept, value) for kept, value in by_hand if value >= by_hand[0][1] - tolerance]
        assert (found.by_drop.kept, found.by_drop.mAP) == enough[-1]
        assert found.suggested("drop") == found.by_drop
        numbers.add(len(found.by_drop.kept))
    assert numbers >= {4, 1}
    assert len(numbers) > 2


def test_the_gate_suggests_its_effective_number() -> None:
    parts = random_parts()
    gate = torch.tensor([[0.05, 0.6, 0.05, 0.3]]).repeat(50, 1)
    found = score_conditions(dataclasses.replace(parts, gate=gate))
    assert 2 < found.use.effective_of_mean < 3
    assert found.suggested("gate").kept == (0, 1, 3)
    assert found.suggested("gate").mAP == pytest.approx(
        multilabel_scores(dataclasses.replace(parts, gate=gate).probabilities((0, 1, 3)), parts.labels).mAP
    )


@pytest.mark.parametrize("num", [2, 3, 5, 7, 10])
def test_even_weights_suggest_no_more_conditions_than_there_are(num: int) -> None:
    parts = random_parts(num=num)
    found = score_conditions(dataclasses.replace(parts, gate=torch.full((50, num), 1 / num)))
    assert found.suggested("gate").kept == tuple(range(num))
    assert found.use.largest == pytest.approx((1 / num,) * num)


def test_even_weights_of_some_are_not_rounded_up_to_one_more() -> None:
    parts = random_parts(num=5)
    gate = torch.tensor([[1 / 3, 0, 1 / 3, 1 / 3, 0]]).repeat(50, 1)
    assert score_conditions(dataclasses.replace(parts, gate=gate)).suggested("gate").kept == (0, 2, 3)


def test_json_has_no_nan_and_everything_by_name() -> None:
    parts = random_parts()
    predictions = parts.predictions.clone()
    predictions[:, 2] = 0.1
    found = score_conditions(dataclasses.replace(parts, predictions=predictions), has_gate=False)
    words = json.loads(json.dumps(found.to_json(["a", "b", "c"]), allow_nan=False))
    assert words["difference"]["correlation"][2] == [None] * 4
    assert words["difference"]["from_mixture"]["condition 2"]["correlation"] is None
    assert words["suggestions"]["gate"] is None
    assert set(words["dropped"]) == set(words["alone"]) == set(words["use"]["per_condition"]) == set(parts.names)
    assert words["alone"]["condition 1"]["mAP"] == multilabel_scores(predictions[:, 1], parts.labels).mAP
    assert [step["num"] for step in words["elimination"]] == [4, 3, 2, 1]
    assert words["full"]["per_class"].keys() == {"a", "b", "c"}


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match="--tolerance"):
        score_conditions(random_parts(), tolerance=tolerance)


def test_one_image_has_scores_without_correlations() -> None:
    parts = random_parts(unknown=0.0)
    row = int((parts.labels == 1).any(1).nonzero()[0])
    one = dataclasses.replace(
        parts, predictions=parts.predictions[[row]], gate=parts.gate[[row]], labels=parts.labels[[row]]
    )
    found = score_conditions(one)
    assert found.differences.correlation.isnan().all()
    json.dumps(found.to_json(["a", "b", "c"]), allow_nan=False)


def constant(width: int) -> tuple[Tensor, Tensor]:
    return torch.ones(3, 2, width), torch.tensor([[1, 0, 0, 0]] * 3, dtype=torch.int8)


def test_images_that_are_all_the_same_are_scored(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    features = feature_set(*constant(method.tower.joint_width))
    found = score_conditions(condition_parts(method, features))
    assert found.differences.correlation.isnan().all()
    assert found.use.spread == pytest.approx((0, 0, 0), abs=1e-6)
