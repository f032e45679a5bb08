"""Scores without a common test set: each site tells sums over its own images, and these add up to the scores of all.

F1 scores of sums are exact. Average precision is known within bounds, since the order of scores in a bin is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from fedmpt.data.pairs import BiasedPairs
from fedmpt.evaluation.context_sums import ContextSums, context_bounds
from fedmpt.evaluation.histograms import NUM_BINS, average_precisions, count_scores, score_bins
from fedmpt.evaluation.metrics import METRICS, Scores, decision_counts, f1_scores
from fedmpt.types import ABSENT, PRESENT, InputError, Pair, State

NO_PAIRS = BiasedPairs(per_pair=(), num_biased=0, num_measurable=0)
MAX_IMAGES = 2**32
"""More than a site has. Sums of two million such sites are whole numbers in double precision."""


@dataclass(frozen=True)
class ScoreSums:
    """What a site tells of its scores on its own images. Unknown labels count nowhere.

    Attributes:
        images: number of images, one number.
        histograms: scores of absent ([0]) and present ([1]) labels, see `fedmpt.evaluation.histograms`.
        decisions: `decision_counts` at threshold 0.5.
        calibrated: the same at the federation's thresholds; no rows where there are none yet.
        contexts: `ContextSums` of the pairs that are measured, none where there are none.
    """

    images: Int64[Tensor, ""]
    histograms: Int64[Tensor, "2 C bins"]
    decisions: Int64[Tensor, "3 C"]
    calibrated: Int64[Tensor, "calibrated C"]
    contexts: Int64[Tensor, "pairs 3 bins"]

    def __add__(self, other: ScoreSums) -> ScoreSums:
        mine, others = self.to_tensors(), other.to_tensors()
        assert all(mine[name].shape == others[name].shape for name in mine), (
            "sums of other classes, pairs or thresholds"
        )
        return ScoreSums(**{name: mine[name] + others[name] for name in mine})

    def to_tensors(self) -> dict[str, Tensor]:
        """As it travels."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_tensors(
        cls, tensors: State, *, num_classes: int, pairs: Sequence[Pair], is_calibrated: bool, source: str
    ) -> ScoreSums:
        """What a site sent, which may be anything. What is returned adds up with others without overflow.

        Raises:
            InputError: naming ``source``, if a tensor is missing or has another shape or type, a number cannot be, or
                numbers contradict each other.
        """
        calibrated = (3 if is_calibrated else 0, num_classes)
        shapes = {
            "images": (),
            "histograms": (2, num_classes, NUM_BINS),
            "decisions": (3, num_classes),
            "calibrated": calibrated,
            "contexts": (len(pairs), 3, NUM_BINS),
        }
        if tensors.keys() != shapes.keys():
            raise InputError(f"{source}: sums of scores are {sorted(shapes)}, and {sorted(tensors)} came")
        for name, shape in shapes.items():
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype != torch.int64:
                raise InputError(
                    f"{source}: {name} of the scores are {tensor.dtype} {tuple(tensor.shape)}, expected torch.int64 "
                    f"{shape}; the site has other classes, or another version of fedmpt"
                )
            if tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) <= MAX_IMAGES:
                raise InputError(f"{source}: {name} of the scores hold numbers outside 0 to {MAX_IMAGES}")
        sums = cls(**tensors)
        if wrong := sums._contradiction(pairs):
            raise InputError(f"{source}: its scores contradict each other: {wrong}")
        return sums

    def _contradiction(self, pairs: Sequence[Pair]) -> str | None:
        absent, present = self.histograms
        known = self.histograms.sum((0, -1))
        if (known > self.images).any():
            return "more labels of a class than images"
        for hits, predicted, positives in (table for table in (self.decisions, self.calibrated) if len(table)):
            if not torch.equal(positives, present.sum(-1)):
                return "as many positives as present scores are expected"
            if (hits > torch.minimum(predicted, positives)).any() or (predicted - hits > absent.sum(-1)).any():
                return "hits or predictions are more than there can be"
        if pairs:
            both, targets = self.contexts, [target for _, target in pairs]
            if (both[:, :2].sum(1) > present[targets]).any() or (both[:, 2] > absent[targets]).any():
                return "more scores of a pair than of its target"
        return None


def score_sums(
    probabilities: Float[Tensor, "images C"],
    labels: Int8[Tensor, "images C"],
    *,
    thresholds: Float[Tensor, " C"] | None,
    pairs: Sequence[Pair],
) -> ScoreSums:
    """The sums of some images; there may be none. ``thresholds`` are the federation's, None where it has none yet.

    Raises:
        InputError: if a probability is outside [0, 1] or not a number.
    """
    at_half = torch.from_numpy(decision_counts(probabilities, labels))
    bins = score_bins(probabilities)
    empty = torch.zeros(0, labels.shape[1], dtype=torch.int64)
    at_own = empty if thresholds is None else decision_counts(probabilities, labels, threshold=thresholds)
    return ScoreSums(
        images=torch.tensor(len(labels)),
        histograms=torch.stack([count_scores(bins, labels == value) for value in (ABSENT, PRESENT)]),
        decisions=at_half,
        calibrated=torch.as_tensor(at_own),
        contexts=ContextSums.of(bins, labels, pairs).counts,
    )


@dataclass(frozen=True)
class SummedScores:
    """What a round shows of summed scores, in percent."""

    mAP: float
    CF1: float
    OF1: float
    CF1_PR: float

    @classmethod
    def of(cls, sums: ScoreSums) -> SummedScores:
        names = [str(number) for number in range(sums.decisions.shape[1])]
        test = summed_scores(sums, names, thresholds=None, pairs=NO_PAIRS)["test"]
        return cls(*(test[metric] for metric in METRICS))


def client_sums(
    probabilities: Float[Tensor, "images C"],
    labels: Int8[Tensor, "images C"],
    clients: Int64[Tensor, " images"],
    *,
    num_clients: int,
    thresholds: Float[Tensor, " C"] | None,
    pairs: Sequence[Pair],
) -> list[ScoreSums]:
    """What each client would tell of its images, where all are at hand; ``clients`` says whose an image is."""
    owned = [(clients == client).nonzero().flatten() for client in range(num_clients)]
    return [score_sums(probabilities[own], labels[own], thresholds=thresholds, pairs=pairs) for own in owned]


def summed_scores(
    sums: ScoreSums, class_names: Sequence[str], *, thresholds: Float[Tensor, " C"] | None, pairs: BiasedPairs
) -> dict[str, Any]:
    """The scores of all sites' images in the layout of `fedmpt.evaluation.scoring.score`, of the sites' summed sums.

    ``mAP`` and ``per_class`` are estimates; ``mAP_bound`` has the lowest and the highest mAP that the sums allow, so
    the exact one lies between them. So do the scores of ``context_shift`` within its ``bounds``. There are no
    ``oracle`` and ``moved``, which need the scores themselves.

    Raises:
        InputError: if no label is present at any site.
    """
    if not sums.decisions[2].any():
        raise InputError("no site's image shows any of the classes, so no score is defined; hold out more images")
    scores: dict[str, Any] = {"test": _named(sums, sums.decisions, 0.5, class_names)}
    if thresholds is not None:
        scores["test_calibrated"] = _named(sums, sums.calibrated, tuple(thresholds.tolist()), class_names)
    if pairs.per_pair:
        targets = [target for _, target in pairs.pairs]
        lowest, likely, highest = context_bounds(ContextSums(sums.contexts, sums.histograms[1, targets]))
        chosen, found = pairs.to_json(class_names), likely.to_json(pairs.pairs, class_names)
        per_pair = {name: {**chosen["per_pair"][name], **measured} for name, measured in found["per_pair"].items()}
        names = ("exclusive", "cooccurring", "false_coactivation", "false_coactivation_balanced")
        bounds = {name: [getattr(lowest, name), getattr(highest, name)] for name in names}
        scores["context_shift"] = {**chosen, **found, "per_pair": per_pair, "bounds": bounds}
    return scores


def _named(
    sums: ScoreSums, decisions: Int64[Tensor, "3 C"], threshold: float | tuple[float, ...], class_names: Sequence[str]
) -> dict[str, Any]:
    found = average_precisions(sums.histograms[1], sums.histograms[0])
    shown = decisions[2] > 0
    lowest, likely, highest = found[:, shown].mean(-1).tolist()
    scores = Scores(
        mAP=likely,
        **f1_scores(decisions.numpy()),
        per_class=tuple(
            value if known else None for value, known in zip(found[1].tolist(), shown.tolist(), strict=True)
        ),
        threshold=threshold,
        num_classes_without_positives=int((~shown).sum()),
        num_images=int(sums.images),
    )
    return {**scores.to_json(class_names), "mAP_bound": [lowest, highest]}
