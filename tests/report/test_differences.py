"""Who reports an absent partner, against a loop over pictures and pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS
from fedmpt.report.demo.differences import Alone, Differences, differences, sentences
from fedmpt.types import UNKNOWN

C = len(CLASS_NAMES)


def picture(*names: str) -> Tensor:
    return torch.tensor([int(name in names) for name in CLASS_NAMES], dtype=torch.int8)


def reports(*rows: tuple[str, ...]) -> Tensor:
    return torch.stack([picture(*names) for names in rows]).bool()


def test_counts_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = (torch.rand(400, C, generator=generator) < 0.15).to(torch.int8)
    labels[torch.rand(400, C, generator=generator) < 0.05] = UNKNOWN
    a, b = (torch.rand(400, C, generator=generator) < chance for chance in (0.4, 0.2))
    found = differences({"promptfl": a, "fedmpt": b}, labels)

    counts = {"a": 0, "b": 0, "both": 0, "neither": 0}
    firsts = {}
    for row in range(400):
        wrong = {"a": [], "b": []}
        absent = 0
        for pair in PARTNERS:
            anchor, partner = CLASS_NAMES.index(pair.anchor), CLASS_NAMES.index(pair.partner)
            if labels[row, anchor] == 1 and labels[row, partner] == 0:
                absent += 1
                for key, said in (("a", a), ("b", b)):
                    if said[row, partner]:
                        wrong[key].append(pair)
        if not absent:
            continue
        kind = "both" if wrong["a"] and wrong["b"] else "a" if wrong["a"] else "b" if wrong["b"] else "neither"
        counts[kind] += 1
        if kind in wrong:
            firsts.setdefault(kind, (row, wrong[kind][0]))
    assert min(counts.values()) > 10
    assert found == Differences(
        total=sum(counts.values()),
        alone={"promptfl": Alone(counts["a"], firsts["a"]), "fedmpt": Alone(counts["b"], firsts["b"])},
        both=counts["both"],
        neither=counts["neither"],
    )


def test_a_picture_of_two_pairs_counts_once_and_shows_the_pair_reported() -> None:
    labels = torch.stack([picture("cat", "bus")])
    found = differences({"promptfl": reports(("cat", "umbrella")), "fedmpt": reports(("cat", "bus"))}, labels)
    bus = next(pair for pair in PARTNERS if pair.anchor == "bus")
    assert found == Differences(1, {"promptfl": Alone(1, (0, bus)), "fedmpt": Alone(0, None)}, 0, 0)
    # Each is wrong about another partner: both report an absent one.
    found = differences({"promptfl": reports(("umbrella",)), "fedmpt": reports(("chair",))}, labels)
    assert found == Differences(1, {"promptfl": Alone(0, None), "fedmpt": Alone(0, None)}, 1, 0)


def test_a_partner_without_its_anchor_or_with_it_is_not_looked_at() -> None:
    labels = torch.stack([picture("chair"), picture("dog", "ball"), picture("apple"), picture("cat")])
    everything = torch.ones(4, C, dtype=torch.bool)
    found = differences({"promptfl": everything, "fedmpt": ~everything}, labels)
    assert (found.total, found.both, found.neither) == (1, 0, 0)
    assert found.alone["promptfl"] == Alone(1, (3, PARTNERS[0]))


def test_a_kind_without_pictures_is_said() -> None:
    labels, same = torch.stack([picture("cat"), picture("cow")]), reports(("chair",), ())
    found = differences({"promptfl": same, "fedmpt": same}, labels)
    assert (found.both, found.neither) == (1, 1)
    assert sentences(found, {}) == [
        "no picture of 2 with an anchor and without its partner where PromptFL reports the partner and FedMPT does not",
        "no picture of 2 with an anchor and without its partner where FedMPT reports the partner and PromptFL does not",
    ]
