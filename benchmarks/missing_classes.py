"""Methods at clients that annotate some of the classes each, with and without the options for unknown labels.

    python benchmarks/missing_classes.py scenes --methods fedmpt promptfl class-vectors --out runs/missing-scenes
    python benchmarks/missing_classes.py photos --data voc:VOCdevkit --backbone backbone.py:load --out runs/missing

A line is a method, how many classes each client annotates, and which options it trains with: none, pseudo labels,
consistency with the server's model, or both. The first line of a method is with all labels. Rates are the methods' own,
or those that --rates has, a table of benchmarks/methods.py. Ties are a second axis: training pictures of ``scenes``
have them, and photos get them by --data "voc:VOCdevkit,ties=0.95".

Runs that are complete in --out are not repeated, so several processes may share the work by --methods. Prints the table
in Markdown and writes it, with all scores, to --out/table.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from methods import (
    PHOTO_COLUMNS,
    SCENE_COLUMNS,
    Bed,
    add_bed_options,
    check_bed_options,
    final,
    is_trained,
    make_bed,
    needs_tower,
    rows,
)
from run import markdown, score_at, slug

from fedmpt.files import read_json, write_json
from fedmpt.runs.config import RunConfig
from fedmpt.types import InputError


def lines(bed: Bed) -> dict[str, RunConfig]:
    """A config for every line of the table, but for the seed."""
    options, found = bed.options, {}
    pseudo, consistency = {"pseudo_labels": options.threshold}, {"global_consistency": options.weight}
    variants = {"": {}, ", pseudo": pseudo, ", consistency": consistency, ", both": pseudo | consistency}
    for name, config in chosen(bed).items():
        found[f"{name}, all classes"] = config
        for each in options.classes_per_client if is_trained(config) else ():
            few = replace(config, partial_labels="missing-classes", classes_per_client=each)
            for words, changed in variants.items():
                training = replace(few.training, **changed)
                found[f"{name}, {each} classes{words}"] = replace(few, training=training)
    return found


def chosen(bed: Bed) -> dict[str, RunConfig]:
    """The methods that were asked for and that the model suits, each at its rate."""
    options, every = bed.options, rows(bed)
    if unknown := set(options.methods or ()) - every.keys():
        raise InputError(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(every)}")
    rates = read_json(options.rates)["rows"] if options.rates else {}
    found = {}
    for name in options.methods or every:
        config = every[name]
        if bed.trial is None and needs_tower(config):
            print(f"{name}: reads tokens within the image tower, which this plug-in does not open", file=sys.stderr)
            continue
        if best := list(rates.get(name, {}).get("rates", {}))[:1]:
            config = replace(config, federation=replace(config.federation, learning_rate=float(best[0])))
        found[name] = config
    return found


def measure(name: str, config: RunConfig, bed: Bed) -> dict[str, Any]:
    """Scores of all seeds, by column."""
    out, seeds = bed.options.out / slug(name), bed.options.seeds
    outcomes = [final(replace(config, seed=seed), out / f"seed{seed}", bed) for seed in seeds]
    columns = SCENE_COLUMNS if bed.trial else PHOTO_COLUMNS
    scores = {column: [score_at(outcome, path) for outcome in outcomes] for column, path in columns.items()}
    print(f"{name}: mAP {scores['mAP']}", file=sys.stderr, flush=True)
    return {"scores": scores, "params": outcomes[0]["results"]["params"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_bed_options(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", help="rows of benchmarks/methods.py; all unless given")
    parser.add_argument("--rates", type=Path, help="a table of benchmarks/methods.py, whose rates are taken")
    parser.add_argument("--classes-per-client", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--threshold", type=float, default=0.9, help="of --pseudo-labels")
    parser.add_argument("--weight", type=float, default=1.0, help="of --global-consistency")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    check_bed_options(parser, options)
    try:
        bed = make_bed(options)
        table = {name: measure(name, config, bed) for name, config in lines(bed).items()}
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    facts = {name: getattr(options, name) for name in ("bed", "data", "rounds", "threshold", "weight", "seeds")}
    write_json(options.out / "table.json", {**facts, "rows": table})
    print(markdown(table))


if __name__ == "__main__":
    main()
