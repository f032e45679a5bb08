"""A CSV file of images and labels, as spreadsheets and data frames write it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fedmpt.data.own.listing import Entries, Options, quoted, some
from fedmpt.data.own.table import PATH_COLUMNS, Table, entries
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import read_table, read_text
from fedmpt.types import InputError

_EXPECTED = "a table with the columns path and labels, or path and one column a class"

# Excel writes semicolons where the comma is the decimal sign.
_DELIMITERS = ",;\t"


def read_csv(path: Path, options: Options, vocabulary: Vocabulary) -> Entries:
    """Images and labels of a CSV file with a header; ``,``, ``;`` or a tab separates its cells.

    Raises:
        InputError: if the file is no such table, or a cell is none that its column may have.
    """
    return entries(_read(path), options, vocabulary)


def _read(path: Path) -> Table:
    delimiter, has_delimiter_line = _delimiter(path)
    rows = read_table(path, separator=delimiter, expected=_EXPECTED)
    if has_delimiter_line:
        next(rows)
    header_line, words = next(rows, (1, []))
    header = [word.strip() for word in words]
    _check_header(path, header_line, header)
    lines: list[int] = []
    cells: list[list[str]] = []
    for line, row in rows:
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells, the header has {len(header)}; put names that hold "
                f"{delimiter!r} in quotes"
            )
        lines.append(line)
        cells.append(row[: len(header)])
    if not lines:
        raise InputError(f"{path} lists no images; expected {_EXPECTED}")
    columns = list(zip(header, zip(*cells, strict=True), strict=True))
    notes = tuple(note for number, column in enumerate(columns) for note in _unnamed_notes(path, number, *column))
    return Table(path, lines, {name: values for name, values in columns if name}, notes)


def _delimiter(path: Path) -> tuple[str, bool]:
    """What separates cells, by the header, and whether Excel's line ``sep=;`` says it."""
    lines = read_text(path, expected=_EXPECTED).lstrip().splitlines()
    if not lines:
        raise InputError(f"{path} is empty; expected {_EXPECTED}")
    if len(lines[0]) == 5 and lines[0].lower().startswith("sep="):
        return lines[0][4], True
    headers = {delimiter: _cells(lines[0], delimiter) for delimiter in _DELIMITERS}
    with_path = {key: cells for key, cells in headers.items() if set(cells) & set(PATH_COLUMNS)}
    candidates = with_path or headers
    return max(candidates, key=lambda key: len(candidates[key])), False


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip().lower() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:
        return []


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    twice = [name for number, name in enumerate(header) if name and name in header[:number]]
    if twice:
        raise InputError(f"{path}, line {line}: column {twice[0]!r} is there twice; remove or rename one")
    if not {name.lower() for name in header} & set(PATH_COLUMNS):
        listed = some(map(quoted, header))
        raise InputError(
            f"{path}, line {line}: no column is called path; the columns are {listed}; expected {_EXPECTED}"
        )


def _unnamed_notes(path: Path, number: int, name: str, cells: Sequence[str]) -> list[str]:
    """What to say of a column without a name: nothing if it is empty, and that it is left out if it numbers the rows.

    Raises:
        InputError: if it holds anything else.
    """
    if name or not any(cell.strip() for cell in cells):
        return []
    if list(cells) in [[str(row) for row in range(start, start + len(cells))] for start in (0, 1)]:
        return [f"{path}: column {number + 1} has no name and numbers the rows; left out"]
    raise InputError(f"{path}: column {number + 1} has no name; name it in the header")
