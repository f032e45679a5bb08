"""What all readers of data sets share: text files, tables and names of images, taken as they are or refused by line."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fedmpt.types import InputError

# A cell may hold a long list of labels; a file that is no table at all would otherwise fill the memory.
MAX_CELL = 1_000_000


def read_text(path: Path, *, expected: str) -> str:
    """A UTF-8 file, with or without byte order mark; ``expected`` says what should be there.

    Raises:
        InputError: if it is missing, cannot be read, or is not UTF-8 (naming the line of the first wrong byte).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; expected {expected}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; expected {expected}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.start + 1]
        raise InputError(f"{path}, line {line}: byte {wrong!r} is not UTF-8; save the file as UTF-8") from error


def read_table(path: Path, *, separator: str, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file that are not empty, with the number of the line each ends on. Quotes and CRLF are understood.

    Raises:
        InputError: as `read_text`, or if quotes are not closed or a cell is absurdly long.
    """
    text = read_text(path, expected=expected)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a zero byte; expected {expected}")
    previous = csv.field_size_limit(MAX_CELL)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected {expected}") from error
    finally:
        csv.field_size_limit(previous)


class ImageFolder:
    """Finds images by the names that a file gives, below one folder and nowhere else.

    Each folder is listed once: asking the file system for each image is slow on network disks. With
    ``follow_links=False`` an image, or a folder on the way to it, that is a link out of the root is refused.
    """

    def __init__(self, root: Path, *, follow_links: bool) -> None:
        self.root = root
        self._follow_links = follow_links
        self._listings: dict[Path, dict[str, bool]] = {}

    def path(self, name: str, *, where: str) -> Path:
        """Where ``name`` is to be, below the root; ``where`` names file and line for messages.

        Raises:
            InputError: if the name is empty, absolute, climbs out with ``..`` or holds a zero byte.
        """
        is_absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
        if not name.strip() or "\0" in name:
            raise InputError(f"{where}: {name!r} is no name of an image; give its path below {self.root}")
        if is_absolute or ".." in PureWindowsPath(name).parts:
            raise InputError(f"{where}: {name!r} leads out of {self.root}; give a path below it, without '..'")
        return self.root / name

    def find(self, name: str, *, where: str) -> Path | None:
        """The image ``name``, or None if there is none.

        Raises:
            InputError: as `path`, and for a link out of the root where links are not followed.
        """
        path = self.path(name, where=where)
        is_link = self._listing(path.parent).get(path.name)
        if is_link is None:
            return None
        if not self._follow_links and (is_link or self._is_outside(path.parent)) and self._is_outside(path):
            target = os.path.realpath(path)
            raise InputError(f"{where}: {name!r} is a link out of {self.root}, to {target}; copy the image there")
        return path

    def all(self, names: Sequence[str], *, where: str) -> tuple[Path, ...]:
        """All ``names``.

        Raises:
            InputError: as `find`, or if some are missing: how many, and the first.
        """
        found = [self.find(name, where=where) for name in names]
        missing = [name for name, path in zip(names, found, strict=True) if path is None]
        if missing:
            raise InputError(
                f"{where}: {len(missing)} of {len(names)} images are missing below {self.root}, first {missing[0]!r}; "
                "unpack them again or take them out of the list"
            )
        return tuple(path for path in found if path is not None)

    def _listing(self, folder: Path) -> dict[str, bool]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._listings[folder] = {}
        return self._listings[folder]

    def _is_outside(self, path: Path) -> bool:
        return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))


def closest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'cat'?`` where there is one alike, else nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
