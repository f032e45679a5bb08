"""Labels of new images: every view of an image is prepared as its features were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toy_method import Toy

from fedmpt.backbone import load_backbone
from fedmpt.backbone.views import ImageView, StrongView, TowerTokens
from fedmpt.data.features.store import open_features
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.evaluation.scoring import probabilities
from fedmpt.inference.tagger import Tagger
from fedmpt.runs.config import RunConfig
from fedmpt.types import Batch, Split

CLASSES = ("cat", "dog", "cow")


class OnAView(Toy):
    """Scores the first token of a view instead of the pooled feature."""

    def forward(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        text = self.encode_text() if text is None else text
        return (batch.views["seen"][:, 0, 0] @ text.T + self.offset).sigmoid()


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    draw = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{number}.png" for number in range(3))
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("view", [StrongView(), TowerTokens(1)])
def test_an_image_scores_as_its_stored_views_do(
    view: ImageView, pictures: tuple[Path, ...], tiny_clip_folder: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_clip_folder))
    split = Split("test", pictures, torch.zeros(3, 3, dtype=torch.int8))
    stored = open_features(backbone, split, cache=tmp_path, store_dtype="float32", progress=False, views={"seen": view})
    width = stored.batch(torch.arange(1)).views["seen"].shape[-1]
    method = OnAView(3, width, personal_offset=False, generator=torch.Generator().manual_seed(0))
    method.views = {"seen": view}
    config = RunConfig(data="none", store_dtype="float32")
    tagger = Tagger(config, backbone, CLASSES, Prediction(), FinalModel(method, {}, {}, {}), None, ())
    expected = probabilities(method, stored)
    for (path, labels), row in zip(tagger.tag(pictures), expected, strict=True):
        assert path in pictures
        found = {label.name: label.probability for label in labels}
        torch.testing.assert_close(torch.tensor([found[name] for name in CLASSES]), row, atol=1e-5, rtol=1e-5)
