"""Questions to a model without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_model import FakeModel, FakeTime, Notes, question

from fedmpt.llm.asking import Asker, Limits, Unusable, Usage


def ask(
    model: FakeModel, cache: Path, *texts: str, watcher: Notes | None = None, **limits: Any
) -> tuple[list[str | Unusable], Usage]:
    """What came of the questions, and what they took."""
    with Asker(model, cache=cache, limits=Limits(**limits), watcher=watcher, sleep=FakeTime().sleep) as asker:
        return asker.ask_all([question(text) for text in texts]), asker.usage
