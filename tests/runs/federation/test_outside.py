"""Sites that wait outside: their engineers are told why, and the others train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from federation_bed import CLASSES, Place, plan_of

from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.runs.config import preset
from fedmpt.runs.federation.agreement import MAX_CLASSES, class_names_of, joined_classes, odd_spellings
from fedmpt.types import InputError


@pytest.fixture
def place(tmp_path: Path, tiny_clip_folder: Path) -> Place:
    return Place(tmp_path, tiny_clip_folder)


def outside(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if "waits outside" in line]


def test_its_engineer_reads_why_a_site_waits_outside(place: Place) -> None:
    other = replace(place.plan, run=replace(place.plan.run, seed=5))
    link = place.link()
    link.handles["birch"] = place.link(other).handles["birch"]
    said = place.run(link)
    differs = "its options differ: seed is 0 at the coordinator and 5 in the kit of birch"
    assert outside(said) == [f"site birch waits outside: {differs}"]
    assert "begins without birch; a site that comes later takes part from then on" in said
    assert place.heard["birch"] == [
        f"waits outside: {differs} (start join again once it is mended here; the coordinator compares again every 30 s)"
    ]


def test_its_engineer_reads_how_it_ends(place: Place) -> None:
    place.run(place.link())
    *_, said = place.heard["birch"]
    assert f"the model is in {place.root / 'birch' / 'model'};" in said
    assert said.endswith(". join may be stopped now (Ctrl-C); it stays in case the coordinator starts again")
    assert "unknown in the images here, since only other sites name them: cup, dog" in place.heard["birch"]


def test_its_engineer_reads_a_reason_once(place: Place) -> None:
    handle = place.link().handles["ash"]
    words = {"class_names": list(CLASSES["ash"]), "rounds_done": 0}
    for reason in ("one", "one", "two", "two", "one"):
        handle(pack(Message("outside", {"reason": reason})))
    handle(pack(Message("enter", words)))
    handle(pack(Message("outside", {"reason": "one"})))
    assert [line.split()[2] for line in outside(place.heard["ash"])] == ["one", "two", "one", "one"]


def test_words_of_a_coordinator_change_no_terminal(place: Place) -> None:
    handle = place.link().handles["ash"]
    handle(pack(Message("outside", {"reason": "\x1b[2Jone\ntwo" + 10_000 * "x"})))
    (line,) = place.heard["ash"]
    assert line.startswith("waits outside: ?[2Jone two")
    assert len(line) < 1200


RENAME = "; rename them in its labels, or begin a federation with --classes"


BEGINS = "its labels write classes otherwise than others do: "


@pytest.mark.parametrize(
    ("spelled", "odd", "what", "classes"),
    [
        (
            {"ash": {"table": "Table", "dog": "Dog"}, "cedar": {"cup": "ash"}},
            "ash",
            "'Dog' (1 site) is 'dog' (1 site), 'Table' (1 site) is 'table' (2 sites)",
            "ash, cat, dog, table",
        ),
        ({"cedar": {"dog": "Dog"}}, "cedar", "'Dog' (1 site) is 'dog' (1 site)", "cat, dog, table"),
    ],
)
def test_the_spelling_of_most_sites_counts_and_the_others_wait(
    place: Place, spelled: dict[str, dict[str, str]], odd: str, what: str, classes: str
) -> None:
    for site, names in spelled.items():
        place.spell(site, names)
    said = place.run(place.link())
    assert outside(said) == [f"site {odd} waits outside: {BEGINS}{what}{RENAME}"]
    assert [site for site in CLASSES if outside(place.heard[site])] == [odd]
    assert len(outside(place.heard[odd])) == 1
    assert f"all that the sites' labels name: {classes}" in "\n".join(said)


def test_a_site_that_mends_its_spelling_takes_part(place: Place) -> None:
    place.spell("birch", {"table": "Table"})
    place.plan = replace(place.plan, rules=replace(place.plan.rules, min_sites=3))
    link = place.link()
    told = link.handles["birch"]

    def mended(content: bytes) -> bytes:
        """Birch hears why it waits, and joins anew with other labels."""
        answer = told(content)
        if unpack(content, source="test").kind == "outside":
            place.spell("birch", {"Table": "table"})
            del link.since["birch"]
            link.handles["birch"] = place.link().handles["birch"]
        return answer

    link.handles["birch"] = mended
    connected, looks = link.connected, 0

    def later() -> Mapping[str, float]:
        nonlocal looks
        looks += "birch" not in link.since
        if looks == 4:
            link.since["birch"] = 2.0
        return connected()

    link.connected = later  # type: ignore[method-assign]
    said = place.run(link)
    assert "site birch is away: not connected" in said
    assert "4 classes, all that the sites' labels name: cat, cup, dog, table" in said
    assert "site birch takes part" in said


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_who_waits_for_a_spelling_does_not_depend_on_the_order_of_arrival(order: tuple[int, ...]) -> None:
    sites = (
        ("a", ("Cat", "Dog")),
        ("b", ("cat", "dog")),
        ("c", ("Cat", "tree")),
        ("d", ("Cat", "dog", "Tree")),
    )
    found = odd_spellings(dict(sites[number] for number in order))
    assert found == {
        "b": f"{BEGINS}'cat' (1 site) is 'Cat' (3 sites), 'dog' (2 sites) is 'Dog' (1 site){RENAME}",
        "d": f"{BEGINS}'dog' (2 sites) is 'Dog' (1 site), 'Tree' (1 site) is 'tree' (1 site){RENAME}",
    }


def test_there_are_no_more_classes_than_can_be_handled() -> None:
    many = [str(number) for number in range(MAX_CLASSES)]
    assert len(class_names_of(many, source="its labels")) == MAX_CLASSES
    with pytest.raises(InputError, match="its labels: 5001 classes, and a federation has at most 5000"):
        class_names_of([*many, "more"], source="its labels")
    with pytest.raises(InputError, match=r"name 5002 classes \(a 5000, b 2\), .* at most 5000; .* --classes"):
        joined_classes({"b": ("x", "y"), "a": tuple(many)})
    with pytest.raises(InputError, match="--classes: a federation has at most 5000 classes"):
        replace(plan_of(preset("default", "promptfl", "sites")), class_names=(*many, "more")).check()
