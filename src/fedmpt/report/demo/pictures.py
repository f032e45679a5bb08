"""Images for the page: as data URIs, and with what FedMPT saw in them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS, Scene, read_scenes
from fedmpt.data.datasets.scenes.vocabulary import Partners
from fedmpt.data.features.store import FeatureSet
from fedmpt.inference.explain import explain
from fedmpt.inference.predict import Tagger
from fedmpt.methods.fedmpt import FedMPT
from fedmpt.report.demo.trials import Outcome
from fedmpt.types import PRESENT, Batch


def png_uri(path: Path) -> str:
    """An image file as text that a page can hold."""
    buffer = BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def scenes_with(scenes: Sequence[Scene], pair: Partners, *, partner: bool) -> Iterator[int]:
    """The images with the anchor of ``pair``, with or without its partner, in order."""
    for index, scene in enumerate(scenes):
        if pair.anchor in scene.class_names and (pair.partner in scene.class_names) == partner:
            yield index


def one_for_each_pair(scenes: Sequence[Scene], *, partner: bool) -> dict[int, Partners]:
    """Images with their pairs: of each pair that has one, the first that no pair before it took.

    The first, whichever it is: nobody has chosen those that look good.
    """
    chosen: dict[int, Partners] = {}
    for pair in PARTNERS:
        row = next((row for row in scenes_with(scenes, pair, partner=partner) if row not in chosen), None)
        if row is not None:
            chosen[row] = pair
    return chosen


def explained_images(outcomes: Mapping[str, Outcome], test: FeatureSet) -> list[dict[str, Any]]:
    """For each pair, the first test image with the anchor and without the partner, as the page's script reads it.

    Numbers are rounded to what can be seen.
    """
    scenes = read_scenes(test.split)
    chosen = one_for_each_pair(scenes, partner=False)
    batch = test.batch(torch.tensor(list(chosen), dtype=torch.int64))
    method = outcomes["fedmpt"].trained.method
    assert isinstance(method, FedMPT)
    method.eval()
    explanation = explain(method, batch)
    predictions = {name: _predictions(outcome.trained, batch) for name, outcome in outcomes.items()}
    images = []
    for index, (row, pair) in enumerate(chosen.items()):
        scene = scenes[row]
        factors = ("layout", "pose", "background", "light", "weather", "scale")
        values = (scene.layout, scene.pose, scene.background, scene.lighting, scene.weather, scene.scale)
        image = {
            "image": png_uri(test.files[row]),
            "present": [name for name, value in zip(CLASS_NAMES, scene.labels, strict=True) if value == PRESENT],
            "anchor": pair.anchor,
            "partner": pair.partner,
            "factors": dict(zip(factors, values, strict=True)),
            "predictions": {name: found[index] for name, found in predictions.items()},
            "gate": _rounded(explanation.gate[index]),
            "by_condition": _rounded(explanation.by_condition[index]),
            # [N, C, M]: the page shows one class at a time.
            "looked": _rounded(explanation.looked[index].mT, 4),
            "evidence": _rounded(explanation.evidence[index].mT, 4),
        }
        images.append(image)
    return images


def _predictions(trained: Tagger, batch: Batch) -> list[dict[str, Any]]:
    """Of each image the calibrated probabilities, and the classes over their threshold; neither saw a test label."""
    assert trained.calibration is not None, "a finished run has one"
    found = trained.method(batch).detach()
    said = [[CLASS_NAMES[c] for c in row.nonzero()[:, 0].tolist()] for row in found > trained.calibration.thresholds]
    shown = map(_rounded, trained.calibration.calibrated(found))
    return [{"probability": row, "said": names} for row, names in zip(shown, said, strict=True)]


def _rounded(values: Tensor, digits: int = 3) -> list[Any]:
    return values.double().numpy().round(digits).tolist()
