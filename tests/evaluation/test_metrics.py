"""Scores against scikit-learn, torchmetrics and a case worked by hand."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from fedmpt.evaluation.metrics import (
    ORACLE_THRESHOLDS,
    multilabel_scores,
    oracle_scores,
    weighted_average_precision,
)
from fedmpt.types import InputError

# Class 0 has AP 5/6 and F1 4/5; class 1, third image unknown, AP 7/12 and F1 1/2; class 2 no positive, one false alarm.
HAND_PROBABILITIES = torch.tensor([[0.9, 0.7, 0.3], [0.8, 0.4, 0.6], [0.6, 0.4, 0.1], [0.2, 0.55, 0.9]])
HAND_LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, -1, 0], [0, 1, -1]], dtype=torch.int8)


def random_case(
    seed: int, *, num_images: int = 200, num_classes: int = 7, unknown: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Probabilities on a grid of 1/16, so that ties and hits on a threshold abound, and labels like them."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_images, num_classes, generator=generator) < 0.3).to(torch.int8)
    noisy = torch.rand(num_images, num_classes, generator=generator) * 0.8 + 0.2 * labels
    labels[torch.rand(num_images, num_classes, generator=generator) < unknown] = -1
    return (noisy * 16).round() / 16, labels


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b)


def test_a_case_worked_by_hand() -> None:
    scores = multilabel_scores(HAND_PROBABILITIES, HAND_LABELS)
    assert scores.per_class[:2] == pytest.approx((100 * 5 / 6, 100 * 7 / 12))
    assert scores.per_class[2] is None
    assert scores.mAP == pytest.approx(100 * 17 / 24)
    assert scores.CF1 == pytest.approx(65)
    assert scores.OF1 == pytest.approx(60)
    assert scores.CF1_PR == pytest.approx(100 * 21 / 32)
    assert (scores.threshold, scores.num_classes_without_positives, scores.num_images) == (0.5, 1, 4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.7])
def test_complete_labels_score_as_in_scikit_learn(seed: int, threshold: float) -> None:
    probabilities, labels = random_case(seed)
    scores = multilabel_scores(probabilities, labels, threshold=threshold)
    truth, predicted = labels.numpy(), (probabilities > threshold).numpy()
    per_class = average_precision_score(truth, probabilities.numpy(), average=None)
    assert scores.per_class == pytest.approx(tuple(100 * per_class))
    assert scores.mAP == pytest.approx(100 * average_precision_score(truth, probabilities.numpy(), average="macro"))
    assert scores.CF1 == pytest.approx(100 * f1_score(truth, predicted, average="macro"))
    assert scores.OF1 == pytest.approx(100 * f1_score(truth, predicted, average="micro"))
    precision = precision_score(truth, predicted, average="macro", zero_division=0)
    recall = recall_score(truth, predicted, average="macro")
    assert scores.CF1_PR == pytest.approx(100 * harmonic(precision, recall))


@pytest.mark.parametrize("seed", range(3))
def test_unknown_labels_are_ignored_as_in_torchmetrics(seed: int) -> None:
    probabilities, labels = random_case(seed, unknown=0.4)
    scores = multilabel_scores(probabilities, labels, threshold=0.5)
    arguments = {"preds": probabilities, "target": labels.long(), "num_labels": labels.shape[1], "ignore_index": -1}
    per_class = multilabel_average_precision(**arguments, average="none")
    assert scores.per_class == pytest.approx(tuple(100 * per_class.numpy()), rel=1e-5)
    assert scores.CF1 == pytest.approx(100 * multilabel_f1_score(**arguments, average="macro").item(), rel=1e-5)
    assert scores.OF1 == pytest.approx(100 * multilabel_f1_score(**arguments, average="micro").item(), rel=1e-5)


def test_what_is_predicted_for_an_unknown_label_changes_nothing() -> None:
    probabilities, labels = random_case(0, unknown=0.4)
    other = torch.where(labels == -1, 1 - probabilities, probabilities)
    assert not torch.equal(other, probabilities)
    assert multilabel_scores(other, labels) == multilabel_scores(probabilities, labels)


def test_a_class_without_positives_enters_only_the_overall_score() -> None:
    probabilities, labels = random_case(1)
    labels[:, 2] = 0
    others = [0, 1, 3, 4, 5, 6]
    scores, without = (
        multilabel_scores(probabilities, labels),
        multilabel_scores(probabilities[:, others], labels[:, others]),
    )
    assert (scores.num_classes_without_positives, scores.per_class[2]) == (1, None)
    assert (scores.mAP, scores.CF1, scores.CF1_PR) == (without.mAP, without.CF1, without.CF1_PR)
    overall = f1_score(labels.numpy(), (probabilities > 0.5).numpy(), average="micro")
    assert scores.OF1 == pytest.approx(100 * overall)
    assert scores.OF1 < without.OF1


@pytest.mark.parametrize("kind", [torch.tensor, np.asarray, list])
def test_each_class_may_have_its_threshold(kind: type) -> None:
    probabilities, labels = random_case(2)
    # 0.25 and 0.5 lie on the grid of the probabilities, so `>` and `>=` differ.
    thresholds = [0.25, 0.5, 0.4, 0.3, 0.6, 0.0, 0.75]
    scores = multilabel_scores(probabilities, labels, threshold=kind(thresholds))
    predicted = probabilities.numpy() > np.array(thresholds)
    assert scores.CF1 == pytest.approx(100 * f1_score(labels.numpy(), predicted, average="macro"))
    assert scores.OF1 == pytest.approx(100 * f1_score(labels.numpy(), predicted, average="micro"))
    assert scores.threshold == pytest.approx(tuple(thresholds))


def test_a_probability_on_the_threshold_is_not_predicted() -> None:
    # 0.1 in float32 is above 0.1 in float64, so the threshold has to follow the probabilities' precision.
    labels = torch.tensor([[0], [1]], dtype=torch.int8)
    for dtype in (torch.float32, torch.float64):
        probabilities = torch.tensor([[0.1], [0.2]], dtype=dtype)
        assert multilabel_scores(probabilities, labels, threshold=0.1).OF1 == 100


def test_nothing_predicted_scores_zero() -> None:
    scores = multilabel_scores(HAND_PROBABILITIES, HAND_LABELS, threshold=1.0)
    assert (scores.CF1, scores.OF1, scores.CF1_PR) == (0, 0, 0)
    assert scores.mAP == multilabel_scores(HAND_PROBABILITIES, HAND_LABELS).mAP


def test_a_perfect_prediction_scores_a_hundred() -> None:
    scores = multilabel_scores(HAND_LABELS.clamp(min=0).float(), HAND_LABELS)
    assert (scores.mAP, scores.CF1, scores.OF1, scores.CF1_PR) == (100, 100, 100, 100)


def test_the_order_of_images_changes_nothing() -> None:
    probabilities, labels = random_case(3, unknown=0.2)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    scores, shuffled = multilabel_scores(probabilities, labels), multilabel_scores(probabilities[order], labels[order])
    assert shuffled.per_class == pytest.approx(scores.per_class)
    assert (shuffled.CF1, shuffled.OF1, shuffled.CF1_PR) == (scores.CF1, scores.OF1, scores.CF1_PR)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_any_precision_and_arrays_score_alike(dtype: torch.dtype) -> None:
    # Sixteenths are exact in all of them.
    probabilities, labels = random_case(4, unknown=0.2)
    expected = multilabel_scores(probabilities, labels)
    assert multilabel_scores(probabilities.to(dtype).requires_grad_(), labels.long()) == expected
    assert multilabel_scores(probabilities.numpy(), labels.float().numpy()) == expected


def test_json_names_the_classes() -> None:
    scores = multilabel_scores(HAND_PROBABILITIES, HAND_LABELS, threshold=(0.5, 0.5, 0.5))
    stored = json.loads(json.dumps(scores.to_json(["cat", "dog", "potted plant"])))
    assert stored == {
        "mAP": scores.mAP,
        "CF1": scores.CF1,
        "OF1": scores.OF1,
        "CF1_PR": scores.CF1_PR,
        "per_class": {"cat": scores.per_class[0], "dog": scores.per_class[1], "potted plant": None},
        "threshold": [0.5, 0.5, 0.5],
        "classes_without_positives": 1,
        "num_images": 4,
    }


def test_the_oracle_finds_the_best_threshold_of_each_metric() -> None:
    probabilities, labels = random_case(5)
    oracle = oracle_scores(probabilities, labels)
    for metric, average in (("CF1", "macro"), ("OF1", "micro")):
        tried = [f1_score(labels.numpy(), (probabilities > at).numpy(), average=average) for at in ORACLE_THRESHOLDS]
        assert oracle[metric]["score"] == pytest.approx(100 * max(tried))
        assert oracle[metric]["threshold"] == ORACLE_THRESHOLDS[int(np.argmax(tried))]
    at_each = [multilabel_scores(probabilities, labels, threshold=at).CF1_PR for at in ORACLE_THRESHOLDS]
    assert oracle["CF1_PR"] == {"score": max(at_each), "threshold": ORACLE_THRESHOLDS[int(np.argmax(at_each))]}


def test_the_oracle_chooses_for_each_metric_and_takes_the_lowest_of_equals() -> None:
    # Ten images, one positive a class. Class 0 needs a low threshold, class 1 has nine false alarms up to 0.6.
    probabilities = torch.tensor([[0.3, 0.7]] + [[0.0, 0.6]] * 9)
    labels = torch.tensor([[1, 1]] + [[0, 0]] * 9, dtype=torch.int8)
    oracle = oracle_scores(probabilities, labels, thresholds=(0.65, 0.2, 0.1))
    assert [best["threshold"] for best in oracle.values()] == [0.1, 0.65, 0.1]
    expected = (100 * (1 + 2 / 11) / 2, 100 * 2 / 3, 100 * harmonic(0.55, 1))
    assert [best["score"] for best in oracle.values()] == pytest.approx(expected)


@pytest.mark.parametrize("score", [multilabel_scores, oracle_scores])
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 4), r"shape \(2, 3\) and labels \(2, 4\)"),
        (torch.zeros(3), torch.ones(3), r"both must be \[images, classes\]"),
        (torch.zeros(0, 3), torch.ones(0, 3), "no label is 1"),
        (torch.tensor([[0.1, 0.2], [0.3, float("nan")]]), torch.ones(2, 2), "nan at row 1, class index 1"),
        (
            torch.tensor([[0.1, 1.5], [-0.3, 0.2]]),
            torch.ones(2, 2),
            r"1.5 at row 0, class index 1 \(2 such entries in all\).*sigmoid",
        ),
        (torch.tensor([[0.1, -0.5]]), torch.ones(1, 2), "-0.5 at row 0, class index 1"),
        (torch.zeros(2, 2), torch.tensor([[1, 0], [2, 0]]), "label 2 at row 1, class index 0"),
        (torch.zeros(1, 2), torch.tensor([[1, float("nan")]]), "label nan at row 0, class index 1"),
        (torch.zeros(2, 2), torch.tensor([[0, 0], [-1, 0]]), "no label is 1"),
    ],
)
def test_wrong_input_is_refused_with_its_place(score, probabilities, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(probabilities, labels)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1.5, "threshold 1.5 is outside"),
        (float("nan"), "threshold nan is outside"),
        ([0.5, -0.25, 0.5], "threshold -0.25 is outside"),
        ([0.5, 0.5], r"shape \(2,\); give one number, or 3"),
    ],
)
def test_wrong_thresholds_are_refused(threshold: float | list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        multilabel_scores(HAND_PROBABILITIES, HAND_LABELS, threshold=threshold)


def test_the_oracle_refuses_wrong_thresholds() -> None:
    with pytest.raises(InputError, match=r"threshold 2\.0 is outside"):
        oracle_scores(HAND_PROBABILITIES, HAND_LABELS, thresholds=(0.5, 2.0))


def test_weights_count_as_images_that_are_there_more_often() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (torch.rand(40, 3, generator=generator) * 8).round() / 8  # With ties.
    labels = torch.randint(-1, 2, (40, 3), generator=generator)
    weights = torch.randint(1, 5, (40, 3), generator=generator)
    expected = []
    for column in range(3):
        rows = torch.arange(40).repeat_interleave(weights[:, column])
        expected.append(multilabel_scores(probabilities[rows, column, None], labels[rows, column, None]).mAP)
    found = weighted_average_precision(probabilities, labels, weights * torch.tensor([0.1, 1, 7]))
    assert found == pytest.approx(sum(expected) / 3)
    plain = multilabel_scores(probabilities, labels).mAP
    assert weighted_average_precision(probabilities, labels, torch.ones(40, 3)) == pytest.approx(plain)
    assert abs(found - plain) > 0.1


def test_weights_of_unknown_labels_and_of_classes_without_positives_do_not_count() -> None:
    probabilities, labels = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), torch.tensor([[0, 0], [1, 0], [-1, 0]])
    weights = torch.tensor([[3.0, 1.0], [1.0, 1.0], [100.0, 1.0]])
    assert weighted_average_precision(probabilities, labels, weights) == pytest.approx(100 / 4)


def test_scores_without_weights_make_no_table_of_weights() -> None:
    """A table of float64 ones and its transposed copy would be 16 bytes for each label."""
    probabilities = np.random.default_rng(0).random((2000, 400), dtype=np.float32)
    labels = (probabilities > 0.7).astype(np.int8)
    multilabel_scores(probabilities[:50], labels[:50])  # So that imports do not count.
    tracemalloc.start()
    multilabel_scores(probabilities, labels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * labels.size
