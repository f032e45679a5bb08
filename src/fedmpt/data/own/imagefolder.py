"""``metadata.jsonl`` of Hugging Face's image folders: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.data.own.columns import LABEL_COLUMNS, PATH_COLUMNS, entries, split_cells
from fedmpt.data.own.listing import Entries, Options, Source
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import Table, parse_json, read_text, some
from fedmpt.types import InputError

LAYOUT = "metadata.jsonl with file_name and labels"

_EXPECTED = "one JSON object a line, with file_name and labels, or file_name and one field a class"

Row = Mapping[str, Any]


def read_imagefolder(source: Source, options: Options, vocabulary: Vocabulary) -> Entries:
    """Images and labels of a ``metadata.jsonl``: ``labels`` is a list of names, or each class is a field of 1 or 0.

    Raises InputError if a line is no JSON object, or a field is none that it may be.
    """
    path = source.path
    lines, rows = _read_rows(path)
    keys = dict.fromkeys(key for row in rows for key in row)
    label_key = next((key for key in keys if key.lower() in LABEL_COLUMNS), None)
    nested = {key for row in rows for key, value in row.items() if isinstance(value, (dict, list))} - {label_key}
    notes = (f"{path}: fields that hold lists or objects are left out: {some(sorted(nested))}",) if nested else ()
    columns = {key: [_word(row.get(key)) for row in rows] for key in keys if key not in nested}
    table = Table(path, lines, columns, notes)
    path_key = table.column(PATH_COLUMNS)
    for number, row in enumerate(rows):
        name = None if path_key is None else row.get(path_key)
        if not isinstance(name, str):
            where = table.where(number)
            raise InputError(f"{where}: {path_key or 'file_name'} is {name!r}; expected the path of an image")
    labels = None if label_key is None else _labels(table, label_key, rows, options)
    return entries(table, options, vocabulary, labels=labels)


def _read_rows(path: Path) -> tuple[list[int], list[Row]]:
    lines: list[int] = []
    rows: list[Row] = []
    # Not `splitlines`: U+2028 may stand in a JSON text as it is.
    for number, line in enumerate(read_text(path, expected=_EXPECTED).split("\n"), start=1):
        if not line.strip():
            continue
        # Python writes NaN where others write null.
        row = parse_json(line, path=path, expected=_EXPECTED, line=number, parse_constant=lambda word: None)
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: {line.strip()[:60]!r} is no JSON object; expected {_EXPECTED}")
        lines.append(number)
        rows.append(row)
    if not rows:
        raise InputError(f"{path} lists no images; expected {_EXPECTED}")
    return lines, rows


def _labels(table: Table, key: str, rows: Sequence[Row], options: Options) -> list[Sequence[str]]:
    """Labels of each row, from lists, or from text as in a cell of a table."""
    cells = split_cells(table, [row[key] if isinstance(row.get(key), str) else "" for row in rows], options.separator)
    labels: list[Sequence[str]] = []
    for number, row in enumerate(rows):
        value = row.get(key)
        if isinstance(value, str):
            labels.append(cells[number])
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            labels.append(value)
        else:
            written = "missing" if key not in row else json.dumps(value)[:60]
            raise InputError(
                f"{table.where(number)}: {key} is {written}; expected a list of names, and [] for an image without any"
            )
    return labels


def _word(value: Any) -> str:
    """A plain value as a table would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
