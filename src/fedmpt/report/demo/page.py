"""The demo's page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS, Scene, read_scenes
from fedmpt.data.datasets.scenes.scene import Partners
from fedmpt.data.features.store import FeatureSet
from fedmpt.files import write_atomically
from fedmpt.inference.explain import explain
from fedmpt.methods.fedmpt import FedMPT
from fedmpt.report.demo.differences import Differences
from fedmpt.report.demo.trials import TITLES, Outcome, Trial
from fedmpt.report.plots import BLUE, GREY, ORANGE, rendered
from fedmpt.runs.prepare import prepare
from fedmpt.types import PRESENT, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SAMPLES = 6
COLOURS: Mapping[str, str] = {"zero-shot": GREY, "promptfl": ORANGE, "fedmpt": BLUE}


def write_page(
    path: Path, trial: Trial, outcomes: Mapping[str, Outcome], differences: Differences, *, cache: Path, began: float
) -> None:
    """Write the page. ``began`` is when all of it did, by `time.perf_counter`."""
    from jinja2 import Environment, StrictUndefined  # The report extra; imported when a page is wanted.

    template = resources.files("fedmpt.report.demo").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    trained = outcomes["fedmpt"].trained
    method = trained.method
    assert isinstance(method, FedMPT)
    prepared = prepare(trained.config, cache=cache, show_progress=False)
    images = explained_images(outcomes, differences)
    data = {
        "classes": CLASS_NAMES,
        "conditions": method.config.conditions,
        "methods": TITLES,
        "images": images,
    }
    scores = {name: {"natural": one.natural, "reversed": one.reversed} for name, one in outcomes.items()}
    page = environment.from_string(template).render(
        trial=trial,
        num_classes=len(CLASS_NAMES),
        titles=TITLES,
        pairs=PARTNERS,
        conditions=method.config.conditions,
        outcomes=outcomes,
        verdict=verdict(scores["fedmpt"], scores["promptfl"], before=outcomes["fedmpt"].rounds[0]),
        charts=_charts(outcomes),
        train_samples=_samples(prepared.data.train, partner=True),
        test_samples=_samples(outcomes["fedmpt"].unseen.split, partner=False),
        together=_together(prepared.data.train),
        differences=differences,
        # In which only the method of that name reports an absent partner; these images come first.
        images=images,
        first_alone={name: index for index, name in enumerate(n for n, one in differences.alone.items() if one.first)},
        clients=_client_rows(prepared.clients),
        seconds=time.perf_counter() - began,
        # "</" would end the script in which the data stand.
        data=json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
    )
    write_atomically(path, page.encode())


def verdict(ours: Mapping[str, Any], other: Mapping[str, Any], *, before: Mapping[str, Any]) -> list[str]:
    """What the scores of FedMPT (also ``before`` its first round) and PromptFL on the two tests say, either way."""
    sentences = []
    for world, what in (("natural", "natural test images"), ("reversed", "reversed test images")):
        a, b = ours[world]["mAP"], other[world]["mAP"]
        sentences.append(
            f"On {what} FedMPT reaches {a:.1f} mAP, {_compared(a - b, 'points above', 'points below')} PromptFL."
        )
    a, b = (scores["reversed"]["shift"]["false_coactivation"] for scores in (ours, other))
    sentences.append(
        f"Where the anchor stands without its partner, FedMPT reports the absent partner in {a:.1f}% of images, "
        f"{_compared(a - b, 'points more than', 'points less than')} PromptFL ({b:.1f}%)."
    )
    start, end = before["reversed"]["mAP"], ours["reversed"]["mAP"]
    sentences.append(
        f"Before the first round FedMPT had {start:.1f} mAP on the reversed test, from its two readings with nothing "
        f"trained; the rounds changed it by {end - start:+.1f}."
    )
    return sentences


def _compared(difference: float, more: str, less: str) -> str:
    return f"{abs(difference):.1f} {more if difference > 0 else less}"


def _charts(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Curves by what they show."""

    def chart(world: str, value: Callable[[Mapping[str, Any]], float], *, unit: str) -> str:
        trained = {name: outcome for name, outcome in outcomes.items() if outcome.rounds}
        lines = {name: [(line["round"], value(line[world])) for line in one.rounds] for name, one in trained.items()}
        flat = {name: value(getattr(one, world)) for name, one in outcomes.items() if name not in trained}
        return curves(lines, flat=flat, names=TITLES, unit=unit)

    return {
        "natural": chart("natural", lambda scores: scores["mAP"], unit="mAP, natural test"),
        "reversed": chart("reversed", lambda scores: scores["mAP"], unit="mAP, reversed test"),
        "false": chart("reversed", lambda one: one["shift"]["false_coactivation"], unit="absent partner reported, %"),
    }


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], *, flat: Mapping[str, float], names: Mapping[str, str], unit: str
) -> str:
    """Rounds with their values for each method, 0 before the first; ``flat`` ones do not train. An SVG element."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(3.7, 2.4)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for name, value in flat.items():
            axes.axhline(value, color=COLOURS[name], linestyle="--", label=names[name])
        for name, values in lines.items():
            axes.plot(*zip(*values, strict=True), color=COLOURS[name], marker="o", markersize=3, label=names[name])
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(axes.lines), frameon=False)

    text = rendered(draw, "svg", transparent=True).decode()
    return text[text.index("<svg") :]


def _samples(split: Split, *, partner: bool) -> list[dict[str, str]]:
    """One image for each of the first pairs: with the partner as training shows it, or without as the test does."""
    scenes = read_scenes(split)
    rows = islice(one_for_each_pair(scenes, partner=partner), NUM_SAMPLES)
    return [{"image": png_uri(split.files[row]), "text": ", ".join(scenes[row].class_names)} for row in rows]


def _together(train: Split) -> float:
    """Percentage of training images with an anchor that also show its partner."""
    scenes = read_scenes(train)
    seen = [
        pair.partner in scene.class_names for pair in PARTNERS for scene in scenes if pair.anchor in scene.class_names
    ]
    return 100 * sum(seen) / max(1, len(seen))


def _client_rows(clients: Sequence[FeatureSet]) -> list[dict[str, Any]]:
    """Size and most frequent classes of each client."""
    rows = []
    for number, client in enumerate(clients):
        counts = (client.labels == PRESENT).sum(0)
        order = counts.argsort(descending=True, stable=True)[:4].tolist()
        words = ", ".join(f"{CLASS_NAMES[c]} {counts[c] / len(client):.0%}" for c in order)
        rows.append({"number": number + 1, "images": len(client), "classes": words})
    return rows


def png_uri(path: Path) -> str:
    """An image file as text that a page can hold."""
    buffer = BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def scenes_with(scenes: Sequence[Scene], pair: Partners, *, partner: bool) -> Iterator[int]:
    """The images with the anchor of ``pair``, with or without its partner, in order."""
    for index, scene in enumerate(scenes):
        if pair.anchor in scene.class_names and (pair.partner in scene.class_names) == partner:
            yield index


def one_for_each_pair(
    scenes: Sequence[Scene], *, partner: bool, taken: Mapping[int, Partners] | None = None
) -> dict[int, Partners]:
    """Images with their pairs: those ``taken``, then of each pair that has one the first that is not there yet.

    The first, whichever it is: nobody has chosen those that look good.
    """
    chosen = dict(taken or {})
    for pair in PARTNERS:
        row = next((row for row in scenes_with(scenes, pair, partner=partner) if row not in chosen), None)
        if row is not None:
            chosen[row] = pair
    return chosen


def explained_images(outcomes: Mapping[str, Outcome], differences: Differences) -> list[dict[str, Any]]:
    """As the page's script reads them: the first images of the reversed test in which the methods differ, then for each
    pair the first other with the anchor and without the partner.

    Numbers are rounded to what can be seen.
    """
    test = outcomes["fedmpt"].unseen
    scenes = read_scenes(test.split)
    differing = dict(one.first for one in differences.alone.values() if one.first)
    chosen = one_for_each_pair(scenes, partner=False, taken=differing)
    rows = torch.tensor(list(chosen), dtype=torch.int64)
    method = outcomes["fedmpt"].trained.method
    assert isinstance(method, FedMPT)
    method.eval()
    explanation = explain(method, test.batch(rows))
    predictions = {name: _predictions(outcome, rows) for name, outcome in outcomes.items()}
    images = []
    for index, (row, pair) in enumerate(chosen.items()):
        scene = scenes[row]
        factors = ("layout", "pose", "background", "light", "weather", "scale")
        values = (scene.layout, scene.pose, scene.background, scene.lighting, scene.weather, scene.scale)
        image = {
            "file": test.files[row].name,
            "image": png_uri(test.files[row]),
            "present": [name for name, value in zip(CLASS_NAMES, scene.labels, strict=True) if value == PRESENT],
            "anchor": pair.anchor,
            "partner": pair.partner,
            "factors": dict(zip(factors, values, strict=True)),
            "predictions": {name: found[index] for name, found in predictions.items()},
            "gate": _rounded(explanation.gate[index]),
            "by_condition": _rounded(explanation.by_condition[index]),
            # [N, C, M]: the page shows one class at a time.
            "looked": _rounded(explanation.looked[index].mT, 4),
            "evidence": _rounded(explanation.evidence[index].mT, 4),
        }
        images.append(image)
    return images


def _predictions(outcome: Outcome, rows: Int64[Tensor, "B"]) -> list[dict[str, Any]]:
    """Of each image the calibrated probabilities, and the classes over their thresholds; these are also given."""
    thresholds = _rounded(outcome.thresholds)
    said = [[CLASS_NAMES[c] for c in row.nonzero()[:, 0].tolist()] for row in outcome.reported[rows]]
    shown = map(_rounded, outcome.calibrated[rows])
    return [
        {"probability": row, "thresholds": thresholds, "said": names} for row, names in zip(shown, said, strict=True)
    ]


def _rounded(values: Tensor, digits: int = 3) -> list[Any]:
    return values.double().numpy().round(digits).tolist()
