"""scenes-clip, the model that comes with the package, loaded as any CLIP folder is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedmpt.backbone import load_backbone
from fedmpt.backbone.load import BUILT_IN, parse_spec
from fedmpt.data.datasets.scenes import CLASS_NAMES, SceneOptions, load_scenes
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.methods.base import MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.seeding import generator
from fedmpt.types import Backbone

FOLDER = BUILT_IN["scenes-clip"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes-clip")


@pytest.fixture(scope="module")
def drawn_images(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    cache = tmp_path_factory.mktemp("cache")
    data = load_scenes(SceneOptions(num_train=1, num_test=300), cache=cache)
    return open_features(backbone, data.test, cache=cache, progress=False)


def mean_ap(config: MethodConfig, backbone: Backbone, images: FeatureSet) -> float:
    method = config.build(backbone, CLASS_NAMES, generator=generator(0, "init"))
    return multilabel_scores(probabilities(method, images), images.labels).mAP


def test_its_name_means_the_folder_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_spec("scenes-clip").kind == "built-in"
    (tmp_path / "scenes-clip").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_spec("scenes-clip").kind == "folder", "a folder of the user's own comes first, as for hub ids"


def test_it_is_an_ordinary_clip_folder(backbone: Backbone) -> None:
    by_path = load_backbone(str(FOLDER))
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(backbone.encode_image(pixels), by_path.encode_image(pixels), strict=True):
        assert torch.equal(ours, theirs)
    assert (backbone.name, backbone.image_size) == ("scenes-clip", 112)


def test_it_is_small_and_has_enough_patches(backbone: Backbone) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 10_000_000
    patches, pooled = backbone.encode_image(torch.zeros(1, 3, 112, 112))
    assert patches.shape[1] >= 49
    assert patches.shape[2] == pooled.shape[1]


def test_images_and_texts_are_those_of_transformers(backbone: Backbone) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(FOLDER, dtype=torch.float32)
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    pixels = CLIPImageProcessorPil.from_pretrained(FOLDER)(images=image, return_tensors="pt")["pixel_values"]
    _, pooled = backbone.encode_image(backbone.preprocess(image)[None])
    torch.testing.assert_close(pooled, model.get_image_features(pixels).pooler_output, rtol=1e-4, atol=1e-4)
    tokens = CLIPTokenizer.from_pretrained(FOLDER)("a photo of a potted plant.", return_tensors="pt")
    ours = backbone.text_model(**tokens).text_embeds
    torch.testing.assert_close(ours, model.get_text_features(**tokens).pooler_output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("word", ["cat", "Überraschung", "日本", "naïve café", "x-ray 42", "🐈", "tvmonitor"])
def test_its_tokenizer_takes_any_word(backbone: Backbone, word: str) -> None:
    ids = backbone.tokenizer(word, add_special_tokens=False)["input_ids"]
    assert 0 < len(ids) < 40
    assert backbone.tokenizer.eos_token_id not in ids, "that is what stands for unknown"
    assert backbone.tokenizer.decode(ids).replace(" ", "") == word.lower().replace(" ", "")


def test_zero_shot_is_decent_and_leaves_room(backbone: Backbone, drawn_images: FeatureSet) -> None:
    best = max(mean_ap(ZeroShotConfig(head=head), backbone, drawn_images) for head in ("patches", "pooled", "csra"))
    assert 55 < best < 90  # Chance is about 10.


def test_contexts_that_nobody_trained_do_not_ruin_it(backbone: Backbone, drawn_images: FeatureSet) -> None:
    words = mean_ap(ZeroShotConfig(head="csra"), backbone, drawn_images)
    for num_context in (4, 16):
        assert mean_ap(PromptFLConfig(num_context=num_context), backbone, drawn_images) > words - 5
    patches = mean_ap(ZeroShotConfig(), backbone, drawn_images)
    for start in ("a photo of a", ""):
        config = FedMPTConfig(transport="mean", class_context_init=start)
        assert mean_ap(config, backbone, drawn_images) > patches - 5
