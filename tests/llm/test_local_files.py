"""Files of local models: known by what is in them, and refused before they do harm."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from asked_local import ask, request
from safetensors import safe_open
from tiny_llm import CHAT, write_tiny_gguf
from transformers import AutoModelForCausalLM

from fedmpt.llm import local_files
from fedmpt.llm.local import LocalModel, open_local
from fedmpt.types import InputError


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


def name_weights(folder: Path, name: str) -> None:
    """An index that has all weights in one file of this name; what was there is called whole.safetensors."""
    weights = (folder / "model.safetensors").rename(folder / "whole.safetensors")
    with safe_open(weights, "pt") as file:
        index = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_an_index_may_name_one_file(copied: Path, model: LocalModel) -> None:
    name_weights(copied, "whole.safetensors")
    assert ask(open_local(copied), request()) == ask(model, request())


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "../whole.safetensors", "/whole.safetensors", "", ".safetensors/x"]
)
def test_an_index_that_names_other_files_is_refused(copied: Path, name: str) -> None:
    name_weights(copied, name)
    for place in (copied / "pytorch_model.bin", copied.parent / "whole.safetensors"):
        shutil.copy(copied / "whole.safetensors", place)
    with pytest.raises(InputError, match=r"index\.json names '.*', which is no safetensors file in that folder"):
        open_local(copied)


def rewritten(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


@pytest.mark.parametrize(
    "named",
    [
        {"transformers_weights": "other.safetensors"},
        {"transformers_weights": "adapter_model.bin"},
        {"attn_implementation": "somebody/kernels"},
        {"_attn_implementation": "flash_attention_2"},
        {"experts_implementation": "deep-gemm"},
        {"text_config": {"_attn_implementation": {"": "somebody/kernels"}}},
    ],
)
def test_settings_that_name_weights_or_code_elsewhere_are_refused(copied: Path, named: dict[str, Any]) -> None:
    shutil.copy(copied / "model.safetensors", copied / "other.safetensors")
    rewritten(copied, **named)
    with pytest.raises(InputError, match=r"config\.json: \w+ names .*, weights or code that are not looked at here"):
        open_local(copied)


def test_settings_that_name_what_comes_with_transformers_are_taken(copied: Path, model: LocalModel) -> None:
    rewritten(copied, _attn_implementation="sdpa", transformers_weights=None)
    assert ask(open_local(copied), request()) == ask(model, request())


def test_an_adapter_is_refused(copied: Path) -> None:
    (copied / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(InputError, match=r"adapter_config\.json: .*; merge it with its model first"):
        open_local(copied)


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


def test_what_lies_beside_a_gguf_file_changes_nothing(gguf_file: Path, folder: Path) -> None:
    before = ask(open_local(gguf_file), request())
    for file in folder.iterdir():
        shutil.copy(file, gguf_file.parent)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["c"], vocabulary["h"] = vocabulary["h"], vocabulary["c"]
    (gguf_file.parent / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert ask(open_local(gguf_file), request()) == before


def test_a_gguf_file_is_found_by_a_relative_path(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gguf_file.parent)
    assert ask(open_local(Path("tiny.gguf")), request()) == ask(open_local(gguf_file), request())


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
