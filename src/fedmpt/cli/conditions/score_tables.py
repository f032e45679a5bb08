"""Scores of conditions in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.conditions.scores.scores import ConditionScores, Suggestion

# More pairs or conditions than anybody reads; the file has all.
MAX_PAIRS_SHOWN = 10


def print_scores(scores: ConditionScores, report: Mapping[str, Any]) -> None:
    """Tables of what ``scores`` holds, and the suggestion of ``report``, which is the command's JSON."""
    console = Console(highlight=False, soft_wrap=True)
    for table in (_use(scores), _dropped(scores), _pairs(scores), _steps(scores)):
        console.print(table)
    for line in _closing_lines(scores, report):
        console.print(line, markup=False)


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _use(scores: ConditionScores) -> Table:
    numbers = ("mean", "std", "min", "max", "largest", "differs", "alone")
    title = "weight in the gate, and images where it is the largest; difference from the mixture; mAP alone"
    table = _table(title, ["condition"], numbers)
    use = scores.use
    for index, name in enumerate(scores.parts.names):
        weights = (column[index] for column in (use.mean, use.spread, use.lowest, use.highest))
        table.add_row(
            Text(name),
            *(f"{weight:.3f}" for weight in weights),
            f"{use.largest[index]:.1%}",
            _points(scores.differences.from_mixture[index].item()),
            f"{scores.alone[index].mAP:.2f}",
        )
    return table


def _dropped(scores: ConditionScores) -> Table:
    numbers = ("mAP", "loss", "95% interval", "CF1", "OF1", "changed")
    title = "without a condition, its weight given to the others; changed: decisions at 0.5"
    table = _table(title, ["without"], numbers)
    full = scores.full
    table.add_row("-", f"{full.mAP:.2f}", "", "", f"{full.CF1:.2f}", f"{full.OF1:.2f}", "", style="bold")
    table.add_section()
    for name, one in zip(scores.parts.names, scores.dropped, strict=True):
        low, high = one.interval
        table.add_row(
            Text(name),
            f"{one.scores.mAP:.2f}",
            f"{one.loss:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{one.scores.CF1:.2f}",
            f"{one.scores.OF1:.2f}",
            f"{one.decisions_changed:.2%}",
        )
    return table


def _pairs(scores: ConditionScores) -> Table:
    """Pairs whose predictions differ least, which are those that one condition could stand for."""
    names, found = scores.parts.names, scores.differences
    pairs = [(one, other) for other in range(len(names)) for one in range(other)]
    pairs.sort(key=lambda pair: found.absolute[pair].item())
    title = "most alike pairs"
    if len(pairs) > MAX_PAIRS_SHOWN:
        title += f", {MAX_PAIRS_SHOWN} of {len(pairs)}; --json has all"
    table = _table(title, ["condition", "condition"], ["difference", "correlation", "prompts' cosine"])
    for one, other in pairs[:MAX_PAIRS_SHOWN]:
        correlation = found.correlation[one, other].item()
        table.add_row(
            Text(names[one]),
            Text(names[other]),
            _points(found.absolute[one, other].item()),
            "-" if correlation != correlation else f"{correlation:.3f}",
            f"{scores.parts.text_cosines[one, other].item():.4f}",
        )
    return table


def _steps(scores: ConditionScores) -> Table:
    table = _table("one after the other, the cheapest first", ["dropped"], ["left", "mAP", "loss"])
    table.add_column("")
    for step in scores.steps:
        table.add_row(
            "-" if step.dropped is None else Text(scores.parts.names[step.dropped]),
            str(len(step.kept)),
            f"{step.mAP:.2f}",
            f"{scores.full.mAP - step.mAP:.2f}",
            f"fewest within {scores.tolerance:g}" if step.kept == scores.by_drop.kept else "",
        )
    return table


def _closing_lines(scores: ConditionScores, report: Mapping[str, Any]) -> list[str]:
    use, num, interval = scores.use, scores.parts.num_conditions, report["interval"]
    lines = [
        "one after the other: chosen on the images it is scored on, so gains on the way may be chance",
        "differences: means over images and classes, in points of probability before calibration",
        f"95% interval: of the loss, over {interval['resamples']} resamples of the images; the model stays as it is",
        f"effective number of conditions: {use.effective_per_image:.2f} in an image, {use.effective_of_mean:.2f} for "
        f"the mean weights (entropy {use.entropy_per_image:.3f} and {use.entropy_of_mean:.3f} of log {num})",
        *(f"note: {note}" for note in report["notes"]),
        "",
        f"by drop: {_listed(scores, scores.by_drop)}, the fewest that cost at most {scores.tolerance:g} points",
    ]
    if scores.by_gate is not None:
        lines.append(f"by gate: {_listed(scores, scores.by_gate)}, the effective number for the mean weights")
    suggestion = report["suggestion"]
    if suggestion["train"] is None:
        return [*lines, f"suggestion (by {suggestion['by']}): keep all {num}"]
    return [
        *lines,
        f"suggestion (by {suggestion['by']}): {suggestion['num']} of {num}. Train anew with them, and compare with all "
        f"{num} under the same options, on images held out of training (--validation):",
        f"  {suggestion['train']}",
    ]


def _listed(scores: ConditionScores, suggestion: Suggestion) -> str:
    names, kept = scores.parts.names, suggestion.kept
    words = f"all {len(kept)}" if len(kept) == len(names) else f"{len(kept)} ({', '.join(names[one] for one in kept)})"
    return f"{words}, mAP {suggestion.mAP:.2f}"


def _points(share: float) -> str:
    return f"{100 * share:.3f}"
