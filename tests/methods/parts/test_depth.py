"""Blocks of towers of other depths than the published one."""

from __future__ import annotations

import pytest

from fedmpt.methods.parts.depth import scaled_block


@pytest.mark.parametrize(
    ("block", "depth", "expected"),
    [
        *((block, 12, block) for block in range(13)),
        (9, 24, 18),
        (8, 3, 2),
        (9, 3, 2),
        (9, 6, 4),
        (6, 6, 3),
        (12, 3, 3),
        # Rounded up, these would lie behind the tower's end.
        (11, 6, 5),
        (11, 1, 0),
        (0, 1, 0),
    ],
)
def test_as_far_into_the_tower(block: int, depth: int, expected: int) -> None:
    assert scaled_block(block, depth) == expected


def test_a_block_that_no_paper_has_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        scaled_block(13, 12)
