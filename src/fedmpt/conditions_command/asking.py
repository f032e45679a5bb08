"""From options of a command to somebody who asks a language model."""

from __future__ import annotations

from pathlib import Path

from fedmpt.cache import default_cache
from fedmpt.llm.asking import Asker, Watcher
from fedmpt.llm.load import LLMOptions, limits_of, open_model


def open_asker(options: LLMOptions, *, max_requests: int | None, cache: Path | None, watcher: Watcher) -> Asker:
    """Answers are kept in the folder ``llm`` of the cache.

    Raises:
        InputError: if the model cannot be opened, or an option is wrong.
    """
    limits = limits_of(options, max_requests)
    return Asker(open_model(options), cache=(cache or default_cache()) / "llm", limits=limits, watcher=watcher)
