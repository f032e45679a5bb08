"""Tables of images and labels, as spreadsheets write them: labels in one column, or a column a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedmpt.data.own.listing import SPLIT_NAMES, Entries, Options, Source, SplitName
from fedmpt.data.own.vocabulary import clean_name
from fedmpt.data.reading import Table, closest, label_matrix, named, quoted, read_table, some
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError

LAYOUT = "labels.csv with the columns path and labels, or path and one column a class"

PATH_COLUMNS = ("path", "file_name", "filename", "image")
LABEL_COLUMNS = ("labels", "label")

_EXPECTED = "a table with the columns path and labels, or path and one column a class"
_VALUES: Mapping[str, int] = {
    "1": PRESENT, "1.0": PRESENT, "true": PRESENT,
    "0": ABSENT, "0.0": ABSENT, "false": ABSENT,
    "-1": UNKNOWN, "-1.0": UNKNOWN, "": UNKNOWN,
}  # fmt: skip
"""What a cell of a class may hold, in lower case. Spreadsheets write 1 as 1.0 where some cells are empty."""

_SEPARATORS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "space": " ", "bar": "|"}


def read_csv(source: Source, options: Options) -> Entries:
    """Images and labels of a CSV file with a header. A column that numbers the rows is left out.

    Raises InputError if the file is no such table, or a cell is none that its column may have.
    """
    table = read_table(source.path, expected=_EXPECTED, path_columns=PATH_COLUMNS)
    numbers = table.columns.get("")
    if numbers is not None:
        count, position = len(numbers), list(table.columns).index("") + 1
        if list(numbers) not in [[str(row) for row in range(start, start + count)] for start in (0, 1)]:
            raise InputError(f"{source.path}: column {position} has no name; name it in the header")
        table = replace(
            table,
            columns={name: cells for name, cells in table.columns.items() if name},
            notes=(f"{source.path}: column {position} has no name and numbers the rows; left out",),
        )
    return entries(table, options)


def entries(table: Table, options: Options, *, labels: Sequence[Sequence[str]] | None = None) -> Entries:
    """Images and labels of a table; ``labels`` are those of each row, where the file has them as lists.

    Raises InputError if a column is missing, or a cell is none that its column may have.
    """
    path_column = table.column(PATH_COLUMNS)
    assert path_column is not None, "readers check it"
    label_column, split_column = table.column(LABEL_COLUMNS), table.column(("split",))
    others = [name for name in table.columns if name not in (path_column, label_column, split_column)]
    if label_column is not None:
        rows = _rows(table, label_column, options, labels)
        class_names, matrix = named(rows), label_matrix(rows, named(rows))
        bits = some(name for name in others if _holds_labels(table, name))
        note = f"labels are those of the column {label_column}, so these columns of 1 and 0 are no classes: {bits}"
        note = note if bits else ""
    else:
        classes = _class_columns(table, others, options)
        by_name = options.vocabulary.unique(classes, where=f"{table.path}, header")
        class_names = tuple(by_name)
        matrix = table.labels(list(by_name.values()), _VALUES, expected="1 (present), 0 (absent) or nothing (unknown)")
        others = [name for name in others if name not in classes]
        note = _note_on_columns(table, classes, others, options)
    return Entries(
        image_names=tuple(table.columns[path_column]),
        places=tuple(map(table.where, range(len(table.lines)))),
        class_names=class_names,
        labels=matrix,
        unlisted=UNKNOWN if label_column is None else ABSENT,
        splits=None if split_column is None else _splits(table, split_column),
        columns={name: tuple(map(str.strip, table.columns[name])) for name in others if any(table.columns[name])},
        notes=(*table.notes, f"{table.path}: {note}") if note else table.notes,
    )


def _rows(table: Table, column: str, options: Options, labels: Sequence[Sequence[str]] | None) -> list[dict[str, int]]:
    """The labels of each row by class.

    Raises InputError if all labels are 1 or 0: they say whether an image shows a class, and not which.
    """
    words = labels if labels is not None else split_cells(table, table.columns[column], options.separator)
    found = {_word(word) for cell in words for word in cell}
    if options.class_names is None and found and found <= _VALUES.keys():
        raise InputError(
            f"{table.path}: column {column!r} has nothing but {' and '.join(sorted(found))} in it, which is no name of "
            "a class; call the column as the class is called, or list the classes in a file for classes="
        )
    return [
        {options.vocabulary.name(word, where=table.where(row)): PRESENT for word in cell}
        for row, cell in enumerate(words)
    ]


def split_cells(table: Table, cells: Sequence[str], separator: str) -> list[list[str]]:
    """Labels of each cell; none where it is empty. With ``"auto"`` they are separated by the one of | and ; in use.

    Raises InputError if both are in use, or neither is and there are commas, which may separate or belong to a name.
    """
    if not separator:
        raise InputError("separator is empty; give what separates labels in a cell, such as separator=|")
    symbol = _SEPARATORS.get(separator, separator)
    if separator == "auto":
        bar, semicolon, comma = (next((row for row, cell in enumerate(cells) if sign in cell), None) for sign in "|;,")
        if bar is not None and semicolon is not None:
            raise InputError(
                f"{table.where(semicolon)}: labels {quoted(cells[semicolon])} hold ';', those of line "
                f"{table.lines[bar]} '|'; say which one separates labels: separator=semicolon or separator=bar"
            )
        if bar is None and semicolon is None and comma is not None:
            raise InputError(
                f"{table.where(comma)}: labels {quoted(cells[comma])} hold a comma; "
                "if it separates labels, say separator=comma, and if it belongs to a name, separator=bar"
            )
        symbol = ";" if bar is None else "|"
    return [[word for word in cell.split(symbol) if word.strip()] for cell in cells]


def _class_columns(table: Table, others: Sequence[str], options: Options) -> list[str]:
    """The columns that are classes: those given, or those whose cells are all values of labels and not all empty."""
    if options.class_names is not None:
        return [name for name in others if clean_name(name) in options.class_names]
    for name in others:
        cells = table.columns[name]
        odd = [row for row, cell in enumerate(cells) if _word(cell) not in _VALUES]
        num_values = sum(_word(cell) in _VALUES and _word(cell) != "" for cell in cells)
        if odd and num_values > len(odd):
            raise InputError(
                f"{table.where(odd[0])}: {name!r} is {quoted(cells[odd[0]])}, and 1, 0, -1 or empty in most rows; "
                "correct the line, or list the columns that are classes in a file for classes="
            )
    classes = [name for name in others if _holds_labels(table, name)]
    if not classes:
        raise InputError(
            f"{table.path}: no column labels, and none whose cells are all 1, 0, -1 or empty; "
            f"the columns are {some(table.columns)}"
        )
    return classes


def _note_on_columns(table: Table, classes: Sequence[str], others: Sequence[str], options: Options) -> str:
    """What was taken for a class and what was not, where that is not plain."""
    if options.class_names is not None:
        alike = [name for name in others if _holds_labels(table, name)]
        hints = "".join(sorted({closest(name, options.class_names) for name in alike}))
        return f"not in {options.classes} and so no classes: {some(alike)}{hints}" if alike else ""
    note = (
        f"classes are the columns with nothing but 1, 0, -1 and empty cells: {some(classes)}; "
        f"no classes: {some(others)}. If that is wrong, list the classes in a file for classes="
    )
    return note if others else ""


def _holds_labels(table: Table, name: str) -> bool:
    """Whether all cells are values of labels and not all are empty."""
    words = set(map(_word, set(table.columns[name])))
    return words <= _VALUES.keys() and words != {""}


def _splits(table: Table, column: str) -> tuple[SplitName, ...]:
    words = [_word(cell) for cell in table.columns[column]]
    for row, word in enumerate(words):
        if word not in SPLIT_NAMES:
            hint = f"{closest(word, SPLIT_NAMES)}; it may be: {', '.join(SPLIT_NAMES)}"
            raise InputError(f"{table.where(row)}: split is {quoted(table.columns[column][row])}{hint}")
    return tuple(SPLIT_NAMES[word] for word in words)


def _word(cell: str) -> str:
    return cell.strip().lower()
