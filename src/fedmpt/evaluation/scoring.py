"""A method scored on stored features, and the scores of results.json. `fedmpt.evaluation.final` has what predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.data.features.store import FeatureSet
from fedmpt.data.pairs import BiasedPairs
from fedmpt.data.ties import is_moved
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.context_shift import context_shift
from fedmpt.evaluation.metrics import multilabel_scores, oracle_scores
from fedmpt.methods import Method
from fedmpt.state import check_state, set_state
from fedmpt.types import DivergedError, State


@torch.no_grad()
def probabilities(method: Method, features: FeatureSet, *, batch_size: int = 64) -> Float[Tensor, "images C"]:
    """Class probabilities of every image as the method has them, on the CPU, in the features' order.

    Raises:
        DivergedError: if one is not a number.
    """
    method.eval()
    text = method.encode_text()
    # What only training reads may be as large as the features themselves.
    features = features.with_views(method.views)
    rows = torch.arange(len(features)).split(batch_size)
    found = torch.cat([method(features.batch(some, device=method.device), text).cpu() for some in rows])
    if found.isnan().any():
        raise DivergedError("the model's probabilities are no longer numbers; try a lower learning rate")
    return found


def set_global(method: Method, shared: State, *, initial: State, source: str) -> None:
    """Make ``method`` the global model: the server's state, with the personal tensors it is scored with.

    ``initial`` holds the personal tensors as the method was built.

    Raises:
        InputError: if the server's state does not fit the method, naming ``source``.
    """
    expected, _ = method.split(method.state_dict())
    check_state(shared, like=expected, source=source)
    set_state(method, {**shared, **method.neutral_personal(shared, initial)}, source=source)


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
    training shows together, where there are any. Where their tie was cut, ``moved`` in it has the same scores of
    moved images with a alone against other images with b."""
    scores: dict[str, Any] = {"test": multilabel_scores(found, features.labels).to_json(class_names)}
    if calibration is not None:
        calibrated = multilabel_scores(found, features.labels, threshold=calibration.thresholds)
        scores["test_calibrated"] = calibrated.to_json(class_names)
    if oracle:
        scores["oracle"] = oracle_scores(found, features.labels)
    if pairs.per_pair:
        scores["context_shift"] = _shift_scores(found, features, class_names, pairs)
    return scores


def _shift_scores(
    found: Float[Tensor, "images C"], features: FeatureSet, class_names: Sequence[str], pairs: BiasedPairs
) -> dict[str, Any]:
    shift = context_shift(found, features.labels, pairs.pairs).to_json(pairs.pairs, class_names)
    chosen = pairs.to_json(class_names)
    per_pair = {name: {**chosen["per_pair"][name], **measured} for name, measured in shift["per_pair"].items()}
    scores = {**chosen, **shift, "per_pair": per_pair}
    moved = is_moved(features.split)[features.rows]
    if moved.any():
        apart = context_shift(found, features.labels, pairs.pairs, moved=moved)
        scores["moved"] = apart.to_json(pairs.pairs, class_names)
    return scores
