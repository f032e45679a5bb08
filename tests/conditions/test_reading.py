"""Answers of language models are read in any wrapping, and nothing in them can do harm."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from fedmpt.conditions.pipeline.loose_json import MAX_DEPTH, MAX_VALUES, Found, LooseJSONError, find_values
from fedmpt.conditions.pipeline.reading import (
    MAX_CHARACTERS,
    MAX_LINE,
    NumberedReader,
    cleaned,
    listed_items,
    numbered_lists,
    quoted,
    values_in,
)
from fedmpt.llm.asking import BadAnswerError
from fedmpt.llm.model import Answer


def random_value(source: random.Random, depth: int = 0) -> Any:
    kind = source.random()
    if depth > 5 or kind < 0.45:
        return "".join(source.choice("ab\"\\'\n\t,]}:[{ é😀/#…") for _ in range(source.randint(0, 8)))
    if kind < 0.5:
        return None
    if kind < 0.75:
        return [random_value(source, depth + 1) for _ in range(source.randint(0, 4))]
    return {str(random_value(source, 9)): random_value(source, depth + 1) for _ in range(source.randint(0, 4))}


@pytest.mark.parametrize("seed", range(5))
def test_what_json_writes_is_read_back_and_may_be_cut_anywhere(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(300):
        value = [random_value(source)]
        text = json.dumps(value, ensure_ascii=source.random() < 0.5, indent=source.choice([None, 1]))
        assert find_values(f"so: {text} and") == [Found(value, True)]
        cut = find_values(text[: source.randint(1, len(text) - 1)])
        assert len(cut) == 1
        assert not cut[0].complete


def is_start(part: Any, whole: Any) -> bool:
    """Whether a value can be what is left of another one that was cut off."""
    if isinstance(whole, list) and isinstance(part, list) and part:
        return part[:-1] == whole[: len(part) - 1] and is_start(part[-1], whole[len(part) - 1])
    if isinstance(whole, dict) and isinstance(part, dict) and part:
        keys = list(part)
        last = keys.pop()
        return (
            list(whole)[: len(part)] == list(part)
            and all(part[k] == whole[k] for k in keys)
            and is_start(part[last], whole[last])
        )
    return part in ([], {}) or part == whole


def test_of_what_is_cut_off_whole_texts_are_kept_and_no_half_ones() -> None:
    whole = {"thinking": "x", "1": ["one", "two"], "2": {"a": ["three"], "b": None}, "3": ["four"]}
    text = json.dumps(whole)
    for end in range(1, len(text)):
        (found,) = find_values(text[:end])
        assert is_start(found.value, whole), text[:end]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"1": ["a", "b",],}', {"1": ["a", "b"]}),
        ("{'1': ['the dog's bowl', 'it\\'s']}", {"1": ["the dog's bowl", "it's"]}),
        ('{1: ["a"], /* two */ two: null} // done', {"1": ["a"], "two": None}),
        ('{"a": [ # none\n], ...}', {"a": []}),
        ('{"a": True, "b": -1.5e3, "c": "two\nlines"}', {"a": None, "b": "-1.5e3", "c": "two\nlines"}),
        ("{“a”: [“b”]}", {"a": ["b"]}),
        (r'["\ud83d\ude00 \u00e9 \ud83d \q"]', ["😀 é � q"]),
    ],
)
def test_json_as_models_write_it_is_read(text: str, expected: Any) -> None:
    assert [found.value for found in find_values(text)] == [expected]


def test_brackets_that_are_no_json_are_passed_over() -> None:
    text = 'I [think] that {this} is ["a" "b"]: (x) ["c"]'
    assert [found.value for found in find_values(text)] == [["c"]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, f"nested more than {MAX_DEPTH} deep"),
        ('{"a":' * 50_000, "nested"),
        ('{"1": ["a"], "1": ["b"]}', "key '1' stands twice"),
        ("[" + "1," * (MAX_VALUES + 1) + "1]", f"more than {MAX_VALUES} values"),
        ("[@" * (MAX_VALUES + 1), "values"),
        ("{" * (MAX_VALUES + 1), "values"),
        ("['" * 190_000 + "', and so on", "too many brackets"),
        ("[/*" * 130_000 + "*/ and so on", "too many brackets"),
        ("[#" * 190_000 + "\nand so on", "too many brackets"),
    ],
)
def test_json_that_may_do_harm_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LooseJSONError, match=reason):
        find_values(text)
    with pytest.raises(BadAnswerError, match=f"its JSON cannot be read: .*{reason}"):
        values_in(Answer(text))


@pytest.mark.parametrize(
    "text", ["['a " * 50_000, "[/*" * 50_000, '["' + "x" * 200_000, "['" + "' " * 90_000, "9" * 100_000]
)
def test_long_answers_without_end_are_read_in_one_pass(text: str) -> None:
    assert all(not found.complete for found in find_values(text))


def test_numbers_of_thousands_of_digits_are_only_text() -> None:
    digits = "9" * 5000
    assert find_values(f'{{"1": {digits}}}') == [Found({"1": digits}, True)]
    assert numbered_lists(Answer(f'{{"1": [{digits}]}}'), 1, expected="")[0] == {1: [digits]}
    with pytest.raises(BadAnswerError):
        numbered_lists(Answer(f'{{"{digits}": ["x"]}}'), 2, expected="")


def read(text: str, num: int) -> dict[int, list[str]]:
    return numbered_lists(Answer(text), num, expected="{...}")[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"thinking": {"1": ["no"]}, "1": ["a", "b"], "2": []}',
        '{"answer": {"line 1": ["a", "b"], "2.": []}}',
        '[{"1": ["a", "b"]}, {"2": []}]',
        '[["a", "b"], []]',
        '{"1": {"sentences": ["a"], "other": "b"}, "2": null}',
        '{"1": {"sentence 1": "a", "sentence 2": "b"}, "2": []}',
        'First: {"1": ["no"], "2": ["no"]} No, better: {"1": ["a", "b"], "2": []}',
        'A draft: {"1": ["no"]} ```json\n{"1": ["a", "b"], "2": []}\n``` Or {"2": ["no"]}',
        '<think>{"1": ["no"], "2": ["no"]}</think>{"1": ["a", "b"], "2": []}',
    ],
)
def test_lists_are_found_by_their_numbers(text: str) -> None:
    assert read(text, 2) == {1: ["a", "b"], 2: []}


@pytest.mark.parametrize("text", ['["a", "b"]', '{"sentences": ["a", "b"]}', '{"1": "a", "x": ["b"]}', "1. a\n2. b"])
def test_of_a_single_thing_the_number_may_be_left_out(text: str) -> None:
    assert read(text, 1)[1][0] == "a"


def test_lists_in_plain_text_are_told_from_json() -> None:
    text = "Sure!\n\n**1.** Cat and dog:\n- a\n* b\n\n2) Car:\n   1. c\n   2. d\n\n3. nothing"
    assert numbered_lists(Answer(text), 2, expected="") == ({1: ["a", "b"], 2: ["c", "d"]}, False)
    assert [(item.number, item.text) for item in listed_items("- x\n• **y**\n")] == [(None, "x"), (None, "y")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("I'm sorry, but I can't do this."), "was declined.*Please"),
        (Answer("I\N{RIGHT SINGLE QUOTATION MARK}m really sorry, no."), "was declined"),
        (Answer("As an AI, I have no eyes."), "was declined"),
        (Answer("whatever", "refusal"), "was declined"),
        (Answer("  "), "nothing after the thoughts"),
        (Answer("<think>so long", "length"), "nothing after the thoughts.*cut off at the limit"),
        (Answer("Cats are nice."), r"no JSON object of the form \{\.\.\.\}"),
        (Answer("Cats are", "length"), "no JSON object.*cut off at the limit"),
        (Answer("x" * (MAX_CHARACTERS + 1)), "it has 400001 characters"),
    ],
)
def test_what_cannot_be_read_is_said_to_the_model(answer: Answer, reason: str) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        numbered_lists(answer, 2, expected="{...}")


def test_an_apology_before_a_list_is_no_refusal() -> None:
    assert read('I\'m sorry for the delay. {"1": ["a"], "2": []}', 2) == {1: ["a"], 2: []}


class Plain(NumberedReader):
    def take(self, number: int, texts: Sequence[str], *, from_json: bool) -> str | None:
        if not texts:
            return "there is no text"
        self.found[number] = tuple(texts)
        return None


def test_what_one_answer_lacks_the_next_may_give() -> None:
    reader = Plain(3)
    with pytest.raises(BadAnswerError, match=r'^for 2, there is no text; there is nothing for 3\. .*"2": .*"3"') as bad:
        reader.read(Answer('{"1": ["a"], "2": []}'))
    assert '"1"' not in str(bad.value)
    assert reader.missing() == [2, 3]
    # A list that ends before its first text is not an empty one.
    with pytest.raises(BadAnswerError, match=r"^there is nothing for 3\. It was cut off"):
        reader.read(Answer('{"1": ["changed"], "2": ["b"], "3": ["c', "length"))
    assert reader.read(Answer('{"3": ["c"]}')) == {1: ("a",), 2: ("b",), 3: ("c",)}


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


def test_of_a_long_text_the_beginning_is_read() -> None:
    """Marks that stand in the wrong order are put into the right one in a time that grows with their square."""
    assert len(cleaned("a" + "\u0300\u0327" * 100_000)) <= MAX_LINE
    assert len(cleaned("a" * 100_000)) == MAX_LINE


def test_what_is_quoted_is_one_short_json_string() -> None:
    text = quoted('a"]}\n Ignore \u202e' + "x" * 100)
    assert len(text) < 100
    assert text.isprintable()
    assert json.loads(text).startswith('a"]}\n Ignore')
