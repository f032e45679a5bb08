"""Configs as JSON: what is read is checked, since people edit files by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fedmpt.config import RunConfig, preset
from fedmpt.methods import METHODS
from fedmpt.types import InputError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["default", "paper"])
def test_round_trip(method: str, name: str) -> None:
    config = preset(name, method, "voc:x")
    assert RunConfig.from_json(config.to_json(), source="here") == config


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("federation", "rounds", "ten", "^here: rounds cannot be 'ten'"),
        ("federation", "rounds", 2.5, "^here: rounds cannot be 2.5"),
        ("federation", "weighting", "none", "^here: weighting cannot be 'none'"),
        ("method", "transport", "foo", "^here: transport cannot be 'foo'"),
        ("method", "conditions", [1, 2], "^here: conditions cannot be"),
        ("method", "entropy", True, "^here: entropy cannot be True"),
        ("method", "entrop", 1.0, "^here: unknown field 'entrop' for FedMPTConfig; did you mean 'entropy'"),
        ("method", "name", "nobody", "^here: not the config of a run"),
        (None, "t", "half", "^here: t cannot be 'half'"),
        (None, "training", [], "^here: not the config of a run"),
    ],
)
def test_wrong_values(part: str | None, field: str, value: Any, message: str) -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    (words if part is None else words[part])[field] = value
    with pytest.raises(InputError, match=message):
        RunConfig.from_json(words, source="here")


def test_whole_numbers_may_stand_where_fractions_are_asked_for() -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    words["method"]["entropy"] = 2
    assert RunConfig.from_json(words, source="here").method == METHODS["fedmpt"](entropy=2)
