"""Each folder of the corpus gives a clear error, or exactly the right labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from malformed_cases import corpus
from own_data import both, load_clients, load_folder

from fedmpt.types import InputError

CORPUS = corpus()


def written(row: Mapping[str, int]) -> set[str]:
    """Labels as the corpus writes them."""
    return {{1: name, -1: f"?{name}"}[value] for name, value in row.items() if value}


@pytest.mark.parametrize("name", CORPUS)
def test_a_clear_error_or_the_right_labels(name: str, tmp_path: Path) -> None:
    case, root = CORPUS[name], tmp_path / "data"
    case.write(root)
    load = load_clients if case.clients else load_folder
    if case.refused:
        with pytest.raises(InputError, match=case.refused):
            load(root, **case.options)
        return
    data = load(root, **case.options)
    assert {image: written(row) for image, row in both(data, root).items()} == {
        image: set(words.split("|")) - {""} for image, words in case.labels.items()
    }
