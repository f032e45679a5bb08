"""``metadata.jsonl`` of Hugging Face's image folders: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedmpt.data.own.listing import Entries, Options, some
from fedmpt.data.own.table import LABEL_COLUMNS, PATH_COLUMNS, Table, entries, split_cells
from fedmpt.data.own.vocabulary import Vocabulary
from fedmpt.data.reading import read_text
from fedmpt.types import InputError

_EXPECTED = "one JSON object a line, with file_name and labels, or file_name and one field a class"

Row = Mapping[str, Any]


def read_imagefolder(path: Path, options: Options, vocabulary: Vocabulary) -> Entries:
    """Images and labels of a ``metadata.jsonl``: ``labels`` is a list of names, or each class is a field of 1 or 0.

    Raises:
        InputError: if a line is no JSON object, or a field is none that it may be.
    """
    lines, rows = _read_rows(path)
    nested = sorted({key for row in rows for key, value in row.items() if isinstance(value, (dict, list))})
    keys = dict.fromkeys(key for row in rows for key in row)
    label_key = next((key for key in keys if key.lower() in LABEL_COLUMNS), None)
    plain = [key for key in keys if key == label_key or key not in nested]
    nested = [key for key in nested if key != label_key]
    notes = (f"{path}: fields that hold lists or objects are left out: {some(nested)}",) if nested else ()
    table = Table(path, lines, {key: [_word(row.get(key)) for row in rows] for key in plain}, notes)
    _check_names(table, rows)
    _check_text(table, label_key)
    if label_key is None:
        return entries(table, options, vocabulary)
    return entries(table, options, vocabulary, labels=_labels(table, label_key, rows, options))


def _read_rows(path: Path) -> tuple[list[int], list[Row]]:
    lines: list[int] = []
    rows: list[Row] = []
    # Not `splitlines`: U+2028 may stand in a JSON text as it is.
    for number, line in enumerate(read_text(path, expected=_EXPECTED).split("\n"), start=1):
        if line.strip():
            lines.append(number)
            rows.append(_parse(line, where=f"{path}, line {number}"))
    if not rows:
        raise InputError(f"{path} lists no images; expected {_EXPECTED}")
    return lines, rows


def _parse(line: str, *, where: str) -> Row:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
            raise InputError(f"{where}: field {twice!r} is there twice; keep one")
        return row

    def constant(word: str) -> NoReturn:
        raise InputError(f"{where}: {word} is no value in JSON; write null where there is none")

    try:
        row = json.loads(line, object_pairs_hook=unique, parse_constant=constant)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}, column {error.colno}: not valid JSON ({error.msg}); expected {_EXPECTED}"
        ) from error
    except (ValueError, RecursionError) as error:  # Numbers of thousands of digits, brackets nested as deep.
        raise InputError(f"{where}: JSON that cannot be read ({error}); expected {_EXPECTED}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: {line.strip()[:60]!r} is no JSON object; expected {_EXPECTED}")
    return row


def _check_names(table: Table, rows: Sequence[Row]) -> None:
    key = table.column(PATH_COLUMNS)
    for number, row in enumerate(rows):
        name = row.get(key) if key is not None else None
        if not isinstance(name, str):
            raise InputError(f"{table.where(number)}: {key or 'file_name'} is {name!r}; expected the path of an image")


def _check_text(table: Table, label_key: str | None) -> None:
    """That columns which are neither paths nor labels, whose readers check them, are whole characters."""
    checked = (table.column(PATH_COLUMNS), label_key)
    for name, words in table.columns.items():
        for number, word in enumerate(words if name not in checked else ()):
            if not (word.isascii() or _is_text(word)):
                raise InputError(f"{table.where(number)}: {name} is {word!r}, which holds half of a character; mend it")


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


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
