"""Scores of probabilities, as results.json and evaluation.json have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedmpt.context_shift import context_shift
from fedmpt.data.biased_pairs import BiasedPairs
from fedmpt.data.feature_store import FeatureSet
from fedmpt.federated.calibrate import Calibration
from fedmpt.metrics import multilabel_scores, oracle_scores


def score(
    found: Float[Tensor, "images C"],
    features: FeatureSet,
    class_names: Sequence[str],
    *,
    calibration: Calibration | None,
    pairs: BiasedPairs,
    oracle: bool = False,
) -> dict[str, Any]:
    """Scores as results.json has them: ``test`` at 0.5, ``test_calibrated`` at the federation's thresholds, and on
    request ``oracle``, whose thresholds are chosen on the test labels. ``context_shift`` is of the ``pairs`` that
    training shows together, where there are any."""
    scores: dict[str, Any] = {"test": multilabel_scores(found, features.labels).to_json(class_names)}
    if calibration is not None:
        calibrated = multilabel_scores(found, features.labels, threshold=calibration.thresholds)
        scores["test_calibrated"] = calibrated.to_json(class_names)
    if oracle:
        scores["oracle"] = oracle_scores(found, features.labels).to_json()
    if pairs.per_pair:
        scores["context_shift"] = _shift(found, features, class_names, pairs)
    return scores


def _shift(
    found: Float[Tensor, "images C"], features: FeatureSet, class_names: Sequence[str], pairs: BiasedPairs
) -> dict[str, Any]:
    """Scores and counts of each pair, and the means."""
    shift = context_shift(found, features.labels, pairs.pairs).to_json(pairs.pairs, class_names)
    chosen = pairs.to_json(class_names)
    per_pair = {name: {**chosen["per_pair"][name], **scores} for name, scores in shift["per_pair"].items()}
    return {**chosen, **shift, "per_pair": per_pair}
