"""What all readers share: text, lists and tables from files, refused by line, and labels by name as tensors."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, InputError, Split

# A cell may hold a long list of labels or an outline; a file that is no table would otherwise be one cell.
MAX_CELL = 1_000_000
# Excel writes semicolons where the comma is the decimal sign.
_SEPARATORS = ",;\t"


def closest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'cat'?`` where there is one alike, else nothing. Case of letters counts least."""
    words = list(known)
    matches = [other for other in words if other.casefold() == word.casefold()]
    matches = matches or difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises InputError if ``value`` is none of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise InputError(f"{name} is {value!r}{closest(value, choices)}; it may be: {', '.join(choices)}")


def some(words: Iterable[str], *, limit: int = 10) -> str:
    """The first words, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def quoted(word: str) -> str:
    """As Python writes it; the middle of a long one left out."""
    written = repr(word)
    return written if len(written) <= 100 else f"{written[:60]}...{written[-30:]}"


def refuse_repeated(words: Sequence[Hashable], *, what: str, where: Callable[[int], str]) -> None:
    """Raises InputError if a word stands there twice; ``where`` says which place a position is."""
    first: dict[Hashable, int] = {}
    for number, word in enumerate(words):
        if (earlier := first.setdefault(word, number)) != number:
            raise InputError(f"{where(number)}: {what} {word!r} is listed twice, first in {where(earlier)}; remove one")


def read_text(path: Path, *, expected: str) -> str:
    """A UTF-8 file, with or without byte order mark; ``expected`` says what should be there.

    Raises InputError if it is missing, cannot be read, or is not UTF-8 (naming the line of the first wrong byte).
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


def read_lines(path: Path, *, expected: str) -> list[str]:
    """The lines of a text file without space around them; line 1 is the first, and empty ones at the end are none.

    Raises InputError as `read_text`, or if there is no line.
    """
    # Not `splitlines`: U+2028 may stand within a line.
    lines = [line.strip() for line in read_text(path, expected=expected).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty; expected {expected}")
    return lines


def read_names(path: Path, *, what: str) -> list[str]:
    """The lines of a list, none empty and none there twice. Raises InputError as `read_lines`, or for another line."""
    lines = read_lines(path, expected=f"one {what} a line")
    if "" in lines:
        raise InputError(f"{path}, line {lines.index('') + 1}: empty; expected one {what} a line")
    refuse_repeated(lines, what=what, where=lambda number: f"{path}, line {number + 1}")
    return lines


def parse_json(text: str, *, path: Path, expected: str, line: int | None = None, **hooks: Any) -> Any:
    """What a JSON text of ``path`` says; ``line`` is where it stands there, if it is one line alone.

    Raises InputError if it is none.
    """
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        where = f"{path}, line {line or error.lineno}, column {error.colno}"
        raise InputError(f"{where}: not valid JSON ({error.msg}); expected {expected}") from error
    except (ValueError, RecursionError) as error:  # Numbers of thousands of digits, brackets nested as deep.
        where = f"{path}, line {line}" if line else f"{path}"
        raise InputError(f"{where}: JSON that cannot be read ({error}); expected {expected}") from error


@dataclass(frozen=True)
class Table:
    """Columns of words, all of one length, and the line that each row is in."""

    path: Path
    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"

    def column(self, names: Iterable[str]) -> str | None:
        """The first of the columns ``names``, in any case of letters."""
        by_lower = {name.lower(): name for name in self.columns}
        return next((by_lower[name] for name in names if name in by_lower), None)

    def labels(
        self, names: Sequence[str], values: Mapping[str, int], *, expected: str
    ) -> Int8[Tensor, "images columns"]:
        """What the cells of the columns ``names`` mean by ``values``, whose keys are in lower case.

        Raises InputError if a cell is none of them.
        """
        matrix = np.empty((len(self.lines), len(names)), dtype=np.int8)
        for number, name in enumerate(names):
            cells = self.columns[name]
            if odd := {cell for cell in set(cells) if cell.strip().lower() not in values}:
                row = next(row for row, cell in enumerate(cells) if cell in odd)
                raise InputError(f"{self.where(row)}: {name!r} is {quoted(cells[row].strip())}; expected {expected}")
            matrix[:, number] = [values[cell.strip().lower()] for cell in cells]
        return torch.from_numpy(matrix)


def read_table(path: Path, *, expected: str, path_columns: Sequence[str] = ()) -> Table:
    """A CSV file with a header; ``,``, ``;`` or a tab separates its cells, or what Excel's line ``sep=;`` says.

    One of ``path_columns`` has to be there, where some are given. Empty rows, and empty columns without a name, do not
    count; a column without a name that holds something is called "". Raises InputError for the first wrong line.
    """
    rows, separator = _rows(path, expected=expected, path_columns=path_columns)
    if not rows:
        raise InputError(f"{path} is empty; expected {expected}")
    (header_line, words), *rows = rows
    header = [word.strip() for word in words]
    named = [name for name in header if name]
    if twice := [name for number, name in enumerate(named) if name in named[:number]]:
        raise InputError(f"{path}, line {header_line}: column {twice[0]!r} is there twice; remove or rename one")
    if path_columns and not {name.lower() for name in named} & set(path_columns):
        listed = some(map(quoted, header))
        raise InputError(
            f"{path}, line {header_line}: no column is called {path_columns[0]}; the columns are {listed}; "
            f"expected {expected}"
        )
    for line, row in rows:
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells, the header has {len(header)}; put names that hold "
                f"{separator!r} in quotes"
            )
    if not rows:
        raise InputError(f"{path} lists no images; expected {expected}")
    columns: dict[str, Sequence[str]] = {}
    cells_of = zip(*(row[: len(header)] for _, row in rows), strict=True)
    for number, (name, cells) in enumerate(zip(header, cells_of, strict=True), start=1):
        if name or any(cell.strip() for cell in cells):
            if name in columns:
                raise InputError(f"{path}: column {number} has no name; name it in the header")
            columns[name] = cells
    return Table(path, [line for line, _ in rows], columns)


def _rows(path: Path, *, expected: str, path_columns: Sequence[str]) -> tuple[list[tuple[int, list[str]]], str]:
    """Rows that are not empty, with the number of the line each ends on; and what separates their cells.

    That is the symbol with which the header names the path, or has most cells.
    """
    text = read_text(path, expected=expected)
    first = next(iter(text.lstrip().splitlines()), "")
    says_separator = len(first) == 5 and first.lower().startswith("sep=")
    header = {symbol: [cell.strip(' "').lower() for cell in first.split(symbol)] for symbol in _SEPARATORS}
    with_path = {symbol: words for symbol, words in header.items() if set(words) & set(path_columns)} or header
    separator = first[4] if says_separator else max(with_path, key=lambda symbol: len(with_path[symbol]))
    csv.field_size_limit(MAX_CELL)
    # Lines end where files end them. `str.splitlines` also cuts at U+2028 and form feeds, which cells may hold.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected {expected}") from error
    return rows[says_separator:], separator


def label_matrix(rows: Sequence[Mapping[str, int]], class_names: Sequence[str]) -> Int8[Tensor, "images C"]:
    """The labels that each image has by class; absent where it has none."""
    column_of = {name: column for column, name in enumerate(class_names)}
    labels = np.full((len(rows), len(class_names)), ABSENT, dtype=np.int8)
    for row, image in enumerate(rows):
        for name, label in image.items():
            labels[row, column_of[name]] = label
    return torch.from_numpy(labels)


def named(rows: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """All names of all rows, sorted."""
    return tuple(sorted({name for row in rows for name in row}))


def align(
    labels: Int8[Tensor, "images K"], class_names: Sequence[str], wanted: Sequence[str], *, unlisted: int
) -> Int8[Tensor, "images C"]:
    """Columns of the classes ``wanted``, in that order; ``unlisted`` where ``class_names`` lack one."""
    aligned = torch.full((len(labels), len(wanted)), unlisted, dtype=torch.int8)
    column_of = {name: column for column, name in enumerate(class_names)}
    for column, name in enumerate(wanted):
        if name in column_of:
            aligned[:, column] = labels[:, column_of[name]]
    return aligned


def not_shown(class_names: Sequence[str], split: Split) -> list[str]:
    """Classes that no image of a split shows; none where the split is empty."""
    shown = (split.labels == PRESENT).any(dim=0).tolist()
    return [name for name, is_shown in zip(class_names, shown, strict=True) if len(split) and not is_shown]
