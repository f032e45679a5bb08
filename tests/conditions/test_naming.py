"""Which names of conditions can be used."""

from __future__ import annotations

import pytest
from scripted import CLASSES

from fedmpt.conditions.pipeline.naming import NameRules, normal_name, overlapping

RULES = NameRules(CLASSES)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Spatial Layout", "spatial layout"),
        ("1. **Lighting & Weather**", "lighting and weather"),
        ('"object_scale."', "object scale"),
        ("Place (where it is)", "place"),
        ("Größe", "größe"),
        ("time-of-day", "time-of-day"),
    ],
)
def test_names_are_written_in_one_way(text: str, name: str) -> None:
    assert normal_name(text) == name
    assert RULES.fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "empty"),
        ("12 - 3", "empty"),
        ("how far away the things are", "longer than 4 words"),
        ("x" * 41, "or 40 characters"),
        ("place: kitchen", "other characters"),
        ('cat"]}', "other characters"),
        ("https://example.org", "other characters"),
        ("place\u200b", "other characters"),
        ("condition 1", "says nothing"),
        ("other", "says nothing"),
        ("cat pose", 'names the label "cat"'),
        ("number of people", 'names the label "person"'),
        ("Dining-Table setting", 'names the label "dining table"'),
        ("cars and places", 'names the label "car"'),
    ],
)
def test_names_that_cannot_be_used_are_known(name: str, fault: str) -> None:
    assert fault in (RULES.fault(name) or "")


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("lighting", "Lightings", True),
        ("time-of-day", "time of day", True),
        ("pose", "object pose", True),
        ("weather", "lighting and weather", True),
        ("object pose", "object scale", False),
        ("scene", "scene type", True),
        ("光", "影", False),
    ],
)
def test_names_about_the_same_are_known(name: str, other: str, same: bool) -> None:
    assert (overlapping(name, [other]) == other) is same
    assert (overlapping(other, [name]) == name) is same
