"""What all readers of data sets share: text files, tables and names of images, taken as they are or refused by line."""

from __future__ import annotations

import csv
import difflib
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, InputError

# What names of images rarely hold, and what those that lead out of a folder hold.
_UNUSUAL = re.compile(r"^/|\.\.|[\0\\:]")

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
    # Lines end where files end them. `str.splitlines` also cuts at U+2028 and form feeds, which cells may hold.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected {expected}") from error
    finally:
        csv.field_size_limit(previous)


@dataclass(frozen=True)
class LabelTable:
    """What a table of an image a row and a class a column says: ``columns`` names the classes, in its own words."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    labels: Int8[Tensor, "images C"]


def read_label_table(path: Path, *, expected: str) -> LabelTable:
    """A CSV file with a header, the name of an image in the first column, and 1 or 0 in all others.

    Raises:
        InputError: as `read_table`, or if a column or an image is named twice, a cell is neither 1 nor 0, or there is
            no row.
    """
    rows = read_table(path, separator=",", expected=expected)
    line, header = next(rows, (1, [""]))
    columns = tuple(cell.strip() for cell in header[1:])
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise InputError(f"{path}, line {line}: the header must name each class once; expected {expected}")
    names: dict[str, None] = {}
    values: list[str] = []
    for line, (name, *cells) in rows:
        if len(cells) != len(columns):
            raise InputError(f"{path}, line {line}: {len(cells) + 1} cells, the header has {len(columns) + 1}")
        if name.strip() in names:
            raise InputError(f"{path}, line {line}: image {name.strip()!r} is listed twice; remove one of the lines")
        names[name.strip()] = None
        values.append(_bits(cells, columns, where=f"{path}, line {line}"))
    if not names:
        raise InputError(f"{path} lists no images; expected {expected}")
    bits = torch.frombuffer(bytearray("".join(values), "ascii"), dtype=torch.int8) - ord("0")
    return LabelTable(columns, tuple(names), bits.reshape(len(names), len(columns)))


def _bits(cells: Sequence[str], columns: Sequence[str], *, where: str) -> str:
    """The cells as one word of the digits 1 and 0."""
    word = ",".join(cells)  # Without the commas, an empty cell beside "01" would look like two good ones.
    if len(word) == 2 * len(cells) - 1 and not word[0::2].strip("01") and not word[1::2].strip(","):
        return word[0::2]
    written = {"1": str(PRESENT), "1.0": str(PRESENT), "0": str(ABSENT), "0.0": str(ABSENT)}
    for cell, column in zip(cells, columns, strict=True):
        if cell.strip() not in written:
            raise InputError(f"{where}: {column!r} is {cell.strip()!r}, expected 1 (present) or 0 (absent)")
    return "".join(written[cell.strip()] for cell in cells)


def rows_with_labels(
    labels: Int8[Tensor, "images C"], *, min_labels: int, split: str, where: str
) -> tuple[list[int], tuple[str, ...]]:
    """The images in which at least ``min_labels`` classes are present, and a note where that is not all of them.

    ``split`` names them in the note, ``where`` in messages.

    Raises:
        InputError: if ``min_labels`` is negative, or no image is left.
    """
    if min_labels < 0:
        raise InputError(f"min_labels is {min_labels}; it must not be negative, and 0 keeps all images")
    num_present = (labels == PRESENT).sum(dim=1)
    rows = torch.nonzero(num_present >= min_labels).flatten().tolist()
    if not rows:
        most = int(num_present.max())
        raise InputError(f"{where}: no image has {min_labels} labels, the most is {most}; choose a smaller min_labels")
    if len(rows) == len(labels):
        return rows, ()
    num_left_out = len(labels) - len(rows)
    return rows, (f"{split}: {num_left_out} of {len(labels)} images have fewer than {min_labels} labels; left out",)


@dataclass(frozen=True)
class Part:
    """A file or folder that belongs to the layout of a data set.

    ``paths`` are where it may be below the data set's folder, its usual place first. ``inside`` is an example of a
    path below it.
    """

    paths: tuple[str, ...]
    what: str
    is_folder: bool = False
    inside: str = ""
    required: bool = True

    def find(self, root: Path) -> Path | None:
        """Where it is, or None."""
        found = (root / path for path in self.paths)
        return next((path for path in found if (path.is_dir() if self.is_folder else path.is_file())), None)

    def locate(self, root: Path) -> Path:
        """Where it is.

        Raises:
            InputError: if it is nowhere.
        """
        if not root.is_dir():
            raise InputError(f"{root} is no folder; expected one with {self.paths[0]} in it, {self.what}")
        path = self.find(root)
        if path is None:
            kind = "folder" if self.is_folder else "file"
            raise InputError(f"{root} has no {kind} {' or '.join(self.paths)}; expected {self.what} there")
        return path


class ImageFolder:
    """Finds images by the names that a file gives, below one folder and nowhere else.

    Each folder is listed once: asking the file system for each image is slow on network disks. With
    ``follow_links=False`` an image, or a folder on the way to it, that is a link out of the root is refused.
    """

    def __init__(self, root: Path, *, follow_links: bool) -> None:
        self.root = root
        self._follow_links = follow_links
        self._listings: dict[Path, dict[str, bool]] = {}
        self._real_folders: dict[Path, Path] = {}

    def path(self, name: str, *, where: str) -> Path:
        """Where ``name`` is to be, below the root; ``where`` names file and line for messages.

        Raises:
            InputError: if the name is empty, absolute, climbs out with ``..`` or holds a zero byte.
        """
        if name.strip() and not _UNUSUAL.search(name):  # Most names; the checks below take time.
            return self.root / name
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
        if self._follow_links or not (is_link or self._is_outside(self._real(path.parent))):
            return path
        if self._is_outside(target := self.target(path)):
            raise InputError(
                f"{where}: {name!r} is a link out of {self.root}, to {target}; copy it there, or load with links=follow"
            )
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

    def target(self, path: Path) -> Path:
        """The file that a found image is, behind all links: one picture may have two names."""
        if self._listing(path.parent)[path.name]:
            return Path(os.path.realpath(path))
        return self._real(path.parent) / path.name

    def siblings(self, path: Path) -> frozenset[str]:
        """Names of the files in the folder where ``path`` is or would be."""
        return frozenset(self._listing(path.parent))

    def _listing(self, folder: Path) -> dict[str, bool]:
        """Files of a folder, and which of them are links."""
        if folder not in self._listings:
            self._listings[folder] = _list_files(folder)
        return self._listings[folder]

    def _is_outside(self, target: Path) -> bool:
        return not target.is_relative_to(self._real(self.root))

    def _real(self, folder: Path) -> Path:
        if folder not in self._real_folders:
            self._real_folders[folder] = Path(os.path.realpath(folder))
        return self._real_folders[folder]


def _list_files(folder: Path) -> dict[str, bool]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir(follow_symlinks=False)}
    except (FileNotFoundError, NotADirectoryError, UnicodeEncodeError):
        return {}
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return {}
        raise InputError(f"{folder} cannot be listed: {error.strerror}; check who may read it") from error


def closest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'cat'?`` where there is one alike, else nothing. Case of letters counts least."""
    words = list(known)
    matches = [other for other in words if other.casefold() == word.casefold()]
    matches = matches or difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
