"""What a site has sent with noise of its own (``--dp-at sites``), on its own disk: how often, and the last states."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from fedmpt.federated.privacy import Privacy
from fedmpt.federated.rounds import Ask
from fedmpt.files import read_json, write_atomically, write_json
from fedmpt.types import InputError, State

COUNT = "answers.json"
KEPT = 5
"""Answers whose states stay on the disk."""


class NoisedStore:
    """The folder of one site's noised states, and the site's own count of them, which never falls.

    New noise on the same update would tell more of it. So a question that was asked before gets the same state again,
    also after a restart. Any other answer is counted on the disk before it leaves. ``at_least`` shares of the noise
    make the whole of it, see `fedmpt.federated.protect.protected`.

    Raises:
        InputError: if the count is damaged.
    """

    def __init__(self, folder: Path, privacy: Privacy, *, at_least: int) -> None:
        self._folder, self._privacy, self._at_least = folder, privacy, at_least
        self._answers, self._digests = self._read_count()

    def find(self, ask: Ask) -> State | None:
        """The state that this question got before; None if it is new, or too long ago. Raises InputError if the file is
        damaged."""
        question = _question(ask)
        path = self._path(question)
        if question not in self._digests or not path.exists():
            return None
        content = path.read_bytes()
        try:
            if hashlib.sha256(content).hexdigest() != self._digests[question]:
                raise ValueError("another SHA-256 than it was written with")
            return load(content)
        except (ValueError, SafetensorError) as error:
            raise InputError(
                f"{path} is damaged ({error}); restore it, or delete it: then the answer gets new noise, and counts"
            ) from error

    def refusal(self, ask: Ask) -> str:
        """Why this question gets no answer: its noise would exceed the budget. Empty where it gets one."""
        if self._privacy.allows(self._answers + 1) or self.find(ask) is not None:
            return ""
        return (
            f"--dp-budget {self._privacy.dp_budget:g} is spent by this site's own count: epsilon is "
            f"{self._privacy.epsilon(self._answers):.3g} after {self._answers} answers with noise, and would be "
            f"{self._privacy.epsilon(self._answers + 1):.3g} with this one"
        )

    def add(self, ask: Ask, state: State) -> None:
        """Count the answer ``state``, and keep it. After a kill in between it is counted, and no state is kept."""
        question = _question(ask)
        content = save({name: tensor.cpu().contiguous() for name, tensor in state.items()})
        self._folder.mkdir(parents=True, exist_ok=True)
        self._digests.pop(question, None)
        self._digests[question] = hashlib.sha256(content).hexdigest()
        self._digests = dict(list(self._digests.items())[-KEPT:])
        self._answers += 1
        write_json(self._folder / COUNT, {"answers": self._answers, "kept": self._digests})
        write_atomically(self._path(question), content)
        for path in self._folder.glob("*.safetensors"):
            if path.stem not in self._digests:
                path.unlink(missing_ok=True)

    def spent(self) -> str:
        """epsilon by the site's own count, in words."""
        budget = "" if self._privacy.dp_budget is None else f" of at most {self._privacy.dp_budget:g}"
        at_server = self._privacy.epsilon_at_server(self._answers, at_least=self._at_least)
        return (
            f"epsilon so far {self._privacy.epsilon(self._answers):.3g}{budget}, and {at_server:.3g} towards the "
            f"coordinator: {self._answers} different answers with noise"
        )

    def _path(self, question: str) -> Path:
        return self._folder / f"{question}.safetensors"

    def _read_count(self) -> tuple[int, dict[str, str]]:
        path = self._folder / COUNT
        if not path.exists() and not any(self._folder.glob("*.safetensors")):
            return 0, {}
        try:
            words = read_json(path)
            answers, digests = words["answers"], dict(words["kept"])
            if type(answers) is not int or answers < len(digests):
                raise ValueError(f"{answers!r} answers, of which {len(digests)} are kept")
            return answers, digests
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is missing or damaged ({error}), and with it the number of answers that count for this "
                f"site's epsilon. Restore it from a copy. Without one, move {self._folder} away: the count then begins "
                "at 0, and what was sent before has to be added by hand"
            ) from error


def _question(ask: Ask) -> str:
    """A digest of all that an update depends on, but for the site's own images."""
    words = json.dumps([ask.index, ask.learning_rate]).encode()
    return hashlib.sha256(words + save({name: tensor.contiguous() for name, tensor in ask.state.items()})).hexdigest()
