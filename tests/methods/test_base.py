"""What all methods have from the base: defaults, and checks of options."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fedmpt.methods.base import Method
from fedmpt.types import InputError, check_options


@pytest.mark.parametrize("name", ["sources", "views", "training_views"])
def test_nobody_can_add_to_a_default_that_all_methods_share(name: str) -> None:
    default = getattr(Method, name)
    assert default == {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        default["tokens"] = None


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "words"),
    [
        ("(0, inf)", [1, 1e-9], [0, -1, float("inf"), float("nan")], "be positive"),
        ("[0, inf)", [0, 7.5], [-1e-9, float("inf"), float("nan")], "not be negative"),
        ("[0, 1)", [0, 0.5], [-1, 1], r"be in \[0, 1\)"),
        ("(0, 1]", [1, 0.5], [0, 1.5], r"be in \(0, 1\]"),
    ],
)
def test_options_are_held_to_their_interval(
    interval: str, inside: list[float], outside: list[float], words: str
) -> None:
    for value in (None, *inside):
        check_options(SimpleNamespace(num_context=value), interval, "num_context")
    for value in outside:
        with pytest.raises(InputError, match=rf"^--num-context must {words}, got {value}$"):
            check_options(SimpleNamespace(num_context=value), interval, "num_context")
