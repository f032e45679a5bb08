"""Personal tensors of a site on its own disk: those that never leave it, by the round that they come from."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedmpt.files import write_atomically
from fedmpt.types import InputError, State

NAME = re.compile(r"round-([0-9]+)\.safetensors")


class PersonalStore:
    """The folder of one site's personal tensors.

    A round may come twice: the coordinator was stopped before it stored the round. So a round starts from the tensors
    of an earlier one, whatever later ones there are. Of the rounds before, only the last is kept, and that of the best.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before(self, index: int) -> dict[str, Tensor] | None:
        """The tensors with which round ``index`` starts; None where the site has not trained before. Raises InputError
        if the file is damaged."""
        rounds = [one for one in self._rounds() if one < index]
        return self._read(max(rounds)) if rounds else None

    def store(self, index: int, personal: State, *, best: int) -> None:
        """Keep the tensors after round ``index``, and those that the round ``best`` ended with."""
        if not personal:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = save({name: tensor.cpu().contiguous() for name, tensor in personal.items()})
        write_atomically(self._path(index), content)
        rounds = self._rounds()
        needed = {index, *(max(some) for most in (best, index - 1) if (some := [one for one in rounds if one <= most]))}
        for one in set(rounds) - needed:
            self._path(one).unlink(missing_ok=True)

    def drop_after(self, rounds_done: int) -> None:
        """Forget rounds that the coordinator does not have: they come again, or were of an earlier run."""
        for index in self._rounds():
            if index > rounds_done:
                self._path(index).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        found = (NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match[1]) for match in found if match]

    def _path(self, index: int) -> Path:
        return self._folder / f"round-{index:06d}.safetensors"

    def _read(self, index: int) -> dict[str, Tensor]:
        path = self._path(index)
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise InputError(
                f"{path} is damaged ({error}); restore it, or delete it to go on from an earlier one"
            ) from error
