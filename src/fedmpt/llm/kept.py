"""Answers on disk: what was asked once, of the same model in the same words, need not be asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from fedmpt.files import write_atomically
from fedmpt.llm.model import Answer, Request
from fedmpt.types import InputError

FORMAT = 1


class KeptAnswers:
    """Answers of one model in a folder, ``<first two digits of the key>/<key>.json``, readable for people.

    Several processes may share the folder: each file is written whole or not at all, and of two answers to the same
    request the later one stays.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self._identity = dict(identity)

    def prepare(self) -> None:
        """Make the folder and write to it, so that nothing is asked, and paid for, that cannot be kept.

        Raises:
            InputError: if that fails.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"answers cannot be kept in {self.folder}: {reason}; choose another --cache") from error

    def path(self, request: Request) -> Path:
        """Named by the SHA-256 of the model's identity, the messages and the parameters, without the label."""
        canonical = json.dumps(self._asked(request), sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(canonical.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"

    def load(self, request: Request) -> Answer | None:
        """The answer that was kept; None if there is none, or its file is damaged."""
        try:
            return Answer(**json.loads(self.path(request).read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, request: Request, answer: Answer) -> None:
        """Keep an answer in place of what was there."""
        value = {"format": FORMAT, **self._asked(request), "answer": asdict(answer)}
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        # Half a surrogate pair, which no encoding has, becomes \ud83d: just what JSON writes for it.
        write_atomically(path, text.encode("utf-8", "backslashreplace"))

    def _asked(self, request: Request) -> dict[str, Any]:
        parameters = {
            "max_tokens": request.max_tokens,
            "temperature": float(request.temperature),
            "seed": request.seed,
        }
        return {"identity": self._identity, "messages": request.chat(), "parameters": parameters}
