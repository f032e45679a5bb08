"""A CSV file of images and labels, as spreadsheets and data frames write it."""

from __future__ import annotations

from dataclasses import replace

from fedmpt.data.own.columns import PATH_COLUMNS, entries
from fedmpt.data.own.listing import Entries, Options, Source
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import read_table
from fedmpt.types import InputError

LAYOUT = "labels.csv with the columns path and labels, or path and one column a class"

_EXPECTED = "a table with the columns path and labels, or path and one column a class"


def read_csv(source: Source, options: Options, vocabulary: Vocabulary) -> Entries:
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
    return entries(table, options, vocabulary)
