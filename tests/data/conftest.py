"""What the tests of the feature store share: ten pictures, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_backbone import write_split
from feature_builds import build, store_of

from fedmpt.types import Split


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_split(tmp_path / "images", 10)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def whole(split: Split, tmp_path: Path) -> dict[str, bytes]:
    """What a build that nobody stopped leaves."""
    build(split, tmp_path / "whole")
    return store_of(tmp_path / "whole")
