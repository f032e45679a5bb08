"""The page's sentences follow from the numbers, whichever way they went."""

from __future__ import annotations

from typing import Any

from fedmpt.data.datasets.scenes import PARTNERS, SceneOptions, sample_scene
from fedmpt.data.datasets.scenes.scene import CLASS_NAMES
from fedmpt.report.demo.page import scenes_with, verdict
from fedmpt.report.demo.trials import PAIRS, TITLES, Trial


def scores(natural: float, unseen: float, false_coactivation: float) -> dict[str, Any]:
    shift = {"false_coactivation": false_coactivation}
    return {"natural": {"mAP": natural}, "reversed": {"mAP": unseen, "shift": shift}}


def test_a_win_is_called_one() -> None:
    said = " ".join(verdict(scores(70, 68, 10), scores(60.5, 59, 20), before=scores(60, 66, 15)))
    assert "natural test images FedMPT reaches 70.0 mAP, 9.5 points above PromptFL" in said
    assert "reports the absent partner in 10.0% of images, 10.0 points less than PromptFL (20.0%)" in said


def test_a_loss_is_called_one() -> None:
    said = " ".join(verdict(scores(60, 50, 30), scores(61, 58, 20), before=scores(60, 51.5, 15)))
    assert "natural test images FedMPT reaches 60.0 mAP, 1.0 points below PromptFL" in said
    assert "reversed test images FedMPT reaches 50.0 mAP, 8.0 points below PromptFL" in said
    assert "10.0 points more than PromptFL" in said
    assert (
        "had 51.5 mAP on the reversed test, from its two readings with nothing trained; the rounds changed it by -1.5"
        in said
    )


def test_images_with_an_anchor_are_found_in_order() -> None:
    scenes = [sample_scene(SceneOptions(spurious=1.0), "train", index) for index in range(200)]
    pair = PARTNERS[0]
    found = list(scenes_with(scenes, pair, partner=True))
    assert len(found) > 3
    assert found == sorted(found)
    assert all({pair.anchor, pair.partner} <= set(scenes[index].class_names) for index in found)
    alone = list(scenes_with(scenes, pair, partner=False))
    assert all(pair.partner not in scenes[index].class_names for index in alone)


def test_pairs_are_those_of_the_world_by_index() -> None:
    assert [(CLASS_NAMES[a], CLASS_NAMES[b]) for a, b in PAIRS] == [(p.anchor, p.partner) for p in PARTNERS]


def test_all_methods_of_a_trial_see_the_same_data_and_clients() -> None:
    trial = Trial(rounds=3, seed=4, spurious=0.5, num_train=30, num_test=20)
    configs = [trial.config(name) for name in TITLES]
    assert len({(config.data, config.t, config.seed, config.backbone) for config in configs}) == 1
    assert all(config.federation.rounds == 3 for config in configs)
    assert trial.data("reversed") == configs[0].data.replace("test=natural", "test=reversed")
