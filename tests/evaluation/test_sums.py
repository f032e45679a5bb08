"""Sums of sites' scores against the scores of all images at once, which other tests compare with scikit-learn."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from fedmpt.data.pairs import count_pairs
from fedmpt.evaluation.calibration import calibrate, score_histograms
from fedmpt.evaluation.context_shift import context_shift
from fedmpt.evaluation.histograms import CENTRES, NUM_BINS, average_precisions, count_scores, score_bins
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.sums import MAX_IMAGES, ScoreSums, client_sums, score_sums, summed_scores
from fedmpt.types import InputError

PAIRS = ((0, 1), (2, 0))
NAMES = ("cat", "chair", "dog")


def random_scores(seed: int, num_images: int = 300, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Probabilities that tell something of labels, a tenth of them unknown; with a large spread many are 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_images, 3, generator=generator) < 0.3).to(torch.int8)
    log_odds = spread * (torch.randn(labels.shape, generator=generator) + 1.5 * labels - 1)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = -1
    return log_odds.sigmoid(), labels


def whole_and_summed(seed: int, *, spread: float) -> tuple[Tensor, Tensor, Tensor, dict]:
    probabilities, labels = random_scores(seed, spread=spread)
    thresholds = calibrate([score_histograms(probabilities, labels)]).thresholds
    clients = torch.randint(0, 4, (len(labels),), generator=torch.Generator().manual_seed(seed))
    parts = client_sums(probabilities, labels, clients, num_clients=5, thresholds=thresholds, pairs=PAIRS)
    assert parts[4].images == 0
    total = sum(parts[1:], parts[0])
    pairs = count_pairs(labels, labels, PAIRS)
    return probabilities, labels, thresholds, summed_scores(total, NAMES, thresholds=thresholds, pairs=pairs)


@pytest.mark.parametrize("spread", [0.02, 1.0, 12.0])
@pytest.mark.parametrize("seed", range(6))
def test_sums_of_sites_are_the_scores_of_all(seed: int, spread: float) -> None:
    probabilities, labels, thresholds, found = whole_and_summed(seed, spread=spread)
    for part, threshold in (("test", 0.5), ("test_calibrated", thresholds)):
        exact = multilabel_scores(probabilities, labels, threshold=threshold).to_json(NAMES)
        for metric in ("CF1", "OF1", "CF1_PR"):
            assert found[part][metric] == pytest.approx(exact[metric], abs=1e-12)
        assert found[part].keys() == {*exact, "mAP_bound"}
        for same in ("threshold", "classes_without_positives", "num_images"):
            assert found[part][same] == exact[same]
        low, high = found[part]["mAP_bound"]
        assert low - 1e-9 <= exact["mAP"] <= high + 1e-9
        assert low <= found[part]["mAP"] <= high
        assert found[part]["mAP"] == pytest.approx(exact["mAP"], abs=0.3 if spread >= 1 else 2)


@pytest.mark.parametrize("spread", [0.3, 1.0, 12.0])
@pytest.mark.parametrize("seed", range(6))
def test_context_shift_of_sums_bounds_that_of_all(seed: int, spread: float) -> None:
    probabilities, labels, _, found = whole_and_summed(seed, spread=spread)
    exact = context_shift(probabilities, labels, PAIRS)
    shift = found["context_shift"]
    for name, (low, high) in shift["bounds"].items():
        assert low - 1e-9 <= getattr(exact, name) <= high + 1e-9
        assert low <= shift[name] <= high
        assert shift[name] == pytest.approx(getattr(exact, name), abs=3)
    assert shift["gap"] == pytest.approx(shift["cooccurring"] - shift["exclusive"])
    for name, pair in zip(("cat -> chair", "dog -> cat"), exact.per_pair, strict=True):
        for number in ("num_exclusive", "num_cooccurring", "num_context_only"):
            assert shift["per_pair"][name][number] == getattr(pair, number)


def test_context_shift_where_images_of_a_kind_are_missing() -> None:
    probabilities, labels = random_scores(0)
    labels[:, 1] = 0
    sums = score_sums(probabilities, labels, thresholds=None, pairs=PAIRS)
    found = summed_scores(sums, NAMES, thresholds=None, pairs=count_pairs(labels, labels, PAIRS))
    exact = context_shift(probabilities, labels, PAIRS).to_json(PAIRS, NAMES)
    assert found.keys() == {"test", "context_shift"}
    pair = found["context_shift"]["per_pair"]["cat -> chair"]
    for name, value in exact["per_pair"]["cat -> chair"].items():
        assert pair[name] == value  # None or a number of images.


def test_bounds_are_reached_by_orders_within_a_bin() -> None:
    """Every order of two present and two absent scores below and above others, and every way to tie them."""
    present, absent = (torch.zeros(1, NUM_BINS, dtype=torch.int64) for _ in range(2))
    present[0, [150, 200]], absent[0, [150, 200, 250]] = torch.tensor([1, 2]), torch.tensor([1, 2, 1])
    low, likely, high = average_precisions(present, absent)[:, 0].tolist()
    rest = [(0, 9.0), (1, 1.0), (0, 0.0)]  # The lower bin holds one of each, in the order that was drawn.
    found = set()
    for order in set(permutations((1, 1, 0, 0))):
        for cuts in range(8):
            ranks = [5 - sum(cuts >> bit & 1 for bit in range(place)) for place in range(4)]
            for swapped in (1.0, -1.0):
                scores = [9.0, swapped, 0.0, *map(float, ranks)]
                labels = [label for label, _ in rest] + list(order)
                found.add(100 * average_precision_score(labels, scores))
    assert min(found) == pytest.approx(low)
    assert max(found) == pytest.approx(high)
    assert low < likely < high


def test_scores_of_one_are_ties_and_nothing_is_open_there() -> None:
    probabilities = torch.tensor([1.0] * 6 + [1 - 2**-24] + [0.1])[:, None]
    labels = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.int8)[:, None]
    bins = score_bins(probabilities)
    low, likely, high = average_precisions(*(count_scores(bins, labels == value) for value in (1, 0)))[:, 0].tolist()
    exact = 100 * average_precision_score(labels[:, 0], probabilities[:, 0])
    assert (low, likely, high) == pytest.approx((exact, exact, exact))


def test_bins() -> None:
    assert torch.equal(score_bins(CENTRES[100:300].sigmoid()[None].float()), torch.arange(100, 300)[None])
    bins = score_bins(torch.tensor([[0.0, 1e-12, 0.5, 0.5 - 2**-25, 1 - 2**-24, 1.0]])).tolist()[0]
    assert bins[:4] == [0, 0, NUM_BINS // 2, NUM_BINS // 2 - 1]
    assert bins[4] < bins[5] == NUM_BINS - 1


def test_no_positive_at_any_site() -> None:
    probabilities, labels = random_scores(0)
    sums = score_sums(probabilities, labels.clamp_max(0), thresholds=None, pairs=())
    with pytest.raises(InputError, match="no site's image shows any of the classes"):
        summed_scores(sums, NAMES, thresholds=None, pairs=count_pairs(labels, labels, ()))


def test_probabilities_that_are_none() -> None:
    probabilities, labels = random_scores(0)
    probabilities[3, 1] = torch.nan
    with pytest.raises(InputError, match="probability nan at row 3"):
        score_sums(probabilities, labels, thresholds=None, pairs=())


def sent(*, is_calibrated: bool = True) -> dict[str, Tensor]:
    probabilities, labels = random_scores(1)
    thresholds = torch.full((3,), 0.4) if is_calibrated else None
    sums = score_sums(probabilities, labels, thresholds=thresholds, pairs=PAIRS)
    return {name: tensor.clone() for name, tensor in sums.to_tensors().items()}


def received(tensors: dict[str, Tensor], *, is_calibrated: bool = True) -> ScoreSums:
    return ScoreSums.from_tensors(tensors, num_classes=3, pairs=PAIRS, is_calibrated=is_calibrated, source="clinic-a")


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_what_was_sent_comes_back(is_calibrated: bool) -> None:
    tensors = sent(is_calibrated=is_calibrated)
    back = received(tensors, is_calibrated=is_calibrated).to_tensors()
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def set_at(name: str, place: tuple[int, ...], value: int):  # type: ignore[no-untyped-def]
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[name][place] = value

    return spoil


def as_float(tensors: dict[str, Tensor]) -> None:
    tensors["decisions"] = tensors["decisions"].double()


def more_classes(tensors: dict[str, Tensor]) -> None:
    tensors["histograms"] = torch.zeros(2, 4, NUM_BINS, dtype=torch.int64)


def no_images(tensors: dict[str, Tensor]) -> None:
    del tensors["images"]


def not_calibrated(tensors: dict[str, Tensor]) -> None:
    tensors["calibrated"] = tensors["calibrated"][:0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (as_float, "decisions of the scores are torch.float64"),
        (more_classes, r"histograms of the scores are torch.int64 \(2, 4, 400\), expected torch.int64 \(2, 3, 400\)"),
        (no_images, "sums of scores are"),
        (not_calibrated, "calibrated of the scores"),
        (set_at("histograms", (0, 0, 3), -1), "histograms of the scores hold numbers outside 0"),
        (set_at("histograms", (0, 0, 3), 2**62), "histograms of the scores hold numbers outside 0"),
        (set_at("images", (), MAX_IMAGES + 1), "images of the scores hold numbers outside 0"),
        (set_at("images", (), 5), "more labels of a class than images"),
        (set_at("decisions", (2, 0), 1), "as many positives as present scores"),
        (set_at("calibrated", (0, 0), 299), "hits or predictions"),
        (set_at("decisions", (1, 0), 299), "hits or predictions"),
        (set_at("contexts", (1, 2, 7), 200), "more scores of a pair than of its target"),
    ],
)
def test_what_cannot_be_is_refused(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    tensors = sent()
    spoil(tensors)
    with pytest.raises(InputError, match=f"clinic-a: .*{message}"):
        received(tensors)
