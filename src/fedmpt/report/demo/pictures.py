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
from fedmpt.data.datasets.scenes.scene import Partners
from fedmpt.data.features.store import FeatureSet
from fedmpt.inference.explain import Explanation, explain
from fedmpt.methods.fedmpt import FedMPT
from fedmpt.report.demo.trials import Outcome
from fedmpt.types import PRESENT


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
    """For each pair, the first test image with the anchor and without the partner."""
    scenes = read_scenes(test.split)
    chosen = one_for_each_pair(scenes, partner=False)
    batch = test.batch(torch.tensor(list(chosen), dtype=torch.int64))
    method = outcomes["fedmpt"].trained.method
    assert isinstance(method, FedMPT)
    method.eval()
    explanation = explain(method, batch)
    predictions = {name: _calibrated(outcome, outcome.trained.method(batch)) for name, outcome in outcomes.items()}
    return [
        _words(index, test.files[row], scenes[row], pair, explanation, predictions)
        for index, (row, pair) in enumerate(chosen.items())
    ]


def _calibrated(outcome: Outcome, found: Tensor) -> tuple[Tensor, Tensor]:
    """Calibrated probabilities, and which are over their threshold; neither has seen a test label."""
    calibration = outcome.trained.calibration
    assert calibration is not None, "a finished run has one"
    return calibration.calibrated(found.detach()), found.detach() > calibration.thresholds


def _words(
    index: int,
    file: Path,
    scene: Scene,
    pair: Partners,
    explanation: Explanation,
    predictions: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, Any]:
    """One image as the page's script reads it; numbers rounded to what can be seen."""
    present = [name for name, value in zip(CLASS_NAMES, scene.labels, strict=True) if value == PRESENT]
    return {
        "image": png_uri(file),
        "present": present,
        "anchor": pair.anchor,
        "partner": pair.partner,
        "factors": {
            "layout": scene.layout,
            "pose": scene.pose,
            "background": scene.background,
            "light": scene.lighting,
            "weather": scene.weather,
            "scale": scene.scale,
        },
        "predictions": {
            name: {
                "probability": _rounded(probability[index]),
                "said": [CLASS_NAMES[c] for c in said[index].nonzero()[:, 0].tolist()],
            }
            for name, (probability, said) in predictions.items()
        },
        "gate": _rounded(explanation.gate[index]),
        "by_condition": [_rounded(row) for row in explanation.by_condition[index]],
        # [N, C, M]: the page shows one class at a time.
        "looked": [[_rounded(row, 4) for row in one] for one in explanation.looked[index].transpose(1, 2)],
        "evidence": [[_rounded(row, 4) for row in one] for one in explanation.evidence[index].transpose(1, 2)],
    }


def _rounded(values: Tensor, digits: int = 3) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
