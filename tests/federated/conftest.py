"""What the tests of the federation share: three clients with a few images each, of three classes and width five."""

from __future__ import annotations

import pytest
from synthetic import separable
from toy_method import CLASSES, WIDTH

from fedmpt.data.features.store import FeatureSet


@pytest.fixture
def clients() -> list[FeatureSet]:
    """Of 7, 10 and 13 images."""
    return [separable(size, num_classes=CLASSES, width=WIDTH, seed=size) for size in (7, 10, 13)]


@pytest.fixture
def test_set() -> FeatureSet:
    return separable(12, num_classes=CLASSES, width=WIDTH, seed=99)
