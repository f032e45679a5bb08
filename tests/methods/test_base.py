"""What all methods have from the base: defaults, and checks of options."""

from __future__ import annotations

import pytest

from fedmpt.methods.base import Method, check_num_context
from fedmpt.types import InputError


@pytest.mark.parametrize("name", ["sources", "views", "training_views"])
def test_nobody_can_add_to_a_default_that_all_methods_share(name: str) -> None:
    default = getattr(Method, name)
    assert default == {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        default["tokens"] = None


def test_a_context_has_a_token_and_the_flag_is_named() -> None:
    check_num_context(1)
    with pytest.raises(InputError, match=r"^--num-context must be positive, got 0$"):
        check_num_context(0)
    with pytest.raises(InputError, match=r"^--num-negative-context must be positive, got -2$"):
        check_num_context(-2, flag="--num-negative-context")
