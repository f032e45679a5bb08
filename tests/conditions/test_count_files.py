"""Files of label counts, which go from site to site: they come back as they were, and wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmpt.conditions.labels import count_files
from fedmpt.conditions.labels.count_files import EXAMPLE, SiteCounts, check_alike, read_counts, write_counts
from fedmpt.conditions.labels.counts import LabelCounts, Noise, count_labels
from fedmpt.types import InputError

CLASSES = ("cat", "dog", "dining table")
LABELS = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, -1]], dtype=torch.int8)


def site(noise: Noise | None = None, **changed: Any) -> SiteCounts:
    right = {"name": "here", "class_names": CLASSES, "counts": count_labels(LABELS, noise=noise), "noise": noise}
    return SiteCounts(**right | changed)


def same(one: LabelCounts, other: LabelCounts) -> bool:
    return (
        one.num_images == other.num_images
        and torch.equal(one.singles, other.singles)
        and torch.equal(one.pairs, other.pairs)
    )


def content(**changed: Any) -> dict[str, Any]:
    """A right file's counts of three classes, with something changed."""
    right = {
        "classes": list(CLASSES),
        "num_images": 5,
        "singles": [3, 3, 1],
        "pairs": [[0, 1, 2], [1, 2, 1]],
        "epsilon": None,
        "max_labels": None,
    }
    return right | changed


def write(path: Path, counts: Any, **head: Any) -> Path:
    path.write_text(json.dumps({"format": 1, "kind": "label-counts", "label-counts": counts} | head))
    return path


def test_exact_counts_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    write_counts(path, site())
    assert json.loads(path.read_text())["label-counts"] == content()
    read = read_counts(path)
    assert (read.name, read.class_names, read.noise) == ("here", CLASSES, None)
    assert same(read.counts, count_labels(LABELS))


@pytest.mark.parametrize("seed", range(5))
def test_counts_with_noise_come_back_as_they_were_negative_ones_too(tmp_path: Path, seed: int) -> None:
    noise = Noise(0.1, 3, np.random.default_rng(seed))
    noisy = site(noise)
    assert noisy.counts.singles.min() < 0 or noisy.counts.pairs.min() < 0
    write_counts(tmp_path / "site.json", noisy)
    read = read_counts(tmp_path / "site.json")
    assert same(read.counts, noisy.counts)
    assert read.noise == Noise(0.1, 3)


def test_many_classes_come_back_as_they_were(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 300, generator=generator) < 0.05).to(torch.int8)
    counts = count_labels(labels)
    names = tuple(f"class {number}" for number in range(300))
    write_counts(tmp_path / "site.json", SiteCounts("many", names, counts, None))
    assert same(read_counts(tmp_path / "site.json").counts, counts)


def test_the_example_in_messages_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "ward 3.json").write_text(EXAMPLE)
    read = read_counts(tmp_path / "ward 3.json")
    assert (read.name, read.class_names, read.counts.num_images) == ("ward 3", ("cat", "dog"), 90)
    assert read.counts.pairs.tolist() == [[0, 11], [11, 0]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": "cat"}, "classes are 'cat'; expected a list of names"),
        ({"classes": ["cat"]}, "class 0: at least two classes are needed, got 1"),
        ({"classes": ["cat", "dog", "cat"]}, "class 2: class 'cat' stands in .*class 0 already"),
        ({"classes": ["cat", "dog", "a\nb"]}, r"class 2: class name 'a\\nb'; expected one line"),
        ({"classes": ["cat", "dog"]}, "singles is .*; expected a list of 2 whole numbers"),
        ({"num_images": 5.0}, "num_images has 5.0; expected a whole number"),
        ({"num_images": True}, "num_images has True; expected a whole number"),
        ({"num_images": 10**20}, "num_images has 100000000000000000000; expected a whole number"),
        ({"singles": [3, 3]}, "singles is .*; expected a list of 3 whole numbers"),
        ({"singles": [3, 3, "1"]}, "singles has '1'; expected a whole number"),
        ({"pairs": {"0": 1}}, "pairs are {'0': 1}; expected "),
        ({"pairs": [[0, 1]]}, r"pair 0 is \[0, 1\]; expected a list of 3"),
        ({"pairs": [[0, 1, 2], 7]}, "pair 1 is 7; expected a list of 3"),
        ({"pairs": [[0, 1, None]]}, "pair 0 has None; expected a whole number"),
        ({"pairs": [[1, 0, 2]]}, r"pair 0 is \[1, 0, 2\]; expected two places in the list of 3 classes"),
        ({"pairs": [[1, 1, 2]]}, "pair 0 is .*; expected two places"),
        ({"pairs": [[1, 3, 1]]}, "pair 0 is .*; expected two places"),
        ({"pairs": [[-1, 1, 1]]}, "pair 0 is .*; expected two places"),
        ({"pairs": [[1, 2, 1], [0, 1, 2], [1, 2, 1]]}, "the pair of classes 1 and 2 is given twice; keep one"),
        ({"singles": [-3, 3, 1]}, "a number of images is negative, and there is no noise"),
        ({"pairs": [[0, 1, -2]]}, "a number of images is negative, and there is no noise"),
        ({"num_images": 2}, "a class or a pair is in more images than there are"),
        ({"pairs": [[1, 2, 2]]}, "a class or a pair is in more images than there are, or than show its classes"),
        ({"epsilon": 1}, "epsilon and max_labels are 1 and None; expected two numbers, or null for both"),
        ({"epsilon": "1", "max_labels": 3}, "epsilon and max_labels are '1' and 3"),
        ({"epsilon": 0, "max_labels": 3}, "epsilon is 0.0; give a finite number"),
        ({"epsilon": 10**400, "max_labels": 3}, "site.json: "),
        ({"epsilon": 1, "max_labels": 1}, "max_labels is 1"),
        ({"images": ["a.jpg"]}, "label counts must have classes, .* and nothing else"),
    ],
)
def test_wrong_numbers_are_refused_with_the_file_and_the_value(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "site.json", content(**changed))
    with pytest.raises(InputError, match=said) as refused:
        read_counts(path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("key", content())
def test_nothing_may_be_missing(tmp_path: Path, key: str) -> None:
    counts = content()
    del counts[key]
    with pytest.raises(InputError, match="label counts must have"):
        read_counts(write(tmp_path / "site.json", counts))


def test_other_documents_are_refused(tmp_path: Path) -> None:
    for head, said in (({"kind": "conditions"}, "kind is 'conditions'"), ({"format": 2}, "format is 2")):
        with pytest.raises(InputError, match=said):
            read_counts(write(tmp_path / "site.json", content(), **head))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "a\nb"}, r"--name is 'a\\nb'; expected one line"),
        ({"name": ""}, "--name is ''; expected one line"),
        ({"class_names": ("cat", "dog", "x" * 201)}, "class 2: class name 'x.*'; expected one line of 1 to 200"),
        ({"class_names": ("cat", "dog", "cat")}, "class 2: class 'cat' stands in class 0 already"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_counts(tmp_path / "site.json", site(**changed))
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_to_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_files, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"would have \d+ bytes, more than 100; leave --epsilon out"):
        write_counts(tmp_path / "site.json", site())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cat", "dog", "sofa"), "count different classes: 'dining table' is only in one of them"),
        (("dog", "cat", "dining table"), "count different classes: the classes are in another order"),
    ],
)
def test_sites_with_other_classes_do_not_add_up(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_alike([site(), site(class_names=classes)], [Path("a.json"), Path("b.json")])


def test_a_site_counts_once(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "x" / ".." / "a.json"]
    check_alike([site(), site()], paths[:2])
    with pytest.raises(InputError, match="is given twice; its images would count twice"):
        check_alike([site(), site(), site()], paths)


def test_the_sum_over_a_million_sites_is_no_larger_than_numbers_can_be() -> None:
    assert count_files.MAX_COUNT * 10**6 <= torch.iinfo(torch.int64).max
