from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from some_conditions import metric, random_parts

from fedmpt.conditions.scores import score_conditions
from fedmpt.report.condition_plot import plot_condition_scores
from fedmpt.report.plots import shortened


def texts(path: Path) -> list[str]:
    tree = ElementTree.parse(path)
    return ["".join(item.itertext()).strip() for item in tree.iter("{http://www.w3.org/2000/svg}text")]


def named(*names: str) -> dict[str, Any]:
    parts = dataclasses.replace(random_parts(num_images=20, num=len(names), num_classes=1), names=names)
    return score_conditions(parts, metric)


def test_names_and_numbers_are_in_the_picture(tmp_path: Path) -> None:
    long = "the way in which people and their things stand about"
    scores = named("light", "$5 note", "x^{", long)
    plot_condition_scores(tmp_path / "p.svg", scores)
    found = texts(tmp_path / "p.svg")
    assert {"light", "$5 note", "x^{", shortened(long)} <= set(found)
    assert {"weight in the gate", "mean difference of predictions", "mAP, percent", "all 4"} <= set(found)
    assert sum(text.endswith(" left") for text in found) == 3


@pytest.mark.parametrize("num", [2, 40])
def test_few_and_many_conditions_fit_a_page(tmp_path: Path, num: int) -> None:
    plot_condition_scores(tmp_path / "p.png", named(*(f"a condition of number {one}" for one in range(num))))
    with Image.open(tmp_path / "p.png") as image:
        assert max(image.size) / 160 < 22
        assert len(image.convert("RGB").getcolors(1_000_000)) > 20  # Something is drawn.


def test_the_same_scores_are_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot_condition_scores(tmp_path / name, named("a", "b"))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
