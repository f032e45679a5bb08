from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from fedmpt.data.partition import PartitionStatistics, partition_split, partition_statistics
from fedmpt.report.partition_plot import plot_partition
from fedmpt.report.plots import labelled, shortened
from fedmpt.types import InputError, Split


def statistics(num_clients: int = 5, num_classes: int = 4, *, share: float = 0.3) -> PartitionStatistics:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(10 * num_clients, num_classes, generator=generator) < share).to(torch.int8)
    split = Split("train", tuple(Path(f"{row}.jpg") for row in range(len(labels))), labels)
    return partition_statistics(partition_split(split, setting="iid", num_clients=num_clients), labels)


def texts(path: Path) -> list[str]:
    tree = ElementTree.parse(path)
    return ["".join(item.itertext()).strip() for item in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_names_and_summary_are_in_the_picture(tmp_path: Path) -> None:
    plot_partition(statistics(), ["cat", "dining table", "$5 or $6", "x^{"], tmp_path / "p.svg")
    found = texts(tmp_path / "p.svg")
    assert {"cat", "dining table", "$5 or $6", "x^{", "all clients", "client 0", "client 4"} <= set(found)
    assert {"images", "distance from all", "labels", "pairs", "5 clients, 50 images"} <= set(found)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_the_same_partition_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    contents = []
    for name in ("a", "b"):
        plot_partition(statistics(3, 2), ["a", "b"], tmp_path / f"{name}{suffix}")
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0] == contents[1]
    assert not any(date in contents[0] for date in (b"CreationDate", b"<dc:date>"))
    assert contents[0].startswith(starts[suffix.lower()])


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 1), (200, 100)])
def test_small_and_large_partitions_fit_a_page(tmp_path: Path, num_clients: int, num_classes: int) -> None:
    names = [f"a class of number {number}" for number in range(num_classes)]
    plot_partition(statistics(num_clients, num_classes), names, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        inches = [side / 160 for side in image.size]
        assert max(inches) < 18
        assert min(inches) > 2
        assert len(image.convert("RGB").getcolors(1_000_000)) > 20  # Something is drawn.


def test_clients_without_labels_are_drawn(tmp_path: Path) -> None:
    plot_partition(statistics(share=0.0), list("abcd"), tmp_path / "p.svg")
    assert "mean distance: there are no labels" in texts(tmp_path / "p.svg")


def test_letters_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    plot_partition(statistics(2, 2), ["自転車", "\udc80\n"], tmp_path / "p.svg")
    assert {"自転車", "??"} <= set(texts(tmp_path / "p.svg"))
    plot_partition(statistics(2, 2), ["自転車", "\udc80\n"], tmp_path / "p.png")


@pytest.mark.parametrize(("count", "length"), [(1, 1.6), (55, 11), (80, 11), (100, 12), (200, 11), (5000, 12)])
def test_labels_have_room(count: int, length: float) -> None:
    rows = labelled(count, length)
    assert rows[0] == 0
    assert all((after - before) * length / count >= 0.12999 for before, after in pairwise(rows))
    assert len(rows) == count or count > 55


def test_long_names_lose_their_middle() -> None:
    assert shortened("x" * 28) == "x" * 28
    long = shortened("department of radiology, site 17")
    assert len(long) == 28
    assert long.startswith("department of r")
    assert long.endswith(", site 17")


@pytest.mark.parametrize("name", ["p.jpg", "p", "png"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a plot is written as \.png, \.svg, \.pdf"):
        plot_partition(statistics(), list("abcd"), tmp_path / name)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'fedmpt\[report\]'"):
        plot_partition(statistics(), list("abcd"), tmp_path / "p.png")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.png cannot be written"):
        plot_partition(statistics(), list("abcd"), tmp_path / "none" / "p.png")
