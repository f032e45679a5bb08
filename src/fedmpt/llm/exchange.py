"""A person as the language model: prompts wait in a folder until somebody has put answers beside them.

For those who have nothing but a chat window, and for sites without a network.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from fedmpt.files import write_atomically
from fedmpt.llm.model import Answer, LanguageModel, Request
from fedmpt.types import InputError

PROMPT, ANSWER, MODEL = ".prompt.txt", ".answer.txt", "model.txt"
LINE = "=" * 72
HEADINGS = {"system": "Instructions", "user": "Request", "assistant": "Earlier answer"}


class Exchange(LanguageModel):
    """A folder of prompts and answers; it is made when the first prompt is written.

    ``<label>-<hash>.prompt.txt`` is answered by ``<label>-<hash>.answer.txt``. The hash is of all that makes a request,
    so an answer is good for every later run. Nothing that is there is ever written over. Whoever answers may say in
    ``model.txt`` who or what did.
    """

    keeps_answers = True
    ignored = ("max_tokens", "temperature", "seed")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = " ".join(_read_text(folder / MODEL).split()) if (folder / MODEL).exists() else ""
        self.identity = {"provider": "exchange", "model": name or "not recorded"}

    def ask(self, request: Request) -> Answer | Path:
        """What stands in the answer's file; without one, the prompt is written."""
        digest = hashlib.sha256(json.dumps(request.canonical()).encode()).hexdigest()[:12]
        # Labels of an earlier run may be others. Numbers sort as they count: "describe 3 of 20" is "describe-003-...".
        slug = re.sub(r"[^a-z0-9]+", "-", request.label.casefold())[:48].strip("-")
        name = re.sub(r"\d+", lambda number: number.group().zfill(3), slug) or "request"
        prompts = sorted(self.folder.glob(f"*-{digest}{PROMPT}"))
        prompt = prompts[0] if prompts else self.folder / f"{name}-{digest}{PROMPT}"
        answer = prompt.with_name(prompt.name.removesuffix(PROMPT) + ANSWER)
        for path in sorted(self.folder.glob(f"*-{digest}{ANSWER}")):
            if text := _read_text(path).strip():
                return Answer(text)
        if not prompts:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(prompt, _prompt(request, answer.name).encode())
            except OSError as error:
                raise InputError(f"{prompt} cannot be written ({error.strerror}); choose another folder") from error
        return answer


def _prompt(request: Request, answer: str) -> str:
    """The whole file: what to do, a line, and what to paste."""
    head = (
        "Paste everything below the line into a chat with a language model, or answer it yourself.\n"
        f"Save the answer, and nothing else, as plain UTF-8 text in this folder under the name\n\n    {answer}\n\n"
        f"and run the command again. The name of the model may stand in {MODEL}, one line, from the start.\n"
    )
    turns = [message.content for message in request.messages]
    if len(turns) > 2:
        head += (
            "\nAn earlier answer could not be used, or more is asked. In a chat that still has what was said before,\n"
            "the last part is enough.\n"
        )
        turns = [f"--- {HEADINGS[message.role]} ---\n{message.content}" for message in request.messages]
    return f"{head}\n{LINE}\n" + "\n\n".join(turns) + "\n"


def _read_text(path: Path) -> str:
    """A text file, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as plain UTF-8 text") from error
