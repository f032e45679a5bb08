"""Classes that training never saw: what each tensor becomes, and what the tagger then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from soft_ties_by_hand import by_hand, some_ties
from synthetic import feature_set
from torch import Tensor, nn
from toy_method import Toy, ToyConfig

from fedmpt.backbone import load_backbone
from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.inference.tagger import Tagger
from fedmpt.methods import METHODS, MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.fedmvp import FedMVPConfig
from fedmpt.methods.fednca import FedNCAConfig
from fedmpt.methods.linear_probe import LinearProbeConfig
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.poscoop import PosCoOpConfig
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.runs.config import RunConfig
from fedmpt.seeding import generator
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, InputError, State

KNOWN, NEW = ("cat", "dog", "cow"), ("horse", "dining table")
ALL = KNOWN + NEW
TIES = some_ties(len(KNOWN))
CALIBRATION = Calibration(torch.tensor([0.1, 0.6, 0.9]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 5.0]))


@pytest.fixture(scope="module")
def backbone(tiny_clip_folder: Path) -> Backbone:
    return load_backbone(str(tiny_clip_folder))


@pytest.fixture
def images(backbone: Backbone) -> FeatureSet:
    draw = torch.Generator().manual_seed(3)
    patches = torch.randn(6, 4, backbone.text_model.config.projection_dim, generator=draw)
    return feature_set(patches, (torch.rand(6, len(KNOWN), generator=draw) < 0.5).to(torch.int8))


def trained(config: MethodConfig, backbone: Backbone, **options: Any) -> Tagger:
    """A tagger whose tensors all moved from where they started, those of each class another way."""
    run = RunConfig(data="none", method=config, seed=7)
    method = config.build(backbone, KNOWN, generator=generator(7, "init"))
    start, draw = get_state(method), torch.Generator().manual_seed(11)
    moved = {name: tensor + 0.3 * torch.rand(tensor.shape, generator=draw) for name, tensor in start.items()}
    set_state(method, moved)
    shared, personal = method.split(moved)
    model = FinalModel(
        method,
        shared,
        {1: personal} if personal else {},
        method.split(start)[1],
        options.pop("ties", None),
        options.pop("strength", 0.0),
    )
    return Tagger(run, backbone, KNOWN, Prediction(), model, options.pop("calibration", None), ("north", "south"))


def fresh(config: MethodConfig, backbone: Backbone, names: Sequence[str] = ALL) -> State:
    return get_state(config.build(backbone, names, generator=generator(7, "init")))


def row_by_row(trained: Tensor, before: Tensor, start: Tensor, axis: int) -> np.ndarray:
    """What a tensor becomes, one class at a time; the axis of the classes comes first."""
    old, first, new = (np.moveaxis(tensor.double().numpy(), axis, 0) for tensor in (trained, before, start))
    rows = list(old)
    for index in range(len(old), len(new)):
        rows.append(new[index] + sum(old[known] - first[known] for known in range(len(old))) / len(old))
    return np.stack(rows)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"fednca"}))
def test_tensors_of_every_method(name: str, backbone: Backbone) -> None:
    config = METHODS[name]()
    tagger = trained(config, backbone)
    before, start, first = get_state(tagger.method), fresh(config, backbone), fresh(config, backbone, KNOWN)
    if (
        name == "linear-probe"
    ):  # Its rows are relative to the mean over classes, and stay relative to that of the known.
        start["weight"] -= (start["weight"][: len(KNOWN)] - first["weight"]).mean(0)
    grown = tagger.with_classes(NEW)
    after = get_state(grown.method)
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        if before[key].shape == start[key].shape:
            assert torch.equal(tensor, before[key]), key
            continue
        (axis,) = (axis for axis, size in enumerate(tensor.shape) if size != before[key].shape[axis])
        found = np.moveaxis(tensor.numpy(), axis, 0)
        np.testing.assert_allclose(found, row_by_row(before[key], first[key], start[key], axis), atol=1e-5, rtol=1e-5)
        assert (found[: len(KNOWN)] == np.moveaxis(before[key].numpy(), axis, 0)).all(), key
    assert grown.class_names == ALL
    assert get_state(tagger.method).keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in get_state(tagger.method).items()), "left as it was"


def test_a_simplex_takes_no_more_classes(backbone: Backbone) -> None:
    with pytest.raises(InputError, match=r"^fednca cannot score horse, dining table: .*; train with all classes, or"):
        trained(FedNCAConfig(), backbone).with_classes(NEW)


def untrained(config: MethodConfig, backbone: Backbone) -> Tagger:
    tagger = trained(config, backbone)
    set_state(tagger.method, fresh(config, backbone, KNOWN))
    return tagger


def test_without_training_a_drawn_row_is_as_it_was_drawn(backbone: Backbone) -> None:
    """With more classes, other numbers are drawn for the known ones, too."""
    config = PosCoOpConfig()
    start, first = fresh(config, backbone), fresh(config, backbone, KNOWN)
    assert (start["nu"][: len(KNOWN)] - first["nu"]).abs().max() > 1, "or this shows nothing"
    grown = get_state(untrained(config, backbone).with_classes(NEW).method)
    for name in ("delta", "nu"):
        torch.testing.assert_close(grown[name], torch.cat([first[name], start[name][len(KNOWN) :]]))


def test_without_training_a_probe_ranks_all_classes_as_zero_shot_clip(backbone: Backbone) -> None:
    method = untrained(LinearProbeConfig(), backbone).with_classes(NEW).method
    text = hand_written_features(method.tower, ALL)
    expected = backbone.logit_scale * (text - text[: len(KNOWN)].mean(0))
    torch.testing.assert_close(get_state(method)["weight"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", ["vectors", "prompts", "both"])
def test_fedmpt_with_new_classes_is_fedmpt_of_all_of_them(text: Any, backbone: Backbone, images: FeatureSet) -> None:
    """Built here from scratch; a softmax over more classes gives the trained ones other probabilities."""
    config = FedMPTConfig(text=text, conditions=("background", "pose"), rank=4)
    tagger = trained(config, backbone)
    before, start, first = get_state(tagger.method), fresh(config, backbone), fresh(config, backbone, KNOWN)
    axes = {"vectors": 1, "residual": 1, "csra.vectors": 0, "scale": 0, "bias": 0}
    plain = config.build(backbone, ALL, generator=generator(7, "init"))
    state = {
        key: torch.from_numpy(np.moveaxis(row_by_row(tensor, first[key], start[key], axes[key]), 0, axes[key])).float()
        if key in axes
        else tensor
        for key, tensor in before.items()
    }
    assert state["scale"][-1] == pytest.approx(before["scale"].mean().item())
    set_state(plain, state)
    batch = images.batch(torch.arange(6))
    batch = replace(batch, labels=torch.zeros(6, len(ALL), dtype=torch.int8))
    found = tagger.with_classes(NEW).model(batch)
    torch.testing.assert_close(found, plain(batch).detach(), atol=1e-5, rtol=1e-4)
    assert (found[:, : len(KNOWN)] - tagger.model(batch)).abs().max() > 1e-3


def test_classes_scored_one_by_one_keep_their_probabilities(backbone: Backbone, images: FeatureSet) -> None:
    tagger = trained(LinearProbeConfig(), backbone)
    found = tagger.with_classes(NEW).model.probabilities(images)
    torch.testing.assert_close(found[:, : len(KNOWN)], tagger.model.probabilities(images))
    assert found.shape == (6, len(ALL))


def test_soft_ties_leave_new_classes_alone(backbone: Backbone, images: FeatureSet) -> None:
    strict = trained(LinearProbeConfig(), backbone, ties=TIES, strength=2.0).with_classes(NEW).model
    plain = trained(LinearProbeConfig(), backbone).with_classes(NEW).model.probabilities(images)
    found = strict.probabilities(images)
    torch.testing.assert_close(found[:, len(KNOWN) :], plain[:, len(KNOWN) :])
    expected = torch.tensor([by_hand(row, TIES, 2.0) for row in plain[:, : len(KNOWN)].tolist()])
    torch.testing.assert_close(found[:, : len(KNOWN)], expected)
    assert (expected - plain[:, : len(KNOWN)]).abs().max() > 1e-3
    assert isinstance(strict.ties, Ties)
    assert not strict.ties.lift[len(KNOWN) :].any()


def test_thresholds_and_calibrated_probabilities(backbone: Backbone, images: FeatureSet, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grown = trained(PromptFLConfig(), backbone, calibration=CALIBRATION).with_classes(NEW)
    assert grown.calibration is not None
    assert grown.calibration.thresholds.tolist() == pytest.approx([0.1, 0.6, 0.9, 0.5, 0.5])
    ((_, labels),) = grown.tag([tmp_path / "a.png"])
    ((_, uncalibrated),) = replace(grown, calibration=None).tag([tmp_path / "a.png"])
    raw = {label.name: label.probability for label in uncalibrated}
    for label in labels:
        known = label.name in KNOWN
        place = ALL.index(label.name)
        threshold = CALIBRATION.thresholds[place].item() if known else 0.5
        scale, bias = (CALIBRATION.scale[place].item(), CALIBRATION.bias[place].item()) if known else (2.0, 2.0)
        odds = np.log(raw[label.name] / (1 - raw[label.name]))
        assert label.probability == pytest.approx(1 / (1 + np.exp(-(scale * odds + bias))), abs=1e-5)
        assert label.present == (raw[label.name] > threshold)
    (note,) = grown.notes
    assert note.startswith("no training image had labels of horse, dining table: the threshold is 0.5 there")
    assert trained(PromptFLConfig(), backbone).with_classes(NEW).notes == (), "without a calibration all have 0.5"


def test_the_clients_own_models_grow_too(backbone: Backbone, images: FeatureSet) -> None:
    """Client 1 has an offset of its own for each class; client 0 never took part."""
    tagger = trained(ToyConfig(), backbone)
    grown = tagger.with_classes(NEW)
    offset = tagger.model.personal[1]["offset"]
    expected = torch.cat([offset, offset.mean().expand(2)])
    torch.testing.assert_close(grown.model.personal[1]["offset"], expected)
    labels = torch.cat([images.labels, images.labels[:, :2]], dim=1)
    wide = feature_set(torch.from_numpy(images.store.patches), labels)
    pooled, weight = torch.from_numpy(wide.store.pooled), get_state(grown.method)["weight"]
    rows = grown.personal_scores(wide)["clients"]
    for row, own in zip(rows, (torch.zeros(5), expected), strict=True):
        assert row["mAP"] == pytest.approx(multilabel_scores((pooled @ weight.T + own).sigmoid(), labels).mAP)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["horse", " Dog"], r"new class 'Dog' is a class of the run already \('dog'\); leave it out"),
        (["horse", "cow"], r"new class 'cow' is a class of the run already"),
        (["horse", "Horse "], "new class 'Horse' is given twice; leave it out"),
        ("horse", r"give new classes as a list of names, \['horse'\], not as one string"),
        ([""], "class name '' has no tokens; give every class a name in words"),
        (["horse " * 80], "the text tower takes"),
    ],
)
def test_wrong_names(names: Sequence[str], message: str, backbone: Backbone) -> None:
    with pytest.raises(InputError, match=message):
        trained(LinearProbeConfig(), backbone).with_classes(names)


def test_texts_of_the_trained_classes_must_stay(backbone: Backbone) -> None:
    """VOC's list, which training read, has no zebra; COCO's has one, and other words for cats."""
    message = "with zebra, fedmvp reads its texts from coco2014, in training it was voc2007; train with one list"
    with pytest.raises(InputError, match=message):
        trained(FedMVPConfig(), backbone).with_classes(["zebra"])


class Pairwise(Toy):
    """With a number for each pair of classes."""

    def __init__(self, num_classes: int, width: int, **options: Any) -> None:
        super().__init__(num_classes, width, **options)
        self.graph = nn.Parameter(torch.zeros(num_classes, num_classes))


@dataclass(frozen=True)
class PairwiseConfig(ToyConfig):
    def build(self, backbone: Any, class_names: Sequence[str], *, generator: torch.Generator) -> Toy:
        return Pairwise(len(class_names), 8, personal_offset=False, generator=generator)


def test_a_tensor_that_relates_classes_cannot_grow(backbone: Backbone) -> None:
    message = r"^tensor 'graph' would grow from \(3, 3\) to \(5, 5\): .*; train with the new classes"
    with pytest.raises(InputError, match=message):
        trained(PairwiseConfig(), backbone).with_classes(NEW)
