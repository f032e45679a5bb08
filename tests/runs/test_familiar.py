"""The note on a model whose similarities do not spread as on the models that the defaults were tuned on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_voc import write_tiny_voc

from fedmpt.methods import METHODS
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.familiar import unfamiliar
from fedmpt.runs.prepare import Prepared, prepare


@pytest.fixture(scope="module")
def prepared(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("familiar")
    config = preset("default", "class-vectors", f"voc:{write_tiny_voc(folder / 'voc')}")
    config = replace(config, backbone=str(tiny_clip_folder), t=0.2)
    return prepare(config, cache=folder / "cache", show_progress=False)


def with_spread(prepared: Prepared, spread: float) -> Prepared:
    """The same with another logit scale, to which the spread is proportional."""
    backbone = copy.copy(prepared.backbone)
    backbone.logit_scale *= spread / plain_spread(prepared)
    backbone.name = "other/clip"
    return replace(prepared, backbone=backbone)


def plain_spread(prepared: Prepared) -> float:
    """With loops and numpy, and text features by another way."""
    zero_shot = METHODS["zero-shot"]().build(
        prepared.backbone, prepared.data.class_names, generator=torch.Generator().manual_seed(0)
    )
    text = zero_shot.encode_text().detach().numpy()
    spreads = []
    for row in range(len(prepared.train)):
        for patch in prepared.train.batch(torch.tensor([row])).patches[0].numpy():
            cosines = [patch @ one / np.linalg.norm(patch) / np.linalg.norm(one) for one in text]
            spreads.append(np.std(prepared.backbone.logit_scale * np.array(cosines)))
    return float(np.mean(spreads))


@pytest.mark.parametrize("method", ["fedmpt", "class-vectors"])
@pytest.mark.parametrize("spread", [0.5, 0.99, 4.01, 11.0])
def test_the_note_names_the_model_and_both_numbers(prepared: Prepared, spread: float, method: str) -> None:
    (note,) = unfamiliar(preset("default", method, "x"), with_spread(prepared, spread))
    assert note.startswith("other/clip: ")
    assert f"spread by {spread:.2f}, and the defaults of {method} are for about 2;" in note
    assert note.endswith("fedmpt tune")


@pytest.mark.parametrize("spread", [1.01, 2.0, 3.99])
def test_no_note_where_the_model_is_familiar(prepared: Prepared, spread: float) -> None:
    assert unfamiliar(preset("default", "fedmpt", "x"), with_spread(prepared, spread)) == []


def chosen(**method_options: Any) -> RunConfig:
    start = preset("default", "fedmpt", "x")
    return replace(start, method=replace(start.method, **method_options))


@pytest.mark.parametrize(
    "config",
    [
        preset("default", "promptfl", "x"),
        preset("paper", "fedmpt", "x"),
        replace(chosen(), federation=replace(chosen().federation, learning_rate=0.017)),
        chosen(entropy=0.5),
    ],
    ids=["another method", "paper", "rate", "entropy"],
)
def test_no_note_where_the_options_are_not_the_defaults(prepared: Prepared, config: RunConfig) -> None:
    assert unfamiliar(config, with_spread(prepared, 9.0)) == []


def test_images_of_the_whole_training_set_are_looked_at(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmpt.runs.familiar.NUM_IMAGES", 3)
    few = with_spread(prepared, 9.0)
    rows = replace(few, train=few.train.subset(torch.tensor([0, 11, 23])))
    everything, some = (unfamiliar(preset("default", "fedmpt", "x"), one) for one in (few, rows))
    assert everything == some
