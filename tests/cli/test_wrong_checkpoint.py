"""Checkpoints and images that `evaluate` and `predict` have to refuse."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command, Place, assert_refused, snapshot
from safetensors.torch import load_file, save_file
from tiny_clip import write_tiny_clip
from tiny_voc import write_tiny_voc


def tensor_file(run_folder: Path) -> Path:
    (path,) = (run_folder / "checkpoint").glob("state-*.safetensors")
    return path


def edit_record(run_folder: Path, change: Callable[[dict], object]) -> None:
    path = run_folder / "checkpoint" / "checkpoint.json"
    index = json.loads(path.read_text())
    change(index["record"])
    path.write_text(json.dumps(index))


def as_promptfl(record: dict) -> None:
    record["config"]["method"] = {"name": "promptfl", "num_context": 16, "context_init": ""}


DAMAGED_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "of another method": (lambda run: edit_record(run, as_promptfl), "is it another method's"),
    "of an unknown method": (
        lambda run: edit_record(run, lambda record: record["config"]["method"].update(name="fedxyz")),
        r"checkpoint\.json: .*fedxyz",
    ),
    "cut short": (lambda run: os.truncate(tensor_file(run), 100), r"is truncated or changed \(100 bytes\)"),
    "without tensors": (lambda run: tensor_file(run).unlink(), "is missing from the checkpoint"),
    "no JSON": (lambda run: os.truncate(run / "checkpoint/checkpoint.json", 30), r"checkpoint\.json, line \d: not val"),
}


@pytest.mark.parametrize("command_name", ["evaluate", "predict"])
@pytest.mark.parametrize("damage", DAMAGED_CHECKPOINTS)
def test_damaged_checkpoints(place: Place, run: Command, trained: Path, command_name: str, damage: str) -> None:
    change, message = DAMAGED_CHECKPOINTS[damage]
    change(trained)
    before = snapshot(trained)
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    rest = [image] if command_name == "predict" else ["--data", f"voc:{place.voc}", "--cache", place.cache]
    assert_refused(run(command_name, "--checkpoint", trained / "checkpoint", *rest), message)
    assert snapshot(trained) == before


def test_a_checkpoint_of_another_class_list(place: Place, run: Command, trained: Path) -> None:
    edit_record(trained, lambda record: record["class_names"].__setitem__(0, "airship"))
    words = ("--data", f"voc:{place.voc}", "--cache", place.cache)
    outcome = run("evaluate", "--checkpoint", trained / "checkpoint", *words)
    assert_refused(outcome, r"trained for 20 classes, the data has 20; 'aeroplane' is only in one of them")
    edit_record(trained, lambda record: record["class_names"].pop(0))
    outcome = run("evaluate", "--checkpoint", trained / "checkpoint", *words)
    assert_refused(outcome, r"trained for 19 classes, the data has 20; .* Give data with the same class list")
    assert not (trained / "evaluation.json").exists()


def test_resuming_on_a_damaged_checkpoint(place: Place, run: Command, trained: Path) -> None:
    (trained / "results.json").unlink()
    os.truncate(tensor_file(trained), 100)
    before = snapshot(trained)
    assert_refused(run(*place.train_words(trained, "--resume")), "is truncated or changed")
    assert snapshot(trained) == before


def test_resuming_with_other_labels(place: Place, run: Command, trained: Path) -> None:
    (trained / "results.json").unlink()
    edit_record(trained, lambda record: record["data"].update(train="0" * 64))
    assert_refused(run(*place.train_words(trained, "--resume")), r"images, labels or clients \(train\) have changed")


def test_another_backbone(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    other = write_tiny_clip(tmp_path / "other", size="tiny", seed=1)
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    outcome = run("predict", "--checkpoint", trained / "checkpoint", "--backbone", other, image)
    assert_refused(outcome, "was trained on backbone 'tiny', which is not this 'other' .* give the same one with --b")
    copy = write_tiny_clip(tmp_path / "tiny", size="tiny")
    assert run("predict", "--checkpoint", trained / "checkpoint", "--backbone", copy, image).code == 0


def test_another_text_tower(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny"
    shutil.copytree(place.clip, other)
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "text_model.encoder" in name and name.endswith("mlp.fc1.weight"))
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", metadata={"format": "pt"})
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    outcome = run("predict", "--checkpoint", trained / "checkpoint", "--backbone", other, image)
    assert_refused(outcome, "has other weights, tokenizer, number format or preprocessing; give the same one with --b")


def test_an_output_that_would_overwrite_the_run(place: Place, run: Command, trained: Path) -> None:
    before = snapshot(trained)
    words = ["evaluate", "--checkpoint", trained / "checkpoint", "--data", f"voc:{place.voc}", "--cache", place.cache]
    for out in (trained / "checkpoint" / "checkpoint.json", trained / "results.json"):
        assert_refused(run(*words, "--out", out), "would overwrite a file of the run; choose another name")
    assert snapshot(trained) == before


def test_the_wrong_folder_for_a_checkpoint(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    outcome = run("predict", "--checkpoint", trained, image)
    assert_refused(outcome, f"{trained} is the folder of a run; give the checkpoint in it, {trained}/checkpoint")
    assert_refused(run("predict", "--checkpoint", tmp_path / "no", image), "no holds no checkpoint")


def test_images_that_cannot_be_labelled(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    good = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    predict = ("predict", "--checkpoint", trained / "checkpoint")
    assert_refused(run(*predict), "give at least one image file")
    assert_refused(run(*predict, good, tmp_path / "none.jpg"), r"none\.jpg: no such image")
    assert_refused(run(*predict, "--json", good, text), r"text\.jpg: the image cannot be read")
    assert_refused(run(*predict, tmp_path), "this is a folder; give the image files in it")


def test_data_that_cannot_be_scored(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    voc = write_tiny_voc(tmp_path / "voc", label_sets=[("dog",), ()])
    for path in (voc / "VOC2007/Annotations").glob("0005*.xml"):
        path.write_text("<annotation></annotation>")
    words = ("--data", f"voc:{voc}", "--cache", place.cache)
    assert_refused(run("evaluate", "--checkpoint", trained / "checkpoint", *words), "no label is 1")
    assert not (trained / "evaluation.json").exists()
