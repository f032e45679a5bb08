"""Answers on disk: what was asked once, of the same model in the same words, need not be asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from fedmpt.files import read_json, write_atomically
from fedmpt.llm.model import Answer, Request
from fedmpt.types import InputError

FORMAT = 1
FINISHES = ("stop", "length", "refusal")


class AnswerStore:
    """Answers of one model in a folder, ``<first two digits of the key>/<key>.json``, readable for people.

    Several processes may share the folder: each file is written whole or not at all, and of two answers to the same
    request the later one stays. A file that is damaged, or that holds another request than its name says, counts as
    not there.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        """``identity`` is that of the model, see `LanguageModel`."""
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

    def key(self, request: Request) -> str:
        """SHA-256 in hexadecimal digits of the model's identity, the messages and the parameters, not the label."""
        canonical = json.dumps(self._asked(request), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def path(self, request: Request) -> Path:
        """Where the answer to a request is, or would be."""
        key = self.key(request)
        return self.folder / key[:2] / f"{key}.json"

    def load(self, request: Request) -> Answer | None:
        """The answer that was kept, or None."""
        path = self.path(request)
        try:
            stored = read_json(path) if path.is_file() else None
        except (InputError, OSError):
            return None
        expected = {"format": FORMAT, **self._asked(request)}
        if not isinstance(stored, dict) or any(stored.get(name) != value for name, value in expected.items()):
            return None
        return _answer(stored.get("answer"))

    def save(self, request: Request, answer: Answer) -> None:
        """Keep an answer in place of what was there.

        Raises:
            OSError: if the disk is full, or something else than a file is there.
        """
        value = {
            "format": FORMAT,
            **self._asked(request),
            "answer": {
                "text": answer.text,
                "finish": answer.finish,
                "prompt_tokens": answer.prompt_tokens,
                "answer_tokens": answer.answer_tokens,
            },
        }
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Half a surrogate pair, which no encoding has, becomes \ud83d: just what JSON writes for it.
        write_atomically(path, text.encode("utf-8", "backslashreplace"))

    def _asked(self, request: Request) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        parameters = {
            "max_tokens": request.max_tokens,
            "temperature": float(request.temperature),
            "seed": request.seed,
        }
        return {"identity": self._identity, "messages": messages, "parameters": parameters}


def _answer(value: Any) -> Answer | None:
    """An answer as it was stored, or None if it is none."""
    if not isinstance(value, dict) or value.get("finish") not in FINISHES or not isinstance(value.get("text"), str):
        return None
    tokens = [value.get(name) for name in ("prompt_tokens", "answer_tokens")]
    if any(number is not None and type(number) is not int for number in tokens):
        return None
    return Answer(value["text"], value["finish"], *tokens)
