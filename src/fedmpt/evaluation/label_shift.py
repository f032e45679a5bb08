"""How far a site's labels are from what scores at other sites lead to expect. The statistics of `site_labels`.

Everything is in log-odds that a label is present. "Cells" are pairs of a site and a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from fedmpt.evaluation.histograms import CENTRES

_SEARCH = 45
"""Steps of a bisection over 80 log-odds: to 1e-11."""


@dataclass(frozen=True)
class Found:
    """Of each cell: how far the labels are from expectation, in standard deviations; how many are ``expected``."""

    z: Float64[np.ndarray, " cells"]
    expected: Float64[np.ndarray, " cells"]


def rule_of(counts: Float64[np.ndarray, "cells 2 bins"]) -> Float64[np.ndarray, "cells bins"]:
    """Log-odds of a present label at each score: logistic regression with Platt's targets (1999).

    ``counts`` are of absent ([0]) and present ([1]) labels. Cells that lack either get a rule that says little.
    """
    total = counts.sum(1)
    absent, present = counts.sum(-1).T
    hit, missed = (present + 1) / (present + 2), 1 / (absent + 2)
    targets = hit[:, None] * counts[:, 1] + missed[:, None] * counts[:, 0]
    size = total.sum(-1).clip(1)
    # In standard deviations from the mean, so that steps have a scale.
    scores = CENTRES.numpy() - (total @ CENTRES.numpy() / size)[:, None]
    scores = scores / np.sqrt(((total * scores**2).sum(-1) / size).clip(1e-12))[:, None]
    rate = (targets.sum(-1) / size).clip(1e-9, 1 - 1e-9)
    slope, offset = np.zeros(len(counts)), np.log(rate / (1 - rate))
    for _ in range(60):
        p = _sigmoid(slope[:, None] * scores + offset[:, None])
        miss, weight = targets - total * p, total * p * (1 - p)
        # A trace of ridge on the slope, so that a class that one score tells apart has an end.
        by_offset, by_slope = miss.sum(-1), (miss * scores).sum(-1) - 1e-3 * slope
        a, b, d = weight.sum(-1) + 1e-9, (weight * scores).sum(-1), (weight * scores**2).sum(-1) + 1e-3
        steps = np.stack([d * by_offset - b * by_slope, a * by_slope - b * by_offset]) / (a * d - b * b)
        # Newton's steps from a flat start may be far too long.
        steps /= np.abs(steps).max(0).clip(1)
        offset, slope = offset + steps[0], slope + steps[1]
        if np.abs(steps).max(initial=0) < 1e-9:
            break
    return slope[:, None] * scores + offset[:, None]


def difference(
    own: Float64[np.ndarray, "cells 2 bins"],
    others: Float64[np.ndarray, "cells 2 bins"],
    tolerance: Float64[np.ndarray, " cells"],
) -> Found:
    """A site's number of present labels against what the rule of other sites expects of its scores.

    Two numbers are expected: by the rule as it is, right where the site has other images and labels them alike; and by
    the rule with the site's own rate of the class, which its scores alone tell (Saerens et al. 2002), right where it
    has more or fewer of the class. What is between the two is no difference; else the nearer one counts. Its distance
    is the deviance of the labels, given the scores, under the rule shifted by d, plus (d / sd)^2, at the best d. The
    variance sd^2 has three parts: the other sites are a sample; so are the scores that tell the rate; and the site's
    images may shift scores by ``tolerance``. Where scores tell little of the class, what they tell of its rate is moved
    by 1 / (1 - w) times as much, w being the share of the labels' variance that scores leave open.
    """
    total, present = own.sum(1), own[:, 1].sum(-1)
    rule, images = rule_of(others), own.sum((1, 2)).clip(1)
    absent_others, present_others = others.sum(-1).T
    is_comparable = (absent_others > 0) & (present_others > 0) & (own.sum((1, 2)) > 0)
    spread = _sigmoid(rule) * (1 - _sigmoid(rule))
    sampled = 1 / (others.sum(1) * spread).sum(-1).clip(1e-9)
    rate = (present_others + 0.5) / (present_others + absent_others + 1)
    found = []
    for shift in (np.zeros(len(own)), shift_of_rate(total, rule, rate)):
        shifted = rule + shift[:, None]
        p = _sigmoid(shifted)
        expected, variance = (total * p).sum(-1), (total * p * (1 - p)).sum(-1).clip(1e-9)
        share = (expected / images).clip(1e-9, 1 - 1e-9)
        open_share = (variance / (images * share * (1 - share))).clip(0, 0.999)
        told = open_share / (1 - open_share) / variance
        z = distance(total, shifted, present, (tolerance / (1 - open_share)) ** 2 + sampled + told)
        found.append((z, expected))
    (z, expected), (adapted, adapted_expected) = found
    nearer = np.abs(adapted) < np.abs(z)
    between = (present - expected) * (present - adapted_expected) <= 0
    expected = np.where(between, present, np.where(nearer, adapted_expected, expected))
    return Found(np.where(between | ~is_comparable, 0.0, np.where(nearer, adapted, z)), expected)


def image_shift(
    own: Float64[np.ndarray, "cells 2 bins"], others: Float64[np.ndarray, "cells 2 bins"]
) -> Float64[np.ndarray, " cells"]:
    """How far the site's images without the class shift its log-odds, squared, less what chance alone would give.

    NaN where there are less than five such images at the site or elsewhere, or none with the class elsewhere.
    """
    rule = rule_of(others)
    sizes = [counts[:, 0].sum(-1) for counts in (own, others)]
    means = [(counts[:, 0] * rule).sum(-1) / size.clip(1) for counts, size in zip((own, others), sizes, strict=True)]
    variance = (others[:, 0] * rule**2).sum(-1) / sizes[1].clip(1) - means[1] ** 2
    squared = (means[0] - means[1]) ** 2 - variance * (1 / sizes[0].clip(1) + 1 / sizes[1].clip(1))
    is_told: Bool[np.ndarray, " cells"] = (np.minimum(*sizes) >= 5) & (others[:, 1].sum(-1) > 0)
    return np.where(is_told, squared, np.nan)


def agreement(
    own: Float64[np.ndarray, "cells 2 bins"], others: Float64[np.ndarray, "cells 2 bins"]
) -> Float64[np.ndarray, "3 cells"]:
    """Whether labels are at the images where the rule expects them, whatever their number.

    With p the rule shifted so that it expects as many as there are, and r their rate, labels that were given at random
    in a share u of images have mean (1 - u) p + u r. Sums over cells of the first over the second number estimate u;
    the third is the variance of the first.
    """
    total, present = own.sum(1), own[:, 1].sum(-1)
    rule, images = rule_of(others), own.sum((1, 2)).clip(1)
    p = _sigmoid(rule + shift_to(total, rule, present)[:, None])
    away = p - (present / images)[:, None]
    variance = (total * p * (1 - p) * away**2).sum(-1)
    parts = np.stack([((total * p - own[:, 1]) * away).sum(-1), (total * away**2).sum(-1), variance])
    absent_others, present_others = others.sum(-1).T
    is_told = (absent_others > 0) & (present_others > 0) & (present > 0) & (present < own.sum((1, 2)))
    return np.where(is_told, parts, 0.0)


def distance(
    total: Float64[np.ndarray, "cells bins"],
    rule: Float64[np.ndarray, "cells bins"],
    present: Float64[np.ndarray, " cells"],
    variance: Float64[np.ndarray, " cells"],
) -> Float64[np.ndarray, " cells"]:
    """The signed root of the least deviance plus d^2 / variance over shifts d of the rule."""

    def excess(d: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " cells"]:
        return (total * _sigmoid(rule + d[:, None])).sum(-1) - present + d / variance

    best = _root(excess, len(total))
    fitted = shift_to(total, rule, present)
    grown = (total * (np.logaddexp(0, rule + fitted[:, None]) - np.logaddexp(0, rule + best[:, None]))).sum(-1)
    deviance = 2 * ((fitted - best) * present - grown)
    return np.sign(fitted) * np.sqrt(deviance.clip(0) + best**2 / variance)


def shift_to(
    total: Float64[np.ndarray, "cells bins"],
    rule: Float64[np.ndarray, "cells bins"],
    present: Float64[np.ndarray, " cells"],
) -> Float64[np.ndarray, " cells"]:
    """The shift with which the rule expects ``present`` labels; up to 40, where it is none or all."""
    return _root(lambda d: (total * _sigmoid(rule + d[:, None])).sum(-1) - present, len(total))


def shift_of_rate(
    total: Float64[np.ndarray, "cells bins"],
    rule: Float64[np.ndarray, "cells bins"],
    rate: Float64[np.ndarray, " cells"],
) -> Float64[np.ndarray, " cells"]:
    """The shift of the rule, made at ``rate``, to the rate at which a site's scores are most likely, labels aside."""
    p, centre = _sigmoid(rule), np.log(rate / (1 - rate))
    present, absent = p / rate[:, None], (1 - p) / (1 - rate)[:, None]

    def falls(d: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " cells"]:
        share = _sigmoid(centre + d).clip(1e-9, 1 - 1e-9)[:, None]
        return -(total * (present - absent) / (share * present + (1 - share) * absent)).sum(-1)

    return _root(falls, len(total))


def _root(
    rises: Callable[[Float64[np.ndarray, " cells"]], Float64[np.ndarray, " cells"]], num: int
) -> Float64[np.ndarray, " cells"]:
    """Where a function that rises is zero, within -40 and 40, in each of ``num`` cells."""
    low, high = np.full(num, -40.0), np.full(num, 40.0)
    for _ in range(_SEARCH):
        middle = (low + high) / 2
        is_below = rises(middle) < 0
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return (low + high) / 2


def _sigmoid(log_odds: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return 0.5 * (1 + np.tanh(0.5 * log_odds))
