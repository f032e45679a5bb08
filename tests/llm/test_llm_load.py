"""From options to a model: which one is meant, which key goes where, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_model import FakeModel

from fedmpt.llm.asking import Limits
from fedmpt.llm.endpoint import Endpoint
from fedmpt.llm.load import LLMOptions, limits_of, open_model
from fedmpt.llm.service import OPENAI, Service, find_service
from fedmpt.types import InputError

KEY = "sk-test-0123456789abcdef"
OTHER = "https://llm.example/v1"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were opened as local models and as folders of exchange."""
    paths: list[Path] = []

    def fake(path: Path) -> FakeModel:
        paths.append(path)
        return FakeModel()

    for name, attribute in (("local", "open_local"), ("exchange", "Exchange")):
        module = ModuleType(f"fedmpt.llm.{name}")
        setattr(module, attribute, fake)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return paths


def find(endpoint: str | None = None, key_env: str | None = None, *, allow_plain_http: bool = False) -> Service:
    return find_service(endpoint, key_env, allow_plain_http=allow_plain_http)


# Which model.


@pytest.mark.parametrize(
    "endpoint", [OTHER, "http://127.0.0.1:8000/v1/", "https://NAME.openai.azure.com/openai/v1", "http://[::1]:8000/v1"]
)
def test_a_name_with_an_endpoint_is_a_model_there(endpoint: str, opened: list[Path]) -> None:
    for name in ("gpt-4o-mini", "org/model-7B", "model.gguf", "exchange:x"):
        model = open_model(LLMOptions(llm=name, endpoint=endpoint))
        assert isinstance(model, Endpoint)
        assert model.identity == {
            "provider": "openai-compatible",
            "endpoint": endpoint.rstrip("/"),
            "model": name,
        }
    assert opened == []


def test_a_name_alone_is_a_model_of_the_default_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert open_model(LLMOptions(llm="gpt-4o-mini")).identity["endpoint"] == OPENAI
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert open_model(LLMOptions(llm="gpt-4o-mini")).identity["endpoint"] == OTHER


def test_files_and_folders_of_models_are_opened_here(
    tmp_path: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "org" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "small.GGUF").write_bytes(b"GGUF")
    for name in (str(folder), "org/model", "./org/model", "~/org/model", "small.GGUF"):
        open_model(LLMOptions(llm=name))
    short = Path("org/model")
    assert opened == [folder, short, short, folder, Path("small.GGUF")]


def test_exchange_takes_a_folder_that_need_not_be_there(opened: list[Path], tmp_path: Path) -> None:
    open_model(LLMOptions(llm=f"exchange:{tmp_path / 'new'}"))
    assert opened == [tmp_path / "new"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "--llm"),
        (" ", "--llm"),
        ("a\nb", "--llm"),
        ("exchange:", "exchange:FOLDER"),
        ("missing.gguf", "no such file"),
        ("./missing", "does not exist"),
        ("../missing", "does not exist"),
        ("/dev/null", "is no folder"),
    ],
)
def test_what_names_no_model_is_refused(name: str, words: str, opened: list[Path]) -> None:
    with pytest.raises(InputError, match=words):
        open_model(LLMOptions(llm=name))
    assert opened == []


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        open_model(LLMOptions(llm=str(tmp_path)))


def test_a_key_for_what_is_no_endpoint_is_refused(tmp_path: Path, opened: list[Path]) -> None:
    with pytest.raises(InputError, match="--key-env"):
        open_model(LLMOptions(llm=f"exchange:{tmp_path}", key_env="MY_KEY"))


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"timeout": 0.0}, "--timeout"),
        ({"timeout": float("nan")}, "--timeout"),
        ({"timeout": float("inf")}, "--timeout"),
        ({"requests_per_minute": 0.0}, "--requests-per-minute"),
        ({"requests_per_minute": -1.0}, "--requests-per-minute"),
        ({"concurrency": 0}, "--concurrency"),
        ({"retries": -1}, "--retries"),
        ({"attempts": 0}, "--attempts"),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_flag(wrong: dict[str, Any], flag: str) -> None:
    options = LLMOptions(llm="some-model", endpoint=OTHER, **wrong)
    with pytest.raises(InputError, match=flag):
        open_model(options)
    with pytest.raises(InputError, match=flag):
        limits_of(options, None)


def test_limits_are_those_of_the_options() -> None:
    options = LLMOptions(
        llm="m", requests_per_minute=5.0, concurrency=2, retries=1, attempts=4, fresh=True, endpoint=OTHER
    )
    expected = Limits(max_requests=9, attempts=4, retries=1, requests_per_minute=5.0, concurrency=2, fresh=True)
    assert limits_of(options, 9) == expected
    assert limits_of(LLMOptions(llm="m"), None) == Limits()
    with pytest.raises(InputError, match="--max-requests"):
        limits_of(options, -1)


# Which key.


def test_the_key_of_openai_goes_to_the_default_and_to_the_environments_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert find() == Service(OPENAI, is_default=True, key=KEY, key_env="OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert find() == Service(OTHER, is_default=True, key=KEY, key_env="OPENAI_API_KEY")


def test_an_endpoint_gets_no_key_unless_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_KEY", "mine-12345678")
    for endpoint in (OTHER, OPENAI):
        assert find(endpoint) == Service(endpoint, is_default=False)
    assert find(OTHER, "MY_KEY") == Service(OTHER, is_default=False, key="mine-12345678", key_env="MY_KEY")
    assert find(None, "MY_KEY").key == "mine-12345678"


def test_the_default_endpoint_needs_a_key_and_another_one_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"\$OPENAI_API_KEY is not set"):
        find()
    with pytest.raises(InputError, match=r"\$MY_KEY is not set"):
        find(OTHER, "MY_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
    assert find().key is None


@pytest.mark.parametrize("given", [KEY, "gsk_abcDEF0123456789", "", "a b"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_printed(given: str) -> None:
    with pytest.raises(InputError) as caught:
        find(OTHER, given)
    assert not given or given not in str(caught.value)
    assert "--key-env" in str(caught.value)


@pytest.mark.parametrize("spoilt", ["two words", "line\nbreak", "ключ", "tab\tbed"])
def test_what_is_no_key_is_refused_and_not_printed(spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", spoilt)
    with pytest.raises(InputError, match=r"\$MY_KEY is no key") as caught:
        find(OTHER, "MY_KEY")
    assert spoilt not in str(caught.value)


def test_a_key_crosses_no_network_in_the_open_unless_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    for host in ("10.0.0.5", "llm.example", "localhost.example"):
        with pytest.raises(InputError, match="--allow-plain-http"):
            find(f"http://{host}:8000/v1", "MY_KEY")
        assert find(f"http://{host}:8000/v1", "MY_KEY", allow_plain_http=True).key == KEY
        assert find(f"http://{host}:8000/v1").key is None
    for host in ("localhost", "127.0.0.1", "127.8.9.1", "[::1]"):
        assert find(f"http://{host}:8000/v1", "MY_KEY").key == KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example/v1")
    with pytest.raises(InputError, match="--allow-plain-http"):
        find()


# Which address.


@pytest.mark.parametrize(
    "address",
    [
        "", "llm.example/v1", "localhost:8000/v1", "ftp://llm.example/v1", "https://", "https:///v1", "https://a b/v1",
        "https://llm.example:0/v1", "https://llm.example:99999/v1", "https://llm.example/v1\n", "https://[::1/v1",
        "https://llm.éxample/v1", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address"):
        find(address)


@pytest.mark.parametrize(
    "address", ["https://me:pass-word@llm.example/v1", "https://me@llm.example", "ftp://me:pass-word@llm.example"]
)
def test_an_address_with_a_password_is_refused_and_not_printed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--endpoint has a user or a password") as caught:
        find(address)
    assert "pass-word" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(InputError, match=r"\$OPENAI_BASE_URL has a user or a password"):
        find()


def test_an_address_with_a_query_is_refused_with_azures_remedy() -> None:
    with pytest.raises(InputError, match=r"openai\.azure\.com/openai/v1") as caught:
        find("https://name.openai.azure.com/openai/deployments/x?api-version=2024-06-01&api-key=secret")
    assert "secret" not in str(caught.value)


def test_an_address_of_one_function_is_refused() -> None:
    with pytest.raises(InputError, match="leave out /chat/completions"):
        find(f"{OTHER}/chat/completions")
