"""What the tests of scores share: features of a few images of three classes and width five."""

from __future__ import annotations

import pytest
from synthetic import separable
from toy_method import CLASSES, WIDTH

from fedmpt.data.features.store import FeatureSet


@pytest.fixture
def test_set() -> FeatureSet:
    return separable(12, num_classes=CLASSES, width=WIDTH, seed=99)
