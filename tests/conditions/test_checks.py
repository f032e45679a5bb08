"""What checks say of conditions, and that their numbers are those of plain computations."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.text_tower import PromptEmbeddings, TextTower
from fedmpt.conditions.attributes import FOLDER, read_attributes
from fedmpt.conditions.checks import overlap as overlap_module
from fedmpt.conditions.checks.findings import NUM_CONTEXT, Findings, check_conditions, class_words, prompt_lengths
from fedmpt.conditions.checks.overlap import MAX_CLASSES, MIN_CLASSES, Overlap, Pair, classes_for, overlap
from fedmpt.conditions.record import Condition, ConditionSet, find_conditions
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.types import Backbone, InputError

NAMES = ("the pose", "light", "in")
CLASSES = (
    *("cat", "dog", "an axe", "dining table", "the o", "sea horse"),
    *("car", "bottle", "bus", "person", "sofa", "tv monitor"),
)


@pytest.fixture(scope="module")
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))


def conditions(*names: str, **provenance: Any) -> ConditionSet:
    return ConditionSet("x", tuple(map(Condition, names)), provenance)


def sentences(*texts: str) -> list[dict[str, Any]]:
    return [{"classes": ["x"], "sentences": list(texts)}]


def plain_feature(backbone: Backbone, text: str) -> Tensor:
    """Of a whole prompt, by transformers' own tower."""
    ids = torch.tensor([backbone.tokenizer(text, add_special_tokens=True)["input_ids"]])
    with torch.no_grad():
        return F.normalize(backbone.text_model(input_ids=ids).text_embeds[0], dim=-1)


def cosine(backbone: Backbone, one: str, other: str) -> float:
    return float(plain_feature(backbone, one) @ plain_feature(backbone, other))


def test_cosines_are_those_of_whole_prompts_through_the_tower(backbone: Backbone) -> None:
    found = overlap(NAMES, class_names=CLASSES, backbone=backbone)
    bare = [cosine(backbone, f"{one}.", f"{other}.") for one, other in combinations(CLASSES, 2)]
    in_prompts = [
        cosine(backbone, f"{name} a photo of a {one}.", f"{name} a photo of a {other}.")
        for name in NAMES
        for one, other in combinations(CLASSES, 2)
    ]
    assert {pair.conditions for pair in found.pairs} == set(combinations(NAMES, 2))
    moved = []
    for pair in found.pairs:
        one, other = pair.conditions
        prompts = [cosine(backbone, f"{one} a photo of a {c}.", f"{other} a photo of a {c}.") for c in CLASSES]
        assert pair.bare == pytest.approx(cosine(backbone, f"{one}.", f"{other}."), abs=1e-5)
        assert pair.prompts == pytest.approx(np.mean(prompts), abs=1e-5)
        assert pair.bare_percentile == pytest.approx(np.mean(np.array(bare) < pair.bare), abs=0.02)
        assert pair.prompts_percentile == pytest.approx(np.mean(np.array(in_prompts) < pair.prompts), abs=0.02)
        moved.append(1 - np.mean(prompts))
    assert [pair.bare for pair in found.pairs] == sorted((pair.bare for pair in found.pairs), reverse=True)
    assert found.num_classes == len(CLASSES)
    assert found.bare_median == pytest.approx(np.median(bare), abs=0.01)
    assert found.prompts_median == pytest.approx(np.median(in_prompts), abs=0.01)
    assert found.difference == pytest.approx(np.mean(moved) / np.mean(1 - np.array(in_prompts)), rel=1e-3)


def test_a_single_condition_has_no_pairs(backbone: Backbone) -> None:
    found = overlap(("light",), class_names=CLASSES, backbone=backbone)
    assert (found.pairs, found.difference) == ((), None)
    assert not check_conditions(conditions("in"), class_names=("cat", "dog"), backbone=backbone).problems


def test_short_lists_of_classes_are_filled_up_and_long_ones_sampled() -> None:
    assert len(classes_for(())) >= MIN_CLASSES
    assert classes_for(("dog", "cup"))[:3] == ("dog", "cup", "car")
    assert len(classes_for(("dog", "cup"))) == len(set(classes_for(("dog", "cup"))))
    assert classes_for(CLASSES) == CLASSES
    many = classes_for([f"class {number}" for number in range(5000)])
    assert many == tuple(f"class {number}" for number in range(0, 5000, 50))


def test_thousands_of_classes_are_not_encoded_for_every_condition(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def encode(self: TextTower, prompts: PromptEmbeddings) -> Tensor:
        encoded.append(prompts.num_prompts)
        return torch.randn(len(prompts.prefixes), len(prompts.suffixes), 40)

    monkeypatch.setattr(TextTower, "encode", encode)
    classes = [f"class {number}" for number in range(5000)]
    found = check_conditions(find_conditions("generic"), class_names=classes, backbone=backbone)
    assert found.overlap is not None
    assert found.overlap.num_classes == MAX_CLASSES
    assert sum(encoded) == 5 + MAX_CLASSES + 5 * MAX_CLASSES


def test_lengths_are_those_of_fedmpts_prompts(backbone: Backbone) -> None:
    assert FedMPTConfig().num_condition_context == FedMPTConfig().num_class_context == NUM_CONTEXT
    names, classes = ("in", "dog the cat"), ("cat", "xy")
    found = prompt_lengths(names, class_names=classes, backbone=backbone)
    # In this tokenizer "in" is two letters, "xy" too; "dog", "the" and "cat" are a token each.
    assert found.names == {"in": 2, "dog the cat": 3}
    assert found.longest_parts == ("dog the cat", "xy")
    assert found.longest == 1 + 4 + 3 + 4 + 2 + 1 + 1
    assert found.compared == len(
        backbone.tokenizer("dog the cat a photo of a xy.", add_special_tokens=True)["input_ids"]
    )
    config = FedMPTConfig(conditions=names, rank=4)
    embeddings = config.build(backbone, classes, generator=torch.Generator()).template.embed(
        torch.zeros(2, 4, 48), torch.zeros(4, 48)
    )
    assert embeddings.max_length == found.longest
    assert found.limit == 77


def test_words_that_the_tokenizer_breaks_are_named(backbone: Backbone) -> None:
    found = check_conditions(conditions("dog light", "the qqq"), backbone=backbone)
    assert found.lengths is not None
    assert found.lengths.pieces == {"light": 5}
    assert any("breaks words into many pieces ('light' into 5)" in problem for problem in found.problems)


def test_a_prompt_that_is_too_long_is_a_problem_and_nothing_is_encoded(backbone: Backbone) -> None:
    found = check_conditions(conditions("x" * 60, "pose"), class_names=["dog", "cat", "y" * 12], backbone=backbone)
    assert found.overlap is None
    assert re.match(
        r"the prompt for condition 'x+' and class 'y+' has 83 tokens, the tower takes 77", found.problems[0]
    )
    with pytest.raises(InputError, match="has 83 tokens, the text tower takes 77"):
        FedMPTConfig(conditions=("x" * 60, "pose")).build(
            backbone, ["dog", "cat", "y" * 12], generator=torch.Generator()
        )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Dining  tables", ("dining table",)),
        ("behind a tv-monitor", ("tv monitor",)),
        ("cars and PEOPLE", ("car", "person")),
        ("bus", ("bus",)),
        ("buses", ("bus",)),
        ("table", ()),
        ("table dining", ()),
        ("carpet", ()),
        ("lighting", ()),
    ],
)
def test_classes_in_a_name_are_found_as_whole_words(name: str, found: tuple[str, ...]) -> None:
    assert class_words([name, "pose"], CLASSES).get(name, ()) == found


def test_problems_name_condition_class_and_remedy() -> None:
    found = check_conditions(conditions("dining tables", "pose"), class_names=CLASSES)
    assert found.class_words == {"dining tables": ("dining table",)}
    (problem,) = found.problems
    assert problem.startswith("condition 'dining tables' has class 'dining table' in its name")
    assert problem.endswith("name the aspect without it")


def test_neither_classes_nor_tower_nor_sentences_are_needed(backbone: Backbone) -> None:
    assert check_conditions(conditions("light", "pose")) == Findings((), {}, None, None, None)
    found = check_conditions(conditions("the", "dog cat"), class_names=None, backbone=backbone)
    assert found.overlap is not None
    assert found.overlap.num_classes >= MIN_CLASSES


def test_the_generic_conditions_alone_are_no_problem() -> None:
    assert check_conditions(find_conditions("generic")).problems == ()


def judged(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, *percentiles: float, difference: float = 0.3) -> str:
    """What is said where the tower gives such numbers for three conditions."""
    pairs = [
        Pair(pair, 0.9 - number / 10, percentile, 0.99, 1.0)
        for number, (pair, percentile) in enumerate(zip(combinations("abc", 2), percentiles, strict=True))
    ]
    numbers = Overlap(tuple(pairs), 12, 0.5, 0.6, difference)
    monkeypatch.setattr("fedmpt.conditions.checks.findings.overlap", lambda names, **how: numbers)
    return "\n".join(check_conditions(conditions(*"abc"), backbone=backbone).problems)


def test_pairs_are_judged_by_the_pairs_of_classes(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    assert judged(monkeypatch, backbone, 0.94, 0.8, 0.1) == ""
    said = judged(monkeypatch, backbone, 0.97, 0.8, 0.1)
    assert "conditions 'a' and 'b' are closer than 97% of the pairs of classes (cosine 0.900, classes 0.500" in said
    said = judged(monkeypatch, backbone, 0.99, 0.98, 0.1)
    assert said.startswith("to this tower, 2 of 3 pairs of conditions are closer than 95% of the pairs of classes, 'a'")
    assert len(said.splitlines()) == 1


def test_a_tower_that_does_not_tell_conditions_apart_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch, backbone: Backbone
) -> None:
    said = judged(monkeypatch, backbone, 1.0, 1.0, 1.0, difference=0.009)
    assert said.startswith("this tower hardly tells the conditions apart: ")
    assert "cosines of 0.9900 and more, and another condition moves a prompt by 0.90% of what another class" in said
    assert len(said.splitlines()) == 1


def test_the_shipped_scenes_clip_does_not_tell_the_generic_conditions_apart() -> None:
    classes = tuple(read_attributes(FOLDER / "scenes.json").attributes)
    found = check_conditions(find_conditions("generic"), class_names=classes, backbone=load_backbone("scenes-clip"))
    assert found.overlap is not None
    assert all(pair.prompts > 0.999 for pair in found.overlap.pairs)
    assert found.overlap.difference is not None
    assert found.overlap.difference < 0.005
    assert any(problem.startswith("this tower hardly tells the conditions apart") for problem in found.problems)


def test_what_sentences_show_is_said() -> None:
    light, dark = Condition("light", cues=("sun", "lamp")), Condition("day", cues=("sunny", "lamp"))
    other = Condition("smell")
    texts = (["A lamp."] * 3) + ["A dog."] * 10
    found = check_conditions(ConditionSet("x", (light, dark, other), {"sentences": sentences(*texts)}))
    assert [problem.partition(";")[0] for problem in found.problems] == [
        "0.0% of 13 sentences speak of condition 'smell'",
        "conditions 'light' and 'day' occur together in 100% of the sentences that speak of either",
        "23% of 13 sentences have a cue of at least one condition",
    ]
    assert "give it cues" in found.problems[0]
    assert "'A dog.'" in found.problems[2]


def test_conditions_that_all_sentences_speak_of_are_no_overlap() -> None:
    both = (Condition("light", cues=("sun",)), Condition("place", cues=("park",)))
    found = check_conditions(
        ConditionSet("x", both, {"sentences": sentences(*["Sun in a park."] * 5, "Sun.", "Park.")})
    )
    assert found.coverage is not None
    assert found.coverage.shared[0].jaccard == pytest.approx(5 / 7)
    assert found.problems == ()


def test_broken_sentences_are_an_input_error() -> None:
    with pytest.raises(InputError, match="provenance, sentences: 3 is no list"):
        check_conditions(conditions("light", sentences=3))


def test_findings_are_json(backbone: Backbone) -> None:
    some = conditions("dogs", "the pose", sentences=sentences("A dog.", "Sky."))
    found = check_conditions(some, class_names=CLASSES, backbone=backbone)
    words = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert words["problems"] == list(found.problems)
    assert words["coverage"]["shares"] == {"dogs": 0.5, "the pose": 0.0}
    assert words["overlap"]["pairs"][0]["conditions"] == ["dogs", "the pose"]
    assert words["lengths"]["limit"] == 77
    assert check_conditions(some, class_names=CLASSES, backbone=backbone) == found


def test_the_phrase_between_is_what_fedmpts_tokens_start_from() -> None:
    assert FedMPTConfig().class_context_init == overlap_module.PHRASE
