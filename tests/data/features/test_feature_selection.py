"""Images that are taken from other splits share the features stored of those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_backbone import FakeBackbone, all_rows, direct_features, stores, write_split

from fedmpt.data.features.store import open_features
from fedmpt.types import InputError, Split


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Split, Split]:
    train, other = write_split(tmp_path / "train", 7), write_split(tmp_path / "test", 5)
    return train, replace(other, name="test")


def mixed(parts: tuple[Split, Split], rows: list[int]) -> Split:
    """Rows of both splits, those of the second one from 7 on."""
    files = parts[0].files + parts[1].files
    labels = torch.cat([part.labels for part in parts])
    return Split("mixed", tuple(files[row] for row in rows), labels[rows], pool=parts)


@pytest.mark.parametrize("rows", [[8, 0, 6, 11, 3], [0, 1, 2], [11, 7], list(range(12))])
def test_features_are_those_of_the_images(parts: tuple[Split, Split], tmp_path: Path, rows: list[int]) -> None:
    split = mixed(parts, rows)
    features = open_features(FakeBackbone(), split, cache=tmp_path, store_dtype="float32")
    expected, pooled = direct_features(FakeBackbone(), split.files)
    found = features.batch(all_rows(features))
    torch.testing.assert_close(found.patches, expected)
    torch.testing.assert_close(found.pooled, pooled)
    assert torch.equal(found.labels, split.labels)
    some = torch.tensor([1, 1, 0])
    torch.testing.assert_close(features.subset(some).batch(torch.tensor([2, 0])).pooled, pooled[[0, 1]])


def test_nothing_is_computed_for_a_selection_alone(parts: tuple[Split, Split], tmp_path: Path) -> None:
    for part in parts:
        open_features(FakeBackbone(), part, cache=tmp_path)
    before, backbone = stores(tmp_path), FakeBackbone()
    keys = {open_features(backbone, mixed(parts, rows), cache=tmp_path).store.facts.key for rows in ([0, 8], [8, 0])}
    assert len(keys) == 2, "a run notices other images"
    assert stores(tmp_path) == before
    assert not backbone.batches


def test_only_what_is_needed_of_the_pool_is_computed(parts: tuple[Split, Split], tmp_path: Path) -> None:
    open_features(FakeBackbone(), mixed(parts, [2, 4]), cache=tmp_path)
    assert len(stores(tmp_path)) == 1


def test_skipped_images_are_those_of_the_selection(parts: tuple[Split, Split], tmp_path: Path) -> None:
    for file in (parts[0].files[1], parts[1].files[2]):
        file.write_bytes(b"no picture")
    split = mixed(parts, [9, 0, 8, 6])
    with pytest.raises(InputError, match="cannot be read"):
        open_features(FakeBackbone(), split, cache=tmp_path)
    features = open_features(FakeBackbone(), split, cache=tmp_path, skip_corrupt=True, store_dtype="float32")
    assert features.skipped == (parts[1].files[2],)
    assert features.files == split.files[1:]
    expected, _ = direct_features(FakeBackbone(), features.files)
    torch.testing.assert_close(features.batch(all_rows(features)).patches, expected)
