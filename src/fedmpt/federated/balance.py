"""Weights of labels under which two classes that training ties together count as if they came independently."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.conditions.labels.ties import Ties
from fedmpt.types import UNKNOWN

MAX_WEIGHT = 20.0
"""No label weighs more than this, or less than one over it, before weights are made one on average."""


@dataclass(frozen=True)
class Balance:
    """What the label of one class weighs where that of the class tied most to it is present or absent.

    Say half of all images show a street, and so do nine tenths of those with a car. Then ``partner`` of car is street.
    A car on a street weighs 0.5 / 0.9, a car elsewhere 0.5 / 0.1: after that, half of the cars are on a street, as half
    of the images without a car are. In general the label y_c weighs P(y_d) / P(y_d | y_c), with d the partner of c.

    ``partner`` [C] is the class of the largest lift above one, see `Ties`; a class without any is its own. ``table``
    [C, 2, 2] has the weights by class, its own label and its partner's (0 absent, 1 present).
    """

    partner: Int64[Tensor, "C"]
    table: Float[Tensor, "C 2 2"]

    @classmethod
    def of(cls, counts: LabelCounts) -> Balance:
        """From the labels of all clients together: their counts, summed."""
        ties = Ties.of(counts)
        lift, partner = ties.lift.max(1)
        own = torch.arange(len(partner))
        prior, of_partner = ties.prior, ties.prior[partner]
        if_present = ties.conditional[own, partner]
        if_absent = ((of_partner - prior * if_present) / (1 - prior)).clamp(0, 1)
        present = of_partner[:, None] / torch.stack([if_absent, if_present], 1)
        absent = (1 - of_partner[:, None]) / torch.stack([1 - if_absent, 1 - if_present], 1)
        table = torch.stack([absent, present], 2)
        # Not a number where no label is as it says: of a class, say, that all images have.
        table = table.nan_to_num(nan=1, posinf=MAX_WEIGHT).clamp(1 / MAX_WEIGHT, MAX_WEIGHT)
        is_tied = lift > 1
        return cls(torch.where(is_tied, partner, own), table.where(is_tied[:, None, None], torch.ones(())))

    def weights(self, labels: Int8[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """How much each label counts: one on average over those known, and as one without a tie if its pair is not."""
        is_known = labels != UNKNOWN
        if not is_known.any():  # There is nothing to weigh, and no average.
            return torch.ones(labels.shape, device=labels.device)
        partner, table = self.partner.to(labels.device), self.table.to(labels.device)
        classes, own = torch.arange(len(partner), device=labels.device), labels.long().clamp(min=0)
        is_pair = is_known & is_known[:, partner]
        found = table[classes, own, own[:, partner]].where(is_pair, torch.ones((), device=labels.device))
        return found / found[is_known].mean()
