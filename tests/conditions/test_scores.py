"""Scores of conditions against plain loops, scikit-learn, NumPy and SciPy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import average_precision_score
from some_conditions import metric, random_parts

import fedmpt.conditions.scores as module
from fedmpt.conditions.scores import SEED, ConditionParts, resampled_means, score_conditions
from fedmpt.seeding import generator


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_RESAMPLES", 40)


def map_of(parts: ConditionParts, kept: Sequence[int]) -> float:
    return metric(parts.probabilities(tuple(kept)), parts.labels)["mAP"]


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("kept", [(0, 2, 3), (1,), (3, 0)])
def test_a_mixture_without_some_is_that_of_the_others(kept: tuple[int, ...], calibrated: bool) -> None:
    parts = random_parts(calibrated=calibrated)
    expected = torch.zeros(50, 3, dtype=torch.float64)
    for image in range(50):
        total = sum(parts.gate[image, index].double() for index in kept)
        for index in kept:
            expected[image] += parts.gate[image, index].double() / total * parts.predictions[image, index].double()
    if calibrated:
        odds = expected.clamp(1e-6, 1 - 1e-6)
        scale, bias = torch.linspace(0.5, 2, 3), torch.linspace(-1, 1, 3)
        expected = 1 / (1 + (odds / (1 - odds)) ** -scale * (-bias).exp())
    torch.testing.assert_close(parts.probabilities(kept).double(), expected, atol=2e-6, rtol=1e-4)


def test_without_the_only_trusted_condition_the_others_count_the_same() -> None:
    parts = replace(random_parts(), gate=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(50, 1))
    torch.testing.assert_close(parts.mixture((1, 3)), parts.predictions[:, [1, 3]].mean(1))


def draw_counts(num_images: int, num_resamples: int) -> np.ndarray:
    """How often each image is in each resample."""
    random = [generator(SEED, "bootstrap", resample) for resample in range(num_resamples)]
    drawn = [torch.randint(num_images, (num_images,), generator=each) for each in random]
    return torch.stack([rows.bincount(minlength=num_images) for rows in drawn], 1).int().numpy()


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_resampled_scores_are_those_of_resampled_rows(unknown: float) -> None:
    parts = random_parts(num_images=40, unknown=unknown)
    table, counts = parts.probabilities(), draw_counts(40, 30)
    assert (counts.sum(0) == 40).all()
    found = resampled_means(table, parts.labels, counts)
    for resample in range(30):
        rows = torch.from_numpy(np.repeat(np.arange(40), counts[:, resample]))
        assert found[resample] == pytest.approx(metric(table[rows], parts.labels[rows])["mAP"], abs=1e-9)
    assert len(set(found.tolist())) > 20
    if not unknown:
        expected = average_precision_score(parts.labels.numpy(), table.numpy(), sample_weight=counts[:, 7])
        assert found[7] == pytest.approx(100 * expected)


def test_resamples_without_positives_have_no_score_and_are_left_out_of_intervals() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [0, 0]], dtype=torch.int8)
    table = torch.tensor([[0.5, 0.1], [0.7, 0.2], [0.2, 0.3]])
    counts = np.array([[1, 0, 2], [1, 2, 1], [1, 1, 0]], dtype=np.int32)
    found = resampled_means(table, labels, counts)
    np.testing.assert_allclose(found, [50, np.nan, 100 * 2 / 3])


def test_losses_and_intervals_are_paired() -> None:
    parts = random_parts(calibrated=True)
    found, counts, full = score_conditions(parts, metric), draw_counts(50, 40), parts.probabilities()
    for index, dropped in enumerate(found["dropped"].values()):
        without = parts.probabilities(tuple(other for other in range(4) if other != index))
        scores = metric(without, parts.labels)
        assert {key: dropped[key] for key in ("mAP", "CF1", "OF1")} == {
            key: scores[key] for key in ("mAP", "CF1", "OF1")
        }
        assert dropped["loss"] == pytest.approx(found["full"]["mAP"] - scores["mAP"])
        losses = []
        for resample in range(40):
            rows = torch.from_numpy(np.repeat(np.arange(50), counts[:, resample]))
            labels = parts.labels[rows]
            losses.append(metric(full[rows], labels)["mAP"] - metric(without[rows], labels)["mAP"])
        assert dropped["interval"] == pytest.approx(list(np.percentile(losses, [2.5, 97.5])))
        assert dropped["decisions_changed"] == pytest.approx(((full > 0.5) != (without > 0.5)).double().mean().item())
    assert any(dropped["decisions_changed"] > 0 for dropped in found["dropped"].values())


def eliminated_by_hand(parts: ConditionParts) -> list[tuple[list[str], float]]:
    kept = list(range(len(parts.names)))
    found = [(kept, map_of(parts, kept))]
    while len(kept) > 1:
        options = [[index for index in kept if index != gone] for gone in kept]
        values = [map_of(parts, option) for option in options]
        kept = options[int(np.argmax(values))]
        found.append((kept, max(values)))
    return [([parts.names[index] for index in kept], value) for kept, value in found]


def test_elimination_drops_what_costs_least_and_the_fewest_within_the_tolerance_are_suggested() -> None:
    # Each knows as little as the others, so that together they know more.
    parts = random_parts(least=0.3, most=0.3)
    by_hand = eliminated_by_hand(parts)
    numbers = set()
    for tolerance in (0.0, 2.0, 5.0, 100.0):
        found = score_conditions(parts, metric, tolerance=tolerance)
        steps, suggested = found["elimination"], found["suggestions"]["drop"]
        assert [(step["conditions"], step["mAP"]) for step in steps] == by_hand
        gone = [set(before).difference(after) for (before, _), (after, _) in pairwise(by_hand)]
        assert [{step["dropped"]} for step in steps] == [{None}, *gone]
        enough = [(kept, value) for kept, value in by_hand if value >= by_hand[0][1] - tolerance]
        assert (suggested["conditions"], suggested["mAP"]) == enough[-1]
        numbers.add(len(suggested["conditions"]))
    assert numbers >= {4, 1}
    assert len(numbers) > 2


def test_of_conditions_that_cost_the_same_the_least_used_goes() -> None:
    parts = random_parts()
    same = parts.predictions[:, :1].expand(-1, 4, -1).contiguous()
    gate = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).repeat(50, 1)
    found = score_conditions(replace(parts, predictions=same, gate=gate), metric)
    assert found["elimination"][-1]["dropped"] == "condition 0"
    assert found["suggestions"]["drop"]["conditions"] == ["condition 2"]
    assert all(dropped["loss"] == pytest.approx(0, abs=1e-9) for dropped in found["dropped"].values())


def test_equal_conditions_are_too_many_even_without_tolerance() -> None:
    parts = random_parts(num=2)
    same = parts.predictions[:, :1].expand(-1, 2, -1).contiguous()
    found = score_conditions(replace(parts, predictions=same), metric, tolerance=0)
    # Weighed by numbers that are not powers of two, the mAP differs in its last digit.
    assert len(found["suggestions"]["drop"]["conditions"]) == 1


@pytest.mark.parametrize(
    ("weights", "suggested"),
    [
        ([0.05, 0.6, 0.05, 0.3], [0, 1, 3]),  # An effective number between 2 and 3.
        ([1 / 3, 0, 1 / 3, 1 / 3, 0], [0, 2, 3]),  # Rounding does not make it more than 3.
        *(([1 / num] * num, list(range(num))) for num in (2, 7, 10)),
    ],
)
def test_the_gate_suggests_its_effective_number(weights: list[float], suggested: list[int]) -> None:
    parts = replace(random_parts(num=len(weights)), gate=torch.tensor([weights]).repeat(50, 1))
    found = score_conditions(parts, metric)["suggestions"]["gate"]
    assert found == {"conditions": [f"condition {one}" for one in suggested], "mAP": map_of(parts, suggested)}


def test_use_of_the_gate() -> None:
    gate = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])
    parts = replace(random_parts(num_images=4, num=3, unknown=0), gate=gate)
    found = score_conditions(parts, metric)["use"]
    weights = gate.double().numpy()
    expected = {
        "mean": weights.mean(0),
        "std": weights.std(0),
        "min": (0.1, 0.0, 0.0),
        "max": (1.0, 0.8, 0.2),
        "largest": (2.5 / 4, 1.5 / 4, 0),
    }
    for column, values in expected.items():
        assert [each[column] for each in found["per_condition"].values()] == pytest.approx(list(values))
    per_image, of_mean = entropy(weights, axis=1), entropy(weights.mean(0))
    assert found["entropy"] == pytest.approx(
        {"per_image": per_image.mean() / math.log(3), "of_mean": of_mean / math.log(3)}
    )
    assert found["effective_number"] == pytest.approx(
        {"per_image": np.exp(per_image).mean(), "of_mean": np.exp(of_mean)}
    )


def test_differences_are_those_of_numpy() -> None:
    parts = random_parts()
    predictions = parts.predictions.clone()
    predictions[:, 0, 1] = 0.3  # One class of the first condition does not vary,
    predictions[:, 2] = 0.1  # and none of the third.
    parts = replace(parts, predictions=predictions)
    found = score_conditions(parts, metric)["difference"]
    tables = [*predictions.double().unbind(1), parts.mixture().double()]
    for one in range(4):
        for other in range(5):
            between = other < 4
            mixed = found["from_mixture"][f"condition {one}"]
            absolute = found["absolute"][one][other] if between else mixed["absolute"]
            assert absolute == pytest.approx((tables[one] - tables[other]).abs().mean().item(), abs=1e-7)
            correlation = found["correlation"][one][other] if between else mixed["correlation"]
            if 2 in (one, other):
                assert correlation is None
            else:
                classes = (0, 2) if 0 in (one, other) else (0, 1, 2)
                per_class = [np.corrcoef(tables[one][:, c], tables[other][:, c])[0, 1] for c in classes]
                assert correlation == pytest.approx(np.mean(per_class), abs=1e-6)


def test_everything_is_json_by_name_even_of_one_image_without_a_gate() -> None:
    parts = random_parts(unknown=0.0)
    row = int((parts.labels == 1).any(1).nonzero()[0])
    one = {name: getattr(parts, name)[[row]] for name in ("predictions", "gate", "labels")}
    for some in (parts, replace(parts, **one)):
        found = score_conditions(some, metric, has_gate=False)
        words = json.loads(json.dumps(found, allow_nan=False))
        assert words == found
        assert words["suggestions"]["gate"] is None
        assert set(words["dropped"]) == set(words["alone"]) == set(words["use"]["per_condition"]) == set(parts.names)
        assert words["alone"]["condition 1"]["mAP"] == map_of(some, [1])
        assert [step["num"] for step in words["elimination"]] == [4, 3, 2, 1]
        assert words["full"]["per_class"].keys() == {"0", "1", "2"}
    assert words["difference"]["correlation"] == [[None] * 4] * 4
