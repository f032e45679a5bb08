"""Local models: answers that depend on the request alone, and files that are refused before they do harm."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_model import asker_of
from safetensors.torch import load_file, save_file
from tiny_llm import CHAT, write_tiny_gguf, write_tiny_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedmpt.llm import local
from fedmpt.llm.asking import BadAnswerError, Unusable
from fedmpt.llm.local import REPETITION_PENALTY, LocalModel
from fedmpt.llm.model import Answer, Message, Request, RequestTooLongError
from fedmpt.types import InputError

SYSTEM, USER = Message("system", "You describe photos."), Message("user", "A cat on a chair.")


def request(*messages: Message, max_tokens: int = 12, temperature: float = 0.7, seed: int = 0) -> Request:
    return Request(messages or (SYSTEM, USER), max_tokens, temperature, seed)


def ask(model: LocalModel, *asked: Request) -> list[Answer]:
    return [model.ask(each) for each in asked]


def rewritten(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


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
    requests = [request(), request(seed=1), request(SYSTEM, Message("user", "A dog.")), request(temperature=1.5)]
    once = ask(model, *requests)
    assert len({answer.text for answer in once}) == len(requests)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert ask(LocalModel(folder), *requests[::-1]) == once[::-1]
    assert torch.equal(torch.get_rng_state(), before)


def test_an_answer_says_whether_it_ended_or_was_cut_off(model: LocalModel, copied: Path) -> None:
    (answer,) = ask(model, request(max_tokens=3))
    assert (answer.finish, answer.answer_tokens) == ("length", 3)
    vocabulary = json.loads((copied / "config.json").read_text())["vocab_size"]
    generation = {"eos_token_id": list(range(vocabulary))}  # Whatever it says first is an end.
    (copied / "generation_config.json").write_text(json.dumps(generation))
    (answer,) = ask(LocalModel(copied), request())
    assert (answer.finish, answer.answer_tokens) == ("stop", 1)


def test_what_a_model_brings_along_for_sampling_changes_nothing(copied: Path, model: LocalModel) -> None:
    eos = json.loads((copied / "generation_config.json").read_text())["eos_token_id"]
    own = {"eos_token_id": eos, "do_sample": True, "temperature": 9.0, "top_k": 1, "num_beams": 3, "min_p": 0.5}
    (copied / "generation_config.json").write_text(json.dumps(own))
    for temperature in (0.0, 0.7):
        assert ask(LocalModel(copied), request(temperature=temperature)) == ask(model, request(temperature=temperature))


def test_without_a_chat_template_the_texts_follow_each_other(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "plain", template=None)
    (answer,) = ask(LocalModel(folder), request())
    assert answer.prompt_tokens == len(f"{SYSTEM.content}\n\n{USER.content}\n\n".encode())


def test_a_template_without_system_messages_gets_them_with_the_first_request(tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    folder = write_tiny_llm(tmp_path / "tiny", template=refusing)
    both = Message("user", f"{SYSTEM.content}\n\n{USER.content}")
    separate, merged = ask(LocalModel(folder), request(SYSTEM, USER), request(both))
    assert separate.prompt_tokens == merged.prompt_tokens


@pytest.mark.parametrize(
    ("template", "words"), [("{{ raise_exception('never') }}", "never"), ("{{ 1 / 0 }}", "division by zero")]
)
def test_a_template_that_takes_nothing_is_refused(template: str, words: str, copied: Path) -> None:
    (copied / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=rf"chat template fails \({words}\); give a"):
        ask(LocalModel(copied), request())


def test_what_is_longer_than_the_context_is_refused_and_answers_end_there(tmp_path: Path) -> None:
    def refuse(answer: Answer) -> str:
        raise BadAnswerError("Nothing is good enough.")

    model = LocalModel(write_tiny_llm(tmp_path / "tiny", context=64))
    with pytest.raises(RequestTooLongError, match=r"has 104 tokens and the model reads 64; lower --per-request"):
        ask(model, request(Message("user", "x" * 100 + "!")))
    (answer,) = ask(model, request(Message("user", "x" * 50), max_tokens=1000, temperature=0.0))
    assert answer.finish == "length"
    assert (answer.prompt_tokens or 0) + (answer.answer_tokens or 0) == 64
    (found,) = asker_of(model, tmp_path / "cache").ask_all([request(Message("user", "x" * 40))], [refuse])
    assert isinstance(found, Unusable)
    assert "too long for the model; the last answer: Nothing is good enough." in found.reason


def test_nothing_is_written_to_the_terminal(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = LocalModel(copied)
    assert model._loaded is None
    ask(model, request())
    assert capfd.readouterr() == ("", "")


# Files.


def test_the_identity_is_the_hash_of_the_weights_under_the_folders_name(folder: Path, copied: Path) -> None:
    identity = LocalModel(folder).identity
    assert (identity["provider"], identity["model"]) == ("local", "tiny")
    assert identity["weights"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert {**LocalModel(copied).identity, "model": "tiny"} == identity
    (copied / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    changed = LocalModel(copied).identity
    assert changed["settings"] != identity["settings"]
    assert changed["weights"] == identity["weights"]


def test_weights_in_several_files_answer_the_same_and_each_has_to_be_there(copied: Path, model: LocalModel) -> None:
    split = copied / "split"
    AutoModelForCausalLM.from_pretrained(copied).save_pretrained(split, max_shard_size="20KB")
    for file in (*copied.glob("*token*"), copied / "chat_template.jinja"):
        shutil.copy(file, split)
    assert len(list(split.glob("*.safetensors"))) > 2
    assert ask(LocalModel(split), request()) == ask(model, request())
    last = sorted(split.glob("*.safetensors"))[-1]
    before, content = LocalModel(split).identity["weights"], bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert LocalModel(split).identity["weights"] != before
    last.unlink()
    with pytest.raises(InputError, match=rf"{last.name} is missing; copy all files"):
        LocalModel(split)


def test_folders_that_hold_no_language_model_are_refused(tmp_path: Path, tiny_clip_folder: Path, copied: Path) -> None:
    with pytest.raises(InputError, match=r"is no folder with a config\.json, and no file; give a folder of a causal"):
        LocalModel(tmp_path)
    with pytest.raises(InputError, match=r"cannot be loaded as a language model .*CLIPConfig.*; copy it again"):
        ask(LocalModel(tiny_clip_folder), request())
    for name in ("other.safetensors", "eager"):
        rewritten(copied, transformers_weights=name)
        with pytest.raises(
            InputError, match=rf"config\.json: transformers_weights names '{name}', weights or code that"
        ):
            LocalModel(copied)


def test_weights_that_lack_something_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    name = next(name for name in weights if "layers.0" in name)
    save_file({key: weights[key] for key in weights if key != name}, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"the weights lack '{name}' \(1 in all\); copy the model again"):
        ask(LocalModel(copied), request())


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_weights_that_are_cut_off_are_refused(copied: Path, kept: int) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.safetensors is broken or cut off at \d+ bytes .*; copy it again"):
        LocalModel(copied)


def test_pickled_weights_are_never_opened_and_code_of_a_model_is_never_run(copied: Path, tmp_path: Path) -> None:
    (copied / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    rewritten(copied, auto_map=own, model_type="own", architectures=["OwnForCausalLM"])
    with pytest.raises(InputError, match="copy cannot be loaded as a language model"):
        ask(LocalModel(copied), request())
    assert not (tmp_path / "ran").exists()
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing; copy all files"):
        LocalModel(copied)
    (copied / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match=r"model\.safetensors is missing; .*A pickle is never read"):
        LocalModel(copied)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json, line 1: not valid JSON"),
        ("config.json", "[]", r"config\.json holds a list, not settings by name"),
        ("tokenizer.json", "{}", r"copy cannot be loaded as a language model"),
    ],
)
def test_settings_that_are_broken_are_refused(copied: Path, file: str, content: str, message: str) -> None:
    (copied / file).write_text(content)
    with pytest.raises(InputError, match=message):
        ask(LocalModel(copied), request())


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_a_gguf_file_answers_and_is_known_by_its_hash(gguf_file: Path) -> None:
    model = LocalModel(gguf_file)
    assert model.identity["model"] == "tiny.gguf"
    assert model.identity["weights"] == hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    first, second = ask(model, request(seed=1), request(seed=2))
    assert first.prompt_tokens == second.prompt_tokens == 42
    assert first.text != second.text


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_a_gguf_file_that_is_cut_off_is_refused(gguf_file: Path, share: float) -> None:
    content = gguf_file.read_bytes()
    gguf_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        InputError, match=r"tiny\.gguf cannot be loaded as a language model .*; copy it again if it may be cut"
    ):
        ask(LocalModel(gguf_file), request())


def test_packages_that_gguf_files_need_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"GGUF files need gguf and accelerate; pip install 'fedmpt\[llm-local\]'"):
        LocalModel(tmp_path / "x.gguf")
