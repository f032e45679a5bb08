"""Finding the images that a file names, below one folder and nowhere else."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from fedmpt.data.reading import closest, quoted, some
from fedmpt.types import InputError

# Absolute paths of any system, and ways out by "..".
_OUTWARD = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|$)", re.DOTALL)
# The folder that images are in is chosen by some of them: trying all in every folder takes long for large sets.
_NUM_TRIED = 100


class ImageFolder:
    """Finds images by their paths below ``root``, as written or with other slashes, white space or Unicode forms.

    Each folder is listed once: asking the file system for each image is slow on network disks. With
    ``follow_links=False`` an image, or a folder on the way to it, that is a link out of the root is refused.
    """

    def __init__(self, root: Path, *, follow_links: bool = True) -> None:
        self.root = root
        self._follow_links = follow_links
        self._files = cache(_list_files)
        self._real = cache(Path.resolve)

    def find(self, name: str, *, where: str, base: Path | None = None) -> Path | None:
        """The image ``name`` below ``base``, the root unless given; None if there is none.

        ``where`` names file and line for messages.

        Raises InputError if the name is empty, absolute or climbs out with ``..``, or is a link that is not followed.
        """
        if not name.strip() or "\0" in name:
            raise InputError(f"{where}: {name!r} is no name of an image; give its path below {self.root}")
        if _OUTWARD.match(name.strip()):
            raise InputError(f"{where}: {name!r} leads out of {self.root}; give a path below it, without '..'")
        slashed = name.strip().replace("\\", "/")
        composed, decomposed = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
        # As written first: a name may end in a space, and hold a backslash where the system allows it.
        for spelling in (name, name.strip(), slashed, composed, decomposed):
            path = (base or self.root) / spelling
            if path.name in self._files(path.parent):
                self.refuse_link(path, where=where)
                return path
        return None

    def all(
        self,
        names: Sequence[str],
        *,
        places: Sequence[str],
        bases: Sequence[Path] = (),
        remedy: str = "restore them, or take them out of the list",
    ) -> tuple[Path, ...]:
        """All ``names``, below the one of ``bases`` that has most; ``places`` are where each is written.

        Raises InputError as `find`, or if some are missing: the first, and how many.
        """
        named = list(zip(names, places, strict=True))
        base = bases[0] if bases else self.root
        if len(bases) > 1:
            tried = named[:: max(1, len(named) // _NUM_TRIED)]
            # The first of the best: `max` keeps the order of the bases.
            base = max(bases, key=lambda base: sum(bool(self.find(name, where=at, base=base)) for name, at in tried))
        found = [self.find(name, where=place, base=base) for name, place in named]
        missing = [one for one, path in zip(named, found, strict=True) if path is None]
        if missing:
            (name, place), *others = missing
            rest = f", also {some(quoted(other) for other, _ in others)}" if others else ""
            path = base / name
            hint = (
                " (that is a folder)" if os.path.isdir(path) else closest(path.name, sorted(self._files(path.parent)))
            )
            raise InputError(
                f"{place}: image {quoted(name)} is missing in {base}{hint}; "
                f"{len(missing)} of {len(named)} are missing{rest}; {remedy}"
            )
        return tuple(path for path in found if path is not None)

    def refuse_link(self, path: Path, *, where: str) -> None:
        """Raises InputError if a file or folder that is there is a link out of the root, and links are not followed."""
        if self._follow_links:
            return
        is_link = self._files(path.parent).get(path.name, True)
        target = path.resolve() if is_link else self._real(path.parent) / path.name
        if not target.is_relative_to(self._real(self.root)):
            name = path.relative_to(self.root).as_posix()
            raise InputError(
                f"{where}: {name!r} is a link out of {self.root}, to {target}; copy it there, or load with links=follow"
            )

    def unnamed(self, files: Sequence[Path], *, suffixes: Collection[str]) -> list[str]:
        """Pictures beside ``files``, in the same folders, that are not among them: their paths below the root."""
        named: dict[Path, set[str]] = {}
        for path in files:
            named.setdefault(path.parent, set()).add(path.name)
        return [
            (folder / name).relative_to(self.root).as_posix()
            for folder in sorted(named)
            for name in sorted(self._files(folder).keys() - named[folder])
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]


def _list_files(folder: Path) -> dict[str, bool]:
    """Files of a folder, and which of them are links."""
    # Not `Path.is_dir`, which raises for a name that is too long.
    entries = os.scandir(folder) if os.path.isdir(folder) else ()
    return {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir(follow_symlinks=False)}
