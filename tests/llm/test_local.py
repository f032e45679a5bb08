"""A local model: answers that depend on the request alone, and files that are refused before they do harm."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_llm import CHAT, write_tiny_gguf, write_tiny_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedmpt.llm import local_files
from fedmpt.llm.local import REPETITION_PENALTY, LocalModel, open_local
from fedmpt.llm.model import Answer, Message, Request
from fedmpt.types import InputError

SYSTEM, USER = Message("system", "You describe photos."), Message("user", "A cat on a chair.")


def request(*messages: Message, max_tokens: int = 12, temperature: float = 0.7, seed: int = 0) -> Request:
    return Request(messages or (SYSTEM, USER), max_tokens, temperature, seed)


def ask(model: LocalModel, *asked: Request) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        return [await model.ask(each) for each in asked]

    return asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return open_local(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


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


def test_a_template_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "tiny", template="{{ raise_exception('never') }}")
    with pytest.raises(InputError, match=r"tiny: its chat template does not take the conversation \(never\); give a"):
        ask(open_local(folder), request())


def test_a_conversation_longer_than_the_context_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model = open_local(write_tiny_llm(tmp_path / "tiny", context=64))
    with pytest.raises(InputError, match=r"has 104 tokens and the model reads 64; ask for fewer combinations in one"):
        ask(model, request(Message("user", "x" * 100 + "!")))


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


def test_the_identity_is_the_hash_of_the_weights_under_the_folders_name(folder: Path, copied: Path) -> None:
    identity = open_local(folder).identity
    weights = (folder / "model.safetensors").read_bytes()
    assert identity["provider"] == "local"
    assert identity["model"] == "tiny"
    assert identity["weights"] == hashlib.sha256(weights).hexdigest()
    assert {**open_local(copied).identity, "model": "tiny"} == identity
    (copied / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    changed = open_local(copied).identity
    assert changed["settings"] != identity["settings"]
    assert changed["weights"] == identity["weights"]


def split_weights(folder: Path, max_shard_size: str = "20KB") -> Path:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder / "split", max_shard_size=max_shard_size)
    for file in folder.glob("*token*"):
        shutil.copy(file, folder / "split")
    shutil.copy(folder / "chat_template.jinja", folder / "split")
    return folder / "split"


def test_weights_in_several_files_answer_the_same(copied: Path, model: LocalModel) -> None:
    split = split_weights(copied)
    assert len(list(split.glob("*.safetensors"))) > 2
    assert ask(open_local(split), request()) == ask(model, request())


def test_each_of_several_files_is_part_of_the_identity_and_has_to_be_there(copied: Path) -> None:
    split = split_weights(copied)
    before = open_local(split).identity["weights"]
    last = sorted(split.glob("*.safetensors"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert open_local(split).identity["weights"] != before
    last.unlink()
    with pytest.raises(InputError, match=rf"{last.name} is missing; copy all files"):
        open_local(split)


def rewritten(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def test_a_picture_model_is_refused_before_it_is_loaded(tiny_clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json describes a CLIPModel, which writes no text; give a folder of"):
        open_local(tiny_clip_folder)


def test_a_picture_model_that_hides_what_it_is_is_refused_in_loading(tiny_clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_clip_folder, tmp_path / "clip"))
    rewritten(folder, architectures=None)
    with pytest.raises(
        InputError, match=r"clip cannot be loaded as a language model \(ValueError: .*; copy it again if"
    ):
        ask(open_local(folder), request())


@pytest.mark.parametrize("name", ["none", "none.gguf"])
def test_what_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: no such file or folder; give a folder of a causal language model"):
        open_local(tmp_path / name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model: config\.json is missing; give a folder of a causal"):
        open_local(tmp_path)
    (tmp_path / "a.gguf").touch()
    with pytest.raises(InputError, match=r"config\.json is missing; give the file itself, .*a\.gguf"):
        open_local(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_weights_that_are_cut_off_are_refused(copied: Path, kept: int) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.safetensors is broken or cut off at \d+ bytes .*; copy it again"):
        open_local(copied)


def test_pickled_weights_are_never_opened(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing; copy all files"):
        open_local(copied)
    (copied / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match=r"weights only as pytorch_model\.bin, a pickle, which is never opened here"):
        open_local(copied)


def test_code_of_a_model_is_never_run(copied: Path, tmp_path: Path) -> None:
    (copied / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    rewritten(copied, auto_map=own, model_type="own", architectures=["OwnForCausalLM"])
    with pytest.raises(InputError, match="copy cannot be loaded as a language model"):
        ask(open_local(copied), request())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json, line 1: not valid JSON"),
        ("config.json", "[]", r"config\.json holds a list, not settings by name"),
        ("tokenizer.json", "{}", r"copy cannot be loaded as a language model"),
        ("tokenizer_config.json", "[", r"copy cannot be loaded as a language model"),
    ],
)
def test_settings_that_are_broken_are_refused(copied: Path, file: str, content: str, message: str) -> None:
    (copied / file).write_text(content)
    with pytest.raises(InputError, match=message):
        ask(open_local(copied), request())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_hidden_layers": 3}, r"the weights lack 9 of what config\.json describes, such as model\.layers\.2\."),
        ({"vocab_size": 40}, r"copy cannot be loaded as a language model|the weights lack 2 of what"),
    ],
)
def test_weights_of_another_model_are_refused(copied: Path, changed: dict[str, int], message: str) -> None:
    rewritten(copied, **changed)
    with pytest.raises(InputError, match=message):
        ask(open_local(copied), request())


def test_a_tokenizer_of_another_model_is_refused(copied: Path) -> None:
    file = copied / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 261, "content": "<|more|>"})
    file.write_text(json.dumps(content))
    (copied / "chat_template.jinja").write_text("<|more|>" + CHAT)
    with pytest.raises(InputError, match="the tokenizer gives token 261 and the model knows 261; copy all files from"):
        ask(open_local(copied), request())


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_a_gguf_file_answers_without_a_word_and_is_known_by_its_hash(
    gguf_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = open_local(gguf_file)
    assert model.identity["model"] == "tiny.gguf"
    assert model.identity["weights"] == hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    first, second = ask(model, request(seed=1), request(seed=2))
    assert first.prompt_tokens == second.prompt_tokens == 42
    assert first.text != second.text
    assert ask(open_local(gguf_file), request(seed=2)) == [second]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_gguf_file_that_is_cut_off_is_refused(gguf_file: Path, share: float) -> None:
    content = gguf_file.read_bytes()
    gguf_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        InputError, match=r"tiny\.gguf cannot be loaded as a language model .*; copy it again if it may be cut"
    ):
        ask(open_local(gguf_file), request())


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 something else"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.gguf is no GGUF file"):
        open_local(tmp_path / "x.gguf")


def test_one_part_of_a_gguf_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-00001-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="is one part of a model; put the parts together with llama-gguf-split"):
        open_local(tmp_path / "x-00001-of-00003.gguf")


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_a_missing_package_is_named_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")

    def find_spec(name: str) -> Any:
        return None if name == missing else importlib.util.find_spec("json")

    monkeypatch.setattr(local_files, "find_spec", find_spec)
    with pytest.raises(InputError, match=rf"GGUF files need {missing}; pip install 'fedmpt\[llm-local\]'"):
        open_local(tmp_path / "x.gguf")
