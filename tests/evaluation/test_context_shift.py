"""Context-shift scores against cases worked by hand and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from sklearn.metrics import average_precision_score

from fedmpt.evaluation.context_shift import context_shift
from fedmpt.types import InputError

A, B = [1, 0], [0, 1]
BOTH, NEITHER = [1, 1], [0, 0]


def test_a_case_worked_by_hand() -> None:
    # Five images with b, so four of them (80%) must be found: the threshold is the second lowest of their scores.
    with_b = [(B, 0.9), (B, 0.8), (BOTH, 0.7), (BOTH, 0.6), (B, 0.1)]
    rows = [*with_b, (A, 0.65), (A, 0.6), (A, 0.5), (A, 0.05), (NEITHER, 1.0)]
    labels = torch.tensor([row for row, _ in rows])
    probabilities = torch.tensor([[0.0, score] for _, score in rows])
    found = context_shift(probabilities, labels, [(0, 1)])
    # 0.65 reaches 0.6, and so does 0.6 itself; the image with neither class counts nowhere.
    assert found.false_coactivation == 50.0
    # b without a at ranks 1, 2 and 6 of 7, against the four images with a alone.
    assert found.exclusive == pytest.approx(100 * (1 / 1 + 2 / 2 + 3 / 6) / 3)
    # b with a at rank 1, and at 0.6 tied with one image of a alone: at that score two of four images are hits.
    assert found.cooccurring == pytest.approx(100 * (1 / 1 + 2 / 4) / 2)
    assert found.gap == pytest.approx(found.cooccurring - found.exclusive)
    assert (found.per_pair[0].num_exclusive, found.per_pair[0].num_cooccurring) == (3, 2)
    assert found.per_pair[0].num_context_only == 4


def test_balanced_is_worked_by_hand() -> None:
    # b alone: 0.9, 0.3; both: 0.8, 0.7, 0.6, 0.5, 0.2. At 0.5 half and 4/5 are found, 65%; at 0.3 it is 90%.
    with_b = [(B, 0.9), (B, 0.3), *[(BOTH, score) for score in (0.8, 0.7, 0.6, 0.5, 0.2)]]
    rows = [*with_b, (A, 0.4), (A, 0.3), (A, 0.25), (A, 0.1), (A, 0.0)]
    labels, probabilities = torch.tensor([row for row, _ in rows]), torch.tensor([[0.0, score] for _, score in rows])
    found = context_shift(probabilities, labels, [(0, 1)])
    assert found.false_coactivation_balanced == pytest.approx(40.0)
    assert found.per_pair[0].false_coactivation_balanced == pytest.approx(40.0)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_of_a_search(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(200, 2, generator=generator) * 50).round() / 50
    labels = torch.randint(0, 2, (200, 2), generator=generator)
    (found,) = context_shift(scores, labels, [(0, 1)]).per_pair
    b, groups = scores[:, 1], [(labels == torch.tensor(kind)).all(dim=1) for kind in (B, BOTH, A)]

    def reported(mean_recall: Callable[[float], float]) -> float:
        threshold = max(value for value in b.tolist() if mean_recall(value) >= 0.8 - 1e-12)
        return 100 * (b[groups[2]] >= threshold).double().mean().item()

    balanced = reported(lambda t: sum((b[group] >= t).double().mean().item() for group in groups[:2]) / 2)
    plain = reported(lambda t: (b[groups[0] | groups[1]] >= t).double().mean().item())
    assert found.false_coactivation_balanced == pytest.approx(balanced)
    assert found.false_coactivation == pytest.approx(plain)


def test_reporting_b_less_wherever_a_is_gains_less_when_balanced() -> None:
    labels = torch.tensor([B] * 1000 + [BOTH] * 50 + [A] * 500)
    scores = 0.3 * labels + torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    muted = scores - 0.4 * labels[:, :1]
    plain, less = (context_shift(one, labels, [(0, 1)]) for one in (scores, muted))
    gain = plain.false_coactivation - less.false_coactivation
    assert gain > 1.5 * (plain.false_coactivation_balanced - less.false_coactivation_balanced)
    assert plain.false_coactivation_balanced == pytest.approx(plain.false_coactivation, abs=5)


def test_without_one_of_the_groups_nothing_is_balanced() -> None:
    (found,) = context_shift(torch.rand(3, 2), torch.tensor([A, B, B]), [(0, 1)]).per_pair
    assert found.false_coactivation is not None
    assert found.false_coactivation_balanced is None


def test_moved_images_with_a_alone_are_scored_against_other_images_with_b() -> None:
    rows = [(B, 0.9), (BOTH, 0.5), (A, 0.7), (A, 0.6), (A, 0.1), (A, 0.95), (B, 0.65), (BOTH, 0.97), (NEITHER, 1.0)]
    moved = torch.tensor([False, False, True, True, True, False, True, True, True])
    labels, probabilities = torch.tensor([row for row, _ in rows]), torch.tensor([[0.0, score] for _, score in rows])
    found = context_shift(probabilities, labels, [(0, 1)], moved=moved)
    left = [0, 1, 2, 3, 4]  # Without the image of a alone that was not moved, and those with b that were.
    assert found == context_shift(probabilities[left], labels[left], [(0, 1)])
    assert found.per_pair[0].num_context_only == 3
    assert found.false_coactivation == pytest.approx(200 / 3)


def test_average_precision_is_that_of_scikit_learn_on_the_subset() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(300, 4, generator=generator)
    labels = torch.randint(-1, 2, (300, 4), generator=generator)
    pairs = [(0, 1), (2, 3), (3, 0)]
    found = context_shift(probabilities, labels, pairs)
    for (a, b), scores in zip(pairs, found.per_pair, strict=True):
        for context_value, value in ((0, scores.exclusive), (1, scores.cooccurring)):
            kept = ((labels[:, b] == 1) & (labels[:, a] == context_value)) | ((labels[:, b] == 0) & (labels[:, a] == 1))
            expected = 100 * average_precision_score(labels[kept, b].numpy(), probabilities[kept, b].numpy())
            assert value == pytest.approx(expected)


def test_a_model_that_reports_the_partner_is_worse_than_one_that_looks() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (400, 2), generator=generator)
    looks = (labels + torch.rand(400, 2, generator=generator)) / 2
    guesses = torch.stack([looks[:, 0], (looks[:, 0] + 0.2 * looks[:, 1]) / 1.2], 1)
    good, bad = (context_shift(scores, labels, [(0, 1)]) for scores in (looks, guesses))
    assert good.false_coactivation < bad.false_coactivation
    assert good.exclusive > bad.exclusive
    assert abs(good.gap) < bad.gap


def test_pairs_without_images_are_left_out_of_the_means_and_stored_as_null() -> None:
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]])
    found = context_shift(torch.rand(3, 3), labels, [(0, 1), (0, 2)])
    assert found.cooccurring is None
    assert found.gap is None
    stored = json.loads(json.dumps(found.to_json([(0, 1), (0, 2)], ("cat", "chair", "dog"))))
    assert stored["per_pair"]["cat -> chair"]["cooccurring"] is None
    assert stored["per_pair"]["cat -> chair"]["num_exclusive"] == 2


@pytest.mark.parametrize("pairs", [[], [(0, 0)], [(0, 3)], [(-1, 0)]])
def test_wrong_pairs_are_named(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match="pair"):
        context_shift(torch.rand(2, 3), torch.ones(2, 3, dtype=torch.int8), pairs)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"\(2, 3\) and labels \(2, 2\)"):
        context_shift(torch.rand(2, 3), torch.ones(2, 2, dtype=torch.int8), [(0, 1)])
