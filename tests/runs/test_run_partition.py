"""A config's federated setting on a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedmpt.data.partial_labels import annotated_classes
from fedmpt.data.partition import save_partition
from fedmpt.data.ties import TiesOptions, cut_ties
from fedmpt.runs.config import RunConfig
from fedmpt.runs.partition import held_out_rows, hide_labels, hold_out, partition_clients, setting_of
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError, Split

NUM_IMAGES, NUM_CLASSES = 60, 4


def images(num: int, *, name: str) -> Split:
    labels = torch.rand(num, NUM_CLASSES, generator=torch.Generator().manual_seed(num)) < 0.4
    sites = tuple("ABC"[row % 3] for row in range(num))
    files = tuple(Path(f"{name}-{row}.jpg") for row in range(num))
    return Split(name, files, labels.to(torch.int8), columns={"site": sites})


@pytest.fixture
def data() -> ImageData:
    return ImageData("own", ("a", "b", "c", "d"), images(NUM_IMAGES, name="train"), images(10, name="test"))


@pytest.mark.parametrize(
    ("options", "num_clients"),
    [
        ({}, 2),
        ({"setting": "heterogeneous", "t": 1.0}, 4),
        ({"setting": "iid", "clients": 7}, 7),
        ({"setting": "dirichlet", "clients": 5, "alpha": 0.1}, 5),
        ({"setting": "dirichlet", "clients": 5}, 5),
        ({"setting": "natural", "by": "site"}, 3),
        ({"by": "site"}, 3),
    ],
)
def test_each_setting_deals_every_image_once(data: ImageData, options: dict[str, object], num_clients: int) -> None:
    config = RunConfig(data="own", **options)  # type: ignore[arg-type]
    config.check()
    partition = partition_clients(config, data)
    assert len(partition.rows) == num_clients
    assert torch.cat(partition.rows).sort().values.tolist() == list(range(NUM_IMAGES))


def test_data_of_several_sites_stay_with_their_sites(data: ImageData) -> None:
    sites = replace(data, client_column="site")
    assert setting_of(RunConfig(data="own"), sites) == "natural"
    assert partition_clients(RunConfig(data="own"), sites).names == ("A", "B", "C")
    assert setting_of(RunConfig(data="own", t=1.0), sites) == "heterogeneous"
    assert setting_of(RunConfig(data="own"), data) == "heterogeneous"


def test_a_saved_partition_is_dealt_again(data: ImageData, tmp_path: Path) -> None:
    first = partition_clients(RunConfig(data="own", setting="iid", clients=3, seed=5), data)
    save_partition(tmp_path / "clients.json", first, data)
    config = RunConfig(data="own", partition=str(tmp_path / "clients.json"))
    config.check()
    again = partition_clients(config, data)
    assert all(torch.equal(one, other) for one, other in zip(first.rows, again.rows, strict=True))


def test_natural_without_a_column_names_the_columns(data: ImageData) -> None:
    with pytest.raises(InputError, match=r"--setting natural needs --by, .*: site"):
        partition_clients(RunConfig(data="own", setting="natural"), data)


def test_hidden_labels_leave_files_and_other_labels_alone(data: ImageData) -> None:
    config = RunConfig(data="own", partial_labels="masked-negative", partial_fraction=0.5)
    hidden, labels = hide_labels(config, data), data.train.labels
    assert hidden.files == data.train.files
    assert 0 < (hidden.labels == PRESENT).sum() < (labels == PRESENT).sum()
    assert (hidden.labels[labels == ABSENT] == ABSENT).all()
    unknown = hide_labels(replace(config, partial_labels="masked-unknown"), data).labels
    assert 0.4 < (unknown == UNKNOWN).double().mean() < 0.6
    assert torch.equal(unknown[unknown != UNKNOWN], labels[unknown != UNKNOWN])
    assert hide_labels(RunConfig(data="own"), data) is data.train


def test_each_client_knows_the_labels_of_its_classes_alone(data: ImageData) -> None:
    config = RunConfig(data="own", by="site", partial_labels="missing-classes", classes_per_client=2, seed=3)
    config.check()
    partition, labels = partition_clients(config, data), data.train.labels
    hidden = hide_labels(config, data, partition)
    assert hidden.files == data.train.files
    annotated = annotated_classes(3, NUM_CLASSES, each=2, seed=3)
    for rows, own in zip(partition.rows, annotated, strict=True):
        assert torch.equal(hidden.labels[rows][:, own], labels[rows][:, own])
        assert (hidden.labels[rows][:, ~own] == UNKNOWN).all()
    assert not (labels == UNKNOWN).any(), "those given are left alone"
    assert torch.equal(hide_labels(config, data).labels, hidden.labels), "without a partition it is made"
    all_known = replace(config, classes_per_client=NUM_CLASSES)
    assert torch.equal(hide_labels(all_known, data).labels, labels)
    with pytest.raises(InputError, match="--classes-per-client 5 of 4 classes; give 1 to 4"):
        hide_labels(replace(config, classes_per_client=5), data)


def test_missing_classes_and_cut_ties_go_together(data: ImageData) -> None:
    """The cut reads all labels, so it moves the same photos whoever annotates what."""
    tied = cut_ties(data, TiesOptions(ties=1.0, ties_pairs="a:b"))
    config = RunConfig(data="own", by="site", partial_labels="missing-classes", classes_per_client=3)
    hidden = hide_labels(config, tied)
    assert len(hidden) < NUM_IMAGES
    assert hidden.files == tied.train.files
    a, b = hidden.labels.T[:2]
    assert ((a == PRESENT) & (b == PRESENT)).any()
    assert not ((a == PRESENT) & (b == ABSENT)).any(), "no client learns a without b"
    assert (b == UNKNOWN).any()
    assert not (tied.test.labels == UNKNOWN).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "--alpha goes with --setting dirichlet; heterogeneous takes --t"),
        ({"setting": "iid", "clients": 2, "alpha": 1.0}, "--alpha goes with --setting dirichlet; iid takes --clients"),
        ({"setting": "dirichlet"}, "--setting dirichlet needs --clients, at least 1; none is given"),
        ({"setting": "dirichlet", "clients": 2, "alpha": 0.0}, "--alpha must be positive, got 0.0"),
        ({"setting": "natural", "t": 0.5}, "--t goes with --setting heterogeneous; natural takes --by"),
        ({"partition": "p.json", "t": 0.5}, "--partition says already who has which images; leave --t out"),
        ({"partition": "p.json", "setting": "iid"}, "leave --setting out"),
        ({"by": "site", "clients": 2}, "--clients goes with --setting iid or dirichlet; natural takes --by"),
        ({"partial_fraction": 0.3}, "--partial-fraction 0.3 needs --partial-labels"),
        ({"partial_labels": "missing-classes"}, "missing-classes needs --classes-per-client, how many"),
        (
            {"partial_labels": "missing-classes", "classes_per_client": 2, "partial_fraction": 0.3},
            "--partial-fraction 0.3 needs --partial-labels",
        ),
        ({"classes_per_client": 3}, "--classes-per-client 3 goes with --partial-labels missing-classes; give both"),
        ({"classes_per_client": 0}, "--classes-per-client must be at least 1, got 0"),
        ({"partial_labels": "masked-unknown", "classes_per_client": 3}, "--classes-per-client 3 goes with"),
        ({"partial_fraction": 1.0}, r"--partial-fraction must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig(data="own", **options).check()  # type: ignore[arg-type]


def test_without_validation_the_data_are_as_they_are(data: ImageData) -> None:
    assert hold_out(RunConfig(data="own"), data) is data


def test_validation_takes_the_place_of_the_test_set(data: ImageData) -> None:
    found = hold_out(RunConfig(data="own", validation=0.25), data)
    assert (len(found.train), len(found.test), found.test.name) == (45, 15, "validation")
    assert not {*found.test.files} & {*data.test.files}
    assert sorted((*found.train.files, *found.test.files)) == sorted(data.train.files)
    rows = {path: row for row, path in enumerate(data.train.files)}
    for part in (found.train, found.test):
        places = [rows[path] for path in part.files]
        assert places == sorted(places)
        assert torch.equal(part.labels, data.train.labels[places])
        assert part.columns["site"] == tuple(data.train.columns["site"][row] for row in places)


def test_validation_images_are_the_same_for_every_seed(data: ImageData) -> None:
    one, other = (hold_out(RunConfig(data="own", validation=0.25, seed=seed), data) for seed in (0, 1))
    assert one.test.files == other.test.files


@pytest.mark.parametrize("share", [1e-6, 0.9999])
def test_validation_needs_images_on_both_sides(data: ImageData, share: float) -> None:
    with pytest.raises(InputError, match=r"--validation .* of 60 training images is (0|60)"):
        hold_out(RunConfig(data="own", validation=share), data)


@pytest.mark.parametrize("options", [{"validation": 1.0}, {"validation": -0.1}, {"validation": 0.2, "partition": "a"}])
def test_validation_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--validation"):
        RunConfig(data="own", **options).check()


@pytest.mark.parametrize(
    ("size", "share", "expected"), [(1, 0.1, 0), (2, 0.1, 1), (2, 0.9, 1), (3, 0.9, 2), (10, 0.1, 1), (60, 0.25, 15)]
)
def test_a_client_holds_out_a_share_but_one_image_at_least_and_never_all(
    size: int, share: float, expected: int
) -> None:
    own = torch.arange(0, 2 * size, 2)
    (kept,), held = held_out_rows([own], share)
    assert len(held) == expected
    assert torch.equal(torch.cat([kept, held]).sort().values, own)
    assert torch.equal(kept, kept.sort().values)


def test_what_is_held_out_depends_on_the_client_alone() -> None:
    rows = [torch.arange(0, 20), torch.arange(20, 60), torch.arange(60, 80)]
    held = held_out_rows(rows, 0.3)[1]
    alone = [held_out_rows(rows[:number], 0.3)[1] for number in (1, 2)]
    assert torch.equal(held[:6], alone[0])
    assert torch.equal(held[:18], alone[1])
    torch.manual_seed(5)
    assert torch.equal(held_out_rows(rows, 0.3)[1], held)
    assert not torch.equal(held[:6], held[18:] - 60), "clients draw for themselves"
