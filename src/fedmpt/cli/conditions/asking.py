"""From options of a command to somebody who asks a language model, and what to say when that is interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedmpt.cli.cache import cache_folder
from fedmpt.llm.asking import Asker, Limits, Watcher
from fedmpt.llm.load import LLMOptions, limits_of, open_model
from fedmpt.llm.model import LanguageModel
from fedmpt.types import InputError


def open_chosen(options: LLMOptions, *, max_requests: int | None) -> tuple[LanguageModel, Limits]:
    """The model, and how much may be asked of it. Nothing is sent yet.

    Raises:
        InputError: if none is named, it cannot be opened, or an option is wrong.
    """
    if not options.llm:
        raise InputError(
            "--llm is missing: give a model's name at an endpoint, a .gguf file, a model folder, or exchange:FOLDER"
        )
    limits = limits_of(options, max_requests)
    return open_model(options), limits


def asker_of(model: LanguageModel, limits: Limits, *, cache: Path | None, watcher: Watcher) -> Asker:
    """Answers are kept in the folder ``llm`` of the cache."""
    return Asker(model, cache=cache_folder(cache) / "llm", limits=limits, watcher=watcher)


@contextmanager
def saying_how_to_go_on(command: Sequence[str], *, is_fresh: bool) -> Iterator[None]:
    """On Ctrl-C, the words of the command stand in what is raised on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = "--fresh asks everything anew, so start again with" if is_fresh else "answers are kept, go on with"
        raise KeyboardInterrupt(f"; {kept}: {shlex.join(command)}") from stop
