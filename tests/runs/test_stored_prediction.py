"""How a checkpoint predicts: what is stored comes back, whatever moment a kill chooses, and damage is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpt.conditions.labels.counts import LabelCounts, read_counts
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import Prediction
from fedmpt.runs.prediction import Stored, load_prediction, load_ties, save_counts, save_prediction, summed_counts
from fedmpt.types import InputError

NAMES = ("cat", "dog")
OLD, NEW = Prediction(), Prediction(mix=0.5, soft_ties=2.0)


def calibration(value: float) -> Calibration:
    return Calibration(*(torch.tensor([value, value / 2]) + offset for offset in (0.0, 1.0, -1.0)))


def counts(images: int) -> LabelCounts:
    pairs = torch.tensor([[0, images // 2], [images // 2, 0]])
    return LabelCounts(images, torch.tensor([images, images // 2]), pairs, torch.full((2, 2), images))


def assert_stored(found: Stored, options: Prediction, value: float) -> None:
    assert found.options == options
    assert found.calibration is not None
    expected = calibration(value)
    for name in ("thresholds", "scale", "bias"):
        torch.testing.assert_close(getattr(found.calibration, name), getattr(expected, name))


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    save_prediction(tmp_path, NEW, calibration(0.25), NAMES)
    assert_stored(load_prediction(tmp_path, NAMES), NEW, 0.25)
    assert json.loads((tmp_path / "prediction.json").read_text()) == {"mix": 0.5, "soft_ties": 2.0}
    rows = json.loads((tmp_path / "calibration.json").read_text())
    assert rows["cat"] == {"threshold": 0.25, "scale": 1.25, "bias": -0.75}


def test_a_checkpoint_of_before_is_as_it_was_trained(tmp_path: Path) -> None:
    assert load_prediction(tmp_path, NAMES) == Stored(Prediction(), None, "counts.json")
    save_prediction(tmp_path, OLD, calibration(0.25), NAMES)
    (tmp_path / "prediction.json").unlink()
    assert_stored(load_prediction(tmp_path, NAMES), OLD, 0.25)


class Killed(BaseException):
    """The process is gone."""


def killed_before(step: int, folder: Path) -> bool:
    """Store the new over the old, but die before a file gets its name or goes; whether it came to that."""
    left, rename, unlink = step, Path.replace, Path.unlink

    def pass_on() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    def mortal_rename(path: Path, to: Path) -> Path:
        pass_on()
        return rename(path, to)

    def mortal_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix != ".tmp":
            pass_on()
        unlink(path, missing_ok=missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", mortal_rename)
        patch.setattr(Path, "unlink", mortal_unlink)
        try:
            save_prediction(folder, NEW, calibration(0.5), NAMES, counts=counts(40))
        except Killed:
            return True
    return False


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    found, step, killed = [], 0, True
    while killed:
        folder = tmp_path / str(step)
        folder.mkdir()
        save_counts(folder / "counts.json", counts(10), NAMES)
        save_prediction(folder, OLD, calibration(0.25), NAMES, counts=counts(20))
        killed = killed_before(step, folder)
        stored = load_prediction(folder, NAMES)
        found.append(stored.options == NEW)
        assert_stored(stored, *((NEW, 0.5) if found[-1] else (OLD, 0.25)))
        assert read_counts(folder / stored.counts).counts.num_images == (40 if found[-1] else 20)
        save_prediction(folder, OLD, calibration(0.75), NAMES)
        assert sorted(path.name for path in folder.iterdir()) == ["calibration.json", "counts.json", "prediction.json"]
        step += 1
    # The counts, prediction.json twice, the calibration, and the old counts that go.
    assert len(found) == 6
    assert found == sorted(found)
    assert set(found) == {False, True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"prediction\.json, line 1: not valid JSON"),
        ('{"mix": 1.0, "soft_', r"prediction\.json, line 1: not valid JSON"),
        ("[]", r"prediction\.json does not say how to predict .*; restore it, or delete it and fit anew: fedmpt calib"),
        ('{"soft_ties": 1}', "does not say how to predict .KeyError.'mix'"),
        ('{"mix": 0, "soft_ties": 1}', r"does not say how to predict .*--mix must be in \(0, 1\], got 0\.0"),
        ('{"mix": NaN, "soft_ties": 1}', "does not say how to predict .*--mix must be in"),
        ('{"mix": 1, "soft_ties": "much"}', "does not say how to predict .*could not convert string to float"),
        ('{"mix": 1, "soft_ties": 1, "counts": "../../c.json"}', "is no file of that folder"),
        ('{"mix": 1, "soft_ties": 1, "counts": 3}', "does not say how to predict"),
        ('{"mix": 1, "soft_ties": 1, "calibration": {"cat": {}}}', "not the calibration of these classes"),
    ],
)
def test_a_damaged_file(tmp_path: Path, content: str, message: str) -> None:
    save_prediction(tmp_path, NEW, calibration(0.25), NAMES)
    (tmp_path / "prediction.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_prediction(tmp_path, NAMES)


def test_ties_are_those_of_the_counts(tmp_path: Path) -> None:
    save_counts(tmp_path / "counts.json", counts(20), NAMES)
    assert load_ties(tmp_path / "counts.json", NAMES).prior.tolist() == [1.0, 0.5]


def test_missing_counts_say_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"counts\.json is missing, .*conditions count .*fedmpt calibrate --counts"):
        load_ties(tmp_path / "counts.json", NAMES)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def too_few_numbers(path: Path) -> None:
    words: dict[str, Any] = json.loads(path.read_text())
    words["label-counts"]["singles"] = [1]
    path.write_text(json.dumps(words))


@pytest.mark.parametrize(("damage", "message"), [(cut, "not valid JSON"), (too_few_numbers, "cannot be used")])
def test_damaged_counts(tmp_path: Path, damage: Any, message: str) -> None:
    save_counts(tmp_path / "counts.json", counts(20), NAMES)
    damage(tmp_path / "counts.json")
    with pytest.raises(InputError, match=rf"counts\.json.*{message}"):
        load_ties(tmp_path / "counts.json", NAMES)


@pytest.mark.parametrize(
    ("names", "message"), [(("dog", "cat"), "they are in another order"), (("cat", "cow"), "'cow' is only in one of")]
)
def test_counts_of_other_classes(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    path = tmp_path / "site.json"
    save_counts(path, counts(20), names)
    with pytest.raises(InputError, match=rf"site\.json counts other classes than the checkpoint has: {message}"):
        summed_counts([path], NAMES)


def test_counts_of_sites_add_up(tmp_path: Path) -> None:
    paths = [tmp_path / f"{images}.json" for images in (20, 30)]
    for images, path in zip((20, 30), paths, strict=True):
        save_counts(path, counts(images), NAMES)
    assert summed_counts(paths, NAMES).singles.tolist() == [50, 25]
