"""``metadata.jsonl`` of Hugging Face's image folders: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.data.own.csv_table import LABEL_COLUMNS, PATH_COLUMNS, entries, split_cells
from fedmpt.data.own.listing import Entries, Options, Source
from fedmpt.data.reading import Table, parse_json, read_text, some
from fedmpt.types import InputError

LAYOUT = "metadata.jsonl with file_name and labels"

_EXPECTED = "one JSON object a line, with file_name and labels, or file_name and one field a class"

Row = Mapping[str, Any]


def read_imagefolder(source: Source, options: Options) -> Entries:
    """Images and labels of a ``metadata.jsonl``: ``labels`` is a list of names, or each class is a field of 1 or 0.

    Raises InputError if a line is no JSON object, or a field is none that it may be.
    """
    path = source.path
    by_line = _read_rows(path)
    rows = list(by_line.values())
    keys = dict.fromkeys(key for row in rows for key in row)
    label_key = next((key for key in keys if key.lower() in LABEL_COLUMNS), None)
    nested = {key for row in rows for key, value in row.items() if isinstance(value, (dict, list))} - {label_key}
    notes = (f"{path}: fields that hold lists or objects are left out: {some(sorted(nested))}",) if nested else ()
    columns = {key: [_word(row.get(key)) for row in rows] for key in keys if key not in nested}
    table = Table(path, list(by_line), columns, notes)
    path_key = table.column(PATH_COLUMNS) or "file_name"
    for number, row in enumerate(rows):
        if not isinstance(name := row.get(path_key), str):
            raise InputError(f"{table.where(number)}: {path_key} is {name!r}; expected the path of an image")
    labels = None if label_key is None else _labels(table, label_key, rows, options)
    return entries(table, options, labels=labels)


def _read_rows(path: Path) -> dict[int, Row]:
    """Objects by the numbers of their lines."""
    rows: dict[int, Row] = {}
    # Not `splitlines`: U+2028 may stand in a JSON text as it is.
    for number, line in enumerate(read_text(path, expected=_EXPECTED).split("\n"), start=1):
        if not line.strip():
            continue
        # Python writes NaN where others write null.
        row = parse_json(line, path=path, expected=_EXPECTED, line=number, parse_constant=lambda word: None)
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: {line.strip()[:60]!r} is no JSON object; expected {_EXPECTED}")
        rows[number] = row
    if not rows:
        raise InputError(f"{path} lists no images; expected {_EXPECTED}")
    return rows


def _labels(table: Table, key: str, rows: Sequence[Row], options: Options) -> list[Sequence[str]]:
    """Labels of each row, from lists, or from text as in a cell of a table."""
    cells = split_cells(table, [row[key] if isinstance(row.get(key), str) else "" for row in rows], options.separator)
    labels: list[Sequence[str]] = []
    for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        value = cell if isinstance(row.get(key), str) else row.get(key)
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            written = "missing" if key not in row else json.dumps(value)[:60]
            raise InputError(
                f"{table.where(number)}: {key} is {written}; expected a list of names, and [] for an image without any"
            )
        labels.append(value)
    return labels


def _word(value: Any) -> str:
    """A plain value as a table would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
