"""A person as the language model: prompts wait in a folder until somebody has put answers beside them.

For those who have nothing but a chat window, and for sites without a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from fedmpt.files import write_atomically
from fedmpt.llm.model import Answer, AnswerPendingError, Message, Request
from fedmpt.types import InputError

PROMPT, ANSWER, MODEL = ".prompt.txt", ".answer.txt", "model.txt"
MAX_BYTES = 2**20
"""Of an answer. The longest that models write have a tenth of it."""
MAX_NAME = 200
"""Characters of a model's name."""
NOT_RECORDED = "not recorded"
HASH_DIGITS = 12
"""Of each request, in hexadecimal. Two of a million requests share them with a chance of 1 in 500."""
LINE = "=" * 72

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class Exchange:
    """A folder of prompts and answers.

    A request is written to ``<label>-<hash>.prompt.txt`` and answered by ``<label>-<hash>.answer.txt``. The hash is of
    all that makes a request, its label not, and files are found by it: an answer is good for every later run. Nothing
    that is there is ever written over; delete a prompt to have it written again.

    ``identity["model"]`` is the line in ``model.txt`` of the folder, in which whoever answers may say who or what did.
    """

    max_concurrency = 64
    """Nothing waits here, so all prompts are written before anybody is asked to answer."""
    keeps_answers = True
    ignored: tuple[str, ...] = ("max_tokens", "temperature", "seed")

    def __init__(self, folder: Path) -> None:
        """Neither makes nor needs the folder yet.

        Raises:
            InputError: if it is no folder, or its ``model.txt`` is not one line of text.
        """
        if os.path.lexists(folder) and not folder.is_dir():
            raise InputError(f"{folder} is no folder; give one in which prompts and answers are exchanged")
        self.folder = folder
        self.identity: Mapping[str, str] = {"provider": "exchange", "model": _model_name(folder / MODEL)}

    async def ask(self, request: Request) -> Answer:
        """What stands in the answer's file.

        Raises:
            AnswerPendingError: if there is no answer yet; the prompt is there then.
            InputError: if the answer is no readable text, or the folder cannot be written to.
        """
        digest = _hash(request)
        for path in self._found(digest, ANSWER):
            if text := _read_text(path).strip():
                return Answer(text)
        return self._wait(request, digest)

    async def close(self) -> None:
        """Nothing is held."""

    def _wait(self, request: Request, digest: str) -> Answer:
        prompts = self._found(digest, PROMPT)
        prompt = prompts[0] if prompts else self.folder / f"{_slug(request.label)}-{digest}{PROMPT}"
        answer = prompt.with_name(prompt.name.removesuffix(PROMPT) + ANSWER)
        if not prompts:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(prompt, _prompt(request, answer.name).encode())
            except OSError as error:
                message = f"{prompt} cannot be written ({error.strerror}); choose a folder that can"
                raise InputError(message) from error
        raise AnswerPendingError(answer)

    def _found(self, digest: str, ending: str) -> list[Path]:
        return sorted(self.folder.glob(f"*-{digest}{ending}"))


def _hash(request: Request) -> str:
    messages = [[message.role, message.content] for message in request.messages]
    content = json.dumps([messages, request.max_tokens, request.temperature, request.seed])
    return hashlib.sha256(content.encode()).hexdigest()[:HASH_DIGITS]


def _slug(label: str) -> str:
    """Part of a file name, in which numbers sort as they count: "describe 3 of 20" is "describe-003-of-020"."""
    words = re.sub(r"[^a-z0-9]+", "-", label.casefold())[:48].strip("-")
    return re.sub(r"\d+", lambda number: number.group().zfill(3), words) or "request"


def _prompt(request: Request, answer: str) -> str:
    """The whole file: what to do, a line, and what to paste."""
    head = (
        "Paste everything below the line into a chat with a language model, or answer it yourself.\n"
        f"Save the answer, and nothing else, as plain UTF-8 text in this folder under the name\n\n    {answer}\n\n"
        f"and run the command again. The name of the model may stand in {MODEL}, one line, from the start.\n"
    )
    if [message.role for message in request.messages] in (["user"], ["system", "user"]):
        return f"{head}\n{LINE}\n" + "\n\n".join(message.content for message in request.messages) + "\n"
    head += (
        "\nAn earlier answer could not be used, or more is asked. In a chat that still has what was said before,\n"
        "the last part is enough.\n"
    )
    return f"{head}\n{LINE}\n" + "\n\n".join(map(_turn, request.messages)) + "\n"


def _turn(message: Message) -> str:
    heading = {"system": "Instructions", "user": "Request", "assistant": "Earlier answer"}[message.role]
    return f"--- {heading} ---\n{message.content}"


def _model_name(path: Path) -> str:
    if not os.path.lexists(path):
        return NOT_RECORDED
    name = _read_text(path).strip()
    if not name:
        return NOT_RECORDED
    if len(name) > MAX_NAME or not name.isprintable():
        raise InputError(
            f"{path} must be one line of at most {MAX_NAME} printable characters: who answers, or delete it"
        )
    return name


def _read_text(path: Path) -> str:
    """A small text file, with or without a byte order mark."""
    if not path.is_file():
        raise InputError(f"{path} is no file; put the answer there as plain text")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path} has {size} bytes, more than {MAX_BYTES}; expected plain text, the answer alone")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as plain UTF-8 text") from error
    if found := _CONTROL.search(text):
        raise InputError(
            f"{path} is no plain text (character {found.start()} is {found.group()!r}); save the answer as text"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
