"""Rows of images with labels, as tables and JSON lines have them: in one column, or one column a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.own.listing import SPLIT_NAMES, Entries, Options, SplitName, label_matrix, quoted, some
from fedmpt.data.own.vocabulary import Vocabulary, clean_name
from fedmpt.data.reading import closest
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError

PATH_COLUMNS = ("path", "file_name", "filename", "image")
LABEL_COLUMNS = ("labels", "label")

_VALUES: Mapping[str, int] = {
    "1": PRESENT, "1.0": PRESENT, "true": PRESENT,
    "0": ABSENT, "0.0": ABSENT, "false": ABSENT,
    "-1": UNKNOWN, "-1.0": UNKNOWN, "": UNKNOWN,
}  # fmt: skip
"""What a cell of a class may hold, in lower case. Spreadsheets write 1 as 1.0 where some cells are empty."""

_SEPARATORS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "space": " ", "bar": "|"}


@dataclass(frozen=True)
class Table:
    """Columns of words, all of one length, and the line that each row is in."""

    path: Path
    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"

    def places(self) -> tuple[str, ...]:
        return tuple(f"{self.path}, line {line}" for line in self.lines)

    def column(self, names: Sequence[str]) -> str | None:
        """The first of the columns ``names``, in any case of letters."""
        by_lower = {name.lower(): name for name in self.columns}
        return next((by_lower[name] for name in names if name in by_lower), None)


def entries(
    table: Table, options: Options, vocabulary: Vocabulary, *, labels: Sequence[Sequence[str]] | None = None
) -> Entries:
    """Images and labels of a table; ``labels`` are those of each row, where the file has them as lists.

    Raises:
        InputError: if a column is missing, or a cell is none that its column may have.
    """
    path_column = table.column(PATH_COLUMNS)
    assert path_column is not None, "readers check it"
    label_column, split_column = table.column(LABEL_COLUMNS), table.column(("split",))
    others = [name for name in table.columns if name not in (path_column, label_column, split_column)]
    notes = table.notes
    if label_column is not None:
        words = labels if labels is not None else split_cells(table, table.columns[label_column], options.separator)
        class_names, matrix = label_matrix(
            [[vocabulary.name(word, where=table.where(row)) for word in cell] for row, cell in enumerate(words)]
        )
        unlisted = ABSENT
        if options.classes is None:
            _refuse_bits(table, label_column, words)
        notes += _beside_notes(table, label_column, others)
    else:
        classes = _class_columns(table, others, options)
        class_names, matrix = _class_matrix(table, classes, vocabulary)
        others = [name for name in others if name not in classes]
        notes += _column_notes(table, classes, others, options)
        unlisted = UNKNOWN
    return Entries(
        image_names=tuple(table.columns[path_column]),
        places=table.places(),
        class_names=class_names,
        labels=matrix,
        unlisted=unlisted,
        splits=None if split_column is None else tuple(_splits(table, split_column)),
        columns={name: tuple(map(str.strip, table.columns[name])) for name in others if any(table.columns[name])},
        notes=notes,
    )


def _refuse_bits(table: Table, column: str, words: Sequence[Sequence[str]]) -> None:
    """Raises InputError if all labels are 1 or 0: they say whether an image shows a class, and not which."""
    found = {_word(word) for cell in words for word in cell}
    if found and found <= _VALUES.keys():
        raise InputError(
            f"{table.path}: column {column!r} has nothing but {' and '.join(sorted(found))} in it, which is no name of "
            "a class; call the column as the class is called, or list the classes in a file for classes="
        )


def _beside_notes(table: Table, column: str, others: Sequence[str]) -> tuple[str, ...]:
    """What looks like columns of classes and is none, since labels are in one column."""
    alike = [name for name in others if _holds_labels(table, name)]
    if not alike:
        return ()
    return (
        f"{table.path}: labels are those of the column {column}, so these columns of 1 and 0 are no classes: "
        f"{some(alike)}",
    )


def _holds_labels(table: Table, name: str) -> bool:
    """Whether all cells are values of labels and not all are empty."""
    words = set(map(_word, set(table.columns[name])))
    return words <= _VALUES.keys() and words != {""}


def split_cells(table: Table, cells: Sequence[str], separator: str) -> list[list[str]]:
    """Labels of each cell; none where it is empty. With ``"auto"`` they are separated by the one of | and ; in use.

    Raises:
        InputError: if both are in use, or neither is and there are commas, which may separate or belong to a name.
    """
    if not separator:
        raise InputError("separator is empty; give what separates labels in a cell, such as separator=|")
    symbol = _separator(table, cells) if separator == "auto" else _SEPARATORS.get(separator, separator)
    return [[word for word in cell.split(symbol) if word.strip()] for cell in cells]


def _separator(table: Table, cells: Sequence[str]) -> str:
    first = {symbol: next((row for row, cell in enumerate(cells) if symbol in cell), None) for symbol in "|;,"}
    bar, semicolon, comma = first["|"], first[";"], first[","]
    if bar is not None and semicolon is not None:
        raise InputError(
            f"{table.where(semicolon)}: labels {quoted(cells[semicolon])} hold ';', "
            f"those of line {table.lines[bar]} '|'; "
            "say which one separates labels: separator=semicolon or separator=bar"
        )
    if bar is None and semicolon is None and comma is not None:
        raise InputError(
            f"{table.where(comma)}: labels {quoted(cells[comma])} hold a comma; "
            "if it separates labels, say separator=comma, and if it belongs to a name, separator=bar"
        )
    return ";" if bar is None else "|"


def _class_columns(table: Table, others: Sequence[str], options: Options) -> list[str]:
    """The columns that are classes: those given, or those whose cells are all values of labels and not all empty."""
    if options.classes is not None:
        return [name for name in others if clean_name(name) in options.classes]
    classes = [name for name in others if _holds_labels(table, name)]
    for name in others:
        if name not in classes and (row := _odd_row(table, name)) is not None:
            raise InputError(
                f"{table.where(row)}: {name!r} is {quoted(table.columns[name][row])}, "
                "and 1, 0, -1 or empty in most rows; correct the line, "
                "or list the columns that are classes in a file for classes="
            )
    if not classes:
        raise InputError(
            f"{table.path}: no column labels, and none whose cells are all 1, 0, -1 or empty; "
            f"the columns are {some(table.columns)}"
        )
    return classes


def _odd_row(table: Table, name: str) -> int | None:
    """The first cell that is no label's value in a column where most are, empty ones not counted."""
    words = [_word(cell) for cell in table.columns[name]]
    odd = [row for row, word in enumerate(words) if word not in _VALUES]
    num_values = sum(word != "" and word in _VALUES for word in words)
    return odd[0] if odd and num_values > len(odd) else None


def _class_matrix(
    table: Table, columns: Sequence[str], vocabulary: Vocabulary
) -> tuple[tuple[str, ...], Int8[Tensor, "images C"]]:
    line = f"{table.path}, header"
    by_name: dict[str, str] = {}
    for column in columns:
        name = vocabulary.name(column, where=line)
        if name in by_name:
            raise InputError(f"{line}: {by_name[name]!r} and {column!r} are one class; keep one of the columns")
        by_name[name] = column
    class_names = tuple(sorted(by_name))
    matrix = np.empty((len(table.lines), len(class_names)), dtype=np.int8)
    for number, name in enumerate(class_names):
        matrix[:, number] = _class_values(table, by_name[name])
    return class_names, torch.from_numpy(matrix)


def _class_values(table: Table, column: str) -> list[int]:
    cells = table.columns[column]
    values = {cell: _VALUES.get(_word(cell)) for cell in set(cells)}
    numbers = [value for cell in cells if (value := values[cell]) is not None]
    if len(numbers) < len(cells):
        row = next(row for row, cell in enumerate(cells) if values[cell] is None)
        raise InputError(
            f"{table.where(row)}: {column!r} is {quoted(cells[row])}; "
            "expected 1 (present), 0 (absent) or nothing (unknown)"
        )
    return numbers


def _column_notes(table: Table, classes: Sequence[str], others: Sequence[str], options: Options) -> tuple[str, ...]:
    """What was taken for a class and what was not, where that is not plain."""
    if options.classes is not None:
        alike = [name for name in others if _holds_labels(table, name)]
        if not alike:
            return ()
        hints = "".join(sorted({closest(name, options.classes) for name in alike}))
        return (f"{table.path}: not in {options.classes_file} and so no classes: {some(alike)}{hints}",)
    if not others:
        return ()
    return (
        f"{table.path}: classes are the columns with nothing but 1, 0, -1 and empty cells: {some(classes)}; "
        f"no classes: {some(others)}. If that is wrong, list the classes in a file for classes=",
    )


def _splits(table: Table, column: str) -> Iterator[SplitName]:
    for row, cell in enumerate(table.columns[column]):
        name = SPLIT_NAMES.get(_word(cell))
        if name is None:
            raise InputError(
                f"{table.where(row)}: split is {quoted(cell)}{closest(_word(cell), SPLIT_NAMES)}; "
                f"it may be: {', '.join(SPLIT_NAMES)}"
            )
        yield name


def _word(cell: str) -> str:
    return cell.strip().lower()
