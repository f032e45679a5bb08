"""fedmpt data check, pairs and partition, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Command, Place, assert_refused, read_results
from PIL import Image


def test_check_counts_what_is_there(place: Place, run: Command) -> None:
    outcome = run("data", "check", "voc", place.voc)
    assert (outcome.code, outcome.err) == (0, "")
    assert "found   VOC2007/JPEGImages" in outcome.out
    assert "images were not opened" in outcome.out
    found = json.loads(run("data", "check", "voc", f"{place.voc},difficult=absent", "--json").out)
    assert [split["images"] for split in found["splits"]] == [24, 8]
    assert found["problem"] is None
    assert found["unreadable"] == []


def test_check_says_what_is_missing_and_what_was_expected(run: Command, tmp_path: Path) -> None:
    outcome = run("data", "check", "coco", tmp_path)
    assert outcome.code == 2
    assert "MISSING annotations/instances_train2014.json: labels of train" in outcome.out
    assert "MISSING val2014: the 40,504 images of test, for example val2014/COCO_val2014_" in outcome.out
    assert outcome.err.startswith(f"fedmpt data: {tmp_path} has no file annotations/instances_train2014.json")


def own_photos(folder: Path) -> Path:
    folder.mkdir()
    lines = ["path,labels,hospital"]
    for number in range(30):
        Image.new("RGB", (8, 8), (8 * number, 0, 0)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'cat' if number % 2 else 'dog|cat'},{'north' if number < 20 else 'south'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_check_opens_images_and_lists_those_it_cannot_read(run: Command, tmp_path: Path) -> None:
    photos = own_photos(tmp_path / "photos")
    assert run("data", "check", "folder", photos, "--images").code == 0
    (photos / "3.png").write_bytes(b"no picture")
    outcome = run("data", "check", "folder", photos, "--images")
    assert outcome.code == 2
    assert f"unreadable: {photos / '3.png'}" in outcome.out
    assert "1 images cannot be read" in outcome.err


def test_partition_is_shown_saved_drawn_and_trained_on(place: Place, run: Command, tmp_path: Path) -> None:
    saved, plot = tmp_path / "clients.json", tmp_path / "clients.svg"
    data = f"voc:{place.voc}"
    words = ["--data", data, "--setting", "dirichlet", "--clients", 3, "--alpha", 0.5]
    outcome = run("data", "partition", *words, "--save", saved, "--plot", plot)
    assert outcome.code == 0
    assert "3 clients, 24 training images" in outcome.out
    assert plot.read_text().startswith("<?xml")
    described = json.loads(run("data", "partition", "--data", data, "--load", saved, "--json").out)
    sizes = [client["num_images"] for client in described["clients"]]
    trained = run(*place.train_words(tmp_path / "a", "--partition", saved, "--quiet", t=None, rounds=1))
    assert trained.code == 0
    assert [client["images"] for client in read_results(tmp_path / "a")["clients"]] == sizes


def test_hospitals_of_a_table_are_clients(place: Place, run: Command, tmp_path: Path) -> None:
    photos = own_photos(tmp_path / "photos")
    words = [*place.train_words(tmp_path / "a", "--by", "hospital", t=None, rounds=1), "--data", f"folder:{photos}"]
    outcome = run(*words)
    assert outcome.code == 0
    assert [client["name"] for client in read_results(tmp_path / "a")["clients"]] == ["north", "south"]
    assert "note: " in outcome.err, "that no split was given"
    assert run("data", "partition", "--data", f"folder:{photos}", "--by", "ward").err.startswith(
        "fedmpt data: there is no column 'ward'"
    )


def test_a_folder_without_training_images_is_scored_and_not_trained_on(
    place: Place, run: Command, tmp_path: Path
) -> None:
    photos = own_photos(tmp_path / "photos")
    words = place.train_words(tmp_path / "a", t=None, rounds=1)
    assert run(*words, "--data", f"folder:{photos}", "--by", "hospital").code == 0
    evaluated = run(
        "evaluate", "--checkpoint", tmp_path / "a" / "checkpoint", "--data", f"folder:{photos},test_share=1",
        "--cache", place.cache,
    )  # fmt: skip
    assert evaluated.code == 0
    assert "note: " in evaluated.err
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["test"]["num_images"] == 30
    refused = run(*words[:-1], tmp_path / "b", "--data", f"folder:{photos},test_share=1")
    assert_refused(refused, "folder: there are no train images")


def test_pairs_are_listed(run: Command, tmp_path: Path) -> None:
    data = "scenes:num_train=300,num_test=300,spurious=0.9,styles=noto"
    words = ["data", "pairs", "--data", data, "--cache", tmp_path / "cache", "--num-pairs", 3]
    words += ["--min-joint", 5, "--min-test", 2]
    listed = json.loads(run(*words, "--json").out)
    assert len(listed["per_pair"]) == 3
    assert all(pair["lift"] > 1 for pair in listed["per_pair"].values())
    assert "a alone" in run(*words).out


def test_pairs_of_a_cut_tie_are_listed(place: Place, run: Command) -> None:
    words = ["data", "pairs", "--data", f"voc:{place.voc},ties=1,ties_pairs=cat:dog+person:tv monitor"]
    listed = json.loads(run(*words, "--json").out)["per_pair"]
    assert list(listed) == ["cat -> dog", "person -> tv monitor"]
    assert [pair["num_train_context"] - pair["num_train_joint"] for pair in listed.values()] == [0, 0]
    # Of 24 images, three of each set of labels, those with a cat and no dog, or a person and no monitor, have moved.
    assert "note: ties cut: 15 of 15 training images with cat without dog, person without tv monitor" in run(*words).out


@pytest.mark.parametrize("flag", ["--num-pairs", "--min-joint", "--min-test"])
def test_limits_have_no_effect_on_the_pairs_of_a_cut_tie(place: Place, run: Command, flag: str) -> None:
    outcome = run("data", "pairs", "--data", f"voc:{place.voc},ties=1,ties_pairs=cat:dog", flag, 3)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"fedmpt data: {flag} has no effect: of a cut tie all pairs are listed that were cut; leave it out\n"
    )


def test_names_are_shown_as_they_are_written(run: Command, tmp_path: Path) -> None:
    photos = own_photos(tmp_path / "photos")
    table = (photos / "labels.csv").read_text().replace("cat", "[/cat]").replace("dog", "[bold]dog :smile:")
    (photos / "labels.csv").write_text(table.replace("north", "[/north]"))
    checked = run("data", "check", "folder", photos)
    assert "[/cat]" in checked.out
    assert "[bold]dog :smile:" in checked.out
    found_partition = run("data", "partition", "--data", f"folder:{photos}", "--by", "hospital")
    assert "[/north]" in found_partition.out
    words = ["--data", f"folder:{photos}", "--min-joint", 1, "--min-test", 1]
    assert run("data", "pairs", *words).code == 0


def test_load_and_options_of_a_partition_do_not_go_together(run: Command, tmp_path: Path) -> None:
    photos = own_photos(tmp_path / "photos")
    words = ["--data", f"folder:{photos}", "--load", tmp_path / "clients.json", "--setting", "iid"]
    assert run("data", "partition", *words).err == (
        "fedmpt data: --load says already who has which images; leave --setting out\n"
    )


def test_a_test_set_of_which_no_positive_is_readable_is_refused_before_training(
    place: Place, run: Command, tmp_path: Path
) -> None:
    photos = own_photos(tmp_path / "photos")
    lines = [f"{number}.png,{'cat' if number % 2 else 'dog'},train" for number in range(28)]
    lines += ["28.png,cat,test", "29.png,,test"]
    (photos / "labels.csv").write_text("\n".join(["path,labels,split", *lines]))
    (photos / "28.png").write_bytes(b"no picture")
    words = [*place.train_words(tmp_path / "a", "--skip-corrupt", t="1"), "--data", f"folder:{photos}"]
    outcome = run(*words)
    assert outcome.code == 2
    assert "folder: no image of the test (as far as it can be read) split shows any" in outcome.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_lists_the_commands(run: Command, words: list[str]) -> None:
    outcome = run("data", *words)
    assert all(f"  {name} " in outcome.out for name in ("check", "download", "partition", "pairs"))


def test_a_tied_run_scores_the_cut_pairs_and_evaluate_agrees(place: Place, run: Command, tmp_path: Path) -> None:
    data = f"voc:{place.voc},ties=0.8,ties_pairs=cat:dog+person:tv monitor"
    features = place.cache / "features"
    assert run(*place.train_words(tmp_path / "plain", "--quiet", rounds=1)).code == 0
    before = sorted(features.iterdir())
    assert run(*place.train_words(tmp_path / "a", "--quiet", "--data", data, rounds=1)).code == 0
    assert sorted(features.iterdir()) == before, "features of the uncut data are used"
    results = read_results(tmp_path / "a")
    shift = results["context_shift"]
    assert list(shift["per_pair"]) == list(shift["moved"]["per_pair"]) == ["cat -> dog", "person -> tv monitor"]
    assert results["test"]["num_images"] == 8 + 12
    assert sum(client["images"] for client in results["clients"]) == 24 - 12
    assert results["notes"][0].startswith("ties cut: 12 of 15 training images with cat without dog, person without tv")
    counted = shift["per_pair"]["cat -> dog"]
    moved = shift["moved"]["per_pair"]["cat -> dog"]
    assert counted["num_context_only"] == moved["num_context_only"] + 2, "the test set has two cats without a dog"
    words = ("--checkpoint", tmp_path / "a" / "checkpoint", "--data", data, "--cache", place.cache)
    outcome = run("evaluate", *words)
    assert outcome.code == 0
    assert "mean, moved" in outcome.out
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["context_shift"] == shift
    built = run("features", "build", "--data", data, "--backbone", place.clip, "--cache", place.cache)
    assert (built.code, sorted(features.iterdir())) == (0, before)


def test_a_tied_run_with_validation_leaves_the_test_set_alone(place: Place, run: Command, tmp_path: Path) -> None:
    data = f"voc:{place.voc},ties=1,ties_pairs=person:cat"
    outcome = run(*place.train_words(tmp_path / "a", "--quiet", "--data", data, "--validation", 0.25, rounds=1))
    assert outcome.code == 0
    results = read_results(tmp_path / "a")
    num_train = sum(client["images"] for client in results["clients"])
    assert num_train + results["test"]["num_images"] == 24
    assert results["test"]["num_images"] > 6
