"""Where `fedmpt conditions generate` takes combinations of classes from, and what that gives away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from command_line import Command, Outcome, Place
from PIL import Image
from scripted_endpoint import ScriptedEndpoint, numbered_in, stage_of
from tiny_voc import LABEL_SETS

from fedmpt.conditions.record import find_conditions
from fedmpt.data.datasets.voc import CLASS_NAMES

REPEATS = 3
"""Of each label set of the tiny VOC in training."""
SHOWN = [{"tv monitor" if name == "tvmonitor" else name for name in labels} for labels in LABEL_SETS]
"""Classes in each of its label sets, by the names that they have in prompts."""
PAIRS = {
    pair: sum(labels >= set(pair) for labels in SHOWN) * REPEATS
    for pair in combinations(sorted(set().union(*SHOWN)), 2)
}
"""Images of each pair of its classes."""


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


def generate(run: Command, folder: Path, *words: object) -> Outcome:
    return run("conditions", "generate", "--out", folder / "c.json", "--cache", folder / "cache", *words)


def chosen(folder: Path, why: str = "") -> set[tuple[str, ...]]:
    """Combinations in the record, those of one kind or all."""
    listed = find_conditions(str(folder / "c.json")).provenance["combinations"]["chosen"]
    return {tuple(sorted(each["classes"])) for each in listed if not why or each["why"].endswith(why)}


def write_sites(root: Path) -> Path:
    """Two sites: at one a cat and a dog are seen together, at the other a cat and a cow; a dog and a cow nowhere."""
    for site, rows in {
        "north": [("cat", "dog")] * 4 + [("cow",)],
        "south": [("cat", "cow")] * 3 + [("dog",)] * 2,
    }.items():
        (root / site).mkdir(parents=True)
        lines = ["path,cat,cow,dog,split"]
        for number, labels in enumerate(rows):
            shade = 20 * number + len(site) * len(labels)
            Image.new("RGB", (8, 6), (shade, len(site[0]), ord(site[0]))).save(root / site / f"{number}.png")
            marks = ",".join(str(int(name in labels)) for name in ("cat", "cow", "dog"))
            lines.append(f"{number}.png,{marks},{'test' if number == len(rows) - 1 else 'train'}")
        (root / site / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("min_images", [1, 3, 4, 100])
def test_pairs_come_from_the_labels_that_occur_often_enough(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path, min_images: int
) -> None:
    words = ["--data", f"voc:{place.voc}", "--min-images", min_images, *endpoint.words()]
    done = generate(run, tmp_path, *words)
    assert done.code == 0, done.err
    expected = {pair for pair, images in PAIRS.items() if images >= min_images}
    assert chosen(tmp_path, "pair") == expected
    assert chosen(tmp_path, "single") == {(name,) for name in CLASS_NAMES}
    assert ("no pair of classes is in 100 images, so only single" in done.err) is (not expected)


def test_nothing_but_names_leaves_for_the_model(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    done = generate(run, tmp_path, "--data", f"voc:{place.voc}", "--min-images", 3, *endpoint.words())
    assert "note: the language model gets the names of classes, and by name which of them come together" in done.err
    asked = [request for request in endpoint.requests if stage_of(request) == "describe"]
    sent = [tuple(names) for request in asked for names in numbered_in(request).values()]
    assert {tuple(sorted(names)) for names in sent} == chosen(tmp_path)
    assert {name for names in sent for name in names} == set(CLASS_NAMES)
    for text in endpoint.texts():
        assert ".jpg" not in text
        assert str(place.voc) not in text


def test_several_sites_count_for_themselves_and_the_user_is_told_what_that_reveals(
    run: Command, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    words = ["--data", f"clients:{write_sites(tmp_path / 'sites')}", "--min-images", 3]
    done = generate(run, tmp_path, *words, *endpoint.words())
    assert done.code == 0, done.err
    # The last image of each site is for testing.
    assert chosen(tmp_path, "pair") == {("cat", "cow"), ("cat", "dog")}
    assert "note: clients tell whoever adds up how many of their images show each class" in done.err
    where = find_conditions(str(tmp_path / "c.json")).provenance["combinations"]["from"]
    assert where.startswith("labels of 8 training images of ")
    assert "counted at 2 clients; at least 3 images" in where


def test_with_noise_no_number_of_images_is_recorded(run: Command, endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    words = ["--data", f"clients:{write_sites(tmp_path / 'sites')}", "--min-images", 3, "--epsilon", 1000]
    done = generate(run, tmp_path, *words, *endpoint.words())
    assert done.code == 0, done.err
    assert "clients tell whoever adds up" not in done.err
    record = find_conditions(str(tmp_path / "c.json")).provenance["combinations"]["from"]
    assert record.startswith("labels of training images of ")
    assert "counted at 2 clients, with noise of epsilon 1000 at each" in record


def test_counts_of_two_sites_add_up_and_noise_of_one_is_reckoned_with(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    data = ["--data", f"voc:{place.voc}"]
    exact, noisy = tmp_path / "exact.json", tmp_path / "noisy.json"
    assert run("conditions", "count", *data, "--out", exact).code == 0
    # So little noise that none is drawn, in all likelihood; what it may make up still has to be exceeded.
    assert run("conditions", "count", *data, "--out", noisy, "--epsilon", 1e4).code == 0
    done = generate(run, tmp_path, "--counts", exact, noisy, "--min-images", 6, *endpoint.words())
    assert done.code == 0, done.err
    assert chosen(tmp_path, "pair") == {pair for pair, images in PAIRS.items() if 2 * images > 6}
    assert not chosen(tmp_path, "triple")
    where = find_conditions(str(tmp_path / "c.json")).provenance["combinations"]["from"]
    assert where == "pairs counted at 2 sites, 1 of them with noise; at least 6 images each"


def test_sites_with_other_classes_are_refused_before_anything_is_asked(
    run: Command, place: Place, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    assert run("conditions", "count", "--data", f"voc:{place.voc}", "--out", one).code == 0
    sites = f"clients:{write_sites(tmp_path / 'sites')}"
    assert run("conditions", "count", "--data", sites, "--out", other).code == 0
    refused = generate(run, tmp_path, "--counts", one, other, *endpoint.words())
    assert refused.code == 2
    assert "count different classes: 'aeroplane' is only in one of them" in refused.err
    assert endpoint.asked == []


def test_a_file_of_counts_holds_class_names_and_numbers_only(run: Command, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "new" / "site.json"
    counted = run("conditions", "count", "--data", f"voc:{place.voc}", "--out", out, "--name", "hospital A")
    assert counted.code == 0
    assert "note: whoever gets the file learns these numbers exactly" in counted.err
    content = json.loads(out.read_text())
    index = {name: CLASS_NAMES.index(name) for name in CLASS_NAMES}
    assert content == {
        "format": 1,
        "kind": "label-counts",
        "name": "hospital A",
        "label-counts": {
            "classes": list(CLASS_NAMES),
            "num_images": REPEATS * len(SHOWN),
            "singles": [REPEATS * sum(name in labels for labels in SHOWN) for name in CLASS_NAMES],
            "pairs": sorted([*sorted((index[a], index[b])), images] for (a, b), images in PAIRS.items() if images),
            "epsilon": None,
            "max_labels": None,
        },
    }


def test_noise_is_said_in_the_file_and_the_numbers_are_others(run: Command, place: Place, tmp_path: Path) -> None:
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file in files:
        words = ["--data", f"voc:{place.voc}", "--out", file, "--epsilon", 0.5, "--max-labels", 3]
        counted = run("conditions", "count", *words)
        assert counted.code == 0
        assert "numbers with noise (epsilon 0.5)" in counted.err
        assert "exactly" not in counted.err
    one, two = (json.loads(file.read_text())["label-counts"] for file in files)
    assert (one["epsilon"], one["max_labels"]) == (0.5, 3)
    assert one["singles"] != two["singles"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epsilon", "0"], "epsilon is 0.0; give a finite number"),
        (["--epsilon", "nan"], "epsilon is nan"),
        (["--max-labels", "3"], "--max-labels 3 is for counts with noise; give --epsilon too"),
        (["--epsilon", "1", "--max-labels", "1"], "max_labels is 1; give "),
        (["--name", "a\nb"], r"--name is 'a\nb'; expected one line"),
        (["--out", "."], "--out . is a folder; give a file"),
    ],
)
def test_wrong_options_of_count_are_found_before_data_are_read(
    run: Command, tmp_path: Path, words: list[str], said: str
) -> None:
    refused = run("conditions", "count", "--data", f"voc:{tmp_path / 'none'}", "--out", tmp_path / "c.json", *words)
    assert refused.code == 2
    assert refused.err.startswith(f"fedmpt conditions: {said}")
    assert not (tmp_path / "c.json").exists()
