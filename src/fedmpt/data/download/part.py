"""What has come of a file so far, on disk: it outlives the process, and is never taken for the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fedmpt.data.download.request import Version
from fedmpt.files import read_json, write_json
from fedmpt.types import InputError


class Part:
    """``NAME.part`` beside the file it is to become, and ``NAME.part.json``: which version of the server's it is of."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version:
        """Of which version the bytes are; an empty one where nothing is known."""
        if not self._note.exists():
            return Version()
        try:
            return Version(**{key: str(value) for key, value in read_json(self._note).items()})
        except (InputError, TypeError, AttributeError):  # Damaged. The bytes may be good, the checksum will tell.
            return Version()

    def begin(self, version: Version) -> None:
        """Start anew. The old bytes go first, so that they are never taken for some of the new version."""
        self.path.write_bytes(b"")
        write_json(self._note, dataclasses.asdict(version))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """The bytes are those of the whole file, and get its name."""
        self.path.replace(self._target)
        self._note.unlink(missing_ok=True)
