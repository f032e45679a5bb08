"""Federated calibration against a search over all thresholds, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from torch import Tensor

from fedmpt.evaluation.calibration import (
    LOG_ODDS_LIMIT,
    NUM_BINS,
    Calibration,
    calibrate,
    mean_average_precision,
    score_histograms,
)
from fedmpt.evaluation.metrics import multilabel_scores

WIDTH = 2 * LOG_ODDS_LIMIT / NUM_BINS
CENTRES = -LOG_ODDS_LIMIT + WIDTH * (torch.arange(NUM_BINS, dtype=torch.float64) + 0.5)


def scores(
    num_images: int = 300,
    num_classes: int = 4,
    *,
    centre: float = -3.0,
    spread: float = 1.0,
    gap: float = 1.5,
    rate: float = 0.3,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Probabilities whose log-odds lie in the middle of their bins, so that a histogram loses nothing; and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_images, num_classes, generator=generator) < rate).to(torch.int8)
    labels[0], labels[1] = 0, 1
    log_odds = centre + gap * labels + spread * torch.randn(labels.shape, generator=generator, dtype=torch.float64)
    bins = ((log_odds + LOG_ODDS_LIMIT) / WIDTH).long().clamp(0, NUM_BINS - 1)
    return CENTRES[bins].sigmoid().float(), labels


def calibrated_on(probabilities: Tensor, labels: Tensor) -> Calibration:
    return calibrate([score_histograms(probabilities, labels)])


def best_f1(probabilities: Tensor, labels: Tensor) -> float:
    """Over every cut that separates the scores differently."""
    precision, recall, _ = precision_recall_curve(labels.numpy(), probabilities.numpy())
    both = precision + recall
    return float((2 * precision * recall / np.where(both > 0, both, 1)).max())


CASES = {
    "ordinary": {},
    "rare": {"rate": 0.02, "gap": 2.0},
    "frequent": {"rate": 0.95},
    "useless": {"gap": 0.0},
    "upside down": {"gap": -2.0},
    "separated": {"gap": 6.0, "spread": 0.3},
    "high": {"centre": 4.0},
    "at the ends": {"centre": -9.5, "gap": 19.0, "spread": 2.0},
    "all low and close together": {"centre": -8.0, "gap": 0.5, "spread": 0.3},
    "all high and close together": {"centre": 8.0, "gap": 0.3, "spread": 0.2},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_thresholds_give_the_best_f1(case: dict[str, float]) -> None:
    probabilities, labels = scores(**case)
    thresholds = calibrated_on(probabilities, labels).thresholds
    for c in range(labels.shape[1]):
        reached = f1_score(labels[:, c].numpy(), (probabilities[:, c] > thresholds[c]).numpy())
        assert reached == pytest.approx(best_f1(probabilities[:, c], labels[:, c]), abs=1e-12)


def test_thresholds_are_close_to_the_best_where_scores_fall_anywhere() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(2000, 3, generator=generator) ** 3
    labels = (torch.rand(2000, 3, generator=generator) < probabilities).to(torch.int8)
    thresholds = calibrated_on(probabilities, labels).thresholds
    for c in range(3):
        reached = f1_score(labels[:, c].numpy(), (probabilities[:, c] > thresholds[c]).numpy())
        assert reached > best_f1(probabilities[:, c], labels[:, c]) - 0.01


def test_thresholds_raise_the_metric_they_are_for() -> None:
    probabilities, labels = scores()
    fixed = multilabel_scores(probabilities, labels).CF1
    assert multilabel_scores(probabilities, labels, threshold=calibrated_on(probabilities, labels).thresholds).CF1 > (
        fixed + 20
    )


def test_where_everything_is_best_counted_present_so_it_is() -> None:
    """Below the first bin too."""
    probabilities = torch.tensor([[1e-6, 1e-6], [1e-5, 0.9], [1e-5, 0.9]])
    labels = torch.tensor([[1, 1], [1, 0], [0, 0]], dtype=torch.int8)
    thresholds = calibrated_on(probabilities, labels).thresholds
    assert (probabilities > thresholds).all()


def sklearn_platt(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """Platt's targets as weights: every image counts as present and as absent, in their proportions."""
    log_odds, present = probabilities.double().logit().numpy(), labels.numpy() == 1
    num_present, num_absent = present.sum(), (~present).sum()
    target = np.where(present, (num_present + 1) / (num_present + 2), 1 / (num_absent + 2))
    centre = log_odds.mean()  # Regularisation is off, so moving the scores changes nothing but the solver's ease.
    features = np.concatenate([log_odds, log_odds])[:, None] - centre
    weights = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(features, np.repeat([1, 0], len(target)), sample_weight=weights)
    scale, bias = model.coef_[0, 0], model.intercept_[0] - model.coef_[0, 0] * centre
    if scale < 0:  # Rescaling by it would turn the order of the scores around.
        rate = target.mean()
        return 1.0, float(np.log(rate / (1 - rate)) - log_odds.mean())
    return float(scale), float(bias)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_scale_and_bias_are_those_of_all_scores_unbinned(case: dict[str, float]) -> None:
    probabilities, labels = scores(**case)
    found = calibrated_on(probabilities, labels)
    for c in range(labels.shape[1]):
        scale, bias = sklearn_platt(probabilities[:, c], labels[:, c])
        expected = expit(scale * probabilities[:, c].double().logit().numpy() + bias)
        np.testing.assert_allclose(found.calibrated(probabilities)[:, c].numpy(), expected, atol=2e-3)
        assert found.scale[c].item() == pytest.approx(scale, rel=1e-2, abs=1e-2)


def test_a_steep_fit_is_found_too() -> None:
    """Scores of a model that is hardly trained: they differ by a tenth of a log-odd, and the scale has to be 100."""
    probabilities, labels = scores(centre=0.0, gap=0.15, spread=0.02)
    found = calibrated_on(probabilities, labels).calibrated(probabilities)
    assert found[labels == 1].mean() > 0.9
    assert found[labels == 0].mean() < 0.1


def test_scores_that_are_all_the_same_become_the_share_of_the_present() -> None:
    labels = (torch.arange(100)[:, None] < 30).to(torch.int8)
    found = calibrated_on(torch.full((100, 1), 0.02), labels)
    assert found.calibrated(torch.tensor([[0.02]])).item() == pytest.approx(0.3, abs=0.02)
    assert found.scale.item() == pytest.approx(1, abs=1e-3)


def test_calibrated_probabilities_are_right_as_often_as_they_say() -> None:
    probabilities, labels = scores(4000, 2, centre=-6.0)
    found = calibrated_on(probabilities, labels).calibrated(probabilities)
    for low in (0.0, 0.2, 0.4, 0.6):
        inside = (found >= low) & (found < low + 0.2)
        assert inside.sum() > 50
        assert (labels[inside] == 1).double().mean().item() == pytest.approx(found[inside].mean().item(), abs=0.06)


def test_histograms_of_clients_add_up_to_those_of_one() -> None:
    probabilities, labels = scores(200, 5)
    parts = [torch.arange(200)[k::7] for k in range(7)]
    apart = [score_histograms(probabilities[rows], labels[rows]) for rows in parts]
    together = score_histograms(probabilities, labels)
    assert torch.equal(torch.stack(apart).sum(0), together)
    one, many = calibrate([together]), calibrate(iter(apart))
    assert torch.equal(one.thresholds, many.thresholds)
    assert torch.equal(one.scale, many.scale)
    assert torch.equal(one.bias, many.bias)


def test_histograms_count_labels_by_score() -> None:
    probabilities = torch.tensor([[0.5001, 0.0], [0.5001, 1.0], [0.25, 0.9], [0.25, 0.9]])
    labels = torch.tensor([[1, 0], [1, 1], [0, -1], [-1, -1]], dtype=torch.int8)
    counts = score_histograms(probabilities, labels)
    assert counts.shape == (2, 2, NUM_BINS)
    quarter = int((np.log(0.25 / 0.75) + LOG_ODDS_LIMIT) / WIDTH)
    found = {(present, c, b): int(counts[present, c, b]) for present, c, b in counts.nonzero().tolist()}
    assert found == {(1, 0, NUM_BINS // 2): 2, (0, 0, quarter): 1, (0, 1, 0): 1, (1, 1, NUM_BINS - 1): 1}


def test_unknown_labels_change_nothing() -> None:
    probabilities, labels = scores()
    unknown = labels.clone()
    unknown[::3] = -1
    rest = torch.arange(300) % 3 != 0
    one, other = calibrated_on(probabilities, unknown), calibrated_on(probabilities[rest], labels[rest])
    assert torch.equal(one.thresholds, other.thresholds)
    assert torch.equal(one.scale, other.scale)


@pytest.mark.parametrize("label", [0, 1, -1])
def test_a_class_that_is_always_the_same_is_left_as_it_is(label: int) -> None:
    probabilities, labels = scores()
    expected = calibrated_on(probabilities, labels)
    labels[:, 2] = label
    found = calibrated_on(probabilities, labels)
    assert (found.thresholds[2], found.scale[2], found.bias[2]) == (0.5, 1, 0)
    others = [0, 1, 3]
    assert torch.equal(found.thresholds[others], expected.thresholds[others])
    torch.testing.assert_close(found.scale[others], expected.scale[others], atol=1e-4, rtol=1e-4)


def test_no_client() -> None:
    with pytest.raises(ValueError, match="no client sent a histogram"):
        calibrate([])


def test_one_image_a_label_is_enough() -> None:
    found = calibrated_on(torch.tensor([[0.1], [0.2]]), torch.tensor([[0], [1]], dtype=torch.int8))
    assert 0.1 < found.thresholds.item() < 0.2
    calibrated = found.calibrated(torch.tensor([[0.1], [0.2]]))
    # Platt's targets for one of each: 1/3 and 2/3.
    torch.testing.assert_close(calibrated, torch.tensor([[1 / 3], [2 / 3]]), atol=0.02, rtol=0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_average_precision_from_histograms_is_that_of_scores_in_the_middle_of_bins(case: dict[str, float]) -> None:
    probabilities, labels = scores(**case)
    labels[::5] = -1
    expected = [
        average_precision_score(labels[known, c].numpy(), probabilities[known, c].numpy())
        for c, known in enumerate((labels >= 0).T)
    ]
    found = mean_average_precision(score_histograms(probabilities, labels))
    assert found == pytest.approx(100 * np.mean(expected), abs=1e-9)


def test_average_precision_from_histograms_is_close_where_scores_fall_anywhere() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(2000, 3, generator=generator) ** 3
    labels = (torch.rand(2000, 3, generator=generator) < probabilities).to(torch.int8)
    parts = [score_histograms(probabilities[rows], labels[rows]) for rows in torch.arange(2000).split(300)]
    exact = multilabel_scores(probabilities, labels).mAP
    assert mean_average_precision(torch.stack(parts).sum(0)) == pytest.approx(exact, abs=0.5)


def test_average_precision_leaves_out_classes_that_no_image_shows() -> None:
    probabilities, labels = scores()
    both = mean_average_precision(score_histograms(probabilities[:, :2], labels[:, :2]))
    labels[:, 2:] = 0
    assert mean_average_precision(score_histograms(probabilities, labels)) == pytest.approx(both)
    with pytest.raises(ValueError, match="no label is present"):
        mean_average_precision(score_histograms(probabilities, torch.zeros_like(labels)))
