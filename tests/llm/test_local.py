"""A local model: answers that depend on the request alone."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from asked_local import SYSTEM, USER, ask, request
from tiny_llm import CHAT, write_tiny_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedmpt.llm.asking import Asker, BadAnswerError, Limits, Question, RequestTooLongError, Unusable
from fedmpt.llm.local import REPETITION_PENALTY, LocalModel, open_local
from fedmpt.llm.model import Answer, Message, Request
from fedmpt.types import InputError


def test_the_likeliest_tokens_are_those_that_a_plain_loop_over_the_model_finds(folder: Path, model: LocalModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    text = f"<|system|>{SYSTEM.content}<|end|><|user|>{USER.content}<|end|><|assistant|>"
    tokens = tokenizer(text)["input_ids"]
    length = len(tokens)
    for _ in range(12):
        with torch.no_grad():
            logits = plain(torch.tensor([tokens])).logits[0, -1].double()
        said = torch.tensor(sorted(set(tokens)))
        logits[said] = torch.where(
            logits[said] > 0, logits[said] / REPETITION_PENALTY, logits[said] * REPETITION_PENALTY
        )
        tokens.append(int(logits.argmax()))
        if tokens[-1] == tokenizer.eos_token_id:
            break
    (answer,) = ask(model, request(temperature=0.0))
    assert answer.text == tokenizer.decode(tokens[length:], skip_special_tokens=True).strip()
    assert (answer.prompt_tokens, answer.answer_tokens) == (length, len(tokens) - length)


def test_an_answer_depends_on_nothing_but_its_request(folder: Path, model: LocalModel) -> None:
    first, second = request(seed=1), request(seed=2)
    once = ask(model, first, second)
    torch.manual_seed(99)
    assert ask(model, second, first) == once[::-1]
    assert ask(open_local(folder), second) == once[1:]


def test_seed_words_and_temperature_make_another_answer(model: LocalModel) -> None:
    others = [request(), request(seed=1), request(SYSTEM, Message("user", "A dog.")), request(temperature=1.5)]
    assert len({answer.text for answer in ask(model, *others)}) == len(others)


def test_the_label_does_not_change_the_answer(model: LocalModel) -> None:
    plain = request()
    labelled = Request(plain.messages, plain.max_tokens, plain.temperature, plain.seed, label="describe 1 of 2")
    assert ask(model, plain) == ask(model, labelled)


def test_random_numbers_of_everybody_else_stay_as_they_were(folder: Path) -> None:
    torch.manual_seed(7)  # A state that no earlier question can have left.
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    ask(open_local(folder), request())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_an_answer_that_the_limit_cuts_off_says_so(model: LocalModel) -> None:
    (answer,) = ask(model, request(max_tokens=3))
    assert (answer.finish, answer.answer_tokens) == ("length", 3)


def test_an_answer_that_ends_by_itself_says_so(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    generation = {"eos_token_id": list(range(config["vocab_size"]))}  # Whatever it says first is an end.
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (answer,) = ask(open_local(folder), request())
    assert (answer.finish, answer.answer_tokens) == ("stop", 1)


@pytest.mark.parametrize("strange", ["x", [["x"]], {"a": 1}, -1, 10**30, [None], []])
def test_an_end_that_is_no_token_is_passed_over(strange: object, copied: Path, model: LocalModel) -> None:
    (copied / "generation_config.json").write_text(json.dumps({"eos_token_id": strange}))
    assert ask(open_local(copied), request()) == ask(model, request())


def test_what_a_model_brings_along_for_sampling_changes_nothing(copied: Path, model: LocalModel) -> None:
    eos = json.loads((copied / "generation_config.json").read_text())["eos_token_id"]
    own = {"eos_token_id": eos, "do_sample": True, "temperature": 9.0, "top_k": 1, "num_beams": 3, "min_p": 0.5}
    (copied / "generation_config.json").write_text(json.dumps(own))
    for temperature in (0.0, 0.7):
        assert ask(open_local(copied), request(temperature=temperature)) == ask(model, request(temperature=temperature))


def test_without_a_chat_template_the_texts_follow_each_other(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "plain", template=None)
    (answer,) = ask(open_local(folder), request())
    assert answer.prompt_tokens == len(f"{SYSTEM.content}\n\n{USER.content}\n\n".encode())


def test_a_template_without_system_messages_gets_them_with_the_first_request(tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    folder = write_tiny_llm(tmp_path / "tiny", template=refusing)
    both = Message("user", f"{SYSTEM.content}\n\n{USER.content}")
    separate, merged = ask(open_local(folder), request(SYSTEM, USER), request(both))
    assert separate.prompt_tokens == merged.prompt_tokens


def test_a_template_that_writes_the_date_writes_the_same_every_day(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}|{{ date_string }}" + CHAT
    folder = write_tiny_llm(tmp_path / "tiny", template=dated)
    fixed = write_tiny_llm(tmp_path / "fixed", template="01 Jan 2025|01 Jan 2025" + CHAT)
    asked = request(temperature=0.0, max_tokens=40)
    assert ask(open_local(folder), asked) == ask(open_local(fixed), asked)


def test_a_template_says_all_that_it_says_elsewhere(tmp_path: Path) -> None:
    template = "\n \n" + CHAT
    folder = write_tiny_llm(tmp_path / "tiny", template=template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": message.role, "content": message.content} for message in (SYSTEM, USER)]
    expected = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True)
    (answer,) = ask(open_local(folder), request())
    assert answer.prompt_tokens == len(expected["input_ids"])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('never') }}", r"does not take the conversation \(never\)"),
        ("{{ 1 / 0 }}", r"does not take the conversation \(division by zero\)"),
        ("{{ 2.0 ** 100000 }}", "does not take the conversation"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "does not take the conversation"),
        ("{{ ''.__class__.__mro__ }}", "does not take the conversation .*unsafe"),
        ("{% include '/etc/hostname' %}", "does not take the conversation"),
        ("{# nothing #}", "makes nothing of the conversation"),
    ],
)
def test_a_template_that_takes_nothing_is_refused(template: str, words: str, tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "tiny", template=template)
    with pytest.raises(InputError, match=rf"tiny: its chat template {words}.*; give a"):
        ask(open_local(folder), request())


def test_a_conversation_longer_than_the_context_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model = open_local(write_tiny_llm(tmp_path / "tiny", context=64))
    with pytest.raises(RequestTooLongError, match=r"has 104 tokens and the model reads 64; ask for fewer combinations"):
        ask(model, request(Message("user", "x" * 100 + "!")))


def test_a_repair_longer_than_the_context_stops_that_question_only(tmp_path: Path) -> None:
    def refuse(answer: Answer) -> str:
        raise BadAnswerError("Nothing is good enough.")

    model = open_local(write_tiny_llm(tmp_path / "tiny", context=64))
    with Asker(model, cache=tmp_path / "cache", limits=Limits()) as asker:
        (found,) = asker.ask_all([Question(request(Message("user", "x" * 40)), refuse)])
    assert isinstance(found, Unusable)
    assert "too long for the model; the last answer: Nothing is good enough." in found.reason


def test_an_answer_ends_where_the_context_does(tmp_path: Path) -> None:
    model = open_local(write_tiny_llm(tmp_path / "tiny", context=64))
    (answer,) = ask(model, request(Message("user", "x" * 50), max_tokens=1000, temperature=0.0))
    assert answer.finish == "length"
    assert answer.prompt_tokens is not None
    assert answer.answer_tokens == 64 - answer.prompt_tokens


def test_nothing_is_written_to_the_terminal(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ask(open_local(copied), request())
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_ends_a_question_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_local(folder)
    ask(model, request())
    own_handler = signal.getsignal(signal.SIGINT)
    answered = []

    async def ask_and_note() -> None:
        answered.append(await model.ask(request()))

    assert model._loaded is not None
    monkeypatch.setattr(model._loaded[1], "forward", lambda **_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(ask_and_note())
    assert not answered
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_a_closed_model_is_let_go_and_loaded_again_when_asked(folder: Path) -> None:
    model = open_local(folder)
    before = ask(model, request())
    asyncio.run(model.close())
    assert model._loaded is None
    assert ask(model, request()) == before


def test_it_takes_one_question_at_a_time_and_loads_nothing_before_the_first(folder: Path) -> None:
    model = open_local(folder)
    assert model.max_concurrency == 1
    assert model._loaded is None
