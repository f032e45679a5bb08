"""Which site labels differently: drawn worlds in which the answer is known, and the statistics against scipy's and
scikit-learn's.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn.linear_model import LogisticRegression

from fedmpt.evaluation.histograms import CENTRES, NUM_BINS
from fedmpt.evaluation.label_shift import agreement, difference, distance, image_shift, rule_of, shift_of_rate
from fedmpt.evaluation.site_labels import LEVEL, AgreementAtSite, ClassAtSite, SiteLabels, site_labels
from fedmpt.evaluation.sums import score_sums

NAMES = ("sofa", "chair", "cat", "dog", "bus", "boat")
SOFA, CHAIR = 0, 1


class World:
    """Sites of a federation whose global model is decent: scores of present labels are two deviations above others."""

    def __init__(self, seed: int, num_sites: int = 4, num_images: int = 400) -> None:
        self.random = np.random.default_rng(seed)
        rates = self.random.uniform(0.1, 0.25, (num_sites, 1, len(NAMES)))
        self.labels = (self.random.random((num_sites, num_images, len(NAMES))) < rates).astype(np.int8)
        self.scores = self.drawn()

    def drawn(self) -> np.ndarray:
        """Log-odds of what images really show. A sofa looks a little like a chair, at every site."""
        noise = self.random.normal(size=self.labels.shape)
        scores = 1.5 * (noise + 2.2 * self.labels - 2.0)
        scores[..., CHAIR] += 0.5 * self.labels[..., SOFA]
        return scores

    def found(self) -> SiteLabels:
        return site_labels(
            {
                f"site {s}": score_sums(
                    torch.from_numpy(expit(scores)), torch.from_numpy(labels), thresholds=None, pairs=()
                ).histograms
                for s, (scores, labels) in enumerate(zip(self.scores, self.labels, strict=True))
            },
            NAMES,
        )


def alarms(world: World) -> list[tuple[str, str]]:
    return [(row.site, getattr(row, "class_name", "all")) for row in world.found().alarms]


def test_sites_that_label_alike_are_not_alarmed() -> None:
    assert sum(bool(alarms(World(seed, num_sites=3 + seed % 8))) for seed in range(20)) <= 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_sites", [3, 10])
def test_a_site_that_calls_every_sofa_a_chair_is_found(seed: int, num_sites: int) -> None:
    world = World(seed, num_sites)
    labels = world.labels[1]
    labels[:, CHAIR] |= labels[:, SOFA]
    labels[:, SOFA] = 0
    assert alarms(world)[0] == ("site 1", "sofa")
    assert {site for site, _ in alarms(world)} == {"site 1"}
    sofa = world.found().classes[0]
    assert sofa.observed == 0
    assert sofa.expected > 20


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.6, 0.98, 1.0])
def test_a_site_with_more_or_fewer_of_a_class_is_not_alarmed(rate: float) -> None:
    for seed in range(3):
        world = World(seed)
        world.labels[1, :, CHAIR] = world.random.random(400) < rate
        world.scores = world.drawn()
        assert alarms(world) == []


def test_a_site_whose_images_are_unlike_the_others_is_not_alarmed() -> None:
    for seed in range(3):
        world = World(seed)
        world.scores[2] = 0.7 * world.scores[2] + world.random.normal(0, 0.4, len(NAMES))
        assert alarms(world) == []


def test_a_site_that_has_all_images_of_a_class_makes_no_other_site_odd() -> None:
    world = World(0, num_sites=5)
    world.labels[:, :, CHAIR] = 0
    world.labels[3, :, CHAIR] = 1
    world.scores = world.drawn()
    assert alarms(world) == []


def test_a_site_that_labels_too_much_is_found() -> None:
    world = World(1)
    world.labels[2, :, CHAIR] |= world.random.random(400) < 0.4
    found = world.found().classes
    assert [(row.site, row.class_name) for row in found if row.p < LEVEL] == [("site 2", "chair")]
    assert found[0].observed > 2 * found[0].expected


@pytest.mark.parametrize("num_sites", [3, 10])
def test_a_site_with_labels_at_random_is_found_as_a_whole(num_sites: int) -> None:
    world = World(0, num_sites)
    rows = world.random.permutation(400)[:180]
    world.labels[1, rows] = world.labels[1, world.random.permutation(rows)]
    found = world.found()
    assert alarms(world) == [("site 1", "all")]
    assert found.sites[0].random == pytest.approx(0.45, abs=0.12)


def test_of_two_sites_one_is_named() -> None:
    world = World(0, num_sites=2)
    world.labels[0, :, SOFA] = 0
    world.labels[0, 0, SOFA] = 1
    assert alarms(world) == [("site 0", "sofa")]


def test_one_site_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        World(0, num_sites=1).found()


def test_sites_and_classes_without_images_or_labels_say_nothing() -> None:
    world = World(0)
    world.labels[1] = -1
    world.labels[:, :, SOFA] = -1
    found = world.found()
    assert found.alarms == ()
    assert len(found.classes) == 4 * 5
    assert all(row.p == 1 for row in (*found.classes, *found.sites) if row.site == "site 1")


def test_words_and_json() -> None:
    rows = (ClassAtSite("a", "sofa", 0, 23.6, 0.001), ClassAtSite("b", "cat", 41, 18.1, 0.2))
    found = SiteLabels(rows, (AgreementAtSite("a", 0.312, 0.01),))
    assert str(rows[0]) == 'a labels "sofa" never (0 images, 24 expected)'
    assert str(rows[1]) == 'b labels "cat" 2.3 times as often as expected (41 images, 18 expected)'
    assert str(found.sites[0]) == "a: labels of 31% of the images look as if given at random"
    assert found.alarms == (found.sites[0], rows[0])
    assert rows[1].p > LEVEL
    assert json.loads(json.dumps(found.to_json()))["alarms"] == [str(found.sites[0]), str(rows[0])]


def counted(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One class of one site, [1, 2, bins]."""
    sums = score_sums(
        torch.from_numpy(expit(scores))[:, None], torch.from_numpy(labels)[:, None], thresholds=None, pairs=()
    )
    return sums.histograms[:, 0].numpy().astype(np.float64)[None]


@pytest.mark.parametrize(("scale", "centre"), [(1.5, -1.0), (0.05, -0.3), (6.0, -8.0)])
def test_the_rule_is_a_logistic_regression_with_platts_targets(scale: float, centre: float) -> None:
    random = np.random.default_rng(0)
    labels = (random.random(800) < 0.2).astype(np.int8)
    counts = counted(centre + scale * (random.normal(size=800) + 1.5 * labels), labels)
    absent, present = counts[0]
    hit, missed = (present.sum() + 1) / (present.sum() + 2), 1 / (absent.sum() + 2)
    targets = hit * present + missed * absent
    model = LogisticRegression(C=1e9, tol=1e-10, solver="newton-cholesky", max_iter=500)
    centres = (CENTRES.numpy() - centre) / scale
    weights = np.concatenate([absent + present - targets, targets])
    model.fit(np.tile(centres, 2)[:, None], np.repeat([0, 1], NUM_BINS), sample_weight=weights)
    expected = model.decision_function(centres[:, None])
    held = counts[0].sum(0) > 0
    np.testing.assert_allclose(rule_of(counts)[0, held], expected[held], atol=0.02)


def test_a_class_that_one_score_tells_apart_has_a_rule() -> None:
    labels = (np.arange(60) < 20).astype(np.int8)
    rule = rule_of(counted(np.where(labels == 1, 3.0, -3.0), labels))[0]
    at = [int(np.abs(CENTRES.numpy() - score).argmin()) for score in (-3.0, 3.0)]
    # Platt's targets: 1 / 42 of the absent and 21 / 22 of the present.
    np.testing.assert_allclose(expit(rule[at]), [1 / 42, 21 / 22], atol=0.01)


def test_the_rate_that_scores_tell_is_the_most_likely_one() -> None:
    random = np.random.default_rng(0)
    rule, total = random.normal(-2, 2, (1, NUM_BINS)), random.integers(0, 3, (1, NUM_BINS)).astype(np.float64)
    p, rate = expit(rule[0]), 0.15

    def unlikely(share: float) -> float:
        return -float((total[0] * np.log(share * p / rate + (1 - share) * (1 - p) / (1 - rate))).sum())

    best = minimize_scalar(unlikely, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-10}).x
    shift = shift_of_rate(total, rule, np.array([rate]))
    assert expit(logit(rate) + shift[0]) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("present", [0, 3, 20, 31, 50])
def test_distance_is_near_that_of_a_binomial_tail(present: int) -> None:
    total, rule = np.array([[100.0]]), np.array([[logit(0.2)]])
    z = distance(total, rule, np.array([float(present)]), np.array([1e-9]))[0]
    tails = binom.cdf(present, 100, 0.2), binom.sf(present - 1, 100, 0.2)
    expected = norm.ppf(tails[0]) if present < 20 else -norm.ppf(tails[1])
    assert z == pytest.approx(expected, abs=0.25 if present else 0.5)


@pytest.mark.parametrize("present", [0, 4, 30])
def test_distance_allows_for_a_shift_of_the_rule(present: int) -> None:
    random = np.random.default_rng(1)
    rule, total = random.normal(-1, 1, (1, 30)), random.integers(1, 5, (1, 30)).astype(np.float64)
    variance = 0.3

    def unlikely(shift: float) -> float:
        moved = rule[0] + shift
        grown = np.logaddexp(0, rule[0] + best_fit) - np.logaddexp(0, moved)
        return 2 * ((best_fit - shift) * present - float((total[0] * grown).sum())) + shift**2 / variance

    fit = minimize_scalar(lambda d: (float((total[0] * expit(rule[0] + d)).sum()) - present) ** 2, bounds=(-40, 40))
    best_fit = -40.0 if present == 0 else float(fit.x)
    least = minimize_scalar(unlikely, bounds=(-8, 8), method="bounded").fun
    found = distance(total, rule, np.array([float(present)]), np.array([variance]))[0]
    assert abs(found) == pytest.approx(np.sqrt(least), abs=1e-3)
    assert np.sign(found) == (-1 if present < (total * expit(rule)).sum() else 1)


def test_what_is_between_the_two_expectations_is_no_difference() -> None:
    world = World(3)
    counts = [counted(world.scores[s, :, CHAIR], world.labels[s, :, CHAIR]) for s in (0, 1)]
    found = difference(counts[0], counts[1], np.array([0.2]))
    assert abs(found.z[0]) < 2
    assert image_shift(counts[0], counts[1])[0] < 0.1
    excess, size, variance = agreement(counts[0], counts[1])[:, 0]
    assert abs(excess / size) < 4 * np.sqrt(variance) / size
