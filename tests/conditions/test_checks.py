"""What checks say of conditions, and that their numbers are those of plain computations."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.attributes import FOLDER, read_attributes
from fedmpt.conditions.checks import (
    MAX_CLASSES,
    MIN_CLASSES,
    NUM_CONTEXT,
    PHRASE,
    Encode,
    Findings,
    check_conditions,
    class_words,
    coverage,
    overlap,
    prompt_lengths,
    spread,
)
from fedmpt.conditions.record import Condition, ConditionSet, find_conditions
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import Backbone, InputError

NAMES = ("the pose", "light", "in")
CLASSES = (
    *("cat", "dog", "an axe", "dining table", "the o", "sea horse"),
    *("car", "bottle", "bus", "person", "sofa", "tv monitor"),
)


@pytest.fixture(scope="module")
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))


def encoder(backbone: Backbone) -> Encode:
    return partial(hand_written_features, TextTower(backbone))


def check(conditions: ConditionSet, backbone: Backbone, *, class_names: Any = None) -> Findings:
    return check_conditions(conditions, class_names=class_names, backbone=backbone, encode=encoder(backbone))


def conditions(*names: str, **provenance: Any) -> ConditionSet:
    return ConditionSet("x", tuple(map(Condition, names)), provenance)


def sentences(*texts: str) -> list[dict[str, Any]]:
    return [{"classes": ["x"], "sentences": list(texts)}]


def cosine(backbone: Backbone, one: str, other: str) -> float:
    """Of whole prompts, by transformers' own tower."""
    ids = [torch.tensor([backbone.tokenizer(text, add_special_tokens=True)["input_ids"]]) for text in (one, other)]
    with torch.no_grad():
        first, second = (F.normalize(backbone.text_model(input_ids=each).text_embeds[0], dim=-1) for each in ids)
    return float(first @ second)


def test_cosines_are_those_of_whole_prompts_through_the_tower(backbone: Backbone) -> None:
    found = overlap(NAMES, class_names=CLASSES, encode=encoder(backbone))
    bare = np.array([cosine(backbone, f"{one}.", f"{other}.") for one, other in combinations(CLASSES, 2)])
    in_prompts = np.array(
        [
            cosine(backbone, f"{name} a photo of a {one}.", f"{name} a photo of a {other}.")
            for name in NAMES
            for one, other in combinations(CLASSES, 2)
        ]
    )
    assert {tuple(pair["conditions"]) for pair in found["pairs"]} == set(combinations(NAMES, 2))
    moved = []
    for pair in found["pairs"]:
        one, other = pair["conditions"]
        prompts = [cosine(backbone, f"{one} a photo of a {c}.", f"{other} a photo of a {c}.") for c in CLASSES]
        assert pair["bare"] == pytest.approx(cosine(backbone, f"{one}.", f"{other}."), abs=1e-5)
        assert pair["prompts"] == pytest.approx(np.mean(prompts), abs=1e-5)
        assert pair["bare_percentile"] == pytest.approx(np.mean(bare < pair["bare"]), abs=0.02)
        assert pair["prompts_percentile"] == pytest.approx(np.mean(in_prompts < pair["prompts"]), abs=0.02)
        moved.append(1 - np.mean(prompts))
    assert [pair["bare"] for pair in found["pairs"]] == sorted((pair["bare"] for pair in found["pairs"]), reverse=True)
    assert found["num_classes"] == len(CLASSES)
    assert found["bare_median"] == pytest.approx(np.median(bare), abs=0.01)
    assert found["prompts_median"] == pytest.approx(np.median(in_prompts), abs=0.01)
    assert found["difference"] == pytest.approx(np.mean(moved) / np.mean(1 - in_prompts), rel=1e-3)


def test_a_single_condition_has_no_pairs(backbone: Backbone) -> None:
    found = check(conditions("in"), backbone, class_names=("cat", "dog"))
    assert found.problems == []
    assert found.overlap is not None
    assert (found.overlap["pairs"], found.overlap["difference"]) == ([], None)


def test_short_lists_of_classes_are_filled_up_and_long_ones_sampled(backbone: Backbone) -> None:
    encoded = []

    def encode(names: Any, prefix: str) -> Tensor:
        encoded.append(list(names))
        return torch.randn(len(names), 40)

    many = [f"class {number}" for number in range(5000)]
    check_conditions(find_conditions("generic"), class_names=many, backbone=backbone, encode=encode)
    assert encoded[1] == many[::50]
    assert sum(map(len, encoded)) == 5 + MAX_CLASSES + 5 * MAX_CLASSES
    overlap(("light",), class_names=("dog", "cup"), encode=encode)
    assert encoded[-1][:3] == ["dog", "cup", "car"]
    assert MIN_CLASSES <= len(encoded[-1]) == len(set(encoded[-1]))


def test_lengths_are_those_of_fedmpts_prompts(backbone: Backbone) -> None:
    assert FedMPTConfig().num_condition_context == FedMPTConfig().num_class_context == NUM_CONTEXT
    assert FedMPTConfig().class_context_init == PHRASE
    names, classes = ("in", "dog the cat"), ("cat", "xy")
    found = prompt_lengths(names, class_names=classes, backbone=backbone)
    # In this tokenizer "in" is two letters, "xy" too; "dog", "the" and "cat" are a token each.
    assert found["names"] == {"in": 2, "dog the cat": 3}
    assert found["longest_parts"] == ["dog the cat", "xy"]
    assert found["longest"] == 1 + 4 + 3 + 4 + 2 + 1 + 1
    whole = backbone.tokenizer("dog the cat a photo of a xy.", add_special_tokens=True)["input_ids"]
    assert found["compared"] == len(whole)
    template = FedMPTConfig(conditions=names, rank=4).build(backbone, classes, generator=torch.Generator()).template
    assert template.embed(torch.zeros(2, 4, 48), torch.zeros(4, 48)).max_length == found["longest"]
    assert found["limit"] == 77


def test_words_that_the_tokenizer_breaks_are_named(backbone: Backbone) -> None:
    found = check(conditions("dog light", "the qqq"), backbone)
    assert found.lengths is not None
    assert found.lengths["pieces"] == {"light": 5}
    assert any("breaks words into many pieces ('light' into 5)" in problem for problem in found.problems)


def test_a_prompt_that_is_too_long_is_a_problem_and_nothing_is_encoded(backbone: Backbone) -> None:
    found = check(conditions("x" * 60, "pose"), backbone, class_names=["dog", "cat", "y" * 12])
    assert found.overlap is None
    said = r"the prompt for condition 'x+' and class 'y+' has 83 tokens, the tower takes 77"
    assert re.match(said, found.problems[0])
    with pytest.raises(InputError, match="has 83 tokens, the text tower takes 77"):
        FedMPTConfig(conditions=("x" * 60, "pose")).build(backbone, ["dog", "y" * 12], generator=torch.Generator())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Dining  tables", ["dining table"]),
        ("behind a tv-monitor", ["tv monitor"]),
        ("cars and PEOPLE", ["car", "person"]),
        ("buses", ["bus"]),
        ("table dining", []),
        ("carpet", []),
    ],
)
def test_classes_in_a_name_are_found_as_whole_words(name: str, found: list[str]) -> None:
    assert class_words([name, "pose"], CLASSES).get(name, []) == found


def test_problems_name_condition_class_and_remedy() -> None:
    found = check_conditions(conditions("dining tables", "pose"), class_names=CLASSES)
    assert found.class_words == {"dining tables": ["dining table"]}
    (problem,) = found.problems
    assert problem.startswith("condition 'dining tables' has class 'dining table' in its name")
    assert problem.endswith("name the aspect without it")


def test_neither_classes_nor_tower_nor_sentences_are_needed(backbone: Backbone) -> None:
    assert check_conditions(conditions("light", "pose")) == Findings([], {}, None, None, None)
    found = check(conditions("the", "dog cat"), backbone).overlap
    assert found is not None
    assert found["num_classes"] >= MIN_CLASSES
    assert check_conditions(find_conditions("generic")).problems == []


def judged(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, *percentiles: float, difference: float = 0.3) -> str:
    """What is said where the tower gives such numbers for three conditions."""
    pairs = [
        {"conditions": pair, "bare": 0.9 - number / 10, "bare_percentile": percentile, "prompts": 0.99}
        for number, (pair, percentile) in enumerate(zip(combinations("abc", 2), percentiles, strict=True))
    ]
    numbers = {"pairs": pairs, "bare_median": 0.5, "difference": difference}
    monkeypatch.setattr("fedmpt.conditions.checks.overlap", lambda names, **how: numbers)
    return "\n".join(check(conditions(*"abc"), backbone).problems)


def test_pairs_are_judged_by_the_pairs_of_classes(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    assert judged(monkeypatch, backbone, 0.94, 0.8, 0.1) == ""
    said = judged(monkeypatch, backbone, 0.97, 0.8, 0.1)
    assert said == "to this tower, 'a' and 'b' are closer than 97% of the pairs of classes; rename or drop one"
    assert len(judged(monkeypatch, backbone, 0.99, 0.98, 0.1).splitlines()) == 2
    said = judged(monkeypatch, backbone, 1.0, 1.0, 1.0, difference=0.009)
    assert said.startswith("this tower hardly tells the conditions apart: ")
    assert "cosines of 0.9900 and more, and another condition moves a prompt by 0.90% of what another class" in said
    assert len(said.splitlines()) == 1


def test_the_shipped_scenes_clip_does_not_tell_the_generic_conditions_apart() -> None:
    classes = tuple(read_attributes(FOLDER / "scenes.json").attributes)
    found = check(find_conditions("generic"), load_backbone("scenes-clip"), class_names=classes)
    assert found.overlap is not None
    assert all(pair["prompts"] > 0.999 for pair in found.overlap["pairs"])
    assert found.overlap["difference"] < 0.005
    assert any(problem.startswith("this tower hardly tells the conditions apart") for problem in found.problems)


SENTENCES = (
    "A dog stands in the shade.",  # lighting, pose
    "Cars PARKED on a street at NIGHT!",  # lighting, pose, place
    "A meadow.",  # place
    "Some object.",  # none: "object" is in two names
    "Closeup of a flower.",  # none
    "A flower in CLOSE-UP.",  # scale
    "Shade, the in.",  # none: not in this order
    "Good light on a nighthawk",  # lighting, by its name
)


def test_sentences_are_counted_by_words() -> None:
    some = (
        Condition("lighting and weather", cues=("night", "rain", "in the shade")),
        Condition("object pose", cues=("standing", "parked")),
        Condition("object scale", cues=("close-up",)),
        Condition("place", cues=("meadows", "streets")),
    )
    found = coverage(ConditionSet("x", some, {"sentences": sentences(*SENTENCES)}))
    assert found is not None
    assert found["num_sentences"] == 8
    shares = {"lighting and weather": 3 / 8, "object pose": 2 / 8, "object scale": 1 / 8, "place": 2 / 8}
    assert found["shares"] == shares
    assert found["covered"] == 5 / 8
    assert found["uncovered"] == [SENTENCES[3], SENTENCES[4], SENTENCES[6]]
    assert found["unused_cues"] == {"lighting and weather": ["rain"]}
    jaccard = {tuple(shared["conditions"]): shared["jaccard"] for shared in found["shared"]}
    assert len(jaccard) == 6
    assert jaccard["lighting and weather", "object pose"] == 2 / 3
    assert jaccard["lighting and weather", "place"] == 1 / 4
    assert jaccard["object pose", "object scale"] == 0


def test_conditions_that_no_sentence_speaks_of() -> None:
    assert coverage(conditions("sound", sentences=sentences())) is None
    found = coverage(conditions("sound", "smell", sentences=sentences(*(f"Word{number}." for number in range(100)))))
    assert found is not None
    assert (found["covered"], found["shared"]) == (0, [{"conditions": ["sound", "smell"], "jaccard": 0}])
    assert found["uncovered"] == ["Word0.", "Word20.", "Word40.", "Word60.", "Word80."]
    assert spread("abc", 5) == ["a", "b", "c"]


def test_what_sentences_show_is_said() -> None:
    light, dark = Condition("light", cues=("sun", "lamp")), Condition("day", cues=("sunny", "lamp"))
    other = Condition("smell")
    texts = (["A lamp."] * 3) + ["A dog."] * 10
    found = check_conditions(ConditionSet("x", (light, dark, other), {"sentences": sentences(*texts)}))
    assert [problem.partition(";")[0] for problem in found.problems] == [
        "0.0% of 13 sentences speak of condition 'smell'",
        "of sentences that speak of 'light' and 'day', 100% speak of both",
        "23% of 13 sentences have a cue of at least one condition",
    ]
    assert "'A dog.'" in found.problems[2]


def test_conditions_that_all_sentences_speak_of_are_no_overlap() -> None:
    both = (Condition("light", cues=("sun",)), Condition("place", cues=("park",)))
    found = check_conditions(
        ConditionSet("x", both, {"sentences": sentences(*["Sun in a park."] * 5, "Sun.", "Park.")})
    )
    assert found.coverage is not None
    assert found.coverage["shared"][0]["jaccard"] == pytest.approx(5 / 7)
    assert found.problems == []


def test_findings_are_json(backbone: Backbone) -> None:
    some = conditions("dogs", "the pose", sentences=sentences("A dog.", "Sky."))
    found = check(some, backbone, class_names=CLASSES)
    words = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert words == asdict(found)
    assert words["coverage"]["shares"] == {"dogs": 0.5, "the pose": 0.0}
    assert check(some, backbone, class_names=CLASSES) == found
