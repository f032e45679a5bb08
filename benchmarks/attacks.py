"""Hostile clients on `scenes`: which rule of aggregation saves what, and what it costs without an attack.

    python benchmarks/attacks.py --out runs/attacks
    python benchmarks/attacks.py --out runs/attacks --tables fedmpt-iid

Of ten clients the first few are hostile, in every round. The rules are told how many to expect: --trim and --num-faulty
are set to that number, and multi-Krum averages as many updates as it may. Clipping has the median length of an honest
client's change of the parameters, measured on another world (seed 1 of the pictures). Every trained model is a line in
--out/cells.jsonl, and is not trained again. Prints Markdown tables and writes all scores to --out/table.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from run import cell

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalResult, local_update
from fedmpt.federated.evaluation import Evaluation
from fedmpt.federated.rounds import Ask, Rounds
from fedmpt.files import default_cache, write_json
from fedmpt.report.demo.trials import Trial, world_scores
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared, prepare
from fedmpt.state import Update
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, DivergedError, State

CLIENTS = 10
RULES = ("mean", "trimmed-mean", "median", "krum", "multi-krum", "clip-norm")


@dataclass(frozen=True)
class Attack:
    """What a hostile client does: train on labels turned round or not, then send ``scale`` times its change."""

    flips_labels: bool = False
    scale: float = 1.0


HONEST = Attack()
ATTACKS = {
    "none": HONEST,
    "label flip": Attack(flips_labels=True),
    "sign flip": Attack(scale=-1.0),  # Twice the server's state minus its own.
    "sign flip x10": Attack(scale=-10.0),
    "wrong labels x10": Attack(flips_labels=True, scale=10.0),
}


@dataclass(frozen=True)
class Cell:
    """One trained model."""

    method: str
    setting: str
    attack: str
    num_hostile: int
    rule: str
    seed: int


@dataclass(frozen=True)
class Table:
    """Every attack, number of hostile clients and seed, with every rule."""

    method: str
    setting: str
    attacks: tuple[str, ...]
    numbers: tuple[int, ...] = (2,)
    seeds: tuple[int, ...] = (0, 1, 2)

    def cells(self) -> Iterator[Cell]:
        for seed, number, attack, rule in product(self.seeds, self.numbers, self.attacks, RULES):
            yield Cell(self.method, self.setting, attack, number, rule, seed)


TABLES = {
    "fedmpt-iid": Table("fedmpt", "iid", tuple(ATTACKS)),
    "fedmpt-heterogeneous": Table("fedmpt", "heterogeneous", ("none", "label flip", "sign flip x10")),
    "promptfl-iid": Table("promptfl", "iid", ("none", "label flip", "sign flip x10", "wrong labels x10"), seeds=(0,)),
    "fedmpt-iid-others": Table(
        "fedmpt", "iid", ("label flip", "sign flip x10", "wrong labels x10"), numbers=(1, 3), seeds=(0,)
    ),
}


def aggregation_of(rule: str, num_hostile: int, norm: float) -> Aggregation:
    """The rule, expecting ``num_hostile`` hostile clients."""
    if rule == "trimmed-mean":
        return Aggregation(aggregator="trimmed-mean", trim=num_hostile / CLIENTS)
    if rule == "krum":
        return Aggregation(aggregator="krum", num_faulty=num_hostile)
    if rule == "multi-krum":
        return Aggregation(aggregator="krum", num_faulty=num_hostile, num_selected=CLIENTS - num_hostile - 2)
    return {
        "mean": Aggregation(),
        "median": Aggregation(aggregator="median"),
        "clip-norm": Aggregation(clip_norm=norm),
    }[rule]


def turned(features: FeatureSet) -> FeatureSet:
    """The same images with present for absent and absent for present."""
    labels = features.labels
    swapped = torch.where(labels == PRESENT, ABSENT, torch.where(labels == ABSENT, PRESENT, UNKNOWN))
    return replace(features, labels=swapped.to(labels.dtype))


def sent(update: Update, previous: State, scale: float) -> Update:
    """The update with ``scale`` times its change."""
    if scale == 1:
        return update
    state = {name: previous[name] + scale * (tensor - previous[name]) for name, tensor in update.state.items()}
    return replace(update, state=state)


def loop_of(
    config: RunConfig,
    prepared: Prepared,
    aggregation: Aggregation,
    *,
    attack: Attack = HONEST,
    num_hostile: int = 0,
    told: Callable[[State, Update], None] = lambda state, update: None,
) -> Rounds:
    """The loop, in which the first ``num_hostile`` clients attack; ``told`` hears of every update that is sent."""
    hostile = range(num_hostile)
    clients = [
        turned(client) if index in hostile and attack.flips_labels else client
        for index, client in enumerate(prepared.clients)
    ]
    # Those who turn their labels round also count them so.
    counts = count_labels(torch.cat([client.labels for client in clients]))
    balance = Balance.of(counts) if config.training.balance else None

    def updates(ask: Ask) -> Iterator[LocalResult]:
        for client in ask.clients:
            result = local_update(
                prepared.method,
                ask.state,
                clients[client],
                personal={},
                client=client,
                round_index=ask.index,
                seed=config.seed,
                learning_rate=ask.learning_rate,
                training=config.training,
                balance=balance,
            )
            update = sent(result.update, ask.state, attack.scale) if client in hostile else result.update
            told(ask.state, update)
            yield replace(result, update=update)

    return Rounds(
        method=prepared.method,
        num_clients=len(clients),
        federation=config.federation,
        seed=config.seed,
        updates=updates,
        evaluate=lambda state, best: Evaluation(),
        aggregation=aggregation,
        mix=config.prediction.mix,
    )


def trained(trial: Trial, one: Cell, norm: float, *, folder: Path) -> dict[str, float | None]:
    """Scores of one cell in percent; None where the attack leaves no numbers."""
    config = config_of(trial, one.method, one.setting, one.seed)
    prepared = prepare(config, cache=folder, show_progress=False)
    aggregation = aggregation_of(one.rule, one.num_hostile, norm)
    attack, num_hostile = ATTACKS[one.attack], 0 if one.attack == "none" else one.num_hostile
    try:
        for _ in loop_of(config, prepared, aggregation, attack=attack, num_hostile=num_hostile).run():
            pass  # The method is then the model of the last round.
    except DivergedError:
        return {"mAP": None, "false co-activation": None}
    unseen = load_data(trial.data("reversed"), cache=folder, progress=False).test
    cut = open_features(prepared.backbone, unseen, cache=folder, views=prepared.method.views)
    natural, other = (world_scores(probabilities(prepared.method, test), test) for test in (prepared.test, cut))
    return {"mAP": natural["mAP"], "false co-activation": other["shift"]["false_coactivation"]}


def config_of(trial: Trial, method: str, setting: str, seed: int) -> RunConfig:
    config = replace(trial.config(method), seed=seed)
    return replace(config, setting="iid", clients=CLIENTS, t=None) if setting == "iid" else config


@cache
def median_length(method: str, folder: Path) -> float:
    """Of the honest clients' changes in all rounds on another world."""
    config = config_of(Trial(10, 0, 0.9, num_train=1000, num_test=2000, world=1), method, "iid", 0)
    prepared, lengths = prepare(config, cache=folder, show_progress=False), []

    def told(previous: State, update: Update) -> None:
        parts = (torch.linalg.vector_norm(update.state[name] - previous[name]).item() for name in previous)
        lengths.append(math.hypot(*parts))

    for _ in loop_of(config, prepared, Aggregation(), told=told).run():
        pass
    return statistics.median(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    trial = Trial(10, 0, 0.9, num_train=1000, num_test=2000)
    options.out.mkdir(parents=True, exist_ok=True)
    done = read(options.out / "cells.jsonl")
    for name in options.tables:
        for one in TABLES[name].cells():
            if one in done:
                continue
            norm = median_length(one.method, options.cache) if one.rule == "clip-norm" else math.nan
            done[one] = trained(trial, one, norm, folder=options.cache)
            with (options.out / "cells.jsonl").open("a") as file:
                file.write(json.dumps({"cell": asdict(one), "scores": done[one]}) + "\n")
            print(one, done[one], file=sys.stderr, flush=True)
    rows = {name: gathered(TABLES[name].cells(), done) for name in options.tables}
    norms = {method: median_length(method, options.cache) for method in ("fedmpt", "promptfl")}
    write_json(options.out / "table.json", {"clip_norm": norms, "tables": rows})
    for table, lines in rows.items():
        print(f"\n{table}\n\n{markdown(lines)}")


def read(path: Path) -> dict[Cell, dict[str, float | None]]:
    """What is trained already."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {Cell(**line["cell"]): line["scores"] for line in lines}


def gathered(wanted: Iterable[Cell], done: Mapping[Cell, dict[str, float | None]]) -> list[dict[str, Any]]:
    """A line for every attack and number of hostile clients: each rule's scores of all seeds."""
    lines: dict[tuple[str, int], dict[str, dict[str, list[float | None]]]] = {}
    for one in wanted:
        scores = lines.setdefault((one.attack, one.num_hostile), {}).setdefault(one.rule, {})
        for column, value in done[one].items():
            scores.setdefault(column, []).append(value)
    return [{"attack": attack, "hostile": number, "rules": rules} for (attack, number), rules in lines.items()]


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """mAP / false co-activation, mean ± half the 95% interval of the seeds."""
    rows = [f"| attack | hostile | {' | '.join(RULES)} |", f"|---|---:|{'---:|' * len(RULES)}"]
    for line in lines:
        found = [" / ".join(cell(values) for values in line["rules"][rule].values()) for rule in RULES]
        rows.append(f"| {line['attack']} | {line['hostile']} | {' | '.join(found)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
