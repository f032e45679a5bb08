"""The shipped attributes: complete for their class lists, short, without doubles and without names of other classes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from fedmpt.backbone.load import BUILT_IN
from fedmpt.conditions.attributes import FOLDER, AttributeList, find_attributes, read_attributes, shipped_attributes
from fedmpt.data.datasets import multi_scene, voc
from fedmpt.data.datasets.scenes import scene as vocabulary
from fedmpt.files import read_json

# COCO, NUS-WIDE and MLRSNet are read with the classes of their own files; these are the official ones, in their order.
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
NUS_WIDE = (
    "airport", "animal", "beach", "bear", "birds", "boats", "book", "bridge", "buildings", "cars", "castle", "cat",
    "cityscape", "clouds", "computer", "coral", "cow", "dancing", "dog", "earthquake", "elk", "fire", "fish", "flags",
    "flowers", "food", "fox", "frost", "garden", "glacier", "grass", "harbor", "horses", "house", "lake", "leaf",
    "map", "military", "moon", "mountain", "nighttime", "ocean", "person", "plane", "plants", "police", "protest",
    "railroad", "rainbow", "reflection", "road", "rocks", "running", "sand", "sign", "sky", "snow", "soccer",
    "sports", "statue", "street", "sun", "sunset", "surf", "swimmers", "tattoo", "temple", "tiger", "tower", "town",
    "toy", "train", "tree", "valley", "vehicle", "water", "waterfall", "wedding", "whales", "window", "zebra",
)  # fmt: skip
MLRSNET = (
    "airplane", "airport", "bare soil", "baseball diamond", "basketball court", "beach", "bridge", "buildings", "cars",
    "chaparral", "cloud", "containers", "crosswalk", "dense residential area", "desert", "dock", "factory", "field",
    "football field", "forest", "freeway", "golf course", "grass", "greenhouse", "gully", "harbor", "intersection",
    "island", "lake", "mobile home", "mountain", "overpass", "park", "parking lot", "parkway", "pavement", "railway",
    "railway station", "river", "road", "roundabout", "runway", "sand", "sea", "ships", "snow", "snowberg",
    "sparse residential area", "stadium", "swimming pool", "tanks", "tennis court", "terrace", "track", "trail",
    "transmission tower", "trees", "water", "wetland", "wind turbine",
)  # fmt: skip

CLASSES = {
    "voc2007": voc.CLASS_NAMES,
    "coco2014": COCO,
    "nus-wide": NUS_WIDE,
    "scenes": vocabulary.CLASS_NAMES,
    "multi-scene-clean": multi_scene.CLASS_NAMES,
    "mlrsnet": MLRSNET,
}
NUM_CLASSES = {
    "voc2007": 20,
    "coco2014": 80,
    "nus-wide": 81,
    "scenes": 28,
    "multi-scene-clean": 36,
    "mlrsnet": 60,
}
IRREGULAR = {"person": ["people"], "leaf": ["leaves"], "mouse": ["mice"], "knife": ["knives"]}

every_list = pytest.mark.parametrize("name", CLASSES)


@cache
def shipped(name: str) -> AttributeList:
    return read_attributes(FOLDER / f"{name}.json")


def phrases(name: str) -> list[tuple[str, str]]:
    return [(owner, text) for owner, texts in shipped(name).attributes.items() for text in texts]


def mentions(text: str, class_name: str) -> bool:
    """Whether a class is named in a text, as a word of its own or joined to others, one or several of it."""
    forms = {
        class_name,
        f"{class_name}s",
        f"{class_name}es",
        class_name.removesuffix("s"),
        *IRREGULAR.get(class_name, []),
    }
    forms |= {f"{class_name[:-1]}ies"} if class_name.endswith("y") else set()
    return any(re.search(rf"\b{re.escape(form)}\b", text, re.IGNORECASE) for form in forms)


def test_the_lists_are_those_of_the_benchmarks_and_nothing_else_is_shipped() -> None:
    assert set(shipped_attributes()) == set(CLASSES)
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.json" for name in CLASSES}


@every_list
def test_every_class_of_the_reader_has_four_attributes(name: str) -> None:
    attributes = shipped(name).attributes
    assert len(CLASSES[name]) == NUM_CLASSES[name]
    assert tuple(attributes) == CLASSES[name]
    assert {len(texts) for texts in attributes.values()} == {4}


@every_list
def test_attributes_are_short_plain_phrases(name: str) -> None:
    for owner, text in phrases(name):
        assert 2 <= len(text.split()) <= 8, (owner, text)
        assert re.fullmatch(r"[A-Za-z0-9]+(?:,? [A-Za-z0-9]+|-[A-Za-z0-9]+)*", text), (owner, text)


@every_list
def test_no_two_classes_of_a_list_share_an_attribute(name: str) -> None:
    texts = [text.casefold() for _, text in phrases(name)]
    assert len(set(texts)) == len(texts)


@every_list
def test_no_attribute_names_a_class_of_its_list(name: str) -> None:
    named = [(owner, text, other) for owner, text in phrases(name) for other in CLASSES[name] if mentions(text, other)]
    assert named == []


def test_the_search_for_class_names_finds_them() -> None:
    for text, class_name in [
        ("two Birds on it", "bird"),
        ("a bird", "birds"),
        ("orange-coloured", "orange"),
        ("green leaves", "leaf"),
        ("a dining table behind", "dining table"),
        ("two factories", "factory"),
    ]:
        assert mentions(text, class_name)
    assert not mentions("a roadway", "road")
    assert not mentions("carpet of green", "car")


def test_lists_spell_a_class_they_share_in_one_way() -> None:
    # Otherwise a name as written in a later list would have to go before one that is only alike in an earlier one.
    names = {class_name for classes in CLASSES.values() for class_name in classes}
    assert len({re.sub(r"[\W_]", "", class_name.casefold()) for class_name in names}) == len(names)


@every_list
def test_where_they_come_from_is_stated(name: str) -> None:
    stored = read_json(FOLDER / f"{name}.json")
    assert stored["name"] == name
    assert "language model" in stored["provenance"]["model"]
    assert "without seeing images" in stored["provenance"]["method"]
    assert stored["provenance"]["date"] == "2026-11-24"
    assert ("from above" in stored["provenance"]["method"]) == (name in ("multi-scene-clean", "mlrsnet"))


@every_list
def test_without_a_name_each_benchmark_gets_its_own_list(name: str) -> None:
    found = find_attributes("", CLASSES[name][::-1])
    assert found.sources == {name: shipped(name).content_hash}
    assert found.attributes == tuple(shipped(name).attributes.values())[::-1]


def longest(tokenizer: CLIPTokenizer, name: str) -> int:
    """Tokens of the longest prompt, with start and end."""
    return max(len(tokenizer(f"a photo of a {owner}, which has {text}.")["input_ids"]) for owner, text in phrases(name))


@every_list
def test_prompts_take_less_than_half_of_clips_tokens(shared: Path, name: str) -> None:
    assert longest(CLIPTokenizer.from_pretrained(shared / "clip_tokenizer"), name) <= 77 // 2


def test_prompts_fit_the_model_that_comes_with_the_package_although_it_spells_most_words() -> None:
    assert longest(CLIPTokenizer.from_pretrained(BUILT_IN["scenes-clip"]), "scenes") <= 77
