"""The pictures of the reversed test in which PromptFL and FedMPT disagree about a partner that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int8
from torch import Tensor

from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS, Partners, read_scenes
from fedmpt.report.demo.trials import PAIRS, TITLES, Outcome
from fedmpt.types import ABSENT, PRESENT

COMPARED = ("promptfl", "fedmpt")


@dataclass(frozen=True)
class Alone:
    """The pictures in which one method reports an absent partner and the other none: how many there are, and the
    first, by its row in the test and the pair in question. ``first`` is None where there is none."""

    count: int
    first: tuple[int, Partners] | None


@dataclass(frozen=True)
class Differences:
    """Pictures with a pair's anchor and without its partner, by which of two methods report the absent partner.

    A picture with a cat and a bus, but neither chair nor umbrella, counts once: a method reports an absent partner
    there if it says chair or umbrella. ``alone`` is keyed by the method that reports one; with ``both`` and
    ``neither`` the counts add up to ``total``.
    """

    total: int
    alone: Mapping[str, Alone]
    both: int
    neither: int


def differences(reported: Mapping[str, Bool[Tensor, "images C"]], labels: Int8[Tensor, "images C"]) -> Differences:
    """What the two methods of ``reported`` say of the pictures with ``labels``, at their thresholds."""
    anchors, partners = torch.tensor(PAIRS).T
    is_absent = (labels[:, anchors] == PRESENT) & (labels[:, partners] == ABSENT)  # [images, pairs]
    wrong = {name: is_absent & said[:, partners] for name, said in reported.items()}
    (a, said_a), (b, said_b) = ((name, pairs.any(1)) for name, pairs in wrong.items())

    def alone(name: str, rows: Bool[Tensor, " images"]) -> Alone:
        found = rows.nonzero()[:, 0].tolist()
        first = (found[0], PARTNERS[wrong[name][found[0]].nonzero()[0, 0]]) if found else None
        return Alone(len(found), first)

    counts = {"total": is_absent.any(1), "both": said_a & said_b, "neither": is_absent.any(1) & ~said_a & ~said_b}
    return Differences(
        alone={a: alone(a, said_a & ~said_b), b: alone(b, said_b & ~said_a)},
        **{name: int(rows.sum()) for name, rows in counts.items()},
    )


def compared(outcomes: Mapping[str, Outcome]) -> Differences:
    """PromptFL and FedMPT on the reversed test."""
    return differences({name: outcomes[name].reported for name in COMPARED}, outcomes["fedmpt"].unseen.labels)


def sentences(found: Differences, outcomes: Mapping[str, Outcome]) -> list[str]:
    """For each method the first picture in which it alone reports an absent partner, and how many such there are.

    In brackets stand the partner's calibrated probability and the threshold; each method has thresholds of its own.
    """
    lines = []
    for name, other in (COMPARED, COMPARED[::-1]):
        alone, kind = found.alone[name], f"of {found.total} with an anchor and without its partner"
        if alone.first is None:
            lines.append(f"no picture {kind} where {TITLES[name]} reports the partner and {TITLES[other]} does not")
            continue
        (row, pair), test = alone.first, outcomes[name].unseen
        shown, c = ", ".join(read_scenes(test.split)[row].class_names), CLASS_NAMES.index(pair.partner)
        over, under = (
            f"({outcomes[one].calibrated[row, c]:.2f}, {word} {outcomes[one].thresholds[c]:.2f})"
            for one, word in ((name, "over"), (other, "not over"))
        )
        lines.append(
            f"picture {test.files[row]} shows {shown} (no {pair.partner}): {TITLES[name]} reports {pair.partner} "
            f"{over}, {TITLES[other]} does not {under}; {alone.count} such picture{'s' * (alone.count > 1)} {kind}"
        )
    return lines
