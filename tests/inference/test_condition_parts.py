"""Parts of predictions over many images against the method itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from some_conditions import CLASSES, CONDITIONS, images, metric, trained_like
from synthetic import feature_set
from toy_method import Toy

from fedmpt.conditions.scores import score_conditions
from fedmpt.data.pairs import biased_pairs
from fedmpt.evaluation.scoring import probabilities, score
from fedmpt.inference.explain import condition_parts, with_conditions
from fedmpt.types import InputError


@pytest.mark.parametrize("calibration", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_the_mixture_of_all_parts_is_what_the_method_says(
    tiny_clip_folder: Path, calibration: bool, gate: bool
) -> None:
    method = trained_like(tiny_clip_folder, calibration=calibration, gate=gate)
    features = images(method)
    parts = condition_parts(method, features, batch_size=7)
    torch.testing.assert_close(parts.probabilities(), probabilities(method, features), atol=1e-6, rtol=1e-5)
    expected = method.mixture(features.batch(torch.arange(60))).detach()
    torch.testing.assert_close(parts.mixture(), expected, atol=1e-6, rtol=1e-5)
    assert parts.names == CONDITIONS
    assert not parts.predictions.requires_grad


def test_cosines_are_of_the_prompts(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    text = method.encode_text().detach().numpy()
    found = condition_parts(method, images(method, 4)).text_cosines
    expected = [[np.mean([one[c] @ other[c] for c in range(len(CLASSES))]) for other in text] for one in text]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    alone = trained_like(tiny_clip_folder, condition_prompts=False)
    torch.testing.assert_close(condition_parts(alone, images(alone)).text_cosines, torch.ones(3, 3))


def test_scores_of_all_conditions_are_those_of_the_run(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    features = images(method)
    found = score_conditions(condition_parts(method, features), metric)["full"]
    pairs = biased_pairs(features.labels, features.labels)
    classes = [str(number) for number in range(len(CLASSES))]
    expected = score(probabilities(method, features), features, classes, calibration=None, pairs=pairs)["test"]
    assert found.keys() == expected.keys()
    for key in ("mAP", "CF1", "OF1", "CF1_PR", "per_class", "num_images"):
        assert found[key] == pytest.approx(expected[key])


def test_images_that_are_all_the_same_are_scored(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder)
    labels = torch.tensor([[1, 0, 0, 0]] * 3, dtype=torch.int8)
    features = feature_set(torch.ones(3, 2, method.tower.joint_width), labels)
    found = score_conditions(condition_parts(method, features), metric)
    assert found["difference"]["correlation"] == [[None] * 3] * 3


def test_methods_without_conditions_are_refused(tiny_clip_folder: Path) -> None:
    other = Toy(3, 8, personal_offset=False, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="Toy, which has no conditions"):
        with_conditions(other)
    with pytest.raises(InputError, match="one condition, 'pose'"):
        with_conditions(trained_like(tiny_clip_folder, conditions=("pose",)))
    with pytest.raises(InputError, match="neither condition prompts nor adapters"):
        with_conditions(trained_like(tiny_clip_folder, condition_prompts=False, adapters=False))
