"""A person as the language model: prompts wait in a folder until somebody has put answers beside them.

For those who have nothing but a chat window, and for sites without a network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from fedmpt.files import write_atomically
from fedmpt.llm.model import Answer, AnswerPendingError, Message, Request
from fedmpt.types import InputError

PROMPT, ANSWER, MODEL = ".prompt.txt", ".answer.txt", "model.txt"
HASH_DIGITS = 12
"""Of each request, in hexadecimal. Two of a million requests share them with a chance of 1 in 500."""
LINE = "=" * 72


class Exchange:
    """A folder of prompts and answers; it is made when the first prompt is written.

    A request is written to ``<label>-<hash>.prompt.txt`` and answered by ``<label>-<hash>.answer.txt``. The hash is of
    all that makes a request, its label not, and files are found by it: an answer is good for every later run. Nothing
    that is there is ever written over; delete a prompt to have it written again.

    ``identity["model"]`` is the line in ``model.txt`` of the folder, in which whoever answers may say who or what did.
    """

    max_concurrency = 1
    keeps_answers = True
    ignored: tuple[str, ...] = ("max_tokens", "temperature", "seed")

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is no folder; give one in which prompts and answers are exchanged")
        self.folder = folder
        name = " ".join(_read_text(folder / MODEL).split()) if (folder / MODEL).exists() else ""
        self.identity: Mapping[str, str] = {"provider": "exchange", "model": name or "not recorded"}

    def ask(self, request: Request) -> Answer:
        """What stands in the answer's file; see `fedmpt.llm.model.LanguageModel`."""
        digest = hashlib.sha256(json.dumps(request.canonical()).encode()).hexdigest()[:HASH_DIGITS]
        for path in self._found(digest, ANSWER):
            if text := _read_text(path).strip():
                return Answer(text)
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

    def close(self) -> None:
        """Nothing is held."""

    def _found(self, digest: str, ending: str) -> list[Path]:
        return sorted(self.folder.glob(f"*-{digest}{ending}"))


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


def _read_text(path: Path) -> str:
    """A text file, with or without a byte order mark; line breaks as Windows has them are understood."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as plain UTF-8 text") from error
