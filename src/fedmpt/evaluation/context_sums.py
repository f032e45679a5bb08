"""Context shift where only histograms of scores are known, see `fedmpt.evaluation.context_shift`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.evaluation.context_shift import RECALL, ContextShift, PairScores
from fedmpt.evaluation.histograms import NUM_BINS, average_precisions, count_scores
from fedmpt.types import ABSENT, PRESENT, Pair


@dataclass(frozen=True)
class ContextSums:
    """Histograms of each pair's target's scores on images with the target alone, with both, with the context alone
    (``counts``), and on all with the target (``found``), whether the context is known there or not."""

    counts: Int64[Tensor, "pairs 3 bins"]
    found: Int64[Tensor, "pairs bins"]

    @classmethod
    def of(
        cls, bins: Int64[Tensor, "images C"], labels: Int8[Tensor, "images C"], pairs: Sequence[Pair]
    ) -> ContextSums:
        """Of the bins of some images' scores."""
        if not pairs:
            none = torch.zeros(0, 3, NUM_BINS, dtype=torch.int64)
            return cls(none, none[:, 0])
        contexts, targets = (list(classes) for classes in zip(*pairs, strict=True))
        own, with_a, with_b = bins[:, targets], labels[:, contexts], labels[:, targets]
        kinds = ((ABSENT, PRESENT), (PRESENT, PRESENT), (PRESENT, ABSENT))
        counts = [count_scores(own, (with_a == a) & (with_b == b)) for a, b in kinds]
        return cls(torch.stack(counts, dim=1), count_scores(own, with_b == PRESENT))


def context_bounds(sums: ContextSums) -> tuple[ContextShift, ContextShift, ContextShift]:
    """The scores as low as the counts allow, as they are likely, and as high as the counts allow.

    Average precisions are `average_precisions`. The threshold of a false co-activation lies in a bin that is known, but
    not where in it: the images of that bin with a alone reach it all, none, or likely half of them. ``gap`` is of the
    likely scores only; in the others it is no bound.
    """
    alone, together, context_only = sums.counts.unbind(1)
    has_both = context_only.sum(-1, keepdim=True) > 0
    precisions = [average_precisions(group, context_only).T.where(has_both, torch.nan) for group in (alone, together)]
    plain, balanced = _reaching(context_only, [sums.found]), _reaching(context_only, [alone, together])
    tables = torch.stack([*precisions, plain, balanced])
    shifts = [_shift(tables[:, :, which], sums.counts.sum(-1)) for which in range(3)]
    return shifts[0], shifts[1], shifts[2]


def _shift(scores: Float64[Tensor, "4 pairs"], numbers: Int64[Tensor, "pairs 3"]) -> ContextShift:
    """``scores`` are in the order of `PairScores`, NaN where images of a kind are missing."""
    rows = [[None if math.isnan(value) else value for value in row] for row in scores.T.tolist()]
    return ContextShift.of(
        [
            PairScores(exclusive, cooccurring, plain, balanced, *three)
            for (exclusive, cooccurring, plain, balanced), three in zip(rows, numbers.tolist(), strict=True)
        ]
    )


def _reaching(
    context_only: Int64[Tensor, "pairs bins"], groups: Sequence[Int64[Tensor, "pairs bins"]]
) -> Float64[Tensor, "pairs 3"]:
    """Percent of the images with a alone that reach the highest score which finds 80% in the mean over the groups."""
    missed = sum((group.cumsum(-1) - group).double() / group.sum(-1, keepdim=True) for group in groups)
    held = torch.stack(list(groups)).sum(0) > 0
    # Of the scores in a bin, the lowest misses the fewest: those in lower bins.
    allowed = held & (missed <= (1 - RECALL) * len(groups) + 1e-9)
    at = torch.where(allowed, torch.arange(NUM_BINS), -1).amax(-1, keepdim=True)
    inside = context_only.gather(1, at.clamp_min(0))[:, 0].double()
    above = torch.where(torch.arange(NUM_BINS) > at, context_only, 0).sum(-1).double()
    shares = torch.stack([above, above + inside / 2, above + inside], dim=-1) / context_only.sum(-1, keepdim=True)
    return torch.where(at >= 0, 100 * shares, torch.nan)
