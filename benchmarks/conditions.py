"""Do the names of FedMPT's conditions matter? The pipeline's against random words, true factors, and a single one.

    python benchmarks/conditions.py scenes --out runs/conditions-scenes
    python benchmarks/conditions.py photos --data voc:VOCdevkit --backbone backbone.py:load --out runs/conditions-photos
    python benchmarks/conditions.py photos --sweep --data ... --backbone ... --out runs/conditions-number

Every row has every seed; all else is the same: the demo's settings on scenes, where labels are tied in training
(`spurious=0.9`) and scored on natural and on reversed pictures, and the defaults on photos. "Random words" are drawn
from a list of nouns that name no factor of a picture, three draws. Runs that are complete in --out are not repeated, so
several processes may share the work by --rows. With --table, only what is complete is gathered. --sweep trains with
other numbers of conditions, and a single one at other rates, and scores on held-out training images.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comparison import with_method
from rich.console import Console
from run import interval, score_at, slug

from fedmpt.cli.progress import TerminalWatcher
from fedmpt.files import default_cache, write_json
from fedmpt.methods.fedmpt import GENERIC_CONDITIONS
from fedmpt.report.demo.trials import Trial, run_trial
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.run import is_finished, train
from fedmpt.types import InputError

TRUE_FACTORS = ("layout", "pose", "background", "lighting", "weather", "scale", "style")
"""What `scenes` draws each picture by, under the names that its own documentation gives."""
FACTOR_VALUES = ("at night", "in the snow", "on a street", "indoors", "on the water")
"""Words that scenes-clip knows from captions, and that say something one can see; a factor's name does not."""
NOUNS = (
    *("treaty", "violin", "pension", "alphabet", "gravity", "invoice", "orchestra", "parliament", "melody", "algebra"),
    *("dividend", "grammar", "hormone", "verdict", "sonnet", "theorem", "mortgage", "vaccine", "protocol", "dialect"),
    *("senate", "isotope", "ledger", "rhyme", "census", "enzyme", "proverb", "tariff", "syllable", "quarantine"),
)
NUM_DRAWS = 3
MORE = ("time of day", "season", "viewpoint", "crowding", "company")
"""Beside the paper's five, where a sweep needs more."""
NUMBERS, ADAPTER_RATES, HELD_OUT = (1, 2, 3, 5, 10), (15.0, 150.0), 0.25

COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "scenes": {
        "mAP natural": ("natural", "mAP"),
        "mAP reversed": ("reversed", "mAP"),
        "CF1 reversed": ("reversed", "CF1"),
        "exclusive AP": ("reversed", "shift", "exclusive"),
        "false co-activation": ("reversed", "shift", "false_coactivation"),
    },
    "photos": {
        "mAP": ("test", "mAP"),
        "CF1": ("test", "CF1"),
        "exclusive AP": ("context_shift", "exclusive"),
        "false co-activation": ("context_shift", "false_coactivation"),
    },
}


@dataclass(frozen=True)
class Bed:
    """Where rows are measured: ``start`` is FedMPT there, ``trial`` the worlds of `scenes`, None for photos."""

    name: str
    start: RunConfig
    trial: Trial | None
    pipeline: str
    """The set of conditions that the pipeline found for these classes: a shipped name or a file."""


def random_words(draw: int, num: int) -> tuple[str, ...]:
    return tuple(random.Random(draw).sample(NOUNS, num))


def rows(bed: Bed) -> dict[str, RunConfig]:
    start, num = bed.start, len(GENERIC_CONDITIONS)
    names = {f"random words, draw {draw}": random_words(draw, num) for draw in range(NUM_DRAWS)}
    found = {
        "the paper's five": with_method(start, conditions=GENERIC_CONDITIONS),
        "the pipeline's": with_method(start, conditions=(bed.pipeline,)),
        "true factors": with_method(start, conditions=TRUE_FACTORS),
        "values of a true factor": with_method(start, conditions=FACTOR_VALUES),
        **{name: with_method(start, conditions=words) for name, words in names.items()},
        "one condition": with_method(start, conditions=("background",)),
        # As many numbers as five conditions have.
        "one condition of five-fold rank": with_method(start, conditions=("background",), rank=5 * 32),
        "one condition at the rates of five": with_method(start, conditions=("background",), scale_rates=False),
        "five adapters, no condition prompts": with_method(start, condition_prompts=False),
    }
    return (
        found if bed.trial is not None else {name: config for name, config in found.items() if name != "true factors"}
    )


def sweep(bed: Bed) -> dict[str, RunConfig]:
    """Other numbers of conditions, and other rates for a single one."""
    start, names = replace(bed.start, validation=HELD_OUT), (*GENERIC_CONDITIONS, *MORE)
    numbers = {f"N = {num}": with_method(start, conditions=names[:num]) for num in NUMBERS}
    rates = {
        f"N = 1, adapter rate {rate:g}": with_method(start, conditions=("background",), adapter_rate=rate)
        for rate in ADAPTER_RATES
    }
    return numbers | rates


def open_bed(options: argparse.Namespace) -> Bed:
    if options.bed == "scenes":
        trial = Trial(options.rounds, 0, 0.9, num_train=2000, num_test=options.num_test)
        return Bed("scenes", trial.config("fedmpt"), trial, "scenes")
    if options.data is None or options.backbone is None:
        raise InputError("photos need --data and --backbone")
    start = preset("default", "fedmpt", options.data)
    federation = replace(start.federation, rounds=options.rounds, eval_every=options.rounds)
    return Bed("photos", replace(start, backbone=options.backbone, t=0.5, federation=federation), None, "voc2007")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bed", choices=("scenes", "photos"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--data")
    parser.add_argument("--backbone")
    parser.add_argument("--num-test", type=int, default=4000, help="pictures of each test of scenes")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--sweep", action="store_true", help="other numbers of conditions, on held-out images")
    parser.add_argument("--table", action="store_true", help="gather what is complete; train nothing")
    options = parser.parse_args()
    try:
        bed = open_bed(options)
        table = sweep(bed) if options.sweep else rows(bed)
        chosen = {name: config for name, config in table.items() if options.rows is None or name in options.rows}
        found = {name: scores for name, config in chosen.items() if (scores := measure(name, config, bed, options))}
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    if options.table:
        write_json(options.out / "table.json", {"bed": bed.name, "seeds": options.seeds, "rows": found})
        print(markdown(found))


def measure(name: str, config: RunConfig, bed: Bed, options: argparse.Namespace) -> dict[str, list[float]]:
    """Scores of all seeds, by column; none where ``options.table`` and a run is missing."""
    folder = options.out / slug(name)
    places = {seed: folder / f"seed{seed}" for seed in options.seeds}
    if options.table and not all(map(is_finished, places.values())):
        return {}
    results = [run(replace(config, seed=seed), bed, out=out, cache=options.cache) for seed, out in places.items()]
    columns = COLUMNS[bed.name]
    scores = {column: [score_at(result, path) for result in results] for column, path in columns.items()}
    line = "  ".join(f"{column} {statistics.mean(values):.2f}" for column, values in scores.items())
    print(f"{name}: {line}", file=sys.stderr, flush=True)
    return scores


def run(config: RunConfig, bed: Bed, *, out: Path, cache: Path) -> Mapping[str, Any]:
    with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
        if bed.trial is None:
            return train(config, out=out, resume=True, cache=cache, watcher=watcher)
        return vars(run_trial(bed.trial, config, out=out, cache=cache, watcher=watcher, every_round=False))


def markdown(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Lines of a Markdown table, mean ± half the 95% interval."""
    columns = list(next(iter(found.values())))
    lines = [f"| conditions | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, scores in found.items():
        cells = [f"{statistics.mean(values):.1f} ± {interval(list(values)):.1f}" for values in scores.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
