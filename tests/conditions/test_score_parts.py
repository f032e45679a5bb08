"""Parts of predictions against the method itself, their statistics against NumPy and SciPy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from some_conditions import CLASSES, CONDITIONS, images, random_parts, trained_like
from toy_method import Toy

import fedmpt.conditions.scores.parts as parts_module
from fedmpt.conditions.scores.parts import condition_parts, differences, gate_use, with_conditions
from fedmpt.evaluation.scoring import probabilities
from fedmpt.types import InputError


@pytest.mark.parametrize("calibration", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_the_mixture_of_all_parts_is_what_the_method_says(
    tiny_clip_folder: Path, calibration: bool, gate: bool
) -> None:
    method = trained_like(tiny_clip_folder, calibration=calibration, gate=gate)
    features = images(method)
    parts = condition_parts(method, features, batch_size=7)
    expected = probabilities(method, features)
    torch.testing.assert_close(parts.probabilities(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        parts.mixture(), method.mixture(features.batch(torch.arange(60))).detach(), atol=1e-6, rtol=1e-5
    )
    assert parts.names == CONDITIONS
    assert not parts.predictions.requires_grad


def test_parts_of_adapters_alone_have_the_same_prompts(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder, condition_prompts=False)
    found = condition_parts(method, images(method)).text_cosines
    torch.testing.assert_close(found, torch.ones(3, 3))


def test_cosines_are_of_the_prompts(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    text = method.encode_text().detach().numpy()
    found = condition_parts(method, images(method, 4)).text_cosines
    expected = [[np.mean([one[c] @ other[c] for c in range(len(CLASSES))]) for other in text] for one in text]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("kept", [(0, 2, 3), (1,), (3, 0)])
def test_a_mixture_without_some_is_that_of_the_others(kept: tuple[int, ...], calibrated: bool) -> None:
    parts = random_parts(calibrated=calibrated)
    expected = torch.zeros(50, 3, dtype=torch.float64)
    for image in range(50):
        total = sum(parts.gate[image, index].double() for index in kept)
        for index in kept:
            expected[image] += parts.gate[image, index].double() / total * parts.predictions[image, index].double()
    if parts.calibration is not None:
        scale, bias = parts.calibration
        odds = expected.clamp(1e-6, 1 - 1e-6)
        expected = 1 / (1 + (odds / (1 - odds)) ** -scale * (-bias).exp())
    torch.testing.assert_close(parts.probabilities(kept).double(), expected, atol=2e-6, rtol=1e-4)


def test_without_the_only_trusted_condition_the_others_count_the_same() -> None:
    parts = random_parts()
    gate = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(50, 1)
    parts = dataclasses.replace(parts, gate=gate)
    torch.testing.assert_close(parts.mixture((1, 3)), parts.predictions[:, [1, 3]].mean(1))


def test_mixtures_of_many_images_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = random_parts()
    whole = parts.mixture((0, 1))
    monkeypatch.setattr(parts_module, "_CHUNK", 7)
    torch.testing.assert_close(parts.mixture((0, 1)), whole)


def test_use_of_the_gate() -> None:
    gate = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])
    found = gate_use(gate)
    weights = gate.double().numpy()
    assert found.mean == pytest.approx(tuple(weights.mean(0)))
    assert found.spread == pytest.approx(tuple(weights.std(0)))
    assert found.lowest == pytest.approx((0.1, 0.0, 0.0))
    assert found.highest == pytest.approx((1.0, 0.8, 0.2))
    assert found.largest == pytest.approx((2.5 / 4, 1.5 / 4, 0))
    per_image = entropy(weights, axis=1)
    assert found.entropy_per_image == pytest.approx(per_image.mean() / math.log(3))
    assert found.effective_per_image == pytest.approx(np.exp(per_image).mean())
    assert found.entropy_of_mean == pytest.approx(entropy(weights.mean(0)) / math.log(3))
    assert found.effective_of_mean == pytest.approx(np.exp(entropy(weights.mean(0))))


def test_differences_are_those_of_numpy() -> None:
    parts = random_parts()
    found = differences(parts)
    tables = [*parts.predictions.double().unbind(1), parts.mixture().double()]
    for one in range(4):
        for other in range(5):
            absolute = (tables[one] - tables[other]).abs().mean().item()
            per_class = [np.corrcoef(tables[one][:, c], tables[other][:, c])[0, 1] for c in range(3)]
            between = other < 4
            got = found.absolute[one, other] if between else found.from_mixture[one]
            assert got.item() == pytest.approx(absolute, abs=1e-7)
            got = found.correlation[one, other] if between else found.with_mixture[one]
            assert got.item() == pytest.approx(np.mean(per_class), abs=1e-6)


def test_classes_in_which_a_condition_does_not_vary_are_left_out_of_its_correlations() -> None:
    parts = random_parts()
    predictions = parts.predictions.clone()
    predictions[:, 0, 1] = 0.3  # One class of the first condition,
    predictions[:, 2] = 0.1  # all classes of the third.
    found = differences(dataclasses.replace(parts, predictions=predictions)).correlation
    per_class = [np.corrcoef(predictions[:, 0, c], predictions[:, 1, c])[0, 1] for c in (0, 2)]
    assert found[0, 1].item() == pytest.approx(np.mean(per_class), abs=1e-6)
    assert found[2].isnan().all()
    assert not found[[0, 1, 3]][:, [0, 1, 3]].isnan().any()


def test_methods_without_conditions_are_refused(tiny_clip_folder: Path) -> None:
    other = Toy(3, 8, personal_offset=False, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="Toy, which has no conditions"):
        with_conditions(other)
    with pytest.raises(InputError, match="one condition, 'pose'"):
        with_conditions(trained_like(tiny_clip_folder, conditions=("pose",)))
    with pytest.raises(InputError, match="neither condition prompts nor adapters"):
        with_conditions(trained_like(tiny_clip_folder, condition_prompts=False, adapters=False))


def test_more_images_than_memory_is_meant_for_are_refused(
    tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = trained_like(tiny_clip_folder)
    features = images(method, 10)
    monkeypatch.setattr(parts_module, "MAX_BYTES", 4 * 3 * 4 * 9)
    with pytest.raises(InputError, match="--images 9 or less"):
        condition_parts(method, features)
    assert len(condition_parts(method, features.subset(torch.arange(9))).gate) == 9
