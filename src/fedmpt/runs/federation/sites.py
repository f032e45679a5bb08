"""The coordinator's view of its sites: who is there, who may take part, and what they answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.status import EVENTS, SiteStatus, Status
from fedmpt.types import InputError

WORDS_LIMIT = 4 * 2**20
"""Bytes of an answer beyond its tensors: names of classes, numbers."""
MAX_ERROR = 1000
"""Letters of what a site says went wrong."""


@runtime_checkable
class Answer(Protocol):
    """What one site answered: ``content``, or None with the ``error`` in words."""

    @property
    def site(self) -> str: ...
    @property
    def content(self) -> bytes | None: ...
    @property
    def error(self) -> str: ...


@runtime_checkable
class Link(Protocol):
    """The way to the sites; `fedmpt.federated.flare.link.Link` is the real one."""

    def connected(self) -> Mapping[str, float]:
        """The sites that are alive now, with the time since when."""
        ...

    def ask(self, contents: Mapping[str, bytes], *, timeout: float, limit: int) -> Iterator[Any]:
        """One answer a site, as they come, within ``timeout`` seconds; none is longer than ``limit`` bytes."""
        ...


class Reply(NamedTuple):
    """What came back from a site: a ``message``, or an ``error``; ``is_lost`` where the site itself said nothing."""

    site: str
    message: Message | None
    error: str = ""
    is_lost: bool = False


def _reply(answer: Answer) -> Reply:
    if answer.content is None:
        return Reply(answer.site, None, plain(answer.error)[:MAX_ERROR], is_lost=True)
    try:
        found = unpack(answer.content, source="it")
    except InputError as error:
        return Reply(answer.site, None, plain(str(error))[:MAX_ERROR])
    if found.kind == "error":
        return Reply(answer.site, None, plain(str(found.words.get("error")))[:MAX_ERROR])
    return Reply(answer.site, found)


def plain(text: str) -> str:
    """On one line, without what could change a terminal: words may come from anybody."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


@dataclass
class Sites:
    """Who takes part. ``note`` is told what people should hear; all of it also goes to a file of events."""

    plan: Plan
    link: Link
    folder: Path
    status: Status
    note: Callable[[str], None]

    def say(self, text: str, **words: Any) -> None:
        """Tell people, and the file of events."""
        text = plain(text)
        self.note(text)
        line = {"time": round(time.time(), 3), "event": text, **words}
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def asked(self, messages: Mapping[str, Message], *, timeout: float, limit: int) -> Iterator[Reply]:
        """Each site's answer as it comes, or what went wrong."""
        packed: dict[int, bytes] = {}
        for message in messages.values():  # Most messages are one for all sites, and packed once.
            if id(message) not in packed:
                packed[id(message)] = pack(message)
        contents = {site: packed[id(message)] for site, message in messages.items()}
        for answer in self.link.ask(contents, timeout=timeout, limit=limit) if contents else ():
            yield _reply(answer)

    def changed(self, site: str, state: str, reason: str = "") -> None:
        """Note where a site stands now, and say it if that is new."""
        was, reason = self.status.sites.setdefault(site, SiteStatus()), plain(reason)[:MAX_ERROR]
        if (was.state, was.reason) == (state, reason):
            return
        was.state, was.reason, was.since = state, reason, time.time()
        words = {"here": "takes part", "away": "is away", "outside": "waits outside"}[state]
        self.say(f"site {site} {words}{f': {reason}' if reason else ''}", site=site, state=state)
        self.status.write(self.folder)

    def connected(self) -> list[str]:
        """The sites of the plan that are alive now."""
        return sorted(self.link.connected().keys() & set(self.plan.sites))

    def standing(self, state: str, *, note: str = "") -> None:
        """Write down where all of it stands, where that is new."""
        if (self.status.state, self.status.note) != (state, note):
            self.status.state, self.status.note = state, note
            self.status.write(self.folder)
