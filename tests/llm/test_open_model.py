"""From options to a model: which one is meant, which key goes where, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_llm import write_tiny_gguf

from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.exchange import Exchange
from fedmpt.llm.load import OPENAI, open_model
from fedmpt.llm.local import LocalModel
from fedmpt.llm.options import LLMOptions
from fedmpt.types import InputError

KEY = "sk-test-0123456789abcdef"
OTHER = "https://llm.example/v1"


def key_of(endpoint: str | None = None, key_env: str | None = None, *, allow_plain_http: bool = False) -> str:
    """The key that a model at an endpoint is opened with."""
    options = LLMOptions(llm="m", endpoint=endpoint, key_env=key_env, allow_plain_http=allow_plain_http)
    model = open_model(options)
    assert isinstance(model, Endpoint)
    return model._key


# Which model.


@pytest.mark.parametrize("name", ["gpt-4o-mini", "org/model-7B", "model.gguf", "exchange:x"])
def test_a_name_with_an_endpoint_is_a_model_there(name: str) -> None:
    model = open_model(LLMOptions(llm=name, endpoint="http://127.0.0.1:8000/v1/"))
    assert isinstance(model, Endpoint)
    expected = {"provider": "openai-compatible", "endpoint": "http://127.0.0.1:8000/v1", "model": name}
    assert model.identity == expected


def test_a_name_alone_is_a_model_of_the_default_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert open_model(LLMOptions(llm="gpt-4o-mini")).identity["endpoint"] == OPENAI
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert open_model(LLMOptions(llm="gpt-4o-mini")).identity["endpoint"] == OTHER


def test_files_and_folders_are_opened_here(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied.parent)
    monkeypatch.setenv("HOME", str(copied.parent))
    for name in (str(copied), "copy", "./copy", "~/copy"):
        assert isinstance(open_model(LLMOptions(llm=name)), LocalModel)
    write_tiny_gguf(Path("small.GGUF"))
    assert isinstance(open_model(LLMOptions(llm="small.GGUF")), LocalModel)
    exchange = open_model(LLMOptions(llm="exchange:~/new"))
    assert isinstance(exchange, Exchange)
    assert exchange.folder == copied.parent / "new"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "--llm is missing: give"),
        ("exchange:", "--llm is missing: give"),
        ("missing.gguf", r"is no folder with a config\.json, and no file; give"),
        ("./missing", r"is no folder with a config\.json, and no file"),
        ("/", r"is no folder with a config\.json"),
    ],
)
def test_what_names_no_model_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_model(LLMOptions(llm=name))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"timeout": value} for value in (0.0, float("nan"), float("inf"))),
        {"requests_per_minute": -1.0},
        {"concurrency": 0},
        {"retries": -1},
        {"attempts": 0},
    ],
)
def test_numbers_out_of_range_are_refused_by_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^--{next(iter(wrong)).replace('_', '-')} must "):
        open_model(LLMOptions(llm="some-model", endpoint=OTHER, **wrong))


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("openai", "json_repair", "pydantic")))
from fedmpt.cli.main import main
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as stop:
        print(words, "ended with", stop.code)
"""


def test_all_but_asking_works_without_the_libraries(tmp_path: Path) -> None:
    options = "--classes c.txt --out c.json --llm m"
    commands = ["show generic", "generate --help", f"generate {options}", f"attributes {options}"]
    command = [sys.executable, "-c", WITHOUT, *(f"conditions {words}" for words in commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    for words, code in zip(commands, (0, 0, 2, 2), strict=True):
        assert f"conditions {words} ended with {code}\n" in done.stdout
    need = "fedmpt conditions: language models need json_repair and pydantic; pip install 'fedmpt[llm]'\n"
    assert done.stderr == 2 * need


# Which key.


def test_the_key_of_openai_goes_to_the_default_and_to_the_environments_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert key_of() == KEY
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert key_of() == KEY


def test_an_endpoint_gets_no_key_unless_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_KEY", "mine-12345678")
    assert key_of(OTHER) == key_of(OPENAI) == ""
    assert key_of(OTHER, "MY_KEY") == key_of(None, "MY_KEY") == "mine-12345678"


def test_the_default_endpoint_needs_a_key_and_another_one_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"\$OPENAI_API_KEY is not set"):
        key_of()
    with pytest.raises(InputError, match="the variable that --key-env names is not set"):
        key_of(OTHER, "MY_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert key_of() == ""


@pytest.mark.parametrize("given", [KEY, "gsk_abcDEF0123456789", "", "a b"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_printed(given: str) -> None:
    with pytest.raises(InputError) as caught:
        key_of(OTHER, given)
    assert not given or given not in str(caught.value)
    assert "--key-env" in str(caught.value)


@pytest.mark.parametrize("spoilt", ["two words", "line\nbreak", "ключ", "tab\tbed"])
def test_what_is_no_key_is_refused_and_not_printed(spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", spoilt)
    with pytest.raises(InputError, match=r"\$MY_KEY is no key") as caught:
        key_of(OTHER, "MY_KEY")
    assert spoilt not in str(caught.value)


def test_a_key_crosses_no_network_in_the_open_unless_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    for host in ("10.0.0.5", "llm.example", "localhost.example"):
        with pytest.raises(InputError, match="--allow-plain-http"):
            key_of(f"http://{host}:8000/v1", "MY_KEY")
        assert key_of(f"http://{host}:8000/v1", "MY_KEY", allow_plain_http=True) == KEY
        assert key_of(f"http://{host}:8000/v1") == ""
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert key_of(f"http://{host}:8000/v1", "MY_KEY") == KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example/v1")
    with pytest.raises(InputError, match=r"--allow-plain-http"):
        key_of()


@pytest.mark.parametrize(
    "address",
    [
        "llm.example/v1", "localhost:8000/v1", "ftp://llm.example/v1", "https://", "https://a b/v1",
        "https://[::1/v1", "https://llm.éxample/v1", f"{OTHER}/chat/completions",
        "https://me:pass-word@llm.example/v1", "https://name.openai.azure.com/openai?api-version=1&key=pass-word",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_what_may_be_secret(address: str) -> None:
    with pytest.raises(InputError, match=r"^--endpoint is no address of an API; give .*Azure's is") as caught:
        key_of(address)
    assert "pass-word" not in str(caught.value)
