"""Files of label counts, which go from site to site: they come back as they were, and wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpt.conditions.labels.counts import (
    EXAMPLE,
    LabelCounts,
    Noise,
    SiteCounts,
    check_alike,
    count_labels,
    read_counts,
    write_counts,
)
from fedmpt.types import InputError

CLASSES = ("cat", "dog", "dining table")
LABELS = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, -1]], dtype=torch.int8)


def site(noise: Noise | None = None, **changed: Any) -> SiteCounts:
    right = {"name": "here", "class_names": CLASSES, "counts": count_labels(LABELS, noise=noise), "noise": noise}
    return SiteCounts(**right | changed)


def same(one: LabelCounts, other: LabelCounts) -> bool:
    numbers = one.num_images == other.num_images and torch.equal(one.singles, other.singles)
    return numbers and torch.equal(one.pairs, other.pairs) and torch.equal(one.known, other.known)


def content(**changed: Any) -> dict[str, Any]:
    """A right file's counts of three classes, with something changed."""
    right = {"classes": list(CLASSES), "num_images": 5, "singles": [3, 3, 1], "pairs": [[0, 1, 2], [1, 2, 1]]}
    return right | {"epsilon": None, "max_labels": None} | changed


def write(path: Path, counts: Any, **head: Any) -> Path:
    path.write_text(json.dumps({"format": 1, "kind": "label-counts", "label-counts": counts} | head))
    return path


def test_exact_counts_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    write_counts(path, site())
    assert json.loads(path.read_text())["label-counts"] == content(known=[[5, 5, 4], [5, 5, 4], [4, 4, 4]])
    read = read_counts(path)
    assert (read.name, read.class_names, read.noise) == ("here", CLASSES, None)
    assert same(read.counts, count_labels(LABELS))


def test_counts_with_noise_come_back_as_they_were_negative_ones_too(tmp_path: Path) -> None:
    noisy = next(found for found in (site(Noise(0.1, 3)) for _ in range(100)) if found.counts.pairs.min() < 0)
    write_counts(tmp_path / "site.json", noisy)
    read = read_counts(tmp_path / "site.json")
    assert same(read.counts, noisy.counts)
    assert read.noise == Noise(0.1, 3)


def test_pairs_are_those_of_a_loop_in_its_order_and_no_number_is_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 1,500 classes writes a million pairs."""
    above = torch.randint(-2, 3, (9, 9), generator=torch.Generator().manual_seed(0)).triu(1)
    pairs = above + above.T
    counts = LabelCounts(50, torch.arange(9), pairs, torch.full((9, 9), 50))
    expected = [[a, b, pairs[a, b].item()] for a in range(9) for b in range(a + 1, 9) if pairs[a, b] != 0]
    monkeypatch.setattr(torch.Tensor, "__int__", None, raising=False)
    write_counts(tmp_path / "site.json", site(class_names=tuple("abcdefghi"), counts=counts))
    assert json.loads((tmp_path / "site.json").read_text())["label-counts"]["pairs"] == expected


@pytest.mark.parametrize("name", ["auf\u200cfallen", "a very long name " * 15, "two\nlines"])
def test_classes_may_have_any_names(tmp_path: Path, name: str) -> None:
    """The zero-width non-joiner is part of German and Persian typesetting; prompts are no business of counts."""
    write_counts(tmp_path / "site.json", site(class_names=("cat", "dog", name)))
    assert read_counts(tmp_path / "site.json").class_names == ("cat", "dog", name)


def test_files_without_unknown_labels_say_nothing_of_them_and_are_read_so(tmp_path: Path) -> None:
    write_counts(tmp_path / "site.json", site(counts=count_labels(LABELS.abs())))
    assert "known" not in json.loads((tmp_path / "site.json").read_text())["label-counts"]
    assert read_counts(tmp_path / "site.json").counts.known.tolist() == [[5] * 3] * 3


def test_files_of_before_know_each_class_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "site.json", content(num_images=100, known=[50, 40, 100]))
    assert read_counts(path).counts.known.tolist() == [[50, 20, 50], [20, 40, 40], [50, 40, 100]]


def test_the_example_in_messages_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "ward 3.json").write_text(EXAMPLE)
    read = read_counts(tmp_path / "ward 3.json")
    assert (read.name, read.class_names, read.counts.num_images) == ("ward 3", ("cat", "dog"), 90)
    assert read.counts.pairs.tolist() == [[0, 11], [11, 0]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": 3}, "label counts cannot be used .classes: 3 is no list of names"),
        ({"classes": ["cat", "dog", 3]}, "is no list of names"),
        ({"classes": ["cat", "dog", "cat"]}, r"\(classes, number 3: 'cat' is given twice; keep one\)"),
        ({"classes": ["cat", "dog"]}, "label counts cannot be used"),
        ({"singles": [3, 3, "1"]}, "label counts cannot be used"),
        ({"known": [5, 5]}, "label counts cannot be used"),
        ({"known": [[5, 5, 4], [5, 5, 4]]}, "label counts cannot be used"),
        ({"pairs": [[0, 1]]}, "label counts cannot be used"),
        ({"pairs": [[1, 3, 1]]}, "label counts cannot be used"),
        ({"epsilon": 0, "max_labels": 3}, "epsilon is 0; give a finite number"),
        ({"epsilon": 1, "max_labels": 1}, "max_labels is 1"),
    ],
)
def test_wrong_numbers_are_refused_with_the_file(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "site.json", content(**changed))
    with pytest.raises(InputError, match=said) as refused:
        read_counts(path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("key", content())
def test_nothing_may_be_missing(tmp_path: Path, key: str) -> None:
    counts = content(epsilon=1, max_labels=3)
    del counts[key]
    with pytest.raises(InputError, match=rf"label counts cannot be used \('{key}'\); expected a file like"):
        read_counts(write(tmp_path / "site.json", counts))


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
    with pytest.raises(InputError, match="--counts has the same file twice"):
        check_alike([site(), site(), site()], paths)
