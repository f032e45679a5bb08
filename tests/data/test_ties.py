"""The cut of a tie, against a plain loop over images and labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from own_data import write_csv, write_images
from voc_folder import write_voc

from fedmpt.data import load_data
from fedmpt.data.pairs import count_pairs, measured_pairs, tied_pairs
from fedmpt.data.ties import MOVED, TiesOptions, cut_ties, is_moved, telling_images
from fedmpt.runs.config import RunConfig
from fedmpt.runs.partition import hold_out
from fedmpt.types import ImageData, InputError, Split

NAMES = ("cat", "chair", "dog", "ball")
PAIRS = ((0, 1), (2, 3))
NAMED = "cat:chair+dog:ball"


def split(name: str, num_images: int, seed: int) -> Split:
    """Cats are mostly with chairs and dogs with balls; some labels are unknown."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(num_images, 4, generator=generator) < 0.25
    shown[:, 1] |= shown[:, 0] & (torch.rand(num_images, generator=generator) < 0.6)
    shown[:, 3] |= shown[:, 2] & (torch.rand(num_images, generator=generator) < 0.6)
    labels = shown.to(torch.int8).masked_fill(torch.rand(num_images, 4, generator=generator) < 0.1, -1)
    sites = tuple("AB"[row % 2] for row in range(num_images))
    return Split(name, tuple(Path(f"{name}-{row}.jpg") for row in range(num_images)), labels, {"site": sites})


@pytest.fixture
def data() -> ImageData:
    return ImageData("own", NAMES, split("train", 400, 0), split("test", 200, 1), client_column="site", notes=("old",))


def tells(row: list[int], *, cut: str) -> bool:
    """The definition, in plain Python."""
    found = [(row[a], row[b]) for a, b in PAIRS]
    return (1, 0) in found or (cut == "both" and (0, 1) in found and (1, 1) not in found)


@pytest.mark.parametrize("cut", ["context", "both"])
def test_telling_images_are_those_of_a_loop(data: ImageData, cut: Any) -> None:
    found = telling_images(data.train.labels, PAIRS, cut=cut)
    assert found.tolist() == [tells(row, cut=cut) for row in data.train.labels.tolist()]
    assert 0 < found.sum() < len(found)


@pytest.mark.parametrize("row", [[1, -1, 0, 0], [-1, 0, 0, 0], [-1, 1, 0, -1], [0, 0, 0, 0], [1, 1, 0, 1]])
@pytest.mark.parametrize("cut", ["context", "both"])
def test_unknown_labels_and_whole_pairs_do_not_tell(row: list[int], cut: Any) -> None:
    assert not telling_images(torch.tensor([row], dtype=torch.int8), PAIRS, cut=cut).any()


@pytest.mark.parametrize("cut", ["context", "both"])
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_the_share_moves_and_nothing_is_lost(data: ImageData, cut: Any, share: float) -> None:
    found = cut_ties(data, TiesOptions(share, cut, NAMED))
    telling = {
        file for file, row in zip(data.train.files, data.train.labels.tolist(), strict=True) if tells(row, cut=cut)
    }
    moved = [file for file, is_one in zip(found.test.files, is_moved(found.test), strict=True) if is_one]
    assert len(moved) == round(share * len(telling))
    assert set(moved) <= telling
    assert found.test.files == (*data.test.files, *moved)
    assert sorted((*found.train.files, *moved)) == sorted(data.train.files)
    assert found.pairs == PAIRS
    assert found.notes[0] == "old"
    assert f"ties cut: {len(moved)} of {len(telling)} training images with cat without chair" in found.notes[1]


@pytest.mark.parametrize("control", [None, 1, 2])
def test_images_with_a_whole_pair_move_too(data: ImageData, control: int | None) -> None:
    options = TiesOptions(0.8, "both", NAMED, ties_control=control)
    plain, found = cut_ties(data, options), cut_ties(data, replace(options, ties_joint=0.5))
    rows = dict(zip(data.train.files, data.train.labels.tolist(), strict=True))
    joint = {
        file
        for file, row in rows.items()
        if any(row[a] == 1 and row[b] == 1 for a, b in PAIRS) and not tells(row, cut="both")
    }
    assert len(joint) > 5
    moved = {file for file, is_one in zip(found.test.files, is_moved(found.test), strict=True) if is_one}
    added = {*found.test.files} - {*data.test.files} - moved
    assert added < joint
    assert len(added) == round(0.5 * len(joint))
    assert moved == {file for file, is_one in zip(plain.test.files, is_moved(plain.test), strict=True) if is_one}
    assert not added & {*found.train.files}
    tied = cut_ties(data, replace(options, ties_joint=0.5, ties_control=None))
    assert len(found.train) == len(tied.train)
    assert f"{len(added)} of {len(joint)} with a whole pair move, too" in found.notes[1]


def test_images_keep_labels_columns_and_order(data: ImageData) -> None:
    found = cut_ties(data, TiesOptions(0.9, ties_pairs=NAMED))
    source = {file: (one, row) for one in (data.train, data.test) for row, file in enumerate(one.files)}
    for part in (found.train, found.test):
        rows = [source[file] for file in part.files]
        assert torch.equal(part.labels, torch.stack([one.labels[row] for one, row in rows]))
        assert part.columns["site"] == tuple(one.columns["site"][row] for one, row in rows)
    places = [source[file][1] for file in found.train.files]
    assert places == sorted(places)
    assert set(found.train.columns) == {"site"}, "no column that --by could name"
    assert set(found.test.columns["ties"]) == {"", MOVED}
    assert found.client_column == "site"


def test_the_seed_decides_which_images_move(data: ImageData) -> None:
    one, again, other = (cut_ties(data, TiesOptions(0.5, ties_pairs=NAMED, ties_seed=seed)) for seed in (3, 3, 4))
    assert one.test.files == again.test.files
    assert len(one.test) == len(other.test)
    assert one.test.files != other.test.files


@pytest.mark.parametrize("cut", ["context", "both"])
def test_controls_have_as_many_images_and_share_the_moved_ones(data: ImageData, cut: Any) -> None:
    options = TiesOptions(0.9, cut, NAMED)
    tied = cut_ties(data, options)
    controls = [cut_ties(data, replace(options, ties_control=half)) for half in (1, 2)]
    moved = [
        {file for file, is_one in zip(one.test.files, is_moved(one.test), strict=True) if is_one} for one in controls
    ]
    assert not moved[0] & moved[1]
    assert sorted((*moved[0], *moved[1])) == sorted({*tied.test.files} - {*data.test.files})
    assert abs(len(moved[0]) - len(moved[1])) <= 1
    labels = dict(zip(data.train.files, data.train.labels.tolist(), strict=True))
    for control, own, other in zip(controls, moved, moved[::-1], strict=True):
        assert len(control.train) == len(tied.train)
        assert other <= {*control.train.files}
        assert not own & {*control.train.files}
        left_out = {*data.train.files} - {*control.train.files} - own
        assert len(left_out) == len(other)
        assert not any(tells(labels[file], cut=cut) for file in left_out)


def test_a_control_without_images_to_leave_out_says_so(data: ImageData) -> None:
    rows = telling_images(data.train.labels, PAIRS, cut="context").nonzero().flatten().tolist()
    only = replace(data, train=data.train.take(rows))
    with pytest.raises(InputError, match=r"ties_control=1 puts \d+ images back .* there are 0; take a smaller share"):
        cut_ties(only, TiesOptions(0.9, ties_pairs=NAMED, ties_control=1))


def plain_pairs(rows: list[list[int]]) -> list[tuple[float, tuple[int, int]]]:
    found = []
    for a, b in permutations(range(len(NAMES)), 2):
        known = [(row[a], row[b]) for row in rows if -1 not in (row[a], row[b])]
        num_a, num_b, joint = sum(x for x, _ in known), sum(y for _, y in known), known.count((1, 1))
        lift = joint * len(known) / (num_a * num_b)
        if lift > 1 and joint >= 15 and known.count((1, 0)) >= 15 and (num_a, a) < (num_b, b):
            found.append((lift, (a, b)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("num", [1, 8])
def test_pairs_are_found_on_the_labels_of_both_splits(data: ImageData, num: int) -> None:
    rows = [*data.train.labels.tolist(), *data.test.labels.tolist()]
    expected = tuple(pair for _, pair in plain_pairs(rows))[:num]
    assert set(expected) <= set(PAIRS)
    assert len(expected) == min(num, 2)
    assert cut_ties(data, TiesOptions(0.9, ties_pairs=str(num))).pairs == expected


def test_a_pair_needs_images_of_the_context_alone() -> None:
    rows = [([1, 1], 30), ([1, 0], 14), ([0, 1], 60), ([0, 0], 60)]
    labels = torch.tensor([row for row, count in rows for _ in range(count)], dtype=torch.int8)
    assert tied_pairs(labels, num_pairs=8) == ()
    assert tied_pairs(torch.cat([labels, labels[30:31]]), num_pairs=8) == ((0, 1),)


def test_counts_of_the_cut_pairs_are_those_of_a_loop(data: ImageData) -> None:
    found = cut_ties(data, TiesOptions(1.0, ties_pairs=NAMED))
    counted = measured_pairs(found, found.test.labels)
    assert counted == count_pairs(found.train.labels, found.test.labels, PAIRS)
    for (a, b), pair in zip(PAIRS, counted.per_pair, strict=True):
        train = [(row[a], row[b]) for row in found.train.labels.tolist() if -1 not in (row[a], row[b])]
        test = [(row[a], row[b]) for row in found.test.labels.tolist()]
        assert (pair.context, pair.target) == (a, b)
        assert pair.num_train_context == pair.num_train_joint == train.count((1, 1)), "no image shows a alone"
        assert pair.num_train_target == train.count((1, 1)) + train.count((0, 1))
        assert pair.num_exclusive == test.count((0, 1))
        assert pair.num_cooccurring == test.count((1, 1))
        assert pair.num_context_only == test.count((1, 0))
    assert counted.num_biased == 2


@pytest.mark.parametrize("control", [None, 1])
def test_validation_holds_out_first_and_never_sees_the_official_test(data: ImageData, control: int | None) -> None:
    options = TiesOptions(0.9, ties_pairs=NAMED, ties_control=control)
    config = RunConfig(data="own", validation=0.25)
    found, plain = hold_out(config, cut_ties(data, options)), hold_out(config, data)
    assert not {*found.train.files, *found.test.files} & {*data.test.files}
    moved = is_moved(found.test)
    assert found.test.files[: -int(moved.sum())] == plain.test.files, "the same images as without a tie"
    assert found.test.name == "validation"
    again = cut_ties(plain, options)
    assert found.train.files == again.train.files
    assert found.test.files == again.test.files
    assert found.pairs == PAIRS
    assert len(found.notes) == 2


def test_validation_keeps_the_pairs_of_the_whole_data(data: ImageData) -> None:
    found = cut_ties(data, TiesOptions(0.9))
    few = RunConfig(data="own", validation=0.95)
    assert hold_out(few, found).pairs == found.pairs
    assert cut_ties(hold_out(few, data), TiesOptions(0.9)).pairs != found.pairs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties_pairs": "cat:chiar"}, "own has no class 'chiar'; did you mean 'chair'"),
        ({"ties_pairs": "cat"}, "'cat' is no pair; write CONTEXT:TARGET"),
        ({"ties_pairs": "cat:cat"}, "'cat:cat' is no pair"),
        ({"ties_pairs": "cat:chair+cat:chair"}, "a pair is named twice"),
        ({"ties": 0.001, "ties_pairs": NAMED}, r"ties=0\.001 moves 0 of \d+ .*; it must be at least 1: take a larger"),
        ({"ties": 0.015, "ties_pairs": NAMED, "ties_control": 2}, "moves 1 of .* at least 2"),
    ],
)
def test_what_cannot_be_is_answered(data: ImageData, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut_ties(data, TiesOptions(**{"ties": 0.9, **options}))


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_column_of_that_name_is_not_overwritten(data: ImageData, part: str) -> None:
    one = getattr(data, part)
    own = replace(data, **{part: replace(one, columns={"ties": one.columns["site"]})})
    with pytest.raises(InputError, match=r"^own has a column 'ties' of its own, .* rename the column"):
        cut_ties(own, TiesOptions(0.9, ties_pairs=NAMED))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ties=0", r"ties is 0\.0; it must be in \(0, 1\]"),
        ("ties=nan", "ties is nan"),
        ("ties=most", "ties is 'most', expected a value of type float"),
        ("ties=0.9,ties_cut=target", "ties_cut is 'target'; it may be: context, both"),
        ("ties=0.9,ties_pairs=0", "ties_pairs is 0; give a number of pairs, at least 1"),
        ("ties=0.9,ties_joint=1", r"ties_joint is 1.0; it must be in \[0, 1\): the share of joint images moved"),
        ("ties=0.9,ties_control=3", "ties_control is 3; it may be 1 or 2"),
        ("ties=0.9,ties_sed=1", r"unknown option 'ties_sed'; did you mean 'ties_seed'\?; options are: difficult, ties"),
        ("ties_seed=1", "ties_seed needs ties, the share of images that is moved: ties=0.95"),
        ("ties=0.9", "voc: no two classes are together more often than chance, in at least 15 images"),
    ],
)
def test_options_of_a_data_set_are_checked(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(f"voc:{write_voc(tmp_path)},{words}")


def test_scenes_take_the_options_beside_their_own(tmp_path: Path) -> None:
    plain = load_data("scenes:num_train=60,num_test=20", cache=tmp_path)
    a, b = plain.class_names[:2]
    found = load_data(f"scenes:num_train=60,num_test=20,ties=1,ties_pairs={a}:{b}", cache=tmp_path)
    num = int(telling_images(plain.train.labels, [(0, 1)], cut="context").sum())
    assert (len(found.train), len(found.test)) == (60 - num, 20 + num)
    assert num
    assert found.uncut is not None
    assert found.uncut.train.files == plain.train.files


def test_moved_images_of_sites_keep_their_site(tmp_path: Path) -> None:
    for site in ("north", "south"):
        labels = ["cat"] * 4 + ["cat|chair"] * 4 + ["chair"] * 4
        write_images(tmp_path / site, *(f"{site}{number}.png" for number in range(12)))
        write_csv(tmp_path / site, "path,labels", *(f"{site}{row}.png,{words}" for row, words in enumerate(labels)))
    plain = load_data(f"clients:{tmp_path}")
    found = load_data(f"clients:{tmp_path},ties=1,ties_pairs=cat:chair")
    assert found.client_column == "client"
    site = dict(zip(plain.train.files, plain.train.columns["client"], strict=True))
    moved = [row for row, is_one in enumerate(is_moved(found.test)) if is_one]
    assert {found.test.columns["client"][row] for row in moved} == {"north", "south"}
    assert all(found.test.columns["client"][row] == site[found.test.files[row]] for row in moved)
