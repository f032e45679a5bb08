"""Views that methods read beside features are stored like them: once, in the order of the images, by their own key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_backbone import FakeBackbone, stores, write_split

from fedmpt.backbone import load_backbone
from fedmpt.backbone.views import StrongView, TowerTokens, open_tower, tokens_of
from fedmpt.data.features.store import open_features
from fedmpt.data.images import read_image
from fedmpt.types import InputError, Split


@pytest.fixture
def pictures(tmp_path: Path) -> Split:
    return write_split(tmp_path / "pictures", 6)


def test_tokens_are_those_of_the_tower(pictures: Split, tmp_path: Path, tiny_clip_folder: Path) -> None:
    backbone = open_tower(load_backbone(str(tiny_clip_folder)))
    views = {"early": TowerTokens(0), "both": TowerTokens(1, with_local=True)}
    features = open_features(backbone, pictures, cache=tmp_path, store_dtype="float32", views=views)
    assert len(stores(tmp_path)) == 3
    rows = torch.tensor([4, 0, 4])
    batch = features.subset(torch.tensor([5, 4, 3, 2, 1, 0])).batch(torch.tensor([1, 5, 1]))
    pixels = torch.stack([backbone.preprocess(read_image(pictures.files[row])) for row in rows.tolist()])
    for name, view in views.items():
        expected = tokens_of(*view.of(backbone).encode_image(pixels), num_streams=view.num_streams)
        torch.testing.assert_close(batch.views[name], expected, atol=1e-5, rtol=1e-5)
    assert batch.views["both"].shape == (3, 2, 17, 64)


def test_a_second_opening_computes_nothing(pictures: Split, tmp_path: Path) -> None:
    first = open_features(FakeBackbone(), pictures, cache=tmp_path, views={"strong": StrongView()})
    backbone = FakeBackbone()
    again = open_features(backbone, pictures, cache=tmp_path, views={"other name": StrongView()})
    assert backbone.batches == []
    rows = torch.arange(len(pictures))
    assert torch.equal(first.batch(rows).views["strong"], again.batch(rows).views["other name"])


def test_the_strong_view_is_another_store_than_the_features(pictures: Split, tmp_path: Path) -> None:
    features = open_features(FakeBackbone(), pictures, cache=tmp_path, views={"strong": StrongView()})
    assert len(stores(tmp_path)) == 2
    batch = features.batch(torch.arange(len(pictures)))
    assert batch.views["strong"].shape == (6, 1, 5, 6)
    assert not torch.equal(batch.views["strong"][:, 0, 1:], batch.patches)


def test_corrupt_images_are_left_out_of_views_too(pictures: Split, tmp_path: Path) -> None:
    pictures.files[2].write_bytes(b"no picture")
    with pytest.raises(InputError, match=pictures.files[2].name):
        open_features(FakeBackbone(), pictures, cache=tmp_path, views={"strong": StrongView()})
    features = open_features(
        FakeBackbone(), pictures, cache=tmp_path, views={"strong": StrongView()}, skip_corrupt=True
    )
    batch = features.batch(torch.arange(5))
    strong = FakeBackbone()
    expected = [strong.encode_image(StrongView().of(strong).preprocess(read_image(features.files[3]))[None])[0][0]]
    torch.testing.assert_close(batch.views["strong"][3, 0, 1:], expected[0].detach(), atol=1e-2, rtol=1e-2)


def test_a_plug_in_has_no_tokens_to_give(pictures: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'fake' does not open its own"):
        open_features(FakeBackbone(), pictures, cache=tmp_path, views={"tokens": TowerTokens(0)})
