"""Answers of language models are read in any wrapping, and what is wrong with them is said to the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted import CLASSES, CONDITIONS, Rule, careless, chatty, fenced, good, sentences_for, stems_of

from fedmpt.conditions.attributes import FOLDER, read_attributes, shipped_attributes
from fedmpt.conditions.pipeline.answers import ConditionReader, is_attribute, lists_in, sentence_reader
from fedmpt.conditions.pipeline.naming import NameRules, cleaned, printable, quoted
from fedmpt.conditions.pipeline.options import GenerateOptions
from fedmpt.conditions.pipeline.prompts import describe_request
from fedmpt.conditions.record import Described
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer

PAIR, SINGLE = ("dining table", "chair"), ("cat",)
DESCRIBED = tuple(Described((name,), tuple(sentences_for((name,)))) for name in CLASSES)


def read(text: str, num: int) -> dict[int, list[str]]:
    return lists_in(Answer(text), num, "{...}")


# Lists by number.


@pytest.mark.parametrize(
    "text",
    [
        '{"thinking": {"1": ["no"]}, "1": ["a", "b"], "2": []}',
        '{"1": ["a", "b",], "2": [],} // done',
        "{'thinking': 'hm', '1': ['a', 'b'], '2': None}",
        '{1: ["a", "b"], /* two */ 2: []}',
        '{"line 1": ["a", "b"], "2.": []}',
        '[{"1": ["a", "b"]}, {"2": []}]',
        'First: {"1": ["no"], "2": ["no"]} No, better: {"1": ["a", "b"], "2": []}',
        'I [think] that {this}:\n```json\n{"1": ["a", "b"], "2": []}\n``` Ask [me] for more.',
        "{“1”: [“a”, “b”], “2”: []}",
    ],
)
def test_lists_are_found_by_their_numbers(text: str) -> None:
    assert read(text, 2) == {1: ["a", "b"], 2: []}


@pytest.mark.parametrize("text", ['["a", "b"]', '{"1": "a"}', 'So: {"1": ["a"]}'])
def test_of_a_single_thing_the_number_may_be_left_out(text: str) -> None:
    assert read(text, 1)[1][0] == "a"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("I'm sorry, but no."), r"no JSON object of the form \{\.\.\.\}\. It says \"I'm sorry, but no\.\"\.$"),
        (Answer("  "), "no JSON object"),
        (Answer('{"thinking": "and then and then', "length"), "no JSON object.*cut off at the limit"),
        (Answer('{"thinking": "hm"}'), r"no JSON object of the form \{\.\.\.\}"),
        (Answer('{"1": 5, "2": [{"a": "b"}]}'), r"no JSON object of the form \{\.\.\.\}"),
        (Answer("[" * 500), "its JSON cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_to_the_model(answer: Answer, reason: str) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        lists_in(answer, 2, "{...}")


# Sentences.


@pytest.mark.parametrize("wrapping", [good, chatty, fenced, careless])
def test_answers_in_any_wrapping_give_the_same_sentences(wrapping: Rule) -> None:
    request = describe_request([PAIR, SINGLE], GenerateOptions())
    said = wrapping(request)
    assert isinstance(said, str)
    found = sentence_reader([PAIR, SINGLE], 3).read(Answer(said))
    assert found == {1: tuple(sentences_for(PAIR)[:3]), 2: tuple(sentences_for(SINGLE)[:3])}


def test_what_one_answer_lacks_the_next_may_give() -> None:
    reader = sentence_reader([PAIR, SINGLE, SINGLE], 3)
    with pytest.raises(BadAnswerError) as bad:
        reader.read(Answer('{"1": ["A chair."], "2": ["...", "cat"]}'))
    assert str(bad.value) == (
        "for 2, no text is a sentence in one line of 3 to 200 characters about the things; there is nothing for 3. "
        'What is still needed is {"thinking": "...", "2": ["...", "..."], "3": ["...", "..."]}'
    )
    assert (reader.found, reader.missing()) == ({1: ("A chair.",)}, [2, 3])
    # A list that ends before its first text is not an empty one, and that one says that there is no such photo.
    with pytest.raises(BadAnswerError, match=r"^there is nothing for 3\. It was cut off"):
        reader.read(Answer('{"1": ["changed"], "2": [], "3": ["A c', "length"))
    assert reader.read(Answer('{"3": ["A cat."]}')) == {1: ("A chair.",), 2: (), 3: ("A cat.",)}


def test_of_what_is_cut_off_whole_texts_are_kept_and_no_half_ones() -> None:
    whole = {"thinking": 'x, "y"', "1": ["one", "two"], "2": ["three, 3"], "3": ["four"]}
    text = json.dumps(whole)
    texts = {"one", "two", "three, 3", "four"}
    for end in range(1, len(text)):
        try:
            found = lists_in(Answer(text[:end], "length"), 3, "")
        except BadAnswerError:
            assert end < text.index("two")
        else:
            assert {text for listed in found.values() for text in listed} <= texts, text[:end]
    assert found == {1: ["one", "two"], 2: ["three, 3"], 3: ["four"]}


def test_sentences_are_short_lines_each_once() -> None:
    texts = ['1. "A cat on a mat."', "a CAT on a mat", "A cat\non a roof.", "x" * 201, "ok", "...", "Cats", "A kitten."]
    found = sentence_reader([SINGLE], 20).read(Answer(json.dumps({"1": texts})))
    assert found == {1: ("A cat on a mat.", "A cat on a roof.", "A kitten.")}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('  1. "A cat."  ', "A cat."),
        ("- **A cat**", "A cat"),
        ("12) a\n b\u200b\x00c", "a b c"),
        ("3 cats on a mat", "3 cats on a mat"),
        ("3:30 in the afternoon", "3:30 in the afternoon"),
        ("“Chat”", "Chat"),
    ],
)
def test_texts_are_cleaned_to_one_line(text: str, line: str) -> None:
    assert cleaned(text) == line
    assert printable(f" {line}\n") == line


def test_what_is_quoted_is_one_short_json_string() -> None:
    text = quoted('a"]}\n Ignore \u202e' + "x" * 100)
    assert len(text) < 100
    assert text.isprintable()
    assert json.loads(text).startswith('a"]}\n Ignore')


# Attributes.


@pytest.mark.parametrize("name", shipped_attributes())
def test_the_shipped_attributes_keep_to_the_rules(name: str) -> None:
    shipped = read_attributes(FOLDER / f"{name}.json").attributes
    assert [(owner, text) for owner, texts in shipped.items() for text in texts if not is_attribute(text, owner)] == []


@pytest.mark.parametrize(
    ("phrase", "class_name"),
    [
        ("ears of a cat", "cat"),
        ("people's hands", "person"),
        ("dining-table legs", "dining table"),
        ("x" * 61, "cat"),
        ("...", "cat"),
    ],
)
def test_phrases_that_name_their_class_or_are_not_short_are_none(phrase: str, class_name: str) -> None:
    assert not is_attribute(phrase, class_name)


# Conditions.


def reader(num: int = 3, *, at_least: int | None = None) -> ConditionReader:
    options, rules = GenerateOptions(num=num), NameRules(CLASSES)
    return ConditionReader(options, rules, stems_of(DESCRIBED), at_least=at_least or num)


def answer(*conditions: Any, finish: Any = "stop") -> Answer:
    return Answer(json.dumps({"thinking": "hm", "conditions": list(conditions)}), finish)


def test_the_first_conditions_are_taken_with_cues_that_occur() -> None:
    read = reader(5).read(answer(*CONDITIONS))
    assert [condition.name for condition in read] == ["camera distance", "place", "lighting", "arrangement", "occasion"]
    assert read[0].cues == ()
    assert read[1].cues == ("kitchen", "street", "garden")
    assert read[2].description == "What light falls on it."
    cues = ["Sunny", "sunny", "rains", "sunny morning", "snowy morning", "cat", "dining tables", "the", "", "x" * 31]
    (condition,) = reader(1).read(answer({"name": "light", "cues": cues}))
    assert condition.cues == ("sunny", "rains", "sunny morning")


@pytest.mark.parametrize(
    "text",
    [
        '{"conditions": ["Place", "Light", "season"]}',
        'Sure [1]: [{"name": "Place", "description": "there"}, {"name": "Light", "cues": "x"}, {"name": "season"}]',
        'I [think] so: {"thinking": "no", "conditions": [{"name": "Place"}, {"name": "Light"}, {"name": "Season"}]}',
        '{"conditions": [{"name": "no"}]} Better: {"conditions": [{"name": "Place"}, {"name": "Light"}, "season"]}',
    ],
)
def test_conditions_are_found_in_any_form(text: str) -> None:
    assert [condition.name for condition in reader(3).read(Answer(text))] == ["place", "light", "season"]


@pytest.mark.parametrize(
    "text",
    [
        '{"conditions": [{"title": "place"}]}',
        '{"conditions": "place"}',
        '{"conditions": [["place"], 3, null]}',
        '["joy"]',
        "none",
        '{"thinking": "My heart is full of joy."} There is [only] one.',
    ],
)
def test_what_is_not_of_the_form_is_said_to_the_model(text: str) -> None:
    with pytest.raises(BadAnswerError, match="it has no JSON object of the form"):
        reader().read(Answer(text))


def test_what_is_good_stays_and_only_the_rest_is_asked_for() -> None:
    asking = reader(3)
    with pytest.raises(BadAnswerError) as bad:
        asking.read(answer({"name": "place"}, {"name": "Places"}, {"name": "cat pose"}, {"name": "a:b\nIgnore"}))
    assert str(bad.value) == (
        '"Places": it is about the same as "place"; "cat pose": it names the label "cat"; "a:b\\nIgnore": it has other '
        'characters than letters, digits, spaces, hyphens and slashes. Usable so far: "place"; keep these. 2 more are '
        "needed, with names of 1 to 3 words, about something else."
    )
    with pytest.raises(BadAnswerError, match=r'^there are too few conditions.*so far: "place", "light"; .* 1 more'):
        asking.read(answer({"name": "place"}, {"name": "light"}))
    assert [each.name for each in asking.read(answer({"name": "season"}))] == ["place", "light", "season"]


def test_a_part_may_propose_fewer_and_none_is_more_than_was_asked_for() -> None:
    assert len(reader(3, at_least=1).read(answer({"name": "place"}))) == 1
    with pytest.raises(BadAnswerError, match="None is usable so far"):
        reader(3, at_least=1).read(answer({"name": "cat"}))
    assert len(reader(2).read(answer(*CONDITIONS))) == 2


def test_what_is_cut_off_is_used_if_enough_is_there() -> None:
    whole = answer(*CONDITIONS).text
    cut = Answer(whole[: whole.index("Arrangement")], "length")
    assert len(reader(3).read(cut)) == 3
    with pytest.raises(BadAnswerError, match="cut off at the limit"):
        reader(4).read(cut)
