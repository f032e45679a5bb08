"""The final model: what it is mixed of, and that soft ties reach every way to its probabilities."""

from __future__ import annotations

import pytest
import torch
from soft_ties_by_hand import by_hand, some_ties
from toy_method import CLASSES, Toy, toy

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import calibrate, score_histograms
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.state import get_state
from fedmpt.types import InputError

TIES = some_ties(CLASSES)
TRAINED = {"weight": get_state(toy(seed=4))["weight"]}
PERSONAL = {0: {"offset": torch.tensor([1.0, -1.0, 0.0])}}


def final(method: Toy, options: Prediction) -> FinalModel:
    ties = TIES if options.soft_ties else None
    return FinalModel.of(method, get_state(method), TRAINED, PERSONAL, options=options, ties=ties, source="here")


def test_shared_tensors_are_mixed_with_the_start_and_personal_ones_are_not(test_set: FeatureSet) -> None:
    method = toy(personal=True)
    start = get_state(method)["weight"]
    model = final(method, Prediction(mix=0.25))
    mixed = 0.25 * TRAINED["weight"] + 0.75 * start
    torch.testing.assert_close(method.weight.detach(), mixed)
    assert torch.equal(method.offset.detach(), torch.zeros(CLASSES)), "that of a new client"
    pooled = torch.from_numpy(test_set.store.pooled)
    torch.testing.assert_close(model.probabilities(test_set), (pooled @ mixed.T).sigmoid())
    own = multilabel_scores((pooled @ mixed.T + PERSONAL[0]["offset"]).sigmoid(), test_set.labels)
    row = model.personal_scores(["north"], test_set)["clients"][0]
    assert (row["mAP"], row["OF1"]) == (pytest.approx(own.mAP), pytest.approx(own.OF1))


def test_without_options_it_is_the_method_itself(test_set: FeatureSet) -> None:
    method, start = toy(), get_state(toy(seed=5))
    model = FinalModel.of(method, start, get_state(method), {}, options=Prediction(), ties=None, source="here")
    assert torch.equal(model.probabilities(test_set), probabilities(toy(), test_set))


def test_soft_ties_reach_batches_sets_calibration_and_the_clients_own_models(test_set: FeatureSet) -> None:
    method = toy(personal=True)
    model = final(method, Prediction(soft_ties=2.0))
    expected = torch.tensor([by_hand(row, TIES, 2.0) for row in probabilities(method, test_set).tolist()])
    torch.testing.assert_close(model.probabilities(test_set), expected)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(model(test_set.batch(rows)), expected[rows])
    thresholds = calibrate([score_histograms(model.probabilities(test_set), test_set.labels)]).thresholds
    assert torch.equal(model.calibration(test_set).thresholds, thresholds)
    own = probabilities(method, test_set).logit() + PERSONAL[0]["offset"]
    moved = torch.tensor([by_hand(row, TIES, 2.0) for row in own.sigmoid().tolist()])
    row = model.personal_scores(["north"], test_set)["clients"][0]
    assert row["OF1"] == pytest.approx(multilabel_scores(moved, test_set.labels).OF1)
    assert row["OF1"] != pytest.approx(multilabel_scores(own.sigmoid(), test_set.labels).OF1)


def test_a_state_of_another_method_is_refused_before_it_is_mixed() -> None:
    with pytest.raises(InputError, match=r"^here: tensor 'offset' is missing"):
        final(toy(), Prediction(mix=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Prediction(mix=0.0), r"--mix must be in \(0, 1\], got 0\.0"),
        (Prediction(mix=1.5), r"--mix must be in \(0, 1\], got 1\.5"),
        (Prediction(soft_ties=-1.0), r"--soft-ties must not be negative, got -1\.0"),
        (Prediction(soft_ties=float("nan")), "--soft-ties must not be negative, got nan"),
    ],
)
def test_wrong_options(options: Prediction, message: str) -> None:
    with pytest.raises(InputError, match=message):
        options.check()
