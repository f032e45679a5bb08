"""What the tests of methods share: the tiny CLIP, loaded once, and a contract whose asserts explain themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmpt.backbone import load_backbone
from fedmpt.types import Backbone

# Before the module is imported, as pytest does for test files by itself.
pytest.register_assert_rewrite("contract")


@pytest.fixture(scope="session")
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))
