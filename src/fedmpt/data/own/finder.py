"""Finding the images that a file names, however it spells their paths."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedmpt.data.own.listing import Entries, Links, Source, quoted, some
from fedmpt.data.reading import ImageFolder, closest
from fedmpt.types import InputError

# The folder that images are in is chosen by some of them: trying all in every folder takes long for large sets.
_NUM_TRIED = 100


class Finder:
    """Finds images below a folder: as they are written, or with other slashes, white space or Unicode forms."""

    def __init__(self, root: Path, *, links: Links) -> None:
        self.root = root
        self._folder = ImageFolder(root, follow_links=links == "follow")

    def annotation(self, path: Path) -> Path:
        """The file or folder of annotations itself.

        Raises:
            InputError: if it is a link out of the root, and links are not followed.
        """
        if path != self.root:
            self._folder.find(path.relative_to(self.root).as_posix(), where=str(path))
        return path

    def locate(self, source: Source, entries: Entries) -> tuple[Path, ...]:
        """Where the images of one file are, all below the same one of its ``bases``.

        Raises:
            InputError: if a name is empty, absolute or leads out of the root, or images are missing.
        """
        named = list(zip(entries.image_names, entries.places, strict=True))
        for name, place in named:
            self._folder.path(name, where=place)
        tried = named[:: max(1, len(named) // _NUM_TRIED)]
        # The first of the best: `max` keeps the order of the bases.
        bases = [base.relative_to(self.root).as_posix() for base in source.bases]
        base = max(bases, key=lambda base: sum(self._find(base, *one) is not None for one in tried))
        found = [self._find(base, name, place) for name, place in named]
        missing = [number for number, path in enumerate(found) if path is None]
        if missing:
            raise InputError(self._complaint(self.root / base, [named[number] for number in missing], total=len(named)))
        return tuple(path for path in found if path is not None)

    def key(self, path: Path, *, place: str) -> str:
        """The path of a found image below the root, with slashes, in composed Unicode.

        Raises:
            InputError: if the name on disk is not Unicode.
        """
        key = unicodedata.normalize("NFC", path.relative_to(self.root).as_posix())
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InputError(f"{place}: the name {key!r} on disk is not Unicode; rename the file") from None
        return key

    def target(self, path: Path) -> Path:
        """The file that a found image is, behind all links."""
        return self._folder.target(path)

    def unnamed(self, files: Sequence[Path], *, suffixes: frozenset[str]) -> list[str]:
        """Pictures beside ``files``, in the same folders, that are not among them: their paths below the root."""
        named: dict[Path, set[str]] = {}
        for path in files:
            named.setdefault(path.parent, set()).add(path.name)
        return [
            (folder / name).relative_to(self.root).as_posix()
            for folder in sorted(named)
            for name in sorted(self._folder.siblings(folder / "x") - named[folder])
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]

    def _find(self, base: str, name: str, place: str) -> Path | None:
        for spelling in _spellings(name):
            found = self._folder.find(spelling if base == "." else f"{base}/{spelling}", where=place)
            if found is not None:
                return found
        return None

    def _complaint(self, base: Path, missing: Sequence[tuple[str, str]], *, total: int) -> str:
        (name, place), *others = missing
        path = base / name
        alike = closest(path.name, sorted(self._folder.siblings(path)))
        hint = " (that is a folder)" if _is_dir(path) else alike
        rest = f", also {some(quoted(other) for other, _ in others)}" if others else ""
        return f"{place}: image {quoted(name)} is missing in {base}{hint}; {len(missing)} of {total} are missing{rest}"


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # A name that is too long, or is not Unicode.
        return False


def _spellings(name: str) -> Iterator[str]:
    """As written first: a name may end in a space, and hold a backslash where the system allows it."""
    yield name
    slashed = name.strip().replace("\\", "/")
    for other in dict.fromkeys((name.strip(), slashed, *(unicodedata.normalize(f, slashed) for f in ("NFC", "NFD")))):
        if other != name:
            yield other
