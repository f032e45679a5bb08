from __future__ import annotations

import collections

import pytest

from fedmpt.data.datasets.scenes.draws import Draws


def test_the_stream_is_pinned() -> None:
    # Should these ever differ, every image does.
    draws = Draws(0, 1, 2)
    assert [draws.below(1000) for _ in range(6)] == [640, 215, 880, 562, 973, 499]
    assert Draws(7).array(2, 3, bound=256).tolist() == [[160, 229, 198], [57, 76, 223]]


def test_weights_and_chances() -> None:
    draws = Draws(2)
    counts = collections.Counter(draws.weighted("abc", (3, 0, 1)) for _ in range(4000))
    assert counts["b"] == 0
    assert 2860 < counts["a"] < 3140
    assert sum(draws.chance(0.9) for _ in range(1000)) == pytest.approx(900, abs=48)
    assert not any(draws.chance(0.0) for _ in range(1000))
    assert all(draws.chance(1.0) for _ in range(1000))
